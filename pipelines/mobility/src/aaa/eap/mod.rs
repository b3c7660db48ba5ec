//! EAP inside IKE_AUTH (RFC 7296 §2.16, RFC 3748).
//!
//! | module | contents |
//! |---|---|
//! | [`packet`] | packets as bytes |
//! | [`mschapv2`] | authentication by password |

pub mod mschapv2;
pub mod packet;

use super::{
    grant::Grant,
    origin::Origin,
    radius::question::{Question, Reply},
};
use crate::crypto::{Secret, VerifyError};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// The result of handling a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this packet to the other side.
    Send(Vec<u8>),
    /// The other side proved its identity. Send this packet (from the server: EAP-Success). The key
    /// is the MSK, if the method makes one.
    Success(Vec<u8>, Option<Secret>),
    /// The other side failed to prove its identity. Send this packet (from the server:
    /// EAP-Failure).
    Failure(Vec<u8>),
    /// No server answered. Send this packet (EAP-Failure).
    Unanswered(Vec<u8>),
    /// Ask another server first: [`Conversation::question`] returns the question, and
    /// [`Conversation::answered`] continues. The driver of tasks handles this step; a peer never
    /// sees it.
    Ask,
    /// What an authority publishes must come first; it is being fetched under this number.
    /// [`Conversation::handle`] continues with the same packet once [`Conversation::is_pending`] is false,
    /// or after [`Conversation::stop_waiting`]. The driver of tasks handles this step; a peer never sees it.
    Wait(u64),
}

/// The method of a conversation, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Method {
    /// True if a RADIUS server authenticates the other side.
    pub by_radius: bool,
    /// The EAP type.
    pub kind: Option<u8>,
}

impl Method {
    /// Returns the method of this EAP type, as we run it ourselves.
    pub fn own(kind: u8) -> Self {
        Self { by_radius: false, kind: Some(kind) }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, separator) = if self.by_radius { ("eap-radius", "/") } else { ("eap", "-") };
        f.write_str(start)?;
        match self.kind.map(|kind| (kind, packet::kind::name(kind))) {
            None => Ok(()),
            Some((_, Some(name))) => write!(f, "{separator}{name}"),
            Some((kind, None)) => write!(f, "{separator}type{kind}"),
        }
    }
}

/// An EAP conversation, at either side.
pub trait Conversation: Send + Sync + fmt::Debug {
    /// Handles a packet of the other side. A server's first call has an empty packet, and begins.
    fn handle(&mut self, packet: &[u8]) -> Step;

    /// Returns the identity that the other side has proved, once it has succeeded; `None` if only
    /// the other side itself vouches for it.
    fn identity(&self) -> Option<&[u8]>;

    /// Returns the other identities in the credential by which the other side authenticated.
    fn other_names(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Returns the method that is in use.
    fn method(&self) -> Method {
        Method::default()
    }

    /// Returns why the other side's certificate was rejected, after [`Step::Failure`]; `None` if that
    /// is not why it failed.
    fn refusal(&self) -> Option<VerifyError> {
        None
    }

    /// Returns true while what has this number has to come, after [`Step::Wait`].
    fn is_pending(&self, _number: u64) -> bool {
        false
    }

    /// Returns the other side's certificate, after [`Step::Wait`].
    fn certificate(&self) -> Option<&[u8]> {
        None
    }

    /// Takes from now on what has not come yet as if it could not be had: [`Step::Wait`] follows no more.
    fn stop_waiting(&mut self) {}

    /// Returns what a server grants to the other side, once that has succeeded.
    fn grant(&self) -> Option<&Grant> {
        None
    }

    /// Returns the question for another server, after [`Step::Ask`].
    fn question(&self) -> Option<Question> {
        None
    }

    /// Continues with the answer of that server, or `None` if no server answered.
    fn answered(&mut self, _: Option<Reply>) -> Step {
        Step::Failure(packet::failure(&[]))
    }
}

/// Begins conversations, at either side.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// Begins a conversation with a peer that comes from `origin`.
    fn begin(&self, origin: Origin) -> Box<dyn Conversation>;
}

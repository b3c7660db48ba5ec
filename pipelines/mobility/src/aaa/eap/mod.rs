//! EAP inside IKE_AUTH (RFC 7296 §2.16, RFC 3748).
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | packets as bytes |
//! | [`mschapv2`] | proofs by passwords |

pub mod mschapv2;
pub mod packet;

use super::radius::question::{Question, Reply};
use crate::crypto::Secret;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// Where a conversation stands after a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This is to be sent to the other side.
    Send(Vec<u8>),
    /// The other side proved who it is. The packet is to be sent (from the server: EAP-Success);
    /// the key is the MSK, if the method makes one.
    Success(Vec<u8>, Option<Secret>),
    /// It did not. The packet is to be sent (from the server: EAP-Failure).
    Failure(Vec<u8>),
    /// Another server is to be asked first: [`Conversation::question`] says what, and
    /// [`Conversation::answered`] goes on. Whoever does tasks sees to it: a peer never gets this.
    Ask,
}

/// One conversation, at either side.
pub trait Conversation: Send + Sync + fmt::Debug {
    /// Takes the other side's packet. A server's first call has an empty one, and begins.
    fn handle(&mut self, packet: &[u8]) -> Step;

    /// Returns who the other side has proved to be, from the success on; `None` if only the other
    /// side itself says so.
    fn identity(&self) -> Option<&[u8]>;

    /// What else the other side is called by what it proved itself with.
    fn other_names(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// What another server is to be asked, after [`Step::Ask`].
    fn question(&self) -> Option<Question> {
        None
    }

    /// Takes what that server answered; none: nobody did.
    fn answered(&mut self, _: Option<Reply>) -> Step {
        Step::Failure(packet::failure(&[]))
    }
}

/// Begins conversations, at either side.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// Begins one; `identity` is the data of the client's ID payload.
    fn begin(&self, identity: &[u8]) -> Box<dyn Conversation>;
}

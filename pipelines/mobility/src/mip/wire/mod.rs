//! Messages of Mobile IPv4 as bytes.
//!
//! A message is a fixed part and extensions behind it. Those that authenticate it cover everything
//! before them, so extensions stay in the order in which they came.

mod code;
mod extension;
mod identification;
mod kind;
mod malformed;
mod registration;
mod revocation;

#[cfg(test)]
mod tests;

pub use code::Code;
pub use extension::{
    Authentication, Encapsulation, Extension, Extensions, Parties, RevocationSupport, UdpTunnelReply,
    UdpTunnelRequest, push,
};
pub use identification::Identification;
pub use malformed::Malformed;
pub use registration::{Flags, LIFETIME_INFINITE, Reply, Request};
pub use revocation::{Revocation, RevocationAck};

use crate::fields::Fields;
use alloc::vec::Vec;

/// The UDP port of agents (RFC 5944 §3.3).
pub const UDP_PORT: u16 = 434;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A node registers with its home agent.
    Request(Request),
    /// The home agent's answer.
    Reply(Reply),
    /// An agent ends a registration.
    Revocation(Revocation),
    /// The answer to that.
    RevocationAck(RevocationAck),
}

impl Body {
    /// Encodes the message without extensions.
    pub fn emit(&self) -> Vec<u8> {
        match self {
            Self::Request(request) => request.emit(),
            Self::Reply(reply) => reply.emit(),
            Self::Revocation(revocation) => revocation.emit(),
            Self::RevocationAck(ack) => ack.emit(),
        }
    }
}

/// A message with its extensions, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The message.
    pub body: Body,
    /// What is behind it.
    pub extensions: Extensions<'a>,
}

impl<'a> Message<'a> {
    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`Malformed`] if it is no message, or has an extension that is neither known nor may be skipped.
    /// It is to be discarded without an answer then (RFC 5944 §1.8).
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = Fields(datagram);
        let body = match rest.u8()? {
            kind::REQUEST => Body::Request(Request::parse(&mut rest)?),
            kind::REPLY => Body::Reply(Reply::parse(&mut rest)?),
            kind::REVOCATION => Body::Revocation(Revocation::parse(&mut rest)?),
            kind::REVOCATION_ACK => Body::RevocationAck(RevocationAck::parse(&mut rest)?),
            other => return Err(Malformed::Kind(other)),
        };
        Ok(Self { body, extensions: Extensions::parse(datagram, datagram.len() - rest.0.len())? })
    }
}

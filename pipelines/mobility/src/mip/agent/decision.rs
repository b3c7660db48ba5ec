//! What becomes of a request.

use crate::mip::{
    binding::Bindings,
    wire::{Code, Identification, Malformed, UdpTunnelReply},
};
use alloc::vec::Vec;
use core::{
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

/// What becomes of a request, until it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where the reply goes: where the request came from (RFC 5944 §3.8.3.2).
    pub to: SocketAddrV4,
    /// The node's home address.
    pub home: Ipv4Addr,
    /// What the reply says.
    pub code: Code,
    /// The lifetime that is granted, in seconds.
    pub lifetime: u16,
    /// What is to be stored before the node is told; `None` if nothing changes.
    pub after: Option<Bindings>,
    /// The Identification of the reply.
    pub(super) identification: Identification,
    /// The association that the reply is made with; `None` if there is none.
    pub(super) spi: Option<u32>,
    /// The name by which the node calls itself.
    pub(super) name: Option<Vec<u8>>,
    /// The answer to a wish for a tunnel in UDP.
    pub(super) udp_tunnel: Option<UdpTunnelReply>,
}

/// Why a datagram is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// It is no message, or has an extension that is not known and must be.
    Malformed(Malformed),
    /// It is a message, but no request.
    Other,
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Other => f.write_str("no registration request"),
        }
    }
}

impl core::error::Error for Discarded {}

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

/// What becomes of a request.
#[derive(Debug)]
pub(super) struct Draft {
    /// Where the reply goes: where the request came from (RFC 5944 §3.8.3.1).
    pub to: SocketAddrV4,
    /// The node's home address.
    pub home: Ipv4Addr,
    /// What the reply says.
    pub code: Code,
    /// The lifetime that is granted, in seconds.
    pub lifetime: u16,
    /// What is known of the node from now on; `None` if nothing changes.
    pub after: Option<Bindings>,
    /// The Identification of the reply.
    pub identification: Identification,
    /// The association that the request was made with.
    pub spi: u32,
    /// The name by which the node calls itself.
    pub name: Option<Vec<u8>>,
    /// The answer to a wish for a tunnel in UDP.
    pub udp_tunnel: Option<UdpTunnelReply>,
}

/// Why a datagram is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// It is no message, or has an extension that is not known and must be.
    Malformed(Malformed),
    /// It is a message, but no request.
    Kind,
    /// It was not made with a secret that we share with the node. RFC 5944 §3.8.2.1 would have it answered if we
    /// know the node, which tells strangers whom we know.
    Unauthenticated,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Kind => f.write_str("no registration request"),
            Self::Unauthenticated => f.write_str("not made with a secret that we share with the node"),
        }
    }
}

impl core::error::Error for RequestError {}

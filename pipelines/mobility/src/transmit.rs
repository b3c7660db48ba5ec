//! What the driver of a protocol sends for it.

use crate::path::Addresses;
use alloc::vec::Vec;

/// A datagram to send. From our port 4500 the driver puts the non-ESP marker before a message (RFC
/// 3948 §2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From our address to the peer's.
    pub addresses: Addresses,
    /// What it carries.
    pub payload: Payload,
}

/// What a datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A message of the protocol.
    Message(Vec<u8>),
    /// A NAT keepalive.
    Keepalive,
}

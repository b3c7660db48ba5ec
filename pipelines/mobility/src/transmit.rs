//! Datagrams that a protocol asks its driver to send.

use crate::path::Addresses;
use alloc::vec::Vec;

/// A datagram to send. If it leaves from our port 4500, the driver puts the non-ESP marker before a
/// message (RFC 3948 §2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Our address and the peer's.
    pub addresses: Addresses,
    /// The contents.
    pub payload: Payload,
}

/// The contents of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A message of the protocol.
    Message(Vec<u8>),
    /// A message that finds out whether the path takes its length: neither the driver nor a router may
    /// cut it. It is not sent if it does not fit the port.
    Probe(Vec<u8>),
    /// A NAT keepalive.
    Keepalive,
}

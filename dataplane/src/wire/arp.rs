//! ARP for IPv4 over Ethernet (RFC 826).

use super::{FormatError, be16, be32, ethernet, put16};
use crate::port::Mac;
use std::net::Ipv4Addr;

/// Bytes of an ARP message.
pub const MESSAGE: usize = 28;

/// What an ARP message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target address.
    Request,
    /// Answers a request.
    Reply,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Sender's MAC address.
    pub sender_mac: Mac,
    /// Sender's IP address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// Target's MAC address; zero in a request.
    pub target_mac: Mac,
    /// Target's IP address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads the message at the start of `bytes`, behind the Ethernet header.
    ///
    /// # Errors
    /// `Truncated` below 28 bytes; `Field` for other hardware, protocols or operations, and for a
    /// group address as sender.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let m = bytes.first_chunk::<MESSAGE>().ok_or(FormatError::Truncated)?;
        if m[..6] != [0, 1, 0x08, 0x00, 6, 4] {
            return Err(FormatError::Field);
        }
        let operation = match be16(m, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(FormatError::Field),
        };
        let mac = |at: usize| [m[at], m[at + 1], m[at + 2], m[at + 3], m[at + 4], m[at + 5]];
        let this = Self {
            operation,
            sender_mac: mac(8),
            sender: Ipv4Addr::from_bits(be32(m, 14)),
            target_mac: mac(18),
            target: Ipv4Addr::from_bits(be32(m, 24)),
        };
        if ethernet::is_group(this.sender_mac) {
            return Err(FormatError::Field);
        }
        Ok(this)
    }

    /// Writes the message into the first 28 bytes of `bytes`.
    pub fn emit(&self, bytes: &mut [u8]) {
        bytes[..6].copy_from_slice(&[0, 1, 0x08, 0x00, 6, 4]);
        put16(bytes, 6, if self.operation == Operation::Request { 1 } else { 2 });
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender.octets());
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..28].copy_from_slice(&self.target.octets());
    }

    /// Returns the frame that carries the message to `dst`.
    pub fn frame(&self, dst: Mac) -> Vec<u8> {
        let mut frame = vec![0; ethernet::HEADER + MESSAGE];
        ethernet::Ethernet { dst, src: self.sender_mac, ethertype: ethernet::ARP }.emit(&mut frame);
        self.emit(&mut frame[ethernet::HEADER..]);
        frame
    }
}

//! Ethernet II frames (IEEE 802.3).

use super::{Malformed, be16};
use crate::port::Mac;

/// Bytes of the header.
pub const HEADER: usize = 14;
/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// EtherType.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads the header of `frame`.
    ///
    /// # Errors
    /// `Truncated` below 14 bytes.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let h = frame.first_chunk::<HEADER>().ok_or(Malformed::Truncated)?;
        Ok(Self {
            dst: [h[0], h[1], h[2], h[3], h[4], h[5]],
            src: [h[6], h[7], h[8], h[9], h[10], h[11]],
            ethertype: be16(h, 12),
        })
    }

    /// Writes the header into the first 14 bytes of `frame`.
    #[inline]
    pub fn emit(&self, frame: &mut [u8]) {
        let h: &mut [u8; HEADER] = frame.first_chunk_mut().expect("room for an Ethernet header");
        h[..6].copy_from_slice(&self.dst);
        h[6..12].copy_from_slice(&self.src);
        h[12..].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}

/// Whether `mac` is a group address: multicast or broadcast.
#[inline]
pub fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

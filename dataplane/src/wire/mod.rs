//! Wire formats: what a header says and how one is written. Everything here is a pure function over
//! bytes.
//!
//! Parsers take any bytes whatever: they answer an error or a header whose lengths lie within those
//! bytes. Emitters state how long a buffer they need and panic on a shorter one, because only this
//! program calls them.

mod address;
pub mod arp;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod tcp;
pub mod udp;

pub use address::Address;

/// Why bytes are not the header that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// Fewer bytes than the header has.
    Truncated,
    /// Not version 4 or 6.
    Version,
    /// A header length that is too small, or beyond the bytes.
    HeaderLength,
    /// A total length smaller than the header, or beyond the bytes.
    TotalLength,
    /// A header checksum that does not add up.
    Checksum,
    /// Some other field has a value that the format forbids.
    Field,
}

/// Reads two bytes in network order. Panics unless `bytes` has `at + 2` of them.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads four bytes in network order. Panics unless `bytes` has `at + 4` of them.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes two bytes in network order. Panics unless `bytes` has `at + 2` of them.
#[inline]
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

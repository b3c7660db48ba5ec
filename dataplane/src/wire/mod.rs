//! Wire formats: how to read and write headers. Everything here is a pure function over bytes.
//!
//! Parsers accept any bytes: they return an error or a header whose lengths lie within those bytes.
//! Emitters state how long a buffer they need, and panic on a shorter one, because only this
//! program calls them.

mod address;
pub mod arp;
pub mod checksum;
pub mod datagram;
pub mod dhcp;
pub mod encapsulation;
pub mod esp;
pub mod ethernet;
pub mod extension;
pub mod fragment;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod plain;
pub mod plain_fragment;
pub mod probe;
pub mod sctp;
pub mod tcp;
pub mod translate;
pub mod udp;
pub mod vlan;

pub use address::Address;

/// A reason why bytes are not a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// There are fewer bytes than the header has.
    Truncated,
    /// The version is neither 4 nor 6.
    Version,
    /// The header length is too small, or beyond the bytes.
    HeaderLength,
    /// The total length is smaller than the header, or beyond the bytes.
    TotalLength,
    /// The header checksum is wrong.
    Checksum,
    /// Another field has a value that the format forbids.
    Field,
}

/// Returns the two bytes at `at`, in network order. Panics unless `bytes` has `at + 2` bytes.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Returns the four bytes at `at`, in network order. Panics unless `bytes` has `at + 4` bytes.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes two bytes in network order. Panics unless `bytes` has `at + 2` bytes.
#[inline]
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

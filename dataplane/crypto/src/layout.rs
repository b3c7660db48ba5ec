//! The parts of an ESP packet that several transforms handle alike.

/// Length of an ESP packet's SPI and sequence number in bytes.
pub const HEADER: usize = 8;

/// Length of an AEAD's IV and of its ICV in bytes.
pub(super) const IV: usize = 8;
pub(super) const ICV: usize = 16;

/// Returns the high half of a sequence number, in the form that is authenticated.
#[inline]
pub(super) fn high(seq: u64) -> [u8; 4] {
    ((seq >> 32) as u32).to_be_bytes()
}

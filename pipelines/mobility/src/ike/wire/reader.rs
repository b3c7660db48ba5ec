//! Reads a message from the front, and encodes the structure that its parts share.

use super::malformed::Malformed;
use alloc::vec::Vec;

/// The bytes that are not read yet.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads a part: two bytes of its own, its length, and the rest.
    pub(super) fn part(&mut self) -> Result<([u8; 2], Self), Malformed> {
        let start = self.array()?;
        let len = usize::from(self.u16()?).checked_sub(4).ok_or(Malformed::Length)?;
        Ok((start, Self(self.take(len)?)))
    }
}

/// Appends a part in the format that [`Reader::part`] reads; `write` appends everything after its
/// first four bytes. A length that does not fit in 16 bits is written as the greatest that does.
pub(super) fn emit_part(out: &mut Vec<u8>, start: [u8; 2], write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend(start);
    out.extend([0; 2]);
    write(out);
    let len = within_u16(out.len() - at);
    if let Some(field) = out.get_mut(at + 2..at + 4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Returns `len`, or the greatest number that fits in 16 bits.
pub(super) fn within_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// Returns `count`, or the greatest number that fits in 8 bits.
pub(super) fn within_u8(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

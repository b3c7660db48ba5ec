//! Taking bytes from the front of a message, and the shape that its parts share.

use super::malformed::Malformed;
use alloc::vec::Vec;

/// Bytes not yet read.
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

    /// A part: two bytes of its own, the length of all of it, and what follows these four.
    pub(super) fn part(&mut self) -> Result<([u8; 2], Self), Malformed> {
        let start = self.array()?;
        let len = usize::from(self.u16()?).checked_sub(4).ok_or(Malformed::Length)?;
        Ok((start, Self(self.take(len)?)))
    }
}

/// Appends a part, as [`Reader::part`] takes it: `write` appends what follows its first four bytes.
/// A length that 16 bits cannot hold is written as the largest that they can.
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

/// `len`, or the largest number that 16 bits hold.
pub(super) fn within_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// `count`, or the largest number that 8 bits hold.
pub(super) fn within_u8(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

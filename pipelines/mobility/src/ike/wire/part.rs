//! The structure that payloads, proposals, transforms and traffic selectors share.

use super::malformed::Malformed;
use crate::fields::Fields;
use alloc::vec::Vec;

/// Reads a part: two bytes of its own, its length, and the rest.
pub(super) fn part<'a>(from: &mut Fields<'a>) -> Result<([u8; 2], Fields<'a>), Malformed> {
    let start = from.array()?;
    let len = usize::from(from.u16()?).checked_sub(4).ok_or(Malformed::Length)?;
    Ok((start, Fields(from.take(len)?)))
}

/// Appends a part in the format that [`part`] reads; `write` appends everything after its
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

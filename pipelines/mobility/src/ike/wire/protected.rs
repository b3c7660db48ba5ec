//! Encrypted payloads (RFC 7296 §3.14) and their fragments (RFC 7383 §2.5).

use super::{
    header::{HEADER, Header},
    malformed::Malformed,
    part::within_u16,
    payload::{self, MAX_PAYLOADS, kind},
};
use crate::fields::Fields;
use alloc::vec::Vec;

/// Lengths in bytes of the header that every payload has, and of what a fragment adds to it.
const GENERIC_LEN: usize = 4;
const FRAGMENT_LEN: usize = 4;

/// A message that ends with an encrypted payload, or with a fragment of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedMessage<'a> {
    /// Type of the first inner payload; 0 in fragments after the first.
    pub first: u8,
    /// Number of the fragment, from 1, and the total number.
    pub fragment: Option<(u16, u16)>,
    /// Type of an unknown critical payload before the encrypted one.
    pub unsupported: Option<u8>,
    /// The message up to the IV, which is authenticated but not encrypted.
    pub aad: &'a [u8],
    /// IV, ciphertext and ICV.
    pub rest: &'a [u8],
}

/// Finds the encrypted payload that must be the last of a message. Payloads before it are
/// authentic once the message is opened, but ignored.
///
/// # Errors
/// Fails if the message is malformed or does not end with such a payload.
pub fn protected(message: &[u8]) -> Result<ProtectedMessage<'_>, Malformed> {
    let mut kind = Header::parse(message)?.next;
    let mut chain = Fields(message);
    chain.take(HEADER)?;
    let mut unsupported = None;
    for _ in 0..MAX_PAYLOADS {
        if kind == 0 {
            return Err(Malformed::Encrypted);
        }
        let (next, critical, mut body) = payload::split(&mut chain)?;
        if matches!(kind, kind::SK | kind::SKF) {
            if !chain.is_empty() {
                return Err(Malformed::Encrypted);
            }
            let fragment = if kind == kind::SKF { Some(parse_fragment(&mut body)?) } else { None };
            let mut aad = Fields(message);
            let aad = aad.take(message.len().saturating_sub(body.0.len()))?;
            return Ok(ProtectedMessage { first: next, fragment, unsupported, aad, rest: body.0 });
        }
        if critical && !is_known(kind) {
            unsupported = unsupported.or(Some(kind));
        }
        kind = next;
    }
    Err(Malformed::TooMany)
}

fn is_known(kind: u8) -> bool {
    (kind::SA..=kind::EAP).contains(&kind)
}

fn parse_fragment(body: &mut Fields<'_>) -> Result<(u16, u16), Malformed> {
    let (number, total) = (body.u16()?, body.u16()?);
    if number == 0 || number > total { Err(Malformed::Fragment) } else { Ok((number, total)) }
}

/// Appends everything before the IV of a message with `rest_len` bytes of IV, ciphertext and ICV.
/// `first` is the type of the first inner payload. Fills in `next` and `length` of the header. The
/// message must fit in 65535 bytes.
pub fn emit_protected(
    header: Header,
    first: u8,
    fragment: Option<(u16, u16)>,
    rest_len: usize,
    out: &mut Vec<u8>,
) {
    let next = if fragment.is_some() { kind::SKF } else { kind::SK };
    let len = GENERIC_LEN + if fragment.is_some() { FRAGMENT_LEN } else { 0 } + rest_len;
    let length = u32::try_from(HEADER + len).unwrap_or(u32::MAX);
    Header { next, length, ..header }.emit(out);
    out.extend([first, 0]);
    out.extend(within_u16(len).to_be_bytes());
    if let Some((number, total)) = fragment {
        out.extend(number.to_be_bytes());
        out.extend(total.to_be_bytes());
    }
}

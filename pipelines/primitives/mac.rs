//! HMAC (RFC 2104).

use aws_lc_rs::hmac;

/// Returns the HMAC of the concatenated parts.
pub(super) fn sign(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

//! Data that an authority signed: a revocation list, or the answer of its responder.

use webpki::ALL_VERIFICATION_ALGS;
use x509_cert::der::{
    Decode, Reader, SliceReader,
    asn1::{AnyRef, BitStringRef},
};

/// A SEQUENCE of data, its AlgorithmIdentifier and its signature (RFC 5280 §4.1, §5.1, RFC 6960
/// §4.2.1).
#[derive(Debug)]
pub(super) struct Signed<'a> {
    /// The signed data, with its tag.
    pub(super) data: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    algorithm: &'a [u8],
    signature: &'a [u8],
    /// What follows the signature.
    pub(super) rest: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Parses a SEQUENCE. Returns `None` if it is not in DER.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut inside = SliceReader::new(AnyRef::from_der(der).ok()?.value()).ok()?;
        let data = inside.tlv_bytes().ok()?;
        let algorithm = AnyRef::decode(&mut inside).ok()?.value();
        let signature = BitStringRef::decode(&mut inside).ok()?.as_bytes()?;
        let rest = inside.read_slice(inside.remaining_len()).ok()?;
        Some(Self { data, algorithm, signature, rest })
    }

    /// Returns true if the owner of this SubjectPublicKeyInfo signed the data.
    pub(super) fn is_by(&self, key_info: &[u8]) -> bool {
        let Some((kind, key)) = key(key_info) else { return false };
        ALL_VERIFICATION_ALGS.iter().any(|algorithm| {
            *algorithm.public_key_alg_id() == *kind
                && *algorithm.signature_alg_id() == *self.algorithm
                && algorithm.verify_signature(key, self.data, self.signature).is_ok()
        })
    }
}

/// Returns the content of a SubjectPublicKeyInfo's AlgorithmIdentifier, and the key.
pub(super) fn key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut inside = SliceReader::new(AnyRef::from_der(info).ok()?.value()).ok()?;
    let kind = AnyRef::decode(&mut inside).ok()?.value();
    Some((kind, BitStringRef::decode(&mut inside).ok()?.as_bytes()?))
}

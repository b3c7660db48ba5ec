//! Signature schemes, and their encoding in an AUTH payload.
//!
//! The data of method 14 is the length of an AlgorithmIdentifier in one byte, the
//! AlgorithmIdentifier, and the signature (RFC 7427 §3). Methods 1 and 9 to 11 have the signature
//! alone: RSA with PKCS#1 v1.5 (RFC 7296 §3.8), and ECDSA with r and s side by side (RFC 4754 §7).
//! SHA-1 counts only for peers that announce no hashes, and only if the connection allows it.

use aws_lc_rs::signature::{self, VerificationAlgorithm};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use wayfarer_mobility::crypto::{PeerSignature, VerifyError, VerifyErrorKind};
use webpki::EndEntityCert;

/// RSA with PKCS#1 v1.5.
pub(super) const METHOD_RSA: u8 = 1;
/// ECDSA with SHA-256 on P-256.
pub(super) const METHOD_ECDSA_256: u8 = 9;
/// ECDSA with SHA-384 on P-384.
pub(super) const METHOD_ECDSA_384: u8 = 10;
/// ECDSA with SHA-512 on P-521.
pub(super) const METHOD_ECDSA_521: u8 = 11;
/// Digital signature (RFC 7427).
pub(super) const METHOD_SIGNATURE: u8 = 14;

/// The tag of a SEQUENCE in DER.
const SEQUENCE: u8 = 0x30;

/// An AUTH method with a kind of key, and the algorithm that verifies both.
#[derive(Debug)]
struct Scheme {
    method: u8,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    algorithm: &'static dyn VerificationAlgorithm,
}

const fn scheme(
    method: u8,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
    algorithm: &'static dyn VerificationAlgorithm,
) -> Scheme {
    Scheme { method, key, signature, algorithm }
}

#[rustfmt::skip]
static SCHEMES: [Scheme; 22] = {
    use alg_id::*;
    use signature as s;
    [
        scheme(METHOD_RSA, RSA_ENCRYPTION, RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256),
        scheme(METHOD_RSA, RSA_ENCRYPTION, RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384),
        scheme(METHOD_RSA, RSA_ENCRYPTION, RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512),
        scheme(METHOD_ECDSA_256, ECDSA_P256, ECDSA_SHA256, &s::ECDSA_P256_SHA256_FIXED),
        scheme(METHOD_ECDSA_384, ECDSA_P384, ECDSA_SHA384, &s::ECDSA_P384_SHA384_FIXED),
        scheme(METHOD_ECDSA_521, ECDSA_P521, ECDSA_SHA512, &s::ECDSA_P521_SHA512_FIXED),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PSS_SHA256, &s::RSA_PSS_2048_8192_SHA256),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PSS_SHA384, &s::RSA_PSS_2048_8192_SHA384),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PSS_SHA512, &s::RSA_PSS_2048_8192_SHA512),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384),
        scheme(METHOD_SIGNATURE, RSA_ENCRYPTION, RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512),
        scheme(METHOD_SIGNATURE, ECDSA_P256, ECDSA_SHA256, &s::ECDSA_P256_SHA256_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P256, ECDSA_SHA384, &s::ECDSA_P256_SHA384_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P256, ECDSA_SHA512, &s::ECDSA_P256_SHA512_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P384, ECDSA_SHA256, &s::ECDSA_P384_SHA256_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P384, ECDSA_SHA384, &s::ECDSA_P384_SHA384_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P384, ECDSA_SHA512, &s::ECDSA_P384_SHA512_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P521, ECDSA_SHA256, &s::ECDSA_P521_SHA256_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P521, ECDSA_SHA384, &s::ECDSA_P521_SHA384_ASN1),
        scheme(METHOD_SIGNATURE, ECDSA_P521, ECDSA_SHA512, &s::ECDSA_P521_SHA512_ASN1),
        scheme(METHOD_SIGNATURE, ED25519, ED25519, &s::ED25519),
    ]
};

/// RSA with PKCS#1 v1.5 and SHA-1, which method 1 uses by default (RFC 7296 §3.8).
static RSA_SHA1: Scheme = scheme(
    METHOD_RSA,
    alg_id::RSA_ENCRYPTION,
    // sha1WithRSAEncryption (RFC 8017 appendix A.2.4).
    AlgorithmIdentifier::from_slice(&[
        0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05, 0x05, 0x00,
    ]),
    &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
);

impl SignatureVerificationAlgorithm for Scheme {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        self.algorithm.verify_sig(public_key, message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

/// Checks that an AUTH payload is a signature by the key of `certificate`.
///
/// # Errors
/// Returns why it is not accepted.
pub(super) fn verify(
    certificate: &EndEntityCert<'_>,
    signature: &PeerSignature,
    allows_sha1: bool,
) -> Result<(), VerifyError> {
    let PeerSignature { method, data, octets, hashes } = signature;
    if verifies(certificate, *method, data, octets) {
        return Ok(());
    }
    let is_sha1 = *method == METHOD_RSA && certificate.verify_signature(&RSA_SHA1, octets, data).is_ok();
    let words = match (is_sha1, hashes.are_announced()) {
        (true, false) if allows_sha1 => return Ok(()),
        (true, false) => {
            "it uses SHA-1: update the peer, have it use an ECDSA key, or set legacy_signatures = true"
        }
        (true, true) => "it uses SHA-1, although the peer announces better hashes (RFC 7427)",
        (false, _) => return Err(VerifyErrorKind::Signature.into()),
    };
    Err(VerifyErrorKind::Signature.because(words))
}

/// Returns true if an AUTH payload with this method and data is a signature over `octets` by the key
/// of `certificate`, without SHA-1.
pub(super) fn verifies(certificate: &EndEntityCert<'_>, method: u8, data: &[u8], octets: &[u8]) -> bool {
    let (identifier, signature) = match method {
        METHOD_SIGNATURE => match parse(data) {
            Some((identifier, signature)) => (Some(identifier), signature),
            None => return false,
        },
        _ => (None, data),
    };
    let mut schemes = SCHEMES
        .iter()
        .filter(|scheme| scheme.method == method && identifier.is_none_or(|id| id == &*scheme.signature));
    schemes.any(|scheme| certificate.verify_signature(scheme, octets, signature).is_ok())
}

/// The names of signature algorithms.
#[rustfmt::skip]
static NAMES: [(AlgorithmIdentifier, &str); 10] = {
    use alg_id::*;
    [
        (RSA_PKCS1_SHA256, "rsa-pkcs1-sha256"),
        (RSA_PKCS1_SHA384, "rsa-pkcs1-sha384"),
        (RSA_PKCS1_SHA512, "rsa-pkcs1-sha512"),
        (RSA_PSS_SHA256, "rsa-pss-sha256"),
        (RSA_PSS_SHA384, "rsa-pss-sha384"),
        (RSA_PSS_SHA512, "rsa-pss-sha512"),
        (ECDSA_SHA256, "ecdsa-sha256"),
        (ECDSA_SHA384, "ecdsa-sha384"),
        (ECDSA_SHA512, "ecdsa-sha512"),
        (ED25519, "ed25519"),
    ]
};

/// Returns the name of the scheme of an AUTH payload with this method and data, if it is known.
pub(super) fn name(method: u8, data: &[u8]) -> Option<&'static str> {
    match method {
        METHOD_RSA => Some("rsa-pkcs1"),
        METHOD_ECDSA_256 => Some("ecdsa-sha256"),
        METHOD_ECDSA_384 => Some("ecdsa-sha384"),
        METHOD_ECDSA_521 => Some("ecdsa-sha512"),
        METHOD_SIGNATURE => {
            let (identifier, _) = parse(data)?;
            let known = NAMES.iter().find(|(known, _)| identifier == &**known);
            known.map(|(_, name)| *name)
        }
        _ => None,
    }
}

/// Splits the data of method 14 into the content of the AlgorithmIdentifier and the signature. The
/// AlgorithmIdentifiers of all supported schemes are shorter than 128 bytes.
fn parse(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = data.split_first()?;
    let (identifier, signature) = rest.split_at_checked(usize::from(len))?;
    match identifier {
        [SEQUENCE, len, inside @ ..] if usize::from(*len) == inside.len() => Some((inside, signature)),
        _ => None,
    }
}

/// Returns the data of method 14.
pub(super) fn emit(identifier: &AlgorithmIdentifier, signature: &[u8]) -> Vec<u8> {
    let len = identifier.len() as u8;
    [&[len + 2, SEQUENCE, len], &identifier[..], signature].concat()
}

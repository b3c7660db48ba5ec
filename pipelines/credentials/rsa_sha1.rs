//! RSA signatures with PKCS#1 v1.5 and SHA-1, for peers that know no others (RFC 7296 §3.8). The
//! library of all other signatures makes none with SHA-1.

use rsa::{
    PrivateKey,
    pkcs1::DecodeRsaPrivateKey,
    pkcs1v15::SigningKey,
    pkcs8::DecodePrivateKey,
    signature::{RandomizedSigner, SignatureEncoding},
};
use rustls_pki_types::PrivateKeyDer;
use sha1::Sha1;
use std::fmt;

/// An RSA key that signs with SHA-1. It is wiped when it is dropped.
pub(super) struct RsaSha1(SigningKey<Sha1>);

impl RsaSha1 {
    /// Parses a private key. Returns `None` if it is no RSA key.
    pub(super) fn parse(der: &PrivateKeyDer<'_>) -> Option<Self> {
        let secret = der.secret_der();
        let key = match der {
            PrivateKeyDer::Pkcs1(_) => PrivateKey::from_pkcs1_der(secret).ok(),
            _ => PrivateKey::from_pkcs8_der(secret).ok(),
        };
        key.map(|key| Self(SigningKey::new(key)))
    }

    /// Returns the signature. The exponentiation is blinded.
    pub(super) fn sign(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let signature = self.0.try_sign_with_rng(&mut getrandom::SysRng, octets).ok()?;
        Some(signature.to_vec())
    }
}

impl fmt::Debug for RsaSha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RsaSha1")
    }
}

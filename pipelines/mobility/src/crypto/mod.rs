//! The cryptography that protocols need, as an interface that the user of this crate implements.
//!
//! Symmetric operations run in place. Public-key operations are tasks, which the driver of the
//! protocol may run in another thread.

mod algorithm;
mod random;

pub use algorithm::{Encr, Integ, Kex, Prf};
pub use random::Random;

use crate::identity::Identity;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use zeroize::Zeroizing;

/// Bytes that are wiped when they are dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// A cryptographic operation failed, such as a forged tag or a point that is not on its curve. It
/// deliberately gives no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Cryptographic primitives.
pub trait Crypto: Send + Sync + fmt::Debug {
    /// Returns `prf(key, parts)`, with the parts concatenated: [`Prf::output_len`] bytes.
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret;

    /// Returns SHA-1 of the concatenated parts, for NAT detection (RFC 7296 §2.23) and hashes of
    /// authorities' keys.
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20];

    /// Encrypts `text` in place and appends the ICV. `key` has [`Encr::key_len`] bytes, `iv`
    /// [`Encr::iv_len`]; `aad` is what precedes the IV on the wire. With `integ`, the ICV covers
    /// `aad`, IV and ciphertext, and uses that key (RFC 7296 §3.14); otherwise it is the AEAD's
    /// (RFC 5282 §5). The length of `text` is a multiple of [`Encr::block_len`].
    fn seal(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    );

    /// Checks the ICV at the end of `text`, removes it and decrypts the rest in place.
    ///
    /// # Errors
    /// [`Refused`] if the ICV is wrong or the length impossible. `text` then does not hold
    /// plaintext.
    fn open(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), Refused>;

    /// Generates the initiator's key pair. Returns the private part and the KE payload's data.
    ///
    /// # Errors
    /// [`Refused`] if there is no randomness or memory.
    fn kex_begin(&self, kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused>;

    /// Answers the initiator's KE data. Returns the responder's KE data and the shared secret.
    ///
    /// # Errors
    /// [`Refused`] if the data is not a public key of the method, or leads to the secret zero.
    fn kex_answer(&self, kex: Kex, data: &[u8]) -> Result<(Vec<u8>, Secret), Refused>;
}

/// The private part of a key pair.
pub trait KexSecret: Send + Sync + fmt::Debug {
    /// Returns the secret shared with the responder that sent `data`.
    ///
    /// # Errors
    /// As [`Crypto::kex_answer`].
    fn finish(self: Box<Self>, data: &[u8]) -> Result<Secret, Refused>;
}

/// The hashes of RFC 7427's SIGNATURE_HASH_ALGORITHMS: 2 SHA2-256, 3 SHA2-384, 4 SHA2-512, 5
/// identity (RFC 8420).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignatureHashes(u8);

impl SignatureHashes {
    /// All that we know.
    pub const ALL: Self = Self(0b11_1100);

    /// Returns this set with `number` added, if it is a known one.
    #[must_use]
    pub fn with(self, number: u16) -> Self {
        if (2..=5).contains(&number) { Self(self.0 | 1 << number) } else { self }
    }

    /// Returns true if the set has this number.
    pub fn has(self, number: u16) -> bool {
        (2..=5).contains(&number) && self.0 & 1 << number != 0
    }

    /// Returns the numbers in the set.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (2..=5).filter(move |n| self.has(*n))
    }
}

/// Our own private key and its certificates.
pub trait Signer: Send + Sync + fmt::Debug {
    /// Returns our certificate, followed by those that lead from it towards an authority, as DER.
    fn certificates(&self) -> &[Vec<u8>];

    /// Signs `octets`. Returns method and data of the AUTH payload. `hashes` are those that the
    /// peer announced (RFC 7427); if there are none, it knows only the older methods 1 (RSA) and 9
    /// to 11 (ECDSA, RFC 4754).
    ///
    /// # Errors
    /// [`Refused`] if the key supports no method that the peer knows.
    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), Refused>;
}

/// Why a peer's certificate or signature was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// No certificate, or one that cannot be parsed.
    Certificate,
    /// No chain from the certificate to an authority that we trust.
    Issuer,
    /// Not yet or no longer valid.
    Expired,
    /// Revoked.
    Revoked,
    /// The certificate does not contain the identity that the peer claims.
    Identity,
    /// The signature is wrong, or of a kind that is not accepted.
    Signature,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "there is none, or it cannot be read",
            Self::Issuer => "no known authority issued it",
            Self::Expired => "it is not valid now",
            Self::Revoked => "it is revoked",
            Self::Identity => "it is not for the identity that the peer claims",
            Self::Signature => "the signature is wrong or of a kind that is not accepted",
        })
    }
}

/// The authorities that we trust to vouch for peers.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Returns the data of our CERTREQ payload: SHA-1 of each authority's public key info (RFC 7296
    /// §3.7).
    fn authorities(&self) -> &[u8];

    /// Checks that the peer is `identity` and signed `octets` with AUTH `method` and `data`.
    /// `certificates` are those that it sent, as DER, its own first.
    ///
    /// # Errors
    /// Returns why not.
    fn verify(
        &self,
        identity: &Identity,
        certificates: &[Vec<u8>],
        method: u8,
        data: &[u8],
        octets: &[u8],
    ) -> Result<(), VerifyError>;

    /// Returns the name of the signature scheme of an AUTH payload with this method and data, if it
    /// is known. Nothing is verified.
    fn scheme(&self, _method: u8, _data: &[u8]) -> Option<&'static str> {
        None
    }

    /// Returns all identities in this certificate.
    fn names(&self, certificate: &[u8]) -> Vec<Identity>;
}

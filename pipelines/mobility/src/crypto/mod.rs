//! What protocols need of cryptography, as the crate's user provides it.
//!
//! Symmetric operations are done where they are needed. Operations with public keys are tasks: who
//! drives the protocol may do them in another thread.

mod algorithm;
mod random;

pub use algorithm::{Encr, Integ, Kex, Prf};
pub use random::Random;

use crate::identity::Identity;
use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use zeroize::Zeroizing;

/// Bytes that are wiped when they are no longer used.
pub type Secret = Zeroizing<Vec<u8>>;

/// Something that cryptography refused: a forged tag, a point that is not on its curve.
/// Deliberately silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Primitives.
pub trait Crypto: Send + Sync + fmt::Debug {
    /// `prf(key, parts)`, the parts as one text: [`Prf::output_len`] bytes.
    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret;

    /// SHA-1 of the parts as one text, for NAT detection (RFC 7296 §2.23) and hashes of
    /// authorities' keys.
    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20];

    /// Encrypts `text` in place and appends the ICV. `key` has [`Encr::key_len`] bytes, `iv`
    /// [`Encr::iv_len`]; `aad` is what stands before the IV on the wire. With `integ` the ICV is
    /// over `aad`, IV and ciphertext, with this key (RFC 7296 §3.14); else it is the AEAD's (RFC
    /// 5282 §5). `text` is a multiple of [`Encr::block_len`].
    fn seal(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    );

    /// Checks the ICV at the end of `text`, takes it off and decrypts the rest in place.
    ///
    /// # Errors
    /// [`Refused`] where the ICV is wrong or the length impossible; what `text` holds then is not
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

    /// Draws a key pair of the side that begins: the private part, and the KE payload's data.
    ///
    /// # Errors
    /// [`Refused`] where randomness or memory is.
    fn kex_begin(&self, kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused>;

    /// The answering side: its KE payload's data for the other's, and the shared secret.
    ///
    /// # Errors
    /// [`Refused`] where the other's data is no public key of the method, or leads to the secret
    /// zero.
    fn kex_answer(&self, kex: Kex, data: &[u8]) -> Result<(Vec<u8>, Secret), Refused>;
}

/// The private part of a key pair.
pub trait KexSecret: Send + Sync + fmt::Debug {
    /// The secret shared with the one who answered `data`.
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

    /// With this number too, where it is known.
    #[must_use]
    pub fn with(self, number: u16) -> Self {
        if (2..=5).contains(&number) { Self(self.0 | 1 << number) } else { self }
    }

    /// Whether it has this number.
    pub fn has(self, number: u16) -> bool {
        (2..=5).contains(&number) && self.0 & 1 << number != 0
    }

    /// The numbers.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (2..=5).filter(move |n| self.has(*n))
    }
}

/// Our own private key and its certificates.
pub trait Signer: Send + Sync + fmt::Debug {
    /// Our certificate, then those that lead from it towards an authority: DER.
    fn certificates(&self) -> &[Vec<u8>];

    /// Signs `octets`: the AUTH payload's method and data. `hashes` are those that the peer
    /// announced (RFC 7427); none: it knows only the methods of old, 1 (RSA) and 9 to 11 (ECDSA,
    /// RFC 4754).
    ///
    /// # Errors
    /// [`Refused`] where the key has no way to sign that the peer knows.
    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), Refused>;
}

/// Why a peer's certificate or signature was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// No certificate, or one that cannot be read.
    Certificate,
    /// No chain from it to an authority that we trust.
    Issuer,
    /// Outside its time.
    Expired,
    /// Revoked.
    Revoked,
    /// It does not have the identity that the peer claims.
    Identity,
    /// The signature is wrong, or of a kind that is not taken.
    Signature,
}

/// The authorities that we trust to vouch for peers.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// The data of our CERTREQ payload: SHA-1 of each authority's public key info (RFC 7296 §3.7).
    fn authorities(&self) -> &[u8];

    /// Whether the one who is called `identity` and sent `certificates` (DER, its own first) signed
    /// `octets` with AUTH `method` and `data`.
    ///
    /// # Errors
    /// Why not.
    fn verify(
        &self,
        identity: &Identity,
        certificates: &[Vec<u8>],
        method: u8,
        data: &[u8],
        octets: &[u8],
    ) -> Result<(), Distrust>;

    /// All that the owner of this certificate is called by it.
    fn names(&self, certificate: &[u8]) -> Vec<Identity>;
}

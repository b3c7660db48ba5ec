//! The cryptography that protocols need, as an interface that the user of this crate implements.
//!
//! Symmetric operations run in place. Public-key operations are tasks, which the driver of the
//! protocol may run in another thread.

mod algorithm;
mod random;
mod signature;
mod verify_error;

pub use algorithm::{Encr, Integ, Kex, Prf};
pub use random::Random;
pub use signature::{PeerCertificates, PeerSignature, SignError, SignatureHashes, Signer, Verifier};
pub use verify_error::{VerifyError, VerifyErrorKind};

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

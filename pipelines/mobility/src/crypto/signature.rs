//! Signatures by which the two sides prove who they are.

use super::VerifyError;
use crate::identity::Identity;
use alloc::vec::Vec;
use core::fmt;

/// The hashes that a side announces in SIGNATURE_HASH_ALGORITHMS (RFC 7427): 2 SHA2-256, 3
/// SHA2-384, 4 SHA2-512, 5 identity (RFC 8420). It announces others too, or none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignatureHashes(u8);

impl SignatureHashes {
    /// All that we know.
    pub const ALL: Self = Self(0b11_1101);
    /// Announced, but without one that we know.
    pub const UNKNOWN: Self = Self(1);

    /// Returns this set with `number` added, if it is a known one.
    #[must_use]
    pub fn with(self, number: u16) -> Self {
        if (2..=5).contains(&number) { Self(self.0 | 1 | 1 << number) } else { self }
    }

    /// Returns true if the set has this number.
    pub fn has(self, number: u16) -> bool {
        (2..=5).contains(&number) && self.0 & 1 << number != 0
    }

    /// Returns true if the side announced any hashes. One that does not knows only the older
    /// methods: 1 (RSA, by custom with SHA-1) and 9 to 11 (ECDSA, RFC 4754).
    pub fn are_announced(self) -> bool {
        self.0 & 1 != 0
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

    /// Returns what OCSP responders say of these certificates, as DER, as far as it can be had. A peer
    /// gets it if it asks (RFC 4806).
    ///
    /// # Errors
    /// Returns the number under which something is still being fetched.
    fn ocsp(&self) -> Result<Vec<Vec<u8>>, u64> {
        Ok(Vec::new())
    }

    /// Returns true while what has this number is being fetched.
    fn is_pending(&self, _number: u64) -> bool {
        false
    }

    /// Signs `octets` for a peer that announced these hashes. Returns method and data of the AUTH
    /// payload.
    ///
    /// # Errors
    /// Returns why it cannot.
    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), SignError>;
}

/// Why we cannot sign for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The peer knows RSA signatures with SHA-1 only, which are not allowed.
    OnlySha1,
    /// The peer announced no hash that the key can sign with.
    NoHash,
    /// The signature cannot be computed.
    Failed,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlySha1 => {
                "it announces no signature hashes (RFC 7427), so our RSA key would have to sign with SHA-1: \
                 update the peer, use an ECDSA key, or set legacy_signatures = true"
            }
            Self::NoHash => "it announces no signature hash that our key can use",
            Self::Failed => "the signature cannot be computed",
        })
    }
}

/// A peer's signature.
#[derive(Clone, Debug)]
pub struct PeerSignature {
    /// Method of the AUTH payload.
    pub method: u8,
    /// Data of the AUTH payload.
    pub data: Vec<u8>,
    /// The octets that the peer must have signed.
    pub octets: Vec<u8>,
    /// The hashes that the peer announced.
    pub hashes: SignatureHashes,
}

/// What a peer's CERT payloads contain, as DER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificates {
    /// Its certificate, followed by those of its chain.
    pub chain: Vec<Vec<u8>>,
    /// What OCSP responders say of them (RFC 4806).
    pub ocsp: Vec<Vec<u8>>,
}

impl PeerCertificates {
    /// Returns the heap memory in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.chain.iter().chain(&self.ocsp).map(|der| size_of::<Vec<u8>>() + der.capacity()).sum()
    }
}

/// The authorities that we trust to vouch for peers.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Returns the data of our CERTREQ payload: SHA-1 of each authority's public key info (RFC 7296
    /// §3.7).
    fn authorities(&self) -> &[u8];

    /// Returns true if the peer is asked for what OCSP responders say of its certificates (RFC 4806).
    fn wants_ocsp(&self) -> bool {
        false
    }

    /// Returns true if one of the peer's `certificates` names a trusted authority as its issuer, or is
    /// trusted itself. Nothing is verified.
    fn may_trust(&self, _certificates: &[Vec<u8>]) -> bool {
        true
    }

    /// Checks that the peer is `identity` and made this signature.
    ///
    /// # Errors
    /// Returns why not.
    fn verify(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError>;

    /// Does the same as [`Verifier::verify`], but takes what has not come yet as if it could not be had.
    /// The result is never [pending](super::VerifyErrorKind::Pending).
    ///
    /// # Errors
    /// Returns why not.
    fn verify_now(
        &self,
        identity: &Identity,
        certificates: &PeerCertificates,
        signature: &PeerSignature,
    ) -> Result<(), VerifyError> {
        self.verify(identity, certificates, signature)
    }

    /// Returns the name of the signature scheme of an AUTH payload with this method and data, if it
    /// is known. Nothing is verified.
    fn scheme(&self, _method: u8, _data: &[u8]) -> Option<&'static str> {
        None
    }

    /// Returns true while a verification that was [pending](super::VerifyErrorKind::Pending) under this
    /// number cannot have another result.
    fn is_pending(&self, _number: u64) -> bool {
        false
    }

    /// Returns all identities in this certificate.
    fn names(&self, certificate: &[u8]) -> Vec<Identity>;
}

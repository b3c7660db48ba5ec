//! The key schedule (RFC 7296 §2.13 to §2.18), with what RFC 8784, RFC 9242 and RFC 9370 add.

use super::suite::{EspSuite, IkeSuite};
use crate::crypto::{Crypto, Integ, Prf, Secret};
use alloc::vec::Vec;
use core::fmt;
use zeroize::Zeroizing;

/// Length of our nonces in bytes: at least half of the longest PRF key (RFC 7296 §2.10).
pub const NONCE: usize = 32;

/// The keys of an IKE SA (RFC 7296 §2.14).
pub struct IkeSaKeys {
    /// SK_d, from which the keys of child SAs and of the next IKE SA derive.
    pub d: Secret,
    /// SK_ai, the integrity key of the original initiator's messages; empty with an AEAD.
    pub ai: Secret,
    /// SK_ar, the integrity key of the original responder's messages.
    pub ar: Secret,
    /// SK_ei, the encryption key of the original initiator's messages.
    pub ei: Secret,
    /// SK_er, the encryption key of the original responder's messages.
    pub er: Secret,
    /// SK_pi, for the AUTH payload of the original initiator.
    pub pi: Secret,
    /// SK_pr, for the AUTH payload of the original responder.
    pub pr: Secret,
}

impl fmt::Debug for IkeSaKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IkeSaKeys")
    }
}

/// Keying material of a child SA for each direction: cipher, then integrity.
pub struct ChildKeys {
    /// From the initiator of the exchange that created the SA.
    pub from_initiator: Secret,
    /// To that initiator.
    pub to_initiator: Secret,
}

impl fmt::Debug for ChildKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChildKeys")
    }
}

/// Returns `prf+(key, seed)` (RFC 7296 §2.13): `length` bytes, at most 255 times the output of the
/// PRF.
pub fn prf_plus(crypto: &dyn Crypto, prf: Prf, key: &[u8], seed: &[&[u8]], length: usize) -> Secret {
    let mut all = Zeroizing::new(Vec::with_capacity(length + prf.output_len()));
    let mut last = Secret::default();
    let mut number = 0u8;
    while all.len() < length {
        number = number.wrapping_add(1);
        let counter = [number];
        let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
        parts.push(&last);
        parts.extend_from_slice(seed);
        parts.push(&counter);
        let next = crypto.prf(prf, key, &parts);
        all.extend_from_slice(&next);
        last = next;
    }
    all.truncate(length);
    all
}

/// The nonces and SPIs that all keys of an IKE SA derive from.
#[derive(Clone, Copy, Debug)]
pub struct Seed<'a> {
    /// Ni.
    pub nonce_i: &'a [u8],
    /// Nr.
    pub nonce_r: &'a [u8],
    /// SPIi.
    pub spi_i: u64,
    /// SPIr.
    pub spi_r: u64,
}

impl IkeSaKeys {
    /// Derives the keys of the first exchange: SKEYSEED = prf(Ni | Nr, g^ir).
    pub fn first(crypto: &dyn Crypto, suite: &IkeSuite, shared: &[u8], seed: Seed<'_>) -> Self {
        let nonces = Zeroizing::new([seed.nonce_i, seed.nonce_r].concat());
        let skeyseed = crypto.prf(suite.prf, &nonces, &[shared]);
        Self::expand(crypto, suite, &skeyseed, seed)
    }

    /// Derives the keys after an additional key exchange (RFC 9370 §2.2.2): SKEYSEED(n) =
    /// prf(SK_d(n-1), SK(n) | Ni | Nr).
    #[must_use]
    pub fn further(&self, crypto: &dyn Crypto, suite: &IkeSuite, shared: &[u8], seed: Seed<'_>) -> Self {
        let skeyseed = crypto.prf(suite.prf, &self.d, &[shared, seed.nonce_i, seed.nonce_r]);
        Self::expand(crypto, suite, &skeyseed, seed)
    }

    /// Derives the keys of the IKE SA that replaces this one, whose PRF is `prf` (RFC 7296 §2.18;
    /// RFC 9370 §2.2.4 for several secrets).
    #[must_use]
    pub fn rekeyed(
        &self,
        crypto: &dyn Crypto,
        prf: Prf,
        suite: &IkeSuite,
        shared: &[Secret],
        seed: Seed<'_>,
    ) -> Self {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(shared.len() + 2);
        let (first, more) =
            shared.split_first().map_or((&[][..], &[][..]), |(first, more)| (&first[..], more));
        parts.extend([first, seed.nonce_i, seed.nonce_r]);
        parts.extend(more.iter().map(|secret| &secret[..]));
        let skeyseed = crypto.prf(prf, &self.d, &parts);
        Self::expand(crypto, suite, &skeyseed, seed)
    }

    fn expand(crypto: &dyn Crypto, suite: &IkeSuite, skeyseed: &[u8], seed: Seed<'_>) -> Self {
        let prf = suite.prf.output_len();
        let integ = suite.integ.map_or(0, Integ::key_len);
        let encr = suite.encr.key_len();
        let lengths = [prf, integ, integ, encr, encr, prf, prf];
        let spis = [seed.spi_i.to_be_bytes(), seed.spi_r.to_be_bytes()].concat();
        let parts = [seed.nonce_i, seed.nonce_r, &spis];
        let all = prf_plus(crypto, suite.prf, skeyseed, &parts, lengths.iter().sum());
        let mut rest = &all[..];
        let [d, ai, ar, ei, er, pi, pr] = lengths.map(|length| {
            let (key, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            Zeroizing::new(key.to_vec())
        });
        Self { d, ai, ar, ei, er, pi, pr }
    }

    /// Returns the heap memory in bytes.
    pub fn memory(&self) -> usize {
        [&self.d, &self.ai, &self.ar, &self.ei, &self.er, &self.pi, &self.pr]
            .iter()
            .map(|key| key.capacity())
            .sum()
    }

    /// Mixes in a post-quantum pre-shared key (RFC 8784 §3).
    #[must_use]
    pub fn with_ppk(&self, crypto: &dyn Crypto, prf: Prf, ppk: &[u8]) -> Self {
        let mix = |key: &Secret| prf_plus(crypto, prf, ppk, &[key], key.len());
        Self {
            d: mix(&self.d),
            pi: mix(&self.pi),
            pr: mix(&self.pr),
            ai: self.ai.clone(),
            ar: self.ar.clone(),
            ei: self.ei.clone(),
            er: self.er.clone(),
        }
    }

    /// Derives the keys of a child SA (RFC 7296 §2.17). `shared` are the secrets of its own key
    /// exchanges, in their order; `nonces` are those of the exchange that creates it.
    pub fn child(
        &self,
        crypto: &dyn Crypto,
        prf: Prf,
        suite: &EspSuite,
        shared: &[Secret],
        nonces: [&[u8]; 2],
    ) -> ChildKeys {
        let mut seed: Vec<&[u8]> = Vec::with_capacity(shared.len() + 2);
        if let Some(first) = shared.first() {
            seed.push(first);
        }
        seed.extend(nonces);
        seed.extend(shared.iter().skip(1).map(|secret| &secret[..]));
        let length = suite.key_len();
        let all = prf_plus(crypto, prf, &self.d, &seed, 2 * length);
        let (from, to) = all.split_at(length);
        ChildKeys { from_initiator: Zeroizing::new(from.to_vec()), to_initiator: Zeroizing::new(to.to_vec()) }
    }
}

/// Returns the AUTH data for a shared secret (RFC 7296 §2.15).
pub fn shared_key_auth(crypto: &dyn Crypto, prf: Prf, secret: &[u8], octets: &[u8]) -> Secret {
    let key = crypto.prf(prf, secret, &[b"Key Pad for IKEv2"]);
    crypto.prf(prf, &key, &[octets])
}

//! What a node and an agent share (RFC 5944 §1.6, "mobility security association"), and authenticators
//! made with it.

use super::wire::{Authentication, Parties};
use crate::crypto::{Random, Secret};
use alloc::vec::Vec;
use core::{fmt, time::Duration};
use hmac::{Hmac, KeyInit, Mac, digest::Output};
use md5::Md5;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The algorithm of authenticators. The SPI alone says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-MD5, which everybody has (RFC 5944 §3.5.1).
    HmacMd5,
    /// HMAC-SHA-256, with all 256 bits.
    HmacSha256,
}

/// How a node's old messages are told from new ones (RFC 5944 §5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// By timestamps, no further from the agent's clock than this.
    Timestamps(Duration),
    /// By nonces of both sides.
    Nonces,
}

/// An association of two parties.
#[derive(Clone)]
pub struct Association {
    /// Its number. Those below 256 are reserved.
    pub spi: u32,
    /// The algorithm of authenticators.
    pub algorithm: Algorithm,
    /// The shared secret.
    pub key: Secret,
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Association").field("spi", &self.spi).finish_non_exhaustive()
    }
}

impl Association {
    /// Returns whether an authenticator was made with this association.
    pub fn verifies(&self, authentication: &Authentication<'_>) -> bool {
        authentication.spi == self.spi
            && self.compute(authentication.covered)[..].ct_eq(authentication.authenticator).into()
    }

    /// Appends an authenticator of everything before it to a message.
    pub fn authenticate(&self, message: &mut Vec<u8>, parties: Parties) {
        message.extend([parties.kind(), (size_of::<u32>() + self.output_len()) as u8]);
        message.extend(self.spi.to_be_bytes());
        let authenticator = self.compute(message);
        message.extend(authenticator);
    }

    fn output_len(&self) -> usize {
        match self.algorithm {
            Algorithm::HmacMd5 => 16,
            Algorithm::HmacSha256 => 32,
        }
    }

    fn compute(&self, covered: &[u8]) -> Vec<u8> {
        match self.algorithm {
            Algorithm::HmacMd5 => mac::<Hmac<Md5>>(&self.key, covered).to_vec(),
            Algorithm::HmacSha256 => hmac_sha256(&self.key, covered).to_vec(),
        }
    }
}

/// Makes numbers that nobody else can tell in advance.
pub(super) struct NumberKey(Secret);

impl fmt::Debug for NumberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NumberKey")
    }
}

impl NumberKey {
    pub(super) fn new(random: &dyn Random) -> Self {
        Self(random.bytes(32).into())
    }

    /// Returns a number that depends on all parts, which have fixed lengths.
    pub(super) fn number(&self, parts: &[&[u8]]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = hmac_sha256(&self.0, &parts.concat());
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Returns the HMAC-SHA-256 of `covered`.
pub(super) fn hmac_sha256(key: &[u8], covered: &[u8]) -> [u8; 32] {
    mac::<Hmac<Sha256>>(key, covered).into()
}

fn mac<M: Mac + KeyInit>(key: &[u8], covered: &[u8]) -> Output<M> {
    let mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(covered).finalize().into_bytes()
}

//! Cryptography whose randomness can be repeated.

use crate::{primitives::Primitives, sim::random::Random};
use std::sync::{Mutex, PoisonError};
use wayfarer_mobility::ike::{
    crypto::{Crypto, KexSecret, Refused, Secret},
    suite::{Encr, Integ, Kex, Prf},
};

/// The real primitives, with randomness from a seed.
#[derive(Debug)]
pub struct Seeded(Mutex<Random>);

impl Seeded {
    /// Makes them from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Random(seed)))
    }
}

impl Crypto for Seeded {
    fn random(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
    }

    fn prf(&self, prf: Prf, key: &[u8], parts: &[&[u8]]) -> Secret {
        Primitives.prf(prf, key, parts)
    }

    fn sha1(&self, parts: &[&[u8]]) -> [u8; 20] {
        Primitives.sha1(parts)
    }

    fn seal(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) {
        Primitives.seal(encr, key, integ, iv, aad, text);
    }

    fn open(
        &self,
        encr: Encr,
        key: &[u8],
        integ: Option<(Integ, &[u8])>,
        iv: &[u8],
        aad: &[u8],
        text: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        Primitives.open(encr, key, integ, iv, aad, text)
    }

    fn kex_begin(&self, kex: Kex) -> Result<(Box<dyn KexSecret>, Vec<u8>), Refused> {
        Primitives.kex_begin(kex)
    }

    fn kex_answer(&self, kex: Kex, data: &[u8]) -> Result<(Vec<u8>, Secret), Refused> {
        Primitives.kex_answer(kex, data)
    }
}

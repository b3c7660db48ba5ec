//! Randomness from one seed.

use std::sync::Mutex;
use wayfarer::primitives::Primitives;
use wayfarer_mobility::ike::{
    crypto::{Crypto, KexSecret, Refused, Secret},
    suite::{Encr, Integ, Kex, Prf},
};

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The real primitives, with randomness from a seed.
#[derive(Debug)]
pub(super) struct Seeded(Mutex<Random>);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Random(seed)))
    }
}

impl Crypto for Seeded {
    fn random(&self, out: &mut [u8]) {
        let mut random = self.0.lock().unwrap();
        out.chunks_mut(8).for_each(|part| {
            let bytes = random.next().to_ne_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        });
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

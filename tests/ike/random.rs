//! Randomness from one seed.

use std::sync::Mutex;
use wayfarer_mobility::crypto;

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

/// Secrets from a seed, so that a run can be repeated.
#[derive(Debug)]
pub(super) struct Seeded(Mutex<Random>);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(Random(seed)))
    }
}

impl crypto::Random for Seeded {
    fn fill(&self, out: &mut [u8]) {
        let mut random = self.0.lock().unwrap();
        out.chunks_mut(8).for_each(|part| {
            let bytes = random.next().to_ne_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        });
    }
}

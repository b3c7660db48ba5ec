//! Randomness from a seed.

use crate::sim::random::Random;
use std::sync::{Mutex, PoisonError};
use wayfarer_mobility::crypto;

/// A protocol's source of randomness that gives the same bytes in every run.
#[derive(Debug)]
pub struct Seeded(Mutex<Random>);

impl Seeded {
    /// Makes a source from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Random(seed)))
    }
}

impl crypto::Random for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
    }
}

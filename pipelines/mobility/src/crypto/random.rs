//! Random bytes.

use alloc::{vec, vec::Vec};
use core::{fmt, time::Duration};

/// A source of random bytes. Keys, nonces and SPIs come from it, so outside of tests it is the
/// operating system's, and not a generator whose seed somebody could learn.
pub trait Random: Send + Sync + fmt::Debug {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);

    /// Returns `length` random bytes.
    fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }

    /// Returns `duration` shortened at random by up to a tenth.
    fn jittered(&self, duration: Duration) -> Duration {
        let mut random = [0; 4];
        self.fill(&mut random);
        duration - duration / 10 * (u32::from_ne_bytes(random) >> 16) / 65_536
    }
}

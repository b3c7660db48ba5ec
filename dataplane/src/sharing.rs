//! Counters that one worker changes, or several.
//!
//! A locked instruction costs about 5 ns even on a line in the cache, as much as a whole stage of
//! the path. A gateway with a single worker does not need it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of threads that change a counter at once. Any number may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One: a load and a store suffice. With more than one, counts would be lost.
    One,
    /// Several: atomic operations.
    Many,
}

impl Sharing {
    /// Returns the value for `workers` workers.
    pub fn among(workers: usize) -> Self {
        if workers > 1 { Self::Many } else { Self::One }
    }

    /// Adds `n` to `counter`. Returns the value before.
    #[inline]
    pub fn add(self, counter: &AtomicU64, n: u64) -> u64 {
        match self {
            Self::Many => counter.fetch_add(n, Relaxed),
            Self::One => {
                let before = counter.load(Relaxed);
                counter.store(before.wrapping_add(n), Relaxed);
                before
            }
        }
    }
}

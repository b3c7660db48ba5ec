//! Who changes a counter: one worker, or several.
//!
//! A locked instruction costs about 5 ns even on a line in the cache, as much as a whole stage of
//! the path. Where the gateway has a single worker nothing needs it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many threads change a counter at once. Any number may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// One: a load and a store will do. With more than one, counts would be lost.
    One,
    /// Several: atomic operations.
    Many,
}

impl Sharing {
    /// As many as `workers`.
    pub fn among(workers: usize) -> Self {
        if workers > 1 { Self::Many } else { Self::One }
    }

    /// Adds `n` to `counter` and answers what was there before.
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

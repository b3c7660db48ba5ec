//! Rate limits: a token bucket that refills with time.

use core::time::Duration;

/// A token bucket. It starts full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Rate {
    /// Takes a token out of a bucket of `burst`, which regains one every `refill`. Returns false if
    /// the bucket is empty.
    pub fn admits(&mut self, now: Duration, burst: u32, refill: Duration) -> bool {
        let full_at = self.full_at.max(now) + refill;
        let admits = full_at <= now + refill * burst;
        if admits {
            self.full_at = full_at;
        }
        admits
    }

    /// Returns when the bucket is full again if nothing else is taken out.
    pub fn full_at(self) -> Duration {
        self.full_at
    }

    /// Returns true if the bucket is empty.
    pub(crate) fn is_empty(mut self, now: Duration, burst: u32, refill: Duration) -> bool {
        !self.admits(now, burst, refill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills_with_time() {
        let second = Duration::from_secs(1);
        let mut rate = Rate::default();
        let mut admitted = |now| (0..10).filter(|_| rate.admits(now, 4, second)).count();
        assert_eq!(admitted(second), 4);
        assert_eq!(admitted(second), 0);
        assert_eq!(admitted(3 * second), 2);
        assert_eq!(admitted(100 * second), 4);
        assert!(rate.is_empty(100 * second, 4, second) && !rate.is_empty(101 * second, 4, second));
    }
}

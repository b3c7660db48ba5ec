//! How often something may be done: a bucket of so many at once that refills with time.

use core::time::Duration;

/// Repetitions of a request that are answered at once, and after how long one more is: what a peer in bad weather needs.
pub(super) const REPEATS: u32 = 8;
pub(super) const REPEAT: Duration = Duration::from_millis(250);

/// As those, for all requests of a stranger from where it has not shown that it is: enough for a peer whose NAT has
/// several addresses.
pub(super) const STRAYS: u32 = 2;
pub(super) const STRAY: Duration = Duration::from_secs(1);

/// Child and IKE SAs that a peer, and all of one name together, have made or their keys changed at once, and after how
/// long one more: what a gateway with many child SAs needs. Each costs the one who keeps the tables.
pub(super) const CREATES: u32 = 256;
pub(super) const CREATE: Duration = Duration::from_millis(250);

/// A bucket. It is full at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// When it will be full again.
    full_at: Duration,
}

impl Rate {
    /// Takes one out, of `burst` that refill one by one each `refill`; `false` if it is empty.
    pub(super) fn admits(&mut self, now: Duration, burst: u32, refill: Duration) -> bool {
        let full_at = self.full_at.max(now) + refill;
        let admits = full_at <= now + refill * burst;
        if admits {
            self.full_at = full_at;
        }
        admits
    }

    /// When it is full again if nothing is taken out.
    pub(super) fn full_at(self) -> Duration {
        self.full_at
    }

    /// Whether the bucket is empty.
    pub(super) fn is_empty(mut self, now: Duration, burst: u32, refill: Duration) -> bool {
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

//! The kernel's side of a port on the exception path, with its rate limits.

use crate::clock::Moment;
use std::time::Duration;

/// The smallest depth of a bucket, in frames.
const DEPTH: u32 = 32;

/// A port's role in the exception path, for one worker.
#[derive(Debug)]
pub enum Role {
    /// The port has no role.
    Plain,
    /// The port has a kernel side.
    Nic {
        /// Index of the TAP's port.
        tap: u16,
        /// The limit of each kind of traffic.
        limits: [Limit; KINDS],
    },
    /// The port is the kernel side of the port with this index.
    Tap(u16),
}

/// The number of kinds of [`Traffic`].
pub const KINDS: usize = 2;

/// The kinds of traffic to the kernel, each with a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Traffic of the segment itself: neighbours, groups, unknown EtherTypes.
    Segment,
    /// Packets for the host's own stack.
    Host,
}

/// A token bucket that reads the time only when it is empty. It holds a tenth of a second's worth.
/// A burst may be twice as long, because the empty bucket may fill up at once.
#[derive(Debug)]
pub struct Limit {
    /// The time between two frames at the rate.
    interval: Duration,
    depth: u32,
    left: u32,
    filled: Moment,
}

impl Limit {
    /// Makes a full bucket for one of `workers`, which share `rate` frames per second.
    pub fn new(rate: u32, workers: usize, now: Moment) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let share = (rate / workers).max(1);
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(share)));
        let depth = (share / 10).max(DEPTH);
        Self { interval, depth, left: depth, filled: now }
    }

    /// Returns whether another frame may pass.
    pub fn admits(&mut self, now: impl FnOnce() -> Moment) -> bool {
        if self.left == 0 {
            self.fill(now());
        }
        let admitted = self.left > 0;
        self.left -= u32::from(admitted);
        admitted
    }

    fn fill(&mut self, now: Moment) {
        let since = now - self.filled;
        let frames = since.as_nanos() / self.interval.as_nanos();
        match u32::try_from(frames).ok().filter(|frames| *frames <= self.depth) {
            // Less than a frame's worth is kept for the next time.
            Some(frames) => (self.left, self.filled) = (frames, self.filled + self.interval * frames),
            None => (self.left, self.filled) = (self.depth, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_holds_a_tenth_of_a_second_and_fills_at_its_rate() {
        let start = Moment::now();
        let mut limit = Limit::new(2000, 2, start);
        let mut admitted = |ms| {
            let now = start + Duration::from_millis(ms);
            (0..1000).filter(|_| limit.admits(|| now)).count()
        };
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(0), 0);
        assert_eq!(admitted(10), 10);
        assert_eq!(admitted(9), 0, "a clock that steps back gives nothing");
        assert_eq!((11..20).map(&mut admitted).sum::<usize>(), 9);
        assert_eq!(admitted(60_000), 100, "unused tokens beyond the depth are lost");
    }

    #[test]
    fn only_an_empty_bucket_reads_the_time() {
        let mut limit = Limit::new(0, 0, Moment::now());
        assert!((0..DEPTH).all(|_| limit.admits(|| panic!("the time was read with a token left"))));
        // A worker's share of the rate is never zero, and its fractions are not lost.
        let start = limit.filled;
        let steps = (1..=3000).filter(|ms| limit.admits(|| start + Duration::from_millis(*ms)));
        assert_eq!(steps.count(), 3);
    }

    #[test]
    fn highest_rate_works() {
        let start = Moment::now();
        let mut limit = Limit::new(u32::MAX, 1, start);
        limit.left = 0;
        limit.filled = start;
        assert!(limit.admits(|| start + Duration::from_secs(1 << 40)));
        assert_eq!(limit.left, u32::MAX / 10 - 1);
    }
}

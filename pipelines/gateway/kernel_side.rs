//! The kernel's side of a port on the exception path: which port has one, and how much may go
//! there.

use std::time::{Duration, Instant};

/// Smallest depth of a bucket, in frames.
const DEPTH: u32 = 32;

/// A port's part in the exception path, as one worker knows it.
#[derive(Debug)]
pub enum Role {
    /// None.
    Plain,
    /// It has a kernel side.
    Nic {
        /// Index of the TAP's port.
        tap: u16,
        /// What may go there of each kind.
        limits: [Limit; KINDS],
    },
    /// It is the kernel side of the port with this index.
    Tap(u16),
}

/// Kinds of [`Traffic`].
pub const KINDS: usize = 2;

/// What goes to the kernel, by what the rate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// What keeps the segment going: neighbours, groups, unknown EtherTypes.
    Segment,
    /// Packets for the host's own stack.
    Host,
}

/// A token bucket that asks for the time only when it is empty. It holds a tenth of a second's
/// worth; at a time twice as much may pass, for it fills up when it is asked for more.
#[derive(Debug)]
pub struct Limit {
    /// Between two frames.
    interval: Duration,
    depth: u32,
    left: u32,
    filled: Instant,
}

impl Limit {
    /// Begins with a full bucket for one of `workers`, of `rate` frames a second for all of them.
    pub fn new(rate: u32, workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let share = (rate / workers).max(1);
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(share)));
        let depth = (share / 10).max(DEPTH);
        Self { interval, depth, left: depth, filled: now }
    }

    /// Returns whether another frame may pass.
    pub fn admits(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left == 0 {
            self.fill(now());
        }
        let admitted = self.left > 0;
        self.left -= u32::from(admitted);
        admitted
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled);
        let frames = since.as_nanos() / self.interval.as_nanos();
        match u32::try_from(frames).ok().filter(|frames| *frames <= self.depth) {
            // What is less than a frame's worth is kept for the next time.
            Some(frames) => (self.left, self.filled) = (frames, self.filled + self.interval * frames),
            None => (self.left, self.filled) = (self.depth, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_a_tenth_of_a_second_and_fills_at_its_rate() {
        let start = Instant::now();
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
        assert_eq!(admitted(60_000), 100, "what nobody wanted is gone");
    }

    #[test]
    fn the_time_is_asked_for_only_by_an_empty_bucket() {
        let mut limit = Limit::new(0, 0, Instant::now());
        assert!((0..DEPTH).all(|_| limit.admits(|| panic!("there was one left"))));
        // A share is never nothing, nor so small that its fractions get lost.
        let start = limit.filled;
        let steps = (1..=3000).filter(|ms| limit.admits(|| start + Duration::from_millis(*ms)));
        assert_eq!(steps.count(), 3);
    }

    #[test]
    fn no_rate_is_too_high() {
        let start = Instant::now();
        let mut limit = Limit::new(u32::MAX, 1, start);
        limit.left = 0;
        limit.filled = start;
        assert!(limit.admits(|| start + Duration::from_secs(1 << 40)));
        assert_eq!(limit.left, u32::MAX / 10 - 1);
    }
}

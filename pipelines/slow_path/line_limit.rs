//! Limits how many lines of the log a peer may cause, and counts those that are left out.

use std::time::Duration;
use wayfarer_mobility::rate::Rate;

/// Lines that one link may cause at once, and the time until one more.
const BURST: u32 = 8;
const REFILL: Duration = Duration::from_secs(10);

/// Counts the lines that are left out, so that the next one can tell how many they were.
#[derive(Debug, Default)]
pub(super) struct LeftOut(u64);

impl LeftOut {
    /// Counts a line unless it is admitted, and then returns `None`. Otherwise returns the number
    /// of lines that were left out before it, if there are any.
    pub(super) fn before(&mut self, is_admitted: bool) -> Option<Option<u64>> {
        if is_admitted {
            return Some(self.take());
        }
        self.0 += 1;
        None
    }

    /// Takes the number of lines that were left out and not told of, if there are any.
    pub(super) fn take(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.0)).filter(|count| *count > 0)
    }

    /// Returns the number of lines that were left out and not told of.
    pub(super) fn count(&self) -> u64 {
        self.0
    }
}

/// Limits the lines about one link, so that a peer that flaps between paths does not fill the log.
#[derive(Debug, Default)]
pub(super) struct LineLimit {
    rate: Rate,
    left_out: LeftOut,
}

impl LineLimit {
    /// Returns `None` if a line must be left out. Otherwise returns the number of lines that were
    /// left out before it, if there are any.
    pub(super) fn admits(&mut self, now: Duration) -> Option<Option<u64>> {
        let is_admitted = self.rate.admits(now, BURST, REFILL);
        self.left_out.before(is_admitted)
    }

    /// Takes the number of lines that were left out and not told of, if there are any.
    pub(super) fn take_left_out(&mut self) -> Option<u64> {
        self.left_out.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_logged_or_counted() {
        let mut limit = LineLimit::default();
        let (mut logged, mut told) = (0, 0);
        for tenth in 0..600 {
            if let Some(left_out) = limit.admits(Duration::from_millis(100 * tenth)) {
                logged += 1;
                told += left_out.unwrap_or_default();
            }
        }
        assert_eq!(logged, u64::from(BURST) + 5, "those at once, and one each ten seconds");
        assert_eq!(limit.take_left_out(), Some(600 - logged - told));
        assert_eq!(limit.admits(Duration::from_secs(3600)), Some(None));
    }
}

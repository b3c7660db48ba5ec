//! When frames are due. The clock is the caller's.

use std::time::Duration;

/// Frames sent at once.
pub(super) const TOGETHER: u64 = 32;
/// How much a sender that was held up makes up for. What is beyond this time, and beyond
/// [`TOGETHER`] frames, is left out: made up at once, it would be a burst that nobody asked for.
const SLACK: f64 = 0.001;

/// The end of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stop {
    /// After this time.
    After(Duration),
    /// After so many frames.
    Frames(u64),
}

/// The frames of a trial, of all streams together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Demand {
    /// Frames per second; `None` for as many as can be sent.
    pub(super) rate: Option<f64>,
    pub(super) stop: Stop,
    /// Latencies count of frames that are sent from this time on, since the start.
    pub(super) settled: Duration,
}

impl Demand {
    /// Demands frames at this rate for a time, of which all latencies count.
    pub(super) fn new(rate: Option<f64>, time: Duration) -> Self {
        Self { rate, stop: Stop::After(time), settled: Duration::ZERO }
    }

    /// Demands a burst of so many frames, as fast as `rate` or the sender allows.
    pub(super) fn burst(rate: Option<f64>, frames: u64) -> Self {
        Self { rate, stop: Stop::Frames(frames), settled: Duration::ZERO }
    }

    /// Returns the share of stream `index`, of `streams`.
    pub(super) fn share(&self, index: u64, streams: u64) -> Self {
        let stop = match self.stop {
            Stop::Frames(frames) => Stop::Frames(frames / streams + u64::from(index < frames % streams)),
            after => after,
        };
        Self { rate: self.rate.map(|rate| rate / streams as f64), stop, ..*self }
    }
}

/// What is left of a demand.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    demand: Demand,
    /// Frames that are due at most at once.
    slack: u64,
    skipped: u64,
}

impl Schedule {
    /// Begins to meet a demand.
    pub(super) fn new(demand: Demand) -> Self {
        let slack = demand.rate.map_or(0.0, |rate| rate * SLACK) as u64;
        Self { demand, slack: slack.max(TOGETHER), skipped: 0 }
    }

    /// Returns how many frames are to be sent now, if `passed` is the time since the start and `sent` the
    /// number of frames so far; `None` if that is all.
    pub(super) fn due(&mut self, passed: Duration, sent: u64) -> Option<u64> {
        let left = match self.demand.stop {
            Stop::After(end) if passed >= end => return None,
            Stop::After(_) => u64::MAX,
            Stop::Frames(frames) if sent >= frames => return None,
            Stop::Frames(frames) => frames - sent,
        };
        let Some(rate) = self.demand.rate else { return Some(TOGETHER.min(left)) };
        // The first frame is due at once.
        let due = (rate * passed.as_secs_f64()) as u64 + 1;
        let behind = due.saturating_sub(sent + self.skipped);
        if behind > self.slack {
            self.skipped += behind - self.slack;
        }
        Some(behind.min(self.slack).min(TOGETHER).min(left))
    }

    /// Returns how many frames were left out because the sender was held up.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    /// Sends by a clock that goes on by a random time of up to `step` at each turn. Returns the times
    /// of all frames.
    fn send(
        schedule: &mut Schedule,
        step: Duration,
        mut stall: impl FnMut(u64) -> Duration,
    ) -> Vec<Duration> {
        let (mut random, mut now, mut times) = (Random(1), Duration::ZERO, Vec::new());
        while let Some(frames) = schedule.due(now, times.len() as u64) {
            times.extend((0..frames).map(|_| now));
            now += step.mul_f64(random.below(1000) as f64 / 1000.0) + stall(times.len() as u64);
        }
        times
    }

    #[test]
    fn rate_is_met_exactly_and_evenly_by_a_clock_of_uneven_steps() {
        for (rate, milliseconds) in
            [(10.0, 1000), (999.9, 1000), (12_345.6, 1000), (1e6, 100), (14_880_952.0, 20)]
        {
            let time = Duration::from_millis(milliseconds);
            let mut schedule = Schedule::new(Demand::new(Some(rate), time));
            // Fast enough for the rate: fewer frames than go at once become due in one step.
            let step = Duration::from_secs_f64(f64::min(0.5 * TOGETHER as f64 / rate, 0.001));
            let times = send(&mut schedule, step, |_| Duration::ZERO);
            let difference = times.len() as f64 - rate * time.as_secs_f64();
            assert!(difference.abs() <= TOGETHER as f64, "{rate}: {}", times.len());
            assert_eq!(schedule.skipped(), 0, "{rate}");
            for (number, time) in times.iter().enumerate() {
                let late = time.as_secs_f64() - number as f64 / rate;
                let most = step.as_secs_f64() + 2e-9;
                assert!((-2e-9..=most).contains(&late), "{rate}: {number} at {time:?}");
            }
        }
    }

    #[test]
    fn sender_that_was_held_up_makes_up_for_a_millisecond_only() {
        let mut schedule = Schedule::new(Demand::new(Some(1e6), Duration::from_secs(1)));
        let mut is_held = false;
        let stall = |sent| match sent > 300_000 && !std::mem::replace(&mut is_held, sent > 300_000) {
            true => Duration::from_millis(50),
            false => Duration::ZERO,
        };
        let times = send(&mut schedule, Duration::from_micros(2), stall);
        assert!((48_900..=49_100).contains(&schedule.skipped()), "{}", schedule.skipped());
        let sent = times.len() as u64 + schedule.skipped();
        assert!((999_900..=1_000_100).contains(&sent), "{sent}");
        let most = |window: Duration| {
            let in_window = |first: &Duration| {
                let at = times.partition_point(|time| time < first);
                times.partition_point(|time| *time < *first + window) - at
            };
            times.iter().map(in_window).max().unwrap()
        };
        // Nominal, and what was made up for.
        let most = most(Duration::from_millis(5));
        assert!((5900..=6100).contains(&most), "{most}");
    }

    #[test]
    fn bursts_have_the_number_of_frames_that_was_asked_for() {
        for (frames, rate) in [(1, None), (1000, None), (1000, Some(1e5))] {
            let shares: Vec<_> = (0..3).map(|index| Demand::burst(rate, frames).share(index, 3)).collect();
            let sent = shares.iter().map(|share| {
                let step = Duration::from_micros(100);
                send(&mut Schedule::new(*share), step, |_| Duration::ZERO).len() as u64
            });
            assert_eq!(sent.sum::<u64>(), frames, "{rate:?}");
        }
        let share = Demand::new(Some(3000.0), Duration::from_secs(2)).share(1, 3);
        assert_eq!(share, Demand::new(Some(1000.0), Duration::from_secs(2)));
    }
}

//! The clock by which everything ends that ends by time. It goes on while the machine sleeps, and a
//! jump of the wall clock changes nothing.
//!
//! Only waits of threads go by another one, which stands still while the machine sleeps: what they wait
//! for does so too.

use nix::time::{ClockId, clock_gettime};
use std::{
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// A moment: the time since the machine's boot, with the time that it slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// Returns the present. Every Linux has this clock, and reads it without a system call.
    pub fn now() -> Self {
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// Returns the time from `earlier` to this moment, or zero if that is later.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clock that a worker reads.
#[derive(Clone, Debug, Default)]
pub enum WorkerClock {
    /// The machine's.
    #[default]
    Machine,
    /// A simulation's.
    Simulated(SimulatedClock),
}

impl WorkerClock {
    /// Returns the present.
    pub fn now(&self) -> Moment {
        match self {
            Self::Machine => Moment::now(),
            Self::Simulated(clock) => clock.now(),
        }
    }
}

/// A clock that stands still until it is moved on. Its clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    /// Nanoseconds since the machine's boot.
    shows: Arc<AtomicU64>,
}

impl SimulatedClock {
    /// Makes a clock that shows the present.
    pub fn start() -> Self {
        let Moment(since_boot) = Moment::now();
        Self { shows: Arc::new(AtomicU64::new(since_boot.as_nanos() as u64)) }
    }

    /// Moves the clock on.
    pub fn advance(&self, time: Duration) {
        self.shows.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// Returns what the clock shows.
    pub fn now(&self) -> Moment {
        Moment(Duration::from_nanos(self.shows.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, process::Command};

    const INSIDE: &str = "WAYFARER_TEST_SLEPT";
    /// Seconds that the machine seems to have slept.
    const SLEPT: u64 = 1_000_000;

    /// In a namespace whose machine has slept, as far as its clocks say.
    #[test]
    fn time_asleep_counts() {
        if env::var_os(INSIDE).is_some() {
            assert!(Moment::now() >= Moment(Duration::from_secs(SLEPT)));
            return;
        }
        let slept = SLEPT.to_string();
        let inside = Command::new("unshare")
            .args(["--fork", "--time", "--boottime", &slept])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "clock::tests::time_asleep_counts"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && said.contains("1 passed"), "{inside:?}");
    }

    #[test]
    fn simulated_clock_moves_only_by_hand() {
        let before = Moment::now();
        let clock = SimulatedClock::start();
        let (start, read) = (clock.now(), WorkerClock::Simulated(clock.clone()));
        while Moment::now() <= start {}
        assert!(before <= start && read.now() == start && WorkerClock::default().now() > start);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(read.now() - start, Duration::from_millis(1500));
    }

    #[test]
    fn clock_goes_on_and_no_time_is_negative() {
        let first = Moment::now();
        while Moment::now() == first {}
        let later = Moment::now();
        assert!(later > first && later - first < Duration::from_secs(SLEPT));
        assert_eq!((first - later, first + (later - first)), (Duration::ZERO, later));
    }
}

//! The gateway's time, by which everything ends that ends by time. It goes on while the machine
//! sleeps, and a jump of the wall clock changes nothing.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A clock that began at 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The time since the machine's boot when it began.
    began: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: since_boot() }
    }

    /// Returns the time since it began.
    pub(super) fn now(&self) -> Duration {
        since_boot().saturating_sub(self.began)
    }
}

/// Returns the time since the machine's boot, with the time that it slept. Every Linux has this clock.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
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
            assert!(since_boot() >= Duration::from_secs(SLEPT));
            return;
        }
        let slept = SLEPT.to_string();
        let inside = Command::new("unshare")
            .args(["--fork", "--time", "--boottime", &slept])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "slow_path::clock::tests::time_asleep_counts"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(inside.status.success() && said.contains("1 passed"), "{inside:?}");
    }

    #[test]
    fn clock_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        while clock.now() == first {}
        assert!(clock.now() > first && first < Duration::from_secs(SLEPT));
    }
}

//! The end of a run before its time, by a signal.

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use std::{
    fmt, io, process,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// How often a pause looks whether it is to end early.
const WATCH: Duration = Duration::from_millis(20);
/// Signals within this time count as one: timeout(1) passes each on twice, to its program and to the group of
/// both.
const DOUBLED: Duration = Duration::from_millis(100);

/// A signal that ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub(super) i32);

impl Signal {
    /// Ends this process as the signal would have ended it at once. A shell sees that, as the status 128 and
    /// the signal's number, and ends its loop or script too.
    pub fn end_process(self) -> ! {
        // The first process of a container is not ended by a signal of its own (pid_namespaces(7)).
        if process::id() != 1 {
            let _ = low_level::emulate_default_handler(self.0);
        }
        process::exit(128 + self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match low_level::signal_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// Tells a run to end early. A clone belongs to the same run.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(
    /// The number of the signal; 0 as long as none has come.
    Arc<AtomicI32>,
);

impl Interrupt {
    /// Has the first SIGINT or SIGTERM to this process interrupt the run, and the second one end the process
    /// at once.
    ///
    /// # Errors
    /// If the system does not let this process watch for signals.
    pub fn by_signals() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let this = Self::default();
        let interrupt = this.clone();
        let watch = move || {
            let mut all = signals.forever().map(Signal);
            let Some(first) = all.next() else { return };
            interrupt.set(first);
            let start = Instant::now();
            if let Some(second) = all.find(|_| start.elapsed() >= DOUBLED) {
                second.end_process();
            }
        };
        thread::Builder::new().name("wf-signals".to_owned()).spawn(watch)?;
        Ok(this)
    }

    /// Returns the signal that has interrupted the run.
    pub fn signal(&self) -> Option<Signal> {
        let number = self.0.load(Relaxed);
        (number != 0).then_some(Signal(number))
    }

    /// Interrupts the run.
    pub(super) fn set(&self, signal: Signal) {
        self.0.store(signal.0, Relaxed);
    }

    /// Waits for this time, or until the run is interrupted.
    pub(super) fn pause(&self, time: Duration) {
        let start = Instant::now();
        while self.signal().is_none() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(WATCH));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_lasts_until_its_time_or_the_interruption() {
        let interrupt = Interrupt::default();
        let time = 2 * WATCH + WATCH / 2;
        let start = Instant::now();
        interrupt.pause(time);
        assert!(start.elapsed() >= time && interrupt.signal().is_none());
        thread::scope(|scope| {
            scope.spawn(|| interrupt.pause(Duration::from_secs(3600)));
            interrupt.set(Signal(SIGTERM));
        });
        assert_eq!(interrupt.signal(), Some(Signal(SIGTERM)));
        assert_eq!([SIGINT, SIGTERM, 99].map(|n| Signal(n).to_string()), ["SIGINT", "SIGTERM", "signal 99"]);
    }
}

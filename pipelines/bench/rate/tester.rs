//! The tester: its threads, and the trials that they run together.

use super::{
    devices::Keep,
    error::RateError,
    interrupt::Interrupt,
    options::Direction,
    procedure::Device,
    schedule::{Demand, Stop},
    stamp::Signature,
    tally::{Sent, Trial},
    thread::{Equipment, Progress, Task, TesterThread},
};
use core_affinity::CoreId;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a trial waits for late frames (RFC 2544 §23).
const LATE: Duration = Duration::from_secs(2);
/// Frames of each stream that are sent at once while the device under test looks for its neighbours.
const LEARNING: u64 = 8;
/// The most flows of which frames are sent for that.
const LEARNING_FLOWS: u64 = 1024;
/// How often those are sent while none comes back.
const ATTEMPTS: u32 = 8;

/// Threads on open devices, and the frames that they send.
pub(super) struct Tester {
    /// They end before anything else is dropped.
    threads: Vec<TesterThread>,
    direction: Direction,
    lengths: Arc<[usize]>,
    trials: u16,
    settle: Duration,
    /// `true` until the first trial, before which the device has nothing to recover from.
    is_first: bool,
    /// Ends trials and pauses early.
    interrupt: Interrupt,
    /// The names of the tunnels: those of a thread are as far apart as there are threads.
    tunnels: Vec<String>,
    _keep: Option<Keep>,
}

impl Tester {
    /// Starts a thread for each equipment, on these cores if there are any.
    ///
    /// # Errors
    /// [`RateError::Thread`].
    pub(super) fn start(
        equipment: Vec<Equipment>,
        cores: &[CoreId],
        settle: Duration,
        interrupt: Interrupt,
        tunnels: Vec<String>,
        keep: Option<Keep>,
    ) -> Result<Self, RateError> {
        let (signature, clock) = (Signature::new(), Instant::now());
        let start = |(index, equipment)| {
            TesterThread::start(equipment, index, cores.get(index).copied(), signature, clock)
        };
        Ok(Self {
            threads: equipment.into_iter().enumerate().map(start).collect::<Result<_, _>>()?,
            direction: Direction::Forward,
            lengths: Arc::new([]),
            trials: 0,
            settle,
            is_first: true,
            interrupt,
            tunnels,
            _keep: keep,
        })
    }

    /// Chooses the frames of the next trials: their direction, and the lengths of their packets in the
    /// order of sending. Then sends a few of them, until some come back in each direction: the device
    /// under test may have to resolve neighbours first (RFC 2544 §23).
    ///
    /// # Errors
    /// [`RateError::Silence`], [`RateError::Interrupted`], or that of a trial.
    pub(super) fn learn(
        &mut self,
        direction: Direction,
        lengths: Vec<usize>,
        flows: u64,
    ) -> Result<(), RateError> {
        self.direction = direction;
        self.lengths = lengths.into();
        let ways = direction.ways().into_iter().filter(|goes| *goes).count() as u64;
        let streams = self.threads.len() as u64 * ways;
        let frames = (flows.min(LEARNING_FLOWS) * ways).max(LEARNING * streams);
        for _ in 0..ATTEMPTS {
            let trial = self.run(&Demand::burst(None, frames), LATE / ATTEMPTS)?;
            if trial.answers(direction) {
                return Ok(());
            }
        }
        Err(RateError::Silence(direction))
    }

    /// Runs a trial in which late frames may take so long.
    fn run(&mut self, demand: &Demand, late: Duration) -> Result<Trial, RateError> {
        self.trials = self.trials.wrapping_add(1);
        let progress = Arc::new(Progress::new(self.threads.len(), self.interrupt.clone()));
        let task = Task {
            trial: self.trials,
            ways: self.direction.ways(),
            demand: *demand,
            lengths: self.lengths.clone(),
            late,
            progress: progress.clone(),
        };
        let trial = self.run_task(&task);
        if trial.is_err() {
            progress.cancel();
        }
        trial
    }

    fn run_task(&self, task: &Task) -> Result<Trial, RateError> {
        self.threads.iter().try_for_each(|thread| thread.begin(task.clone()))?;
        let parts = self.threads.iter().map(TesterThread::end).collect::<Result<Vec<_>, _>>()?;
        // The counts of an interrupted trial are no figures.
        if let Some(signal) = self.interrupt.signal() {
            return Err(RateError::Interrupted(signal));
        }
        let exhausted = parts.iter().enumerate().find_map(|(thread, part)| {
            let tunnel = part.exhausted? * self.threads.len() + thread;
            Some(self.tunnels.get(tunnel).cloned().unwrap_or_default())
        });
        if let Some(name) = exhausted {
            return Err(RateError::Exhausted(name));
        }
        let sent: Vec<Sent> = parts.iter().flat_map(|part| part.sent).collect();
        Ok(Trial::new(&sent, parts.into_iter().map(|part| part.tally).collect()))
    }
}

impl Device for Tester {
    fn trial(&mut self, demand: &Demand) -> Result<Trial, RateError> {
        if !std::mem::replace(&mut self.is_first, false) {
            self.interrupt.pause(self.settle);
        }
        let trial = self.run(demand, LATE)?;
        // The first frame of each stream is due at once, but a burst may be shorter than there are streams.
        let is_offered = match demand.stop {
            Stop::After(_) => trial.offers(self.direction),
            Stop::Frames(_) => trial.sent > 0,
        };
        if is_offered { Ok(trial) } else { Err(RateError::NothingSent(self.direction)) }
    }
}

#[cfg(test)]
mod tests;

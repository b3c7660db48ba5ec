//! A worker of the measured gateway, in a thread of its own.

use super::{
    BenchError,
    port::{Batch, Tap},
};
use crate::{
    bench::processor_time,
    gateway::{profile::StageTicks, worker::Worker},
};
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded};
use perf_event::{Builder, Counter, events::Hardware};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// A batch for all workers together.
pub(super) struct Task {
    /// Batches by port.
    pub(super) batches: [Arc<Batch>; 2],
    /// `true` to measure stages.
    pub(super) profile: bool,
    /// Count of workers that are ready. They start when all are.
    pub(super) ready: Arc<AtomicUsize>,
}

/// The cost of a batch to one worker.
pub(super) struct Cost {
    pub(super) cpu: Duration,
    pub(super) ticks: StageTicks,
    /// Instructions, if the machine counts them.
    pub(super) instructions: Option<u64>,
}

/// A worker's thread.
pub(super) struct WorkerThread {
    tasks: Option<Sender<Task>>,
    pub(super) done: Receiver<Cost>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    pub(super) fn new(
        worker: Worker,
        core: Option<CoreId>,
        taps: [Arc<Tap>; 2],
        workers: usize,
    ) -> Result<Self, BenchError> {
        let (tasks, received) = bounded(1);
        let (finished, done) = bounded(1);
        let thread = thread::Builder::new().name("wf-bench-worker".to_owned()).spawn(move || {
            if let Some(core) = core {
                // Without pinning, figures are only less steady.
                let _ = core_affinity::set_for_current(core);
            }
            work(worker, &taps, workers, &received, &finished);
        });
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread.map_err(BenchError::Thread)?) })
    }

    pub(super) fn start(&self, task: Task) -> Result<(), BenchError> {
        let tasks = self.tasks.as_ref().ok_or(BenchError::Worker)?;
        tasks.send(task).map_err(|_| BenchError::Worker)
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(
    mut worker: Worker,
    taps: &[Arc<Tap>; 2],
    workers: usize,
    tasks: &Receiver<Task>,
    done: &Sender<Cost>,
) {
    let mut counter = instruction_counter();
    for Task { batches, profile, ready } in tasks {
        for (tap, batch) in taps.iter().zip(&batches) {
            tap.insert(batch.clone());
        }
        ready.fetch_add(1, AcqRel);
        while ready.load(Acquire) < workers {
            thread::yield_now();
        }
        let first = counter.as_mut().and_then(|counter| counter.read().ok());
        let start = processor_time();
        worker.profile().switch(profile);
        while worker.turn() || !batches.iter().all(|batch| batch.is_exhausted()) {}
        let cpu = processor_time().saturating_sub(start);
        let last = counter.as_mut().and_then(|counter| counter.read().ok());
        let instructions = first.zip(last).map(|(first, last)| last - first);
        let ticks = *worker.profile().ticks();
        drop(batches);
        if done.send(Cost { cpu, ticks, instructions }).is_err() {
            return;
        }
    }
}

/// Opens a counter of this thread's instructions; returns `None` if the machine has none, or does
/// not let this process read it.
fn instruction_counter() -> Option<Counter> {
    let mut counter = Builder::new(Hardware::INSTRUCTIONS).exclude_kernel(true).build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}

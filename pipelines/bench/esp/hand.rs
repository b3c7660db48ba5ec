//! A worker of the measured gateway, in a thread of its own.

use super::{
    BenchError,
    port::{Batch, Plug},
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

/// A batch to be carried by all workers together.
pub(super) struct Task {
    /// By port.
    pub(super) batches: [Arc<Batch>; 2],
    pub(super) profile: bool,
    /// Workers that are ready: they start at once.
    pub(super) ready: Arc<AtomicUsize>,
}

/// What a worker took for a batch.
pub(super) struct Done {
    pub(super) cpu: Duration,
    pub(super) ticks: StageTicks,
    /// Instructions, where the machine counts them.
    pub(super) instructions: Option<u64>,
}

pub(super) struct Hand {
    tasks: Option<Sender<Task>>,
    pub(super) done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Hand {
    pub(super) fn new(
        worker: Worker,
        core: Option<CoreId>,
        plugs: [Arc<Plug>; 2],
        workers: usize,
    ) -> Result<Self, BenchError> {
        let (tasks, wanted) = bounded(1);
        let (finished, done) = bounded(1);
        let thread = thread::Builder::new().name("wf-bench-worker".to_owned()).spawn(move || {
            if let Some(core) = core {
                // Where it cannot be pinned, figures are only less steady.
                let _ = core_affinity::set_for_current(core);
            }
            work(worker, &plugs, workers, &wanted, &finished);
        });
        Ok(Self { tasks: Some(tasks), done, thread: Some(thread.map_err(BenchError::Thread)?) })
    }

    pub(super) fn start(&self, task: Task) -> Result<(), BenchError> {
        let tasks = self.tasks.as_ref().ok_or(BenchError::Worker)?;
        tasks.send(task).map_err(|_| BenchError::Worker)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(
    mut worker: Worker,
    plugs: &[Arc<Plug>; 2],
    workers: usize,
    tasks: &Receiver<Task>,
    done: &Sender<Done>,
) {
    let mut counter = instruction_counter();
    for Task { batches, profile, ready } in tasks {
        for (plug, batch) in plugs.iter().zip(&batches) {
            plug.insert(batch.clone());
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
        if done.send(Done { cpu, ticks, instructions }).is_err() {
            return;
        }
    }
}

/// Counts this thread's instructions; `None` where the machine has no counter, or does not let this
/// process read it.
fn instruction_counter() -> Option<Counter> {
    let mut counter = Builder::new(Hardware::INSTRUCTIONS).exclude_kernel(true).build().ok()?;
    counter.enable().ok()?;
    Some(counter)
}

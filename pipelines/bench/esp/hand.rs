//! A worker of the measured gateway, in a thread of its own.

use super::{
    BenchError,
    port::{Batch, Plug},
};
use crate::gateway::{profile::StageTicks, worker::Worker};
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, bounded};
use nix::time::{ClockId, clock_gettime};
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
    for Task { batches, profile, ready } in tasks {
        for (plug, batch) in plugs.iter().zip(&batches) {
            plug.insert(batch.clone());
        }
        ready.fetch_add(1, AcqRel);
        while ready.load(Acquire) < workers {
            thread::yield_now();
        }
        let start = processor_time();
        worker.profile().switch(profile);
        while worker.turn() || !batches.iter().all(|batch| batch.is_exhausted()) {}
        let cpu = processor_time().saturating_sub(start);
        let ticks = *worker.profile().ticks();
        drop(batches);
        if done.send(Done { cpu, ticks }).is_err() {
            return;
        }
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

//! Threads for what takes long: operations with public keys, and EAP methods that ask other servers. State stays with the slow
//! path; they get tasks and give back what came of them.

use crate::keys::Primitives;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, TryRecvError, select_biased, unbounded};
use std::{io, thread};
use wayfarer_mobility::ike::task::{Outcome, Task, TaskId};

/// Threads that may wait for other servers.
const PATIENT: usize = 16;

type Work = (TaskId, Task);

/// The threads. They end when this is dropped, and their tasks are done.
#[derive(Debug)]
pub(super) struct Helpers {
    established: Sender<Work>,
    strangers: Sender<Work>,
    patient: Sender<Work>,
    done: Receiver<(TaskId, Outcome)>,
}

impl Helpers {
    /// As many as there are cores without a worker, at least one, and pinned to those.
    ///
    /// # Errors
    /// What the system says to a thread.
    pub(super) fn start(workers: &[usize]) -> io::Result<Self> {
        let (established, first) = unbounded();
        let (strangers, second) = unbounded();
        let (patient, third) = unbounded::<Work>();
        let (give, done) = unbounded();
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let free: Vec<CoreId> = all.into_iter().filter(|core| !workers.contains(&core.id)).collect();
        let places: Vec<Option<CoreId>> =
            if free.is_empty() { vec![None] } else { free.iter().copied().map(Some).collect() };
        for (number, core) in places.iter().enumerate() {
            let (first, second, give, core) = (first.clone(), second.clone(), give.clone(), *core);
            thread::Builder::new().name(format!("helper-{number}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                work(&first, &second, &give);
            })?;
        }
        for number in 0..PATIENT {
            let (third, give, core) = (third.clone(), give.clone(), places.first().copied().flatten());
            thread::Builder::new().name(format!("patient-{number}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                while let Ok((id, task)) = third.recv() {
                    if give.send((id, task.run(&Primitives))).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { established, strangers, patient, done })
    }

    /// Hands over a task; those of established peers are done first. No more wait than there are peers, whose number is
    /// bounded: each has one task at a time, or two.
    pub(super) fn submit(&self, id: TaskId, is_established: bool, task: Task) {
        let queue = match (&task, is_established) {
            (Task::Eap(conversation, _), _) if conversation.may_block() => &self.patient,
            (_, true) => &self.established,
            (_, false) => &self.strangers,
        };
        // The threads are there as long as we are.
        let _ = queue.send((id, task));
    }

    /// The next task that is done.
    pub(super) fn poll(&self) -> Option<(TaskId, Outcome)> {
        self.done.try_recv().ok()
    }
}

fn work(first: &Receiver<Work>, second: &Receiver<Work>, give: &Sender<(TaskId, Outcome)>) {
    loop {
        let next = match first.try_recv() {
            Ok(work) => Ok(work),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => select_biased! {
                recv(first) -> work => work,
                recv(second) -> work => work,
            },
        };
        let Ok((id, task)) = next else { return };
        if give.send((id, task.run(&Primitives))).is_err() {
            return;
        }
    }
}

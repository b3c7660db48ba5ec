//! Threads for what takes long: operations with public keys, and EAP methods that ask other servers. State stays with the slow
//! path; they get tasks and give back what came of them.

use crate::keys::Primitives;
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, TryRecvError, select_biased, unbounded};
use std::{io, thread};
use wayfarer_mobility::ike::{
    eap::{Step, packet::failure},
    task::{Outcome, Task, TaskId},
};

/// Tasks that may wait for those threads.
const MOST_PATIENT: usize = 4096;
/// Threads that may wait for other servers.
const PATIENT: usize = 16;

type Work = (TaskId, Task);

/// The threads. They end when this is dropped and they find nothing more to do.
#[derive(Debug)]
pub(super) struct Helpers {
    established: Sender<Work>,
    strangers: Sender<Work>,
    patient: Sender<Work>,
    done: Receiver<(TaskId, Outcome)>,
    give: Sender<(TaskId, Outcome)>,
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
        Ok(Self { established, strangers, patient, done, give })
    }

    /// Hands over a task; those of established peers are done first. What waits for other servers has threads of its own, and where
    /// too much of it waits already, fails: it outlives the peers that it is for.
    pub(super) fn submit(&self, id: TaskId, is_established: bool, task: Task) {
        // The threads are there as long as we are: no queue is closed.
        match task {
            // Nothing has come from the peer yet, so there is nobody to ask.
            Task::Eap(conversation, packet) if conversation.may_block() && !packet.is_empty() => {
                if self.patient.len() < MOST_PATIENT {
                    let _ = self.patient.send((id, Task::Eap(conversation, packet)));
                } else {
                    let failure = Step::Failure(failure(&packet));
                    let _ = self.give.send((id, Outcome::Eap(conversation, failure)));
                }
            }
            task => {
                let queue = if is_established { &self.established } else { &self.strangers };
                let _ = queue.send((id, task));
            }
        }
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

//! Threads for what takes long: operations with public keys, and EAP; and RADIUS servers, for which no thread waits. State stays
//! with the slow path; helpers get tasks and give back what came of them.

use crate::keys::{Primitives, RadiusSockets};
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::{collections::BTreeMap, io, net::IpAddr, thread, time::Duration};
use wayfarer_mobility::ike::{
    eap::{Conversation, Step},
    task::{Outcome, Task, TaskId},
};

/// Tasks that each thread has at most, with those that wait for it: enough that it need not wait for the slow path. The others
/// wait where they can be put in order.
const AT_HAND: usize = 4;

/// The threads, and what is asked of other servers. Threads end when this is dropped and they find nothing more to do.
#[derive(Debug)]
pub(super) struct Helpers {
    tasks: Sender<(TaskId, IpAddr, Task)>,
    done: Receiver<(TaskId, IpAddr, Outcome)>,
    threads: usize,
    /// Tasks that threads have.
    at_hand: usize,
    radius: RadiusSockets,
    /// What waits for RADIUS servers.
    conversations: BTreeMap<TaskId, Box<dyn Conversation>>,
}

impl Helpers {
    /// As many threads as there are cores without a worker, at least one, and pinned to those.
    ///
    /// # Errors
    /// What the system says to a thread.
    pub(super) fn start(workers: &[usize]) -> io::Result<Self> {
        let (tasks, queue) = unbounded();
        let (give, done) = unbounded();
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let free: Vec<CoreId> = all.into_iter().filter(|core| !workers.contains(&core.id)).collect();
        let places: Vec<Option<CoreId>> =
            if free.is_empty() { vec![None] } else { free.iter().copied().map(Some).collect() };
        for (number, core) in places.iter().enumerate() {
            let (queue, give, core) = (queue.clone(), give.clone(), *core);
            thread::Builder::new().name(format!("helper-{number}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                work(&queue, &give);
            })?;
        }
        let (radius, conversations) = (RadiusSockets::default(), BTreeMap::new());
        Ok(Self { tasks, done, threads: places.len(), at_hand: 0, radius, conversations })
    }

    /// Whether another task can be handed over.
    pub(super) fn has_room(&self) -> bool {
        self.at_hand < self.threads * AT_HAND
    }

    /// Hands over a task for a peer that is at `from`.
    pub(super) fn submit(&mut self, id: TaskId, from: IpAddr, task: Task) {
        // The threads are there as long as we are: the queue is not closed.
        if self.tasks.send((id, from, task)).is_ok() {
            self.at_hand += 1;
        }
    }

    /// Asks other servers, and looks what they answered.
    pub(super) fn turn(&mut self, now: Duration) {
        self.radius.turn(now);
    }

    /// The next task that is done.
    pub(super) fn poll(&mut self, now: Duration) -> Option<(TaskId, Outcome)> {
        while let Some((id, reply)) = self.radius.poll() {
            let id = TaskId(id);
            if let Some(mut conversation) = self.conversations.remove(&id) {
                let step = conversation.answered(reply);
                return Some((id, Outcome::Eap(conversation, step)));
            }
        }
        while let Ok((id, from, outcome)) = self.done.try_recv() {
            self.at_hand -= 1;
            match outcome {
                Outcome::Eap(conversation, Step::Ask) => match conversation.question() {
                    Some(question) => {
                        self.conversations.insert(id, conversation);
                        self.radius.ask(now, id.0, from, question);
                    }
                    None => return Some((id, Outcome::Eap(conversation, Step::Ask))),
                },
                outcome => return Some((id, outcome)),
            }
        }
        None
    }
}

fn work(tasks: &Receiver<(TaskId, IpAddr, Task)>, give: &Sender<(TaskId, IpAddr, Outcome)>) {
    while let Ok((id, from, task)) = tasks.recv() {
        if give.send((id, from, task.run(&Primitives))).is_err() {
            return;
        }
    }
}

//! Threads for what takes long: operations with public keys, and EAP; and RADIUS servers, for which
//! no thread waits. State stays with the slow path; helpers get tasks and give back what came of
//! them.

use crate::{credentials::RadiusSockets, primitives::Primitives};
use core_affinity::CoreId;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};
use tracing::error;
use wayfarer_mobility::{
    aaa::eap::{Conversation, Step},
    task::{Outcome, Task, TaskId},
};

/// Tasks that each thread has at most, with those that wait for it: enough that it need not wait
/// for the slow path. The others wait where they can be put in order.
const AT_HAND: usize = 4;

/// The threads, and what is asked of other servers. Threads end when this is dropped and they find
/// nothing more to do.
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
    /// Starts as many threads as there are cores without a worker, at least one, and pinned to
    /// those.
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

    /// Returns whether another task can be handed over.
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

    /// Returns the next task that is done.
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

/// Does tasks until there will be none. A panic costs the peer that the task was for its
/// connection, and nothing else.
fn work(tasks: &Receiver<(TaskId, IpAddr, Task)>, give: &Sender<(TaskId, IpAddr, Outcome)>) {
    while let Ok((id, from, task)) = tasks.recv() {
        let refused = task.refused();
        // What a task has is its own, and goes with it.
        let outcome = catch_unwind(AssertUnwindSafe(|| task.run(&Primitives))).unwrap_or_else(|_| {
            error!(peer = %from, "a helper failed in a task of a peer, refused it, and goes on: please report this");
            refused
        });
        if give.send((id, from, outcome)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, time::Instant};
    use wayfarer_mobility::{
        aaa::{
            eap::Authenticator,
            radius::{
                Radius,
                question::{Realm, Server},
            },
        },
        crypto::{Kex, Secret},
    };

    #[test]
    fn who_waits_for_a_radius_server_keeps_nobody_waiting() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Server::new(silent.local_addr().unwrap(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![server], "gateway"));
        let mut helpers = Helpers::start(&[]).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let next = |helpers: &mut Helpers| loop {
            helpers.turn(now);
            match helpers.poll(now) {
                Some((id, Outcome::KexBegun(_))) => return id,
                Some((id, outcome)) => panic!("{id:?}: {outcome:?}"),
                None => thread::yield_now(),
            }
        };
        for n in 0..200 {
            let mut conversation = radius.begin(b"");
            conversation.handle(&[]);
            let identity = b"\x02\x00\x00\x0a\x01alice".to_vec();
            helpers.submit(TaskId(2 * n), from, Task::Eap(conversation, identity));
            helpers.submit(TaskId(2 * n + 1), from, Task::KexBegin(Kex::X25519));
            // Time stands still: no server is given up.
            assert_eq!(next(&mut helpers), TaskId(2 * n + 1));
        }
        silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while helpers.conversations.len() < 200 {
            assert!(helpers.poll(now).is_none() && Instant::now() < until);
            thread::yield_now();
        }
        helpers.turn(now);
        assert!(silent.recv(&mut [0; 4096]).is_ok(), "the server was asked");
        // In time each is told that nobody answers, and threads are free.
        let mut failed = 0;
        for second in 1..10 {
            let now = now + Duration::from_secs(second);
            helpers.turn(now);
            while let Some((_, outcome)) = helpers.poll(now) {
                assert!(matches!(outcome, Outcome::Eap(_, Step::Failure(_))));
                failed += 1;
            }
        }
        assert_eq!((failed, helpers.at_hand), (200, 0));
    }

    #[derive(Debug)]
    struct Panics;

    impl Conversation for Panics {
        fn handle(&mut self, _: &[u8]) -> Step {
            panic!("as a fault in a method would");
        }

        fn identity(&self) -> Option<&[u8]> {
            None
        }
    }

    #[test]
    fn a_task_that_panics_is_refused_and_its_thread_goes_on() {
        let mut helpers = Helpers::start(&[]).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let until = Instant::now() + Duration::from_secs(60);
        let next = |helpers: &mut Helpers| loop {
            match helpers.poll(now) {
                Some((_, outcome)) => return outcome,
                None if Instant::now() < until => thread::yield_now(),
                None => panic!("nothing came of it"),
            }
        };
        let some = helpers.threads * AT_HAND;
        for n in 0..some as u64 {
            assert!(helpers.has_room());
            helpers.submit(TaskId(n), from, Task::Eap(Box::new(Panics), vec![]));
        }
        for _ in 0..some {
            assert!(matches!(next(&mut helpers), Outcome::Eap(_, Step::Failure(_))));
        }
        helpers.submit(TaskId(99), from, Task::KexBegin(Kex::X25519));
        assert!(matches!(next(&mut helpers), Outcome::KexBegun(Ok(_))));
        assert_eq!(helpers.at_hand, 0);
    }
}

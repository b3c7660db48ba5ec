//! Threads for long tasks: public-key operations and EAP; and RADIUS requests and revocation lists,
//! for which no thread waits. State stays with the slow path: helper threads receive tasks and return their outcomes.

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

/// Most tasks for each thread, both running and queued: enough that a thread need not wait for the
/// slow path. Further tasks wait in the endpoint, which can reorder them.
const TASKS_PER_THREAD: usize = 4;

/// Time after which a postponed task is run again even if what it waits for has not come.
const POSTPONED: Duration = Duration::from_secs(5);

/// Time between two looks at what postponed tasks wait for.
const LOOK: Duration = Duration::from_millis(20);

/// The threads, and the conversations that wait for RADIUS servers. The threads end when this is
/// dropped and their queue is empty.
#[derive(Debug)]
pub(super) struct Helpers {
    tasks: Sender<(TaskId, IpAddr, Task)>,
    done: Receiver<(TaskId, IpAddr, Outcome)>,
    threads: usize,
    /// Tasks that the threads have not finished.
    unfinished: usize,
    radius: RadiusSockets,
    /// EAP conversations that wait for a RADIUS server.
    conversations: BTreeMap<TaskId, Box<dyn Conversation>>,
    /// Tasks that wait for what an authority publishes.
    postponed: Vec<Postponed>,
    /// When to look at them again.
    look_at: Duration,
}

/// A task that must be run again.
#[derive(Debug)]
struct Postponed {
    id: TaskId,
    from: IpAddr,
    task: Task,
    /// The number of what it waits for.
    number: u64,
    again_at: Duration,
}

impl Helpers {
    /// Starts one thread for each core without a worker, pinned to that core; at least one thread,
    /// if necessary without pinning.
    ///
    /// # Errors
    /// The system's error for a thread.
    pub(super) fn start(workers: &[usize]) -> io::Result<Self> {
        let (tasks, queue) = unbounded();
        let (results, done) = unbounded();
        let all = core_affinity::get_core_ids().unwrap_or_default();
        let free: Vec<CoreId> = all.into_iter().filter(|core| !workers.contains(&core.id)).collect();
        let cores: Vec<Option<CoreId>> =
            if free.is_empty() { vec![None] } else { free.iter().copied().map(Some).collect() };
        for (number, core) in cores.iter().enumerate() {
            let (queue, results, core) = (queue.clone(), results.clone(), *core);
            thread::Builder::new().name(format!("helper-{number}")).spawn(move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(core);
                }
                run_tasks(&queue, &results);
            })?;
        }
        let (radius, conversations) = (RadiusSockets::default(), BTreeMap::new());
        let (unfinished, postponed) = (0, Vec::new());
        let (threads, look_at) = (cores.len(), Duration::ZERO);
        Ok(Self { tasks, done, threads, unfinished, radius, conversations, postponed, look_at })
    }

    /// Returns true if another task can be submitted.
    pub(super) fn has_room(&self) -> bool {
        self.unfinished < self.threads * TASKS_PER_THREAD
    }

    /// Submits a task for a peer at `from`.
    pub(super) fn submit(&mut self, id: TaskId, from: IpAddr, task: Task) {
        // The threads live as long as this, so the queue is not closed.
        if self.tasks.send((id, from, task)).is_ok() {
            self.unfinished += 1;
        }
    }

    /// Exchanges packets with RADIUS servers, and runs postponed tasks again.
    pub(super) fn turn(&mut self, now: Duration) {
        self.radius.turn(now);
        if self.postponed.is_empty() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        // Those that have to wait for room are looked at again.
        let mut room = (self.threads * TASKS_PER_THREAD).saturating_sub(self.unfinished);
        let is_due = |one: &mut Postponed| {
            let is_due = room > 0 && (now >= one.again_at || !one.task.is_pending(one.number));
            room -= usize::from(is_due);
            is_due
        };
        let due: Vec<_> = self.postponed.extract_if(.., is_due).collect();
        for Postponed { id, from, task, .. } in due {
            self.submit(id, from, task);
        }
    }

    /// Returns the outcome of the next task that has finished, or asks a RADIUS server.
    pub(super) fn poll(&mut self, now: Duration) -> Option<(TaskId, Outcome)> {
        while let Some((id, reply)) = self.radius.poll() {
            let id = TaskId(id);
            if let Some(mut conversation) = self.conversations.remove(&id) {
                let step = conversation.answered(reply);
                return Some((id, Outcome::Eap(conversation, step)));
            }
        }
        loop {
            let (id, from, outcome) = self.done.try_recv().ok()?;
            self.unfinished -= 1;
            match outcome {
                Outcome::Eap(conversation, Step::Ask) => match conversation.question() {
                    Some(question) => {
                        self.conversations.insert(id, conversation);
                        self.radius.ask(now, id.0, from, question);
                        return Some((id, Outcome::Asking));
                    }
                    None => return Some((id, Outcome::Eap(conversation, Step::Ask))),
                },
                Outcome::Postponed(task, number) => {
                    self.postponed.push(Postponed { id, from, task, number, again_at: now + POSTPONED });
                }
                outcome => return Some((id, outcome)),
            }
        }
    }
}

/// Runs tasks until the queue is closed. A panic only fails the task, and so the connection of its
/// peer.
fn run_tasks(tasks: &Receiver<(TaskId, IpAddr, Task)>, results: &Sender<(TaskId, IpAddr, Outcome)>) {
    while let Ok((id, from, task)) = tasks.recv() {
        let refused = task.refused();
        // The task owns all that it uses, so a panic leaves nothing half-changed.
        let outcome = catch_unwind(AssertUnwindSafe(|| task.run(&Primitives))).unwrap_or_else(|_| {
            error!(name: "task_failed", peer = %from, "a task of a peer panicked and was refused: please report this");
            refused
        });
        if results.send((id, from, outcome)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::UdpSocket,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        time::Instant,
    };
    use wayfarer_mobility::{
        aaa::{
            eap::Authenticator,
            origin::Origin,
            radius::{
                Radius,
                question::{Realm, Server},
            },
        },
        crypto::{
            Kex, PeerCertificates, PeerSignature, Secret, SignatureHashes, Verifier, VerifyError,
            VerifyErrorKind,
        },
        identity::Identity,
    };

    #[test]
    fn a_conversation_that_waits_for_radius_delays_no_other_task() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Server::new(silent.local_addr().unwrap(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![server], "gateway"));
        let mut helpers = Helpers::start(&[]).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let next = |helpers: &mut Helpers| loop {
            helpers.turn(now);
            match helpers.poll(now) {
                Some((id, Outcome::KexBegun(_))) => return id,
                Some((_, Outcome::Asking)) => {}
                Some((id, outcome)) => panic!("{id:?}: {outcome:?}"),
                None => thread::yield_now(),
            }
        };
        let origin = Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: from };
        for n in 0..200 {
            let mut conversation = radius.begin(origin.clone());
            conversation.handle(&[]);
            let identity = b"\x02\x00\x00\x0a\x01alice".to_vec();
            helpers.submit(TaskId(2 * n), from, Task::Eap(conversation, identity));
            helpers.submit(TaskId(2 * n + 1), from, Task::KexBegin(Kex::X25519));
            // Time does not advance, so no server is given up.
            assert_eq!(next(&mut helpers), TaskId(2 * n + 1));
        }
        silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while helpers.conversations.len() < 200 {
            assert!(matches!(helpers.poll(now), None | Some((_, Outcome::Asking))) && Instant::now() < until);
            thread::yield_now();
        }
        helpers.turn(now);
        assert!(silent.recv(&mut [0; 4096]).is_ok(), "the server was asked");
        // After the timeout each conversation fails, and the threads are free.
        let mut failed = 0;
        for second in 1..10 {
            let now = now + Duration::from_secs(second);
            helpers.turn(now);
            while let Some((_, outcome)) = helpers.poll(now) {
                assert!(matches!(outcome, Outcome::Eap(_, Step::Unanswered(_))));
                failed += 1;
            }
        }
        assert_eq!((failed, helpers.unfinished), (200, 0));
    }

    /// A verifier that has to wait until this is true.
    #[derive(Debug, Default)]
    struct Late(AtomicBool);

    impl Verifier for Late {
        fn authorities(&self) -> &[u8] {
            &[]
        }

        fn verify(&self, _: &Identity, _: &PeerCertificates, _: &PeerSignature) -> Result<(), VerifyError> {
            if self.is_pending(7) { Err(VerifyErrorKind::Pending(7).into()) } else { Ok(()) }
        }

        fn is_pending(&self, number: u64) -> bool {
            number == 7 && !self.0.load(Ordering::SeqCst)
        }

        fn names(&self, _: &[u8]) -> Vec<Identity> {
            vec![]
        }
    }

    #[test]
    fn a_verification_that_waits_for_an_authority_delays_no_other_task() {
        const PEERS: u64 = 100;
        let mut helpers = Helpers::start(&[]).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let until = Instant::now() + Duration::from_secs(60);
        let late = Arc::new(Late::default());
        let signature =
            PeerSignature { method: 14, data: vec![], octets: vec![], hashes: SignatureHashes::ALL };
        for n in 0..PEERS {
            let verify = Task::Verify {
                verifier: late.clone(),
                identity: Identity::from_text("cl.test").unwrap(),
                certificates: PeerCertificates::default(),
                signature: signature.clone(),
            };
            helpers.submit(TaskId(n), from, verify);
        }
        helpers.submit(TaskId(PEERS), from, Task::KexBegin(Kex::X25519));
        let mut other = None;
        while other.is_none() || helpers.unfinished > 0 {
            other = helpers.poll(now).map(|(id, _)| id).or(other);
            assert!(Instant::now() < until);
            thread::yield_now();
        }
        assert_eq!((other, helpers.postponed.len()), (Some(TaskId(PEERS)), PEERS as usize));
        helpers.turn(now);
        assert_eq!(helpers.unfinished, 0, "nothing has changed");

        late.0.store(true, Ordering::SeqCst);
        let mut now = now;
        let mut verified = 0;
        while verified < PEERS {
            assert!(Instant::now() < until);
            now += LOOK;
            helpers.turn(now);
            assert!(helpers.unfinished <= helpers.threads * TASKS_PER_THREAD, "others have room");
            match helpers.poll(now) {
                Some((_, outcome)) => {
                    assert!(matches!(outcome, Outcome::Verified(Ok(_))));
                    verified += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert_eq!((helpers.postponed.len(), helpers.unfinished), (0, 0));
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
        let some = helpers.threads * TASKS_PER_THREAD;
        for n in 0..some as u64 {
            assert!(helpers.has_room());
            helpers.submit(TaskId(n), from, Task::Eap(Box::new(Panics), vec![]));
        }
        for _ in 0..some {
            assert!(matches!(next(&mut helpers), Outcome::Eap(_, Step::Failure(_))));
        }
        helpers.submit(TaskId(99), from, Task::KexBegin(Kex::X25519));
        assert!(matches!(next(&mut helpers), Outcome::KexBegun(Ok(_))));
        assert_eq!(helpers.unfinished, 0);
    }
}

//! Threads for long tasks: public-key operations and EAP; and RADIUS requests and revocation lists,
//! for which no thread waits. State stays with the slow path: helper threads receive tasks and return their outcomes.

use super::postponed::{PostponedTasks, Ticket};
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
    crypto::VerifyErrorKind,
    task::{Outcome, Task, TaskId},
};

/// Most tasks for each thread, both running and queued: enough that a thread need not wait for the
/// slow path. Further tasks wait in the endpoint, which can reorder them.
const TASKS_PER_THREAD: usize = 4;

/// The threads, and the conversations that wait for RADIUS servers. The threads end when this is
/// dropped and their queue is empty.
#[derive(Debug)]
pub(super) struct Helpers {
    tasks: Sender<(Ticket, Task)>,
    done: Receiver<(Ticket, Outcome)>,
    threads: usize,
    /// Tasks that the threads have not finished.
    unfinished: usize,
    /// Those of them that were postponed before.
    repeated: usize,
    radius: RadiusSockets,
    /// EAP conversations that wait for a RADIUS server.
    conversations: BTreeMap<TaskId, Box<dyn Conversation>>,
    postponed: PostponedTasks,
    /// The outcomes of those that had to make room.
    refused: Vec<(TaskId, Outcome)>,
}

impl Helpers {
    /// Starts one thread for each core without a worker, pinned to that core; at least one thread,
    /// if necessary without pinning. One peer may have so many `devices`.
    ///
    /// # Errors
    /// The system's error for a thread.
    pub(super) fn start(workers: &[usize], devices: usize) -> io::Result<Self> {
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
        let (threads, unfinished, repeated) = (cores.len(), 0, 0);
        let postponed = PostponedTasks::new(most_for_one(devices));
        let refused = Vec::new();
        Ok(Self { tasks, done, threads, unfinished, repeated, radius, conversations, postponed, refused })
    }

    /// Sets how many devices one peer may have.
    pub(super) fn set_devices(&mut self, devices: usize) {
        self.postponed.most_for_one = most_for_one(devices);
    }

    /// Returns true if another task can be submitted. While postponed ones can be run again, half of
    /// the room is theirs.
    pub(super) fn has_room(&self) -> bool {
        let kept = if self.postponed.has_ready() { self.room_to_repeat() } else { 0 };
        self.room() > kept
    }

    fn room(&self) -> usize {
        self.most().saturating_sub(self.unfinished)
    }

    fn room_to_repeat(&self) -> usize {
        (self.most() / 2).saturating_sub(self.repeated)
    }

    /// Returns the most tasks at a time.
    fn most(&self) -> usize {
        self.threads * TASKS_PER_THREAD
    }

    /// Submits a task for a peer at `from`, which waits for others until `deadline` at most.
    pub(super) fn submit(&mut self, id: TaskId, from: IpAddr, deadline: Duration, task: Task) {
        self.run(Ticket::new(id, from, deadline), task);
    }

    fn run(&mut self, ticket: Ticket, task: Task) {
        // The threads live as long as this, so the queue is not closed.
        if self.tasks.send((ticket, task)).is_ok() {
            self.unfinished += 1;
            self.repeated += usize::from(ticket.is_repeated);
        }
    }

    /// Exchanges packets with RADIUS servers, and runs postponed tasks again. Those that are not
    /// `needed` any more are dropped.
    pub(super) fn turn(&mut self, now: Duration, needed: impl Fn(TaskId) -> bool) {
        self.radius.turn(now);
        self.postponed.look(now, &needed);
        while self.room().min(self.room_to_repeat()) > 0
            && let Some((ticket, task)) = self.postponed.take_ready(now, &needed)
        {
            self.run(ticket, task);
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
            if let Some(refused) = self.refused.pop() {
                return Some(refused);
            }
            let (ticket, outcome) = self.done.try_recv().ok()?;
            let Ticket { id, from, .. } = ticket;
            self.unfinished -= 1;
            self.repeated -= usize::from(ticket.is_repeated);
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
                    let crowded_out = self.postponed.push(now, ticket, task, number);
                    self.refused.extend(crowded_out.into_iter().map(refusal));
                }
                outcome => return Some((id, outcome)),
            }
        }
    }
}

/// Returns the refusal of a task that had to make room.
fn refusal((ticket, task): (Ticket, Task)) -> (TaskId, Outcome) {
    let why = "too many peers with the same key wait for what its authority says: try again";
    (ticket.id, task.refused(Some(VerifyErrorKind::Overload.because(why))))
}

/// Returns how many tasks may wait for a word about one peer's certificate: one for each device, and one
/// for each that replaces it.
fn most_for_one(devices: usize) -> usize {
    devices.saturating_mul(2)
}

/// Runs tasks until the queue is closed. A panic only fails the task, and so the connection of its
/// peer.
fn run_tasks(tasks: &Receiver<(Ticket, Task)>, results: &Sender<(Ticket, Outcome)>) {
    while let Ok((ticket, task)) = tasks.recv() {
        let refused = task.refused(None);
        // The task owns all that it uses, so a panic leaves nothing half-changed.
        let outcome = catch_unwind(AssertUnwindSafe(|| task.run(&Primitives))).unwrap_or_else(|_| {
            error!(name: "task_failed", peer = %ticket.from, "a task of a peer panicked and was refused: please report this");
            refused
        });
        if results.send((ticket, outcome)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::postponed::{
            LOOK,
            tests::{Late, signature, verification},
        },
        *,
    };
    use std::{
        net::UdpSocket,
        sync::{Arc, atomic::Ordering},
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
        crypto::{Kex, Secret},
    };

    /// How long tasks wait here.
    const PATIENCE: Duration = Duration::from_secs(25);

    #[test]
    fn a_conversation_that_waits_for_radius_delays_no_other_task() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = Server::new(silent.local_addr().unwrap(), Secret::new(b"secret".to_vec()));
        let radius = Radius::new(Realm::new(vec![server], "gateway"));
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let next = |helpers: &mut Helpers| loop {
            helpers.turn(now, |_| true);
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
            helpers.submit(TaskId(2 * n), from, now, Task::Eap(conversation, identity));
            helpers.submit(TaskId(2 * n + 1), from, now, Task::KexBegin(Kex::X25519));
            // Time does not advance, so no server is given up.
            assert_eq!(next(&mut helpers), TaskId(2 * n + 1));
        }
        silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while helpers.conversations.len() < 200 {
            assert!(matches!(helpers.poll(now), None | Some((_, Outcome::Asking))) && Instant::now() < until);
            thread::yield_now();
        }
        helpers.turn(now, |_| true);
        assert!(silent.recv(&mut [0; 4096]).is_ok(), "the server was asked");
        // After the timeout each conversation fails, and the threads are free.
        let mut failed = 0;
        for second in 1..10 {
            let now = now + Duration::from_secs(second);
            helpers.turn(now, |_| true);
            while let Some((_, outcome)) = helpers.poll(now) {
                assert!(matches!(outcome, Outcome::Eap(_, Step::Unanswered(_))));
                failed += 1;
            }
        }
        assert_eq!((failed, helpers.unfinished), (200, 0));
    }

    #[test]
    fn a_verification_that_waits_for_an_authority_delays_no_other_task() {
        const PEERS: u64 = 100;
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let until = Instant::now() + Duration::from_secs(60);
        let late = Arc::new(Late::default());
        for n in 0..PEERS {
            helpers.submit(TaskId(n), from, now + PATIENCE, verification(&late, &n.to_be_bytes()));
        }
        helpers.submit(TaskId(PEERS), from, now, Task::KexBegin(Kex::X25519));
        let mut other = None;
        while other.is_none() || helpers.unfinished > 0 {
            other = helpers.poll(now).map(|(id, _)| id).or(other);
            assert!(Instant::now() < until);
            thread::yield_now();
        }
        assert_eq!((other, helpers.postponed.len()), (Some(TaskId(PEERS)), PEERS as usize));
        helpers.turn(now, |_| true);
        assert_eq!(helpers.unfinished, 0, "nothing has changed");

        late.0.store(true, Ordering::SeqCst);
        let mut now = now;
        let mut verified = 0;
        while verified < PEERS {
            assert!(Instant::now() < until);
            now += LOOK;
            helpers.turn(now, |_| true);
            assert!(helpers.unfinished <= helpers.most() / 2, "others have room");
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

    /// Waits until all tasks that run have ended or are postponed, and returns the outcomes.
    fn settle(helpers: &mut Helpers, now: Duration) -> Vec<(TaskId, Outcome)> {
        let (mut outcomes, until) = (Vec::new(), Instant::now() + Duration::from_secs(60));
        while helpers.unfinished > 0 {
            assert!(Instant::now() < until);
            outcomes.extend(helpers.poll(now));
            thread::yield_now();
        }
        outcomes
    }

    #[test]
    fn what_does_not_come_is_waited_for_only_so_long() {
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (start, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let late = Arc::new(Late::default());
        helpers.submit(TaskId(1), from, start + PATIENCE, verification(&late, b"peer"));
        helpers.submit(TaskId(2), from, start + PATIENCE, signature(&late));
        for second in 0..PATIENCE.as_secs() {
            let now = start + Duration::from_secs(second);
            helpers.turn(now, |_| true);
            assert!(settle(&mut helpers, now).is_empty(), "after {second} s");
        }
        let now = start + PATIENCE;
        helpers.turn(now, |_| true);
        let outcomes = settle(&mut helpers, now);
        let refused = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Verified(Err(why)) if why.kind == VerifyErrorKind::Revoked);
        assert!(outcomes.iter().any(refused), "{outcomes:?}");
        let signed = |(_, outcome): &(_, Outcome)| matches!(outcome, Outcome::Signed(Ok(_)));
        assert!(outcomes.iter().any(signed), "{outcomes:?}");
        assert_eq!((outcomes.len(), helpers.postponed.len()), (2, 0));
    }

    #[test]
    fn task_of_a_peer_that_has_ended_waits_no_more() {
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let late = Arc::new(Late::default());
        (0..3).for_each(|n| helpers.submit(TaskId(n), from, now + PATIENCE, verification(&late, b"peer")));
        assert!(settle(&mut helpers, now).is_empty());
        helpers.turn(now, |id| id == TaskId(1));
        assert_eq!((helpers.postponed.len(), helpers.unfinished), (1, 0));
    }

    /// Whoever has one certificate can come from any number of addresses.
    #[test]
    fn more_peers_with_one_certificate_than_its_share_are_refused_and_say_so() {
        let mut helpers = Helpers::start(&[], 3).unwrap();
        let now = Duration::from_secs(1);
        let late = Arc::new(Late::default());
        let submit = |helpers: &mut Helpers, n: u8, certificate: &[u8]| {
            let from = IpAddr::from([192, 0, n, 7]);
            helpers.submit(TaskId(n.into()), from, now + PATIENCE, verification(&late, certificate));
        };
        submit(&mut helpers, 0, b"honest");
        (1..=7).for_each(|n| submit(&mut helpers, n, b"greedy"));
        let refused = settle(&mut helpers, now);
        let [(TaskId(1), Outcome::Verified(Err(why)))] = &refused[..] else { panic!("{refused:?}") };
        let said = "certificate not checked: too many peers with the same key wait";
        assert!(why.to_string().starts_with(said), "{why}");
        assert_eq!(helpers.postponed.len(), 7);
        helpers.set_devices(1);
        submit(&mut helpers, 8, b"honest");
        assert!(settle(&mut helpers, now).is_empty());
        submit(&mut helpers, 9, b"honest");
        assert!(matches!(settle(&mut helpers, now)[..], [(TaskId(0), _)]));
    }

    /// As in a flood: whenever there is room, new tasks take it first.
    #[test]
    fn postponed_task_gets_its_turn_however_many_new_ones_there_are() {
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (mut now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let late = Arc::new(Late::default());
        helpers.submit(TaskId(0), from, now + PATIENCE, verification(&late, b"peer"));
        assert!(settle(&mut helpers, now).is_empty());
        late.0.store(true, Ordering::SeqCst);
        let (mut new, until) = (0, Instant::now() + Duration::from_secs(60));
        loop {
            while helpers.has_room() {
                new += 1;
                helpers.submit(TaskId(new), from, now, Task::KexBegin(Kex::X25519));
            }
            assert!(helpers.unfinished <= helpers.most());
            now += LOOK;
            helpers.turn(now, |_| true);
            assert!(new < 1000 && Instant::now() < until, "it waits for ever");
            match helpers.poll(now) {
                Some((TaskId(0), outcome)) => break assert!(matches!(outcome, Outcome::Verified(Ok(_)))),
                Some(_) => {}
                None => thread::yield_now(),
            }
        }
        assert!(helpers.has_room() && helpers.repeated == 0);
    }

    #[test]
    fn new_task_gets_its_turn_however_many_postponed_ones_there_are() {
        let mut helpers = Helpers::start(&[], 1000).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let late = Arc::new(Late::default());
        for n in 0..1000 {
            helpers.submit(TaskId(n), from, now + PATIENCE, verification(&late, b"peer"));
        }
        assert!(settle(&mut helpers, now).is_empty());
        late.0.store(true, Ordering::SeqCst);
        helpers.turn(now, |_| true);
        assert!(helpers.postponed.has_ready() && helpers.has_room());
        helpers.submit(TaskId(1000), from, now, Task::KexBegin(Kex::X25519));
        assert!(settle(&mut helpers, now).iter().any(|(id, _)| *id == TaskId(1000)));
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
        let mut helpers = Helpers::start(&[], 16).unwrap();
        let (now, from) = (Duration::from_secs(1), IpAddr::from([192, 0, 2, 7]));
        let until = Instant::now() + Duration::from_secs(60);
        let next = |helpers: &mut Helpers| loop {
            match helpers.poll(now) {
                Some((_, outcome)) => return outcome,
                None if Instant::now() < until => thread::yield_now(),
                None => panic!("nothing came of it"),
            }
        };
        let some = helpers.most();
        for n in 0..some as u64 {
            assert!(helpers.has_room());
            helpers.submit(TaskId(n), from, now, Task::Eap(Box::new(Panics), vec![]));
        }
        for _ in 0..some {
            assert!(matches!(next(&mut helpers), Outcome::Eap(_, Step::Failure(_))));
        }
        helpers.submit(TaskId(99), from, now, Task::KexBegin(Kex::X25519));
        assert!(matches!(next(&mut helpers), Outcome::KexBegun(Ok(_))));
        assert_eq!(helpers.unfinished, 0);
    }
}

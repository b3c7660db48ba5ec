//! Tasks that wait for what an authority publishes. They wait only so long, and only while their peers
//! are there: so there are no more of them than half-open peers and those that we connect to, and those
//! of the last second.

use crate::credentials::certificate;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};
use wayfarer_mobility::{
    fair_queue::FairQueue,
    task::{Task, TaskId},
};

/// Time after which a task is run again even if what it waits for has not come.
const AGAIN: Duration = Duration::from_secs(5);

/// Time between two looks at what the tasks wait for.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Time between two looks whether their peers are still there.
const SWEEP: Duration = Duration::from_secs(1);

/// Most of our own signatures that wait. Anybody can have us wait for what is said of our certificate.
/// Beyond this, we sign without.
pub(super) const MOST_OURS: usize = 2048;

/// What a task is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) id: TaskId,
    /// The peer's address.
    pub(super) from: IpAddr,
    /// When it waits no more.
    deadline: Duration,
    /// True if it was postponed before.
    pub(super) is_repeated: bool,
}

/// All tasks that wait.
#[derive(Debug)]
pub(super) struct PostponedTasks {
    /// Those whose word has not come.
    waiting: BTreeMap<TaskId, Postponed>,
    /// The same by the number of what they wait for, by the hash of the peer's key, and by the time when
    /// they are run again.
    by_number: Index<u64>,
    by_key: Index<u64>,
    by_time: Index<Duration>,
    /// Those of them that are signatures of ours.
    ours: usize,
    hasher: RandomState,
    /// Those that can be run again, and their order.
    ready: BTreeMap<TaskId, (Ticket, Task)>,
    turns: FairQueue<TaskId>,
    /// Most tasks that wait for a word about one key of peers.
    pub(super) most_for_one: usize,
    /// When to look at them again.
    look_at: Duration,
    sweep_at: Duration,
}

/// A task that must be run again.
#[derive(Debug)]
struct Postponed {
    ticket: Ticket,
    task: Task,
    /// The hash of the peer's key, if the task waits for a word about its certificate.
    key: Option<u64>,
    number: u64,
    again_at: Duration,
}

/// Tasks by what they have in common. A lower number of a task is older.
#[derive(Debug)]
struct Index<K>(BTreeMap<K, BTreeSet<TaskId>>);

impl<K: Copy + Ord> Index<K> {
    fn insert(&mut self, key: K, id: TaskId) {
        self.0.entry(key).or_default().insert(id);
    }

    fn remove(&mut self, key: K, id: TaskId) {
        if let Some(same) = self.0.get_mut(&key) {
            same.remove(&id);
            if same.is_empty() {
                self.0.remove(&key);
            }
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Ticket {
    pub(super) fn new(id: TaskId, from: IpAddr, deadline: Duration) -> Self {
        Self { id, from, deadline, is_repeated: false }
    }
}

impl PostponedTasks {
    /// Makes an empty set, in which at most so many wait for one key.
    pub(super) fn new(most_for_one: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            by_number: Index::default(),
            by_key: Index::default(),
            by_time: Index::default(),
            ours: 0,
            hasher: RandomState::new(),
            ready: BTreeMap::new(),
            turns: FairQueue::default(),
            most_for_one,
            look_at: Duration::ZERO,
            sweep_at: Duration::ZERO,
        }
    }

    /// Keeps a task until what has this number has come. Returns the tasks that have to make room: the
    /// oldest for the same key, if there are too many of these.
    #[must_use]
    pub(super) fn push(
        &mut self,
        now: Duration,
        ticket: Ticket,
        task: Task,
        number: u64,
    ) -> Vec<(Ticket, Task)> {
        let ticket = Ticket { is_repeated: true, ..ticket };
        if is_ours(&task) && self.ours >= MOST_OURS {
            self.make_ready(ticket, task.without_waiting());
            return Vec::new();
        }
        // One key, as its certificate can be written in several ways.
        let key = task.certificate().map(|der| match certificate::public_key(der) {
            Some(key) => self.hasher.hash_one(&key[..]),
            None => self.hasher.hash_one(der),
        });
        let again_at = ticket.deadline.min(now + AGAIN);
        self.by_number.insert(number, ticket.id);
        self.by_time.insert(again_at, ticket.id);
        self.ours += usize::from(is_ours(&task));
        self.waiting.insert(ticket.id, Postponed { ticket, task, key, number, again_at });
        let Some(key) = key else { return Vec::new() };
        self.by_key.insert(key, ticket.id);
        let same = self.by_key.0.get(&key).into_iter().flatten();
        let excess = same.clone().count().saturating_sub(self.most_for_one);
        let oldest: Vec<_> = same.copied().take(excess).collect();
        oldest.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    fn remove(&mut self, id: TaskId) -> Option<(Ticket, Task)> {
        let Postponed { ticket, task, key, number, again_at } = self.waiting.remove(&id)?;
        self.by_number.remove(number, id);
        self.by_time.remove(again_at, id);
        self.ours -= usize::from(is_ours(&task));
        if let Some(key) = key {
            self.by_key.remove(key, id);
        }
        Some((ticket, task))
    }

    fn make_ready(&mut self, ticket: Ticket, task: Task) {
        self.ready.insert(ticket.id, (ticket, task));
        self.turns.insert(ticket.id, ticket.from);
    }

    /// Looks which tasks can be run again, and drops those that are not `needed` any more. Does nothing
    /// if it has looked a moment ago.
    pub(super) fn look(&mut self, now: Duration, needed: impl Fn(TaskId) -> bool) {
        if self.waiting.is_empty() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP;
            let left: Vec<_> = self.waiting.keys().copied().filter(|id| !needed(*id)).collect();
            for id in left {
                self.remove(id);
            }
        }
        // All tasks ask the same about a number.
        let has_come = |(number, same): &(&u64, &BTreeSet<TaskId>)| {
            let one = same.first().and_then(|id| self.waiting.get(id));
            one.is_some_and(|one| !one.task.is_pending(**number))
        };
        let come = self.by_number.0.iter().filter(has_come).map(|(_, same)| same);
        let due = self.by_time.0.range(..=now).map(|(_, same)| same);
        let over: BTreeSet<_> = come.chain(due).flatten().copied().collect();
        for id in over {
            if let Some((ticket, task)) = self.remove(id) {
                self.make_ready(ticket, task);
            }
        }
    }

    /// Returns true if a task can be run again.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the next task that can be run again and is still `needed`. Networks take turns, then the
    /// addresses of each.
    pub(super) fn take_ready(
        &mut self,
        now: Duration,
        needed: impl Fn(TaskId) -> bool,
    ) -> Option<(Ticket, Task)> {
        loop {
            let (id, _) = self.turns.take_next()?;
            let Some((ticket, task)) = self.ready.remove(&id) else { continue };
            if needed(id) {
                let may_wait = now < ticket.deadline;
                return Some((ticket, if may_wait { task } else { task.without_waiting() }));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }
}

/// Returns true if the task is a signature of ours.
fn is_ours(task: &Task) -> bool {
    matches!(task, Task::Sign { .. })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    use wayfarer_mobility::{
        crypto::{
            PeerCertificates, PeerSignature, SignError, SignatureHashes, Signer, Verifier, VerifyError,
            VerifyErrorKind,
        },
        identity::Identity,
    };

    /// What this waits for has the number 7, and has come once this is true.
    #[derive(Debug, Default)]
    pub(in crate::slow_path::ike) struct Late(pub(in crate::slow_path::ike) AtomicBool);

    impl Verifier for Late {
        fn authorities(&self) -> &[u8] {
            &[]
        }

        fn verify(&self, _: &Identity, _: &PeerCertificates, _: &PeerSignature) -> Result<(), VerifyError> {
            self.ocsp().map(drop).map_err(|number| VerifyErrorKind::Pending(number).into())
        }

        fn verify_now(
            &self,
            _: &Identity,
            _: &PeerCertificates,
            _: &PeerSignature,
        ) -> Result<(), VerifyError> {
            self.ocsp().map(drop).map_err(|_| VerifyErrorKind::Revoked.into())
        }

        fn is_pending(&self, number: u64) -> bool {
            number == 7 && !self.0.load(Ordering::SeqCst)
        }

        fn names(&self, _: &[u8]) -> Vec<Identity> {
            vec![]
        }
    }

    impl Signer for Late {
        fn certificates(&self) -> &[Vec<u8>] {
            &[]
        }

        fn ocsp(&self) -> Result<Vec<Vec<u8>>, u64> {
            if Verifier::is_pending(self, 7) { Err(7) } else { Ok(vec![]) }
        }

        fn is_pending(&self, number: u64) -> bool {
            Verifier::is_pending(self, number)
        }

        fn sign(&self, _: &[u8], _: SignatureHashes) -> Result<(u8, Vec<u8>), SignError> {
            Ok((14, vec![]))
        }
    }

    /// Makes the verification of a peer with this certificate.
    pub(in crate::slow_path::ike) fn verification(verifier: &Arc<Late>, certificate: &[u8]) -> Task {
        let hashes = SignatureHashes::ALL;
        Task::Verify {
            verifier: verifier.clone(),
            identity: Identity::from_text("cl.test").unwrap(),
            certificates: PeerCertificates { chain: vec![certificate.to_vec()], ocsp: vec![] },
            signature: PeerSignature { method: 14, data: vec![], octets: vec![], hashes },
            may_wait: true,
        }
    }

    pub(in crate::slow_path::ike) fn signature(signer: &Arc<Late>) -> Task {
        let hashes = SignatureHashes::ALL;
        Task::Sign { signer: signer.clone(), octets: vec![], hashes, wants_ocsp: true }
    }

    const START: Duration = Duration::from_secs(1);
    const DEADLINE: Duration = Duration::from_secs(26);

    fn ticket(id: u64) -> Ticket {
        Ticket::new(TaskId(id), [192, 0, 2, 7].into(), DEADLINE)
    }

    /// Returns as many verifications as `count` that wait since the start.
    fn waiting(count: u64) -> (Arc<Late>, PostponedTasks) {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::new(99));
        for n in 0..count {
            assert!(tasks.push(START, ticket(n), verification(&late, b"peer"), 7).is_empty());
        }
        (late, tasks)
    }

    fn take_all(tasks: &mut PostponedTasks, now: Duration) -> Vec<Task> {
        tasks.look(now, |_| true);
        std::iter::from_fn(|| tasks.take_ready(now, |_| true)).map(|(_, task)| task).collect()
    }

    #[test]
    fn task_is_run_once_its_word_has_come() {
        let (late, mut tasks) = waiting(5);
        assert_eq!(take_all(&mut tasks, START).len(), 0);
        late.0.store(true, Ordering::SeqCst);
        assert_eq!(take_all(&mut tasks, START).len(), 0, "it has looked a moment ago");
        assert_eq!(take_all(&mut tasks, START + LOOK).len(), 5);
        assert_eq!(tasks.len(), 0);
    }

    #[test]
    fn task_waits_no_longer_than_the_deadline() {
        let (_, mut tasks) = waiting(1);
        let mut now = START;
        while now < DEADLINE {
            for task in take_all(&mut tasks, now) {
                assert!(matches!(&task, Task::Verify { may_wait: true, .. }), "at {now:?}");
                assert!(tasks.push(now, ticket(0), task, 7).is_empty());
            }
            now += Duration::from_millis(700);
        }
        let late = take_all(&mut tasks, DEADLINE);
        assert!(matches!(late[..], [Task::Verify { may_wait: false, .. }]), "{late:?}");
    }

    #[test]
    fn task_that_nobody_needs_is_dropped() {
        let (late, mut tasks) = waiting(3);
        tasks.look(START, |id| id != TaskId(1));
        assert!(tasks.take_ready(START, |id| id != TaskId(1)).is_none());
        assert_eq!(tasks.waiting.keys().collect::<Vec<_>>(), [&TaskId(0), &TaskId(2)]);
        // Its peer may end after its word has come.
        late.0.store(true, Ordering::SeqCst);
        tasks.look(START + LOOK, |_| true);
        let (next, _) = tasks.take_ready(START + LOOK, |id| id != TaskId(0)).unwrap();
        assert_eq!((next.id, tasks.len()), (TaskId(2), 0));
    }

    #[test]
    fn certificate_has_its_share_and_its_oldest_tasks_make_room() {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::new(2));
        let push = |tasks: &mut PostponedTasks, id, task| {
            let out = tasks.push(START, ticket(id), task, 7);
            out.iter().map(|(ticket, _)| ticket.id.0).collect::<Vec<_>>()
        };
        let one = |tasks: &mut PostponedTasks, id| push(tasks, id, verification(&late, b"one"));
        let none = Vec::<u64>::new();
        let out = [1, 2, 3].map(|id| one(&mut tasks, id));
        assert_eq!(out, [none.clone(), none.clone(), vec![1]]);
        assert!([4, 5].iter().all(|id| push(&mut tasks, *id, verification(&late, b"other")).is_empty()));
        assert_eq!(one(&mut tasks, 6), [2]);
        tasks.most_for_one = 1;
        assert_eq!(one(&mut tasks, 7), [3, 6]);
        // Ours is the same for all.
        assert!([8, 9].iter().all(|id| push(&mut tasks, *id, signature(&late)).is_empty()));
        // What has gone on counts no more.
        late.0.store(true, Ordering::SeqCst);
        assert_eq!(take_all(&mut tasks, START).len(), 5);
        let PostponedTasks { by_number, by_key, by_time, ours, .. } = tasks;
        assert_eq!((by_number.0.len(), by_key.0.len(), by_time.0.len(), ours), (0, 0, 0, 0));
    }

    #[test]
    fn certificates_of_one_key_have_one_share() {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::new(1));
        let key = rcgen::KeyPair::generate().unwrap();
        let mut push = |number: u64| {
            let mut params = rcgen::CertificateParams::default();
            params.serial_number = Some(number.into());
            let der = params.self_signed(&key).unwrap().der().to_vec();
            tasks.push(START, ticket(number), verification(&late, &der), 7).len()
        };
        assert_eq!([push(1), push(2)], [0, 1]);
    }

    /// Whoever connects can have us wait for a word about our certificate.
    #[test]
    fn signatures_of_ours_beyond_the_bound_do_not_wait() {
        let (late, mut tasks) = waiting(1);
        for n in 1..=MOST_OURS as u64 + 1 {
            assert!(tasks.push(START, ticket(n), signature(&late), 7).is_empty());
        }
        let ready = take_all(&mut tasks, START);
        assert!(matches!(ready[..], [Task::Sign { wants_ocsp: false, .. }]), "{} tasks", ready.len());
        assert_eq!(tasks.len(), 1 + MOST_OURS);
    }

    #[test]
    fn networks_take_turns_once_their_word_has_come() {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::new(99));
        for n in 0..90 {
            let ticket = Ticket::new(TaskId(n), [198, 51, 100, n as u8].into(), DEADLINE);
            assert!(tasks.push(START, ticket, signature(&late), 7).is_empty());
        }
        assert!(tasks.push(START, ticket(90), verification(&late, b"peer"), 7).is_empty());
        late.0.store(true, Ordering::SeqCst);
        let order = take_all(&mut tasks, START);
        let position = order.iter().position(|task| matches!(task, Task::Verify { .. }));
        assert!(position.is_some_and(|position| position < 2), "{position:?} of {}", order.len());
    }
}

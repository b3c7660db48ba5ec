//! Tasks that wait for what an authority publishes. They wait only so long, and only while their peers
//! are there: so there are no more of them than half-open peers and those that we connect to.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    time::Duration,
};
use wayfarer_mobility::task::{Task, TaskId};

/// Time after which a task is run again even if what it waits for has not come.
const AGAIN: Duration = Duration::from_secs(5);

/// Time between two looks at what the tasks wait for.
pub(super) const LOOK: Duration = Duration::from_millis(20);

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
    /// Those whose word has not come. A lower number is older.
    waiting: BTreeMap<TaskId, Postponed>,
    /// Those of them that wait for a word about the same certificate of a peer, by its hash.
    by_certificate: BTreeMap<u64, BTreeSet<TaskId>>,
    hasher: RandomState,
    /// Those that can be run again.
    ready: VecDeque<(Ticket, Task)>,
    /// Most tasks that wait for a word about one certificate.
    pub(super) most_for_one: usize,
    /// When to look at them again.
    look_at: Duration,
}

/// A task that must be run again.
#[derive(Debug)]
struct Postponed {
    ticket: Ticket,
    task: Task,
    /// The hash of the peer's certificate, if it waits for a word about that.
    certificate: Option<u64>,
    /// The number of what it waits for.
    number: u64,
    again_at: Duration,
}

impl Ticket {
    pub(super) fn new(id: TaskId, from: IpAddr, deadline: Duration) -> Self {
        Self { id, from, deadline, is_repeated: false }
    }
}

impl PostponedTasks {
    /// Makes an empty set, which holds so many for one certificate.
    pub(super) fn new(most_for_one: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            by_certificate: BTreeMap::new(),
            hasher: RandomState::new(),
            ready: VecDeque::new(),
            most_for_one,
            look_at: Duration::ZERO,
        }
    }

    /// Keeps a task until what has this number has come. Returns the task that has to make room: the
    /// oldest for the same certificate, if there are too many of these.
    #[must_use]
    pub(super) fn push(
        &mut self,
        now: Duration,
        ticket: Ticket,
        task: Task,
        number: u64,
    ) -> Option<(Ticket, Task)> {
        let ticket = Ticket { is_repeated: true, ..ticket };
        let certificate = task.certificate().map(|der| self.hasher.hash_one(der));
        let again_at = ticket.deadline.min(now + AGAIN);
        self.waiting.insert(ticket.id, Postponed { ticket, task, certificate, number, again_at });
        let same = self.by_certificate.entry(certificate?).or_default();
        same.insert(ticket.id);
        let oldest = if same.len() > self.most_for_one { same.first().copied() } else { None };
        self.remove(oldest?)
    }

    fn remove(&mut self, id: TaskId) -> Option<(Ticket, Task)> {
        let Postponed { ticket, task, certificate, .. } = self.waiting.remove(&id)?;
        if let Some(certificate) = certificate
            && let Some(same) = self.by_certificate.get_mut(&certificate)
        {
            same.remove(&id);
            if same.is_empty() {
                self.by_certificate.remove(&certificate);
            }
        }
        Some((ticket, task))
    }

    /// Looks which tasks can be run again, and drops those that are not `needed` any more. Does nothing
    /// if it has looked a moment ago.
    pub(super) fn look(&mut self, now: Duration, needed: impl Fn(TaskId) -> bool) {
        if self.waiting.is_empty() || now < self.look_at {
            return;
        }
        self.look_at = now + LOOK;
        let is_over = |one: &Postponed| {
            !needed(one.ticket.id) || now >= one.again_at || !one.task.is_pending(one.number)
        };
        let over: Vec<_> = self.waiting.iter().filter(|(_, one)| is_over(one)).map(|(id, _)| *id).collect();
        for id in over {
            let one = self.remove(id);
            self.ready.extend(one);
        }
    }

    /// Returns true if a task can be run again.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes out the next task that can be run again and is still `needed`.
    pub(super) fn take_ready(
        &mut self,
        now: Duration,
        needed: impl Fn(TaskId) -> bool,
    ) -> Option<(Ticket, Task)> {
        loop {
            let (ticket, task) = self.ready.pop_front()?;
            if needed(ticket.id) {
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
            assert!(tasks.push(START, ticket(n), verification(&late, b"peer"), 7).is_none());
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
                assert!(tasks.push(now, ticket(0), task, 7).is_none());
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
    fn certificate_has_its_share_and_its_oldest_task_makes_room() {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::new(2));
        let mut push = |id, task| tasks.push(START, ticket(id), task, 7).map(|(ticket, _)| ticket.id.0);
        assert_eq!([1, 2, 3].map(|id| push(id, verification(&late, b"one"))), [None, None, Some(1)]);
        assert_eq!([4, 5].map(|id| push(id, verification(&late, b"other"))), [None; 2]);
        assert_eq!(push(6, verification(&late, b"one")), Some(2));
        // Ours is the same for all.
        assert_eq!([7, 8, 9].map(|id| push(id, signature(&late))), [None; 3]);
        // What has gone on counts no more.
        late.0.store(true, Ordering::SeqCst);
        assert_eq!(take_all(&mut tasks, START).len(), 7);
        assert!(tasks.by_certificate.is_empty());
    }
}

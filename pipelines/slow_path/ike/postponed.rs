//! Tasks that wait for what an authority publishes. They wait only so long, and only while somebody
//! needs them.

use std::{net::IpAddr, time::Duration};
use wayfarer_mobility::task::{Task, TaskId};

/// Time after which a task is run again even if what it waits for has not come.
const AGAIN: Duration = Duration::from_secs(5);

/// Time after which a task waits no more: less than a half-open peer has by default, so that it still
/// hears the result.
const PATIENCE: Duration = Duration::from_secs(25);

/// Time between two looks at what the tasks wait for.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Most tasks. Each holds at most what a peer sent in one message.
pub(super) const MOST: usize = 4096;

/// Most tasks at which one more of our own signatures may wait. Anybody can have us wait for what is
/// said of our certificate, so these leave room for peers that have proved that they own theirs.
pub(super) const MOST_BEFORE_OURS: usize = MOST / 2;

/// What a task is known by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) id: TaskId,
    /// The peer's address.
    pub(super) from: IpAddr,
    /// When it waits no more.
    deadline: Duration,
}

/// All tasks that wait.
#[derive(Debug, Default)]
pub(super) struct PostponedTasks {
    all: Vec<Postponed>,
    /// When to look at them again.
    look_at: Duration,
}

/// A task that must be run again.
#[derive(Debug)]
struct Postponed {
    ticket: Ticket,
    task: Task,
    /// The number of what it waits for.
    number: u64,
    again_at: Duration,
}

impl Ticket {
    pub(super) fn new(now: Duration, id: TaskId, from: IpAddr) -> Self {
        Self { id, from, deadline: now + PATIENCE }
    }
}

impl PostponedTasks {
    /// Keeps a task until what has this number has come. Returns the task if there is no room.
    pub(super) fn push(&mut self, now: Duration, ticket: Ticket, task: Task, number: u64) -> Option<Task> {
        let most = if is_ours(&task) { MOST_BEFORE_OURS } else { MOST };
        if self.all.len() >= most {
            return Some(task);
        }
        let again_at = ticket.deadline.min(now + AGAIN);
        self.all.push(Postponed { ticket, task, number, again_at });
        None
    }

    /// Takes out at most `room` tasks that can be run now, and drops those that are not `needed` any
    /// more. Does nothing if it has looked a moment ago.
    pub(super) fn take_due(
        &mut self,
        now: Duration,
        room: usize,
        needed: impl Fn(TaskId) -> bool,
    ) -> Vec<(Ticket, Task)> {
        if self.all.is_empty() || now < self.look_at || room == 0 {
            return Vec::new();
        }
        self.look_at = now + LOOK;
        self.all.retain(|one| needed(one.ticket.id));
        let is_due = |one: &mut Postponed| now >= one.again_at || !one.task.is_pending(one.number);
        // Those that have to wait for room are looked at again.
        let due = self.all.extract_if(.., is_due).take(room);
        due.map(|Postponed { ticket, task, .. }| match now >= ticket.deadline {
            true => (ticket, task.without_waiting()),
            false => (ticket, task),
        })
        .collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// Returns true if the task is a signature of ours.
pub(super) fn is_ours(task: &Task) -> bool {
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

    pub(in crate::slow_path::ike) fn verification(verifier: &Arc<Late>) -> Task {
        let hashes = SignatureHashes::ALL;
        Task::Verify {
            verifier: verifier.clone(),
            identity: Identity::from_text("cl.test").unwrap(),
            certificates: PeerCertificates::default(),
            signature: PeerSignature { method: 14, data: vec![], octets: vec![], hashes },
            may_wait: true,
        }
    }

    pub(in crate::slow_path::ike) fn signature(signer: &Arc<Late>) -> Task {
        let hashes = SignatureHashes::ALL;
        Task::Sign { signer: signer.clone(), octets: vec![], hashes, wants_ocsp: true }
    }

    const START: Duration = Duration::from_secs(1);

    /// Returns as many verifications as `count` that wait since the start.
    fn waiting(count: u64) -> (Arc<Late>, PostponedTasks) {
        let (late, mut tasks) = (Arc::new(Late::default()), PostponedTasks::default());
        for n in 0..count {
            let ticket = Ticket::new(START, TaskId(n), [192, 0, 2, 7].into());
            assert!(tasks.push(START, ticket, verification(&late), 7).is_none());
        }
        (late, tasks)
    }

    #[test]
    fn task_is_run_once_its_word_has_come_and_there_is_room() {
        let (late, mut tasks) = waiting(5);
        assert_eq!(tasks.take_due(START, 9, |_| true).len(), 0);
        late.0.store(true, Ordering::SeqCst);
        assert_eq!(tasks.take_due(START, 9, |_| true).len(), 0, "it has looked a moment ago");
        assert_eq!(tasks.take_due(START + LOOK, 3, |_| true).len(), 3);
        assert_eq!(tasks.take_due(START + 2 * LOOK, 3, |_| true).len(), 2);
    }

    #[test]
    fn task_waits_no_longer_than_the_deadline() {
        let (_, mut tasks) = waiting(1);
        let mut now = START;
        while now < START + PATIENCE {
            for (ticket, task) in tasks.take_due(now, 1, |_| true) {
                assert!(matches!(&task, Task::Verify { may_wait: true, .. }), "at {now:?}");
                assert!(tasks.push(now, ticket, task, 7).is_none());
            }
            now += Duration::from_millis(700);
        }
        let late = tasks.take_due(START + PATIENCE, 1, |_| true).pop();
        assert!(matches!(late, Some((_, Task::Verify { may_wait: false, .. }))));
    }

    #[test]
    fn task_that_nobody_needs_is_dropped() {
        let (_, mut tasks) = waiting(3);
        assert_eq!(tasks.take_due(START, 9, |id| id != TaskId(1)).len(), 0);
        let kept: Vec<_> = tasks.all.iter().map(|one| one.ticket.id).collect();
        assert_eq!(kept, [TaskId(0), TaskId(2)]);
    }

    #[test]
    fn signatures_of_ours_leave_room_for_peers() {
        let (late, mut tasks) = waiting(0);
        let ticket = Ticket::new(START, TaskId(1), [192, 0, 2, 7].into());
        let mut taken = |task: fn(&Arc<Late>) -> Task| {
            (0..2 * MOST).filter(|_| tasks.push(START, ticket, task(&late), 7).is_none()).count()
        };
        assert_eq!(taken(signature), MOST_BEFORE_OURS);
        assert_eq!(taken(verification), MOST - MOST_BEFORE_OURS);
        assert_eq!((taken(signature), taken(verification)), (0, 0));
    }
}

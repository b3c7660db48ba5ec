//! Waiting and running tasks. Networks take turns, then the addresses of each, so that a flood from
//! one source delays only itself.

use crate::{
    fair_queue::FairQueue,
    task::{Task, TaskId},
};
use alloc::collections::BTreeMap;
use core::net::IpAddr;

/// Most tasks of established peers that are run in a row while others wait, so that connected peers
/// cannot keep others from connecting.
const MAX_IN_A_ROW: u32 = 8;

/// All tasks; `P` identifies the peer that a task belongs to.
#[derive(Debug)]
pub(crate) struct TaskQueue<P> {
    next: u64,
    waiting: BTreeMap<TaskId, (P, Task)>,
    established: FairQueue<TaskId>,
    unauthenticated: FairQueue<TaskId>,
    /// Tasks of established peers since the last task of an unauthenticated one.
    in_a_row: u32,
    /// Owners of the tasks that are running.
    task_owners: BTreeMap<TaskId, P>,
}

impl<P> Default for TaskQueue<P> {
    fn default() -> Self {
        Self {
            next: 0,
            waiting: BTreeMap::new(),
            established: FairQueue::default(),
            unauthenticated: FairQueue::default(),
            in_a_row: 0,
            task_owners: BTreeMap::new(),
        }
    }
}

impl<P: Copy> TaskQueue<P> {
    /// Adds a task for a peer at address `from` and returns its number.
    pub(crate) fn push(&mut self, peer: P, is_established: bool, from: IpAddr, task: Task) -> TaskId {
        self.next += 1;
        let id = TaskId(self.next);
        self.waiting.insert(id, (peer, task));
        match is_established {
            true => self.established.insert(id, from),
            false => self.unauthenticated.insert(id, from),
        }
        id
    }

    /// Takes out the task whose turn it is, with its peer's address.
    pub(crate) fn pop(&mut self) -> Option<(TaskId, IpAddr, Task)> {
        let others_first = self.in_a_row >= MAX_IN_A_ROW && !self.unauthenticated.is_empty();
        let established = if others_first { None } else { self.established.take_next() };
        self.in_a_row = if established.is_some() { self.in_a_row + 1 } else { 0 };
        let (id, from) = established.or_else(|| self.unauthenticated.take_next())?;
        let (peer, task) = self.waiting.remove(&id)?;
        self.task_owners.insert(id, peer);
        Some((id, from, task))
    }

    /// Removes a task that has run and returns its peer.
    pub(crate) fn done(&mut self, id: TaskId) -> Option<P> {
        self.task_owners.remove(&id)
    }

    /// Returns the peer of a task that is running.
    pub(crate) fn owner(&self, id: TaskId) -> Option<P> {
        self.task_owners.get(&id).copied()
    }

    /// Removes a task that nobody needs any more. If it is running, it has no owner from now on.
    pub(crate) fn cancel(&mut self, id: TaskId) {
        self.task_owners.remove(&id);
        if self.waiting.remove(&id).is_some() {
            self.established.remove(id);
            self.unauthenticated.remove(id);
        }
    }

    /// Returns the number of tasks that wait or run, and that somebody needs.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.task_owners.len()
    }

    /// Returns the number of waiting tasks of unauthenticated peers.
    pub(crate) fn unauthenticated(&self) -> usize {
        self.unauthenticated.len()
    }

    /// Returns the peer that has to make room for one more task of a peer at `from`; `None` if
    /// `from` has its share.
    pub(crate) fn crowded_out_by(&self, from: IpAddr) -> Option<P> {
        let id = self.unauthenticated.crowded_out_by(from)?;
        self.waiting.get(&id).map(|(peer, _)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Kex;
    use alloc::vec::Vec;

    #[test]
    fn connected_peers_come_first_but_cannot_keep_others_from_connecting() {
        let mut queue = TaskQueue::default();
        let from = |n: u8| IpAddr::from([192, 0, n, 1]);
        let task = || Task::KexBegin(Kex::X25519);
        let stranger = queue.push(0, false, from(0), task());
        let established: Vec<TaskId> = (1..40).map(|n| queue.push(n, true, from(1), task())).collect();
        let turns: Vec<TaskId> = core::iter::from_fn(|| queue.pop()).map(|(id, ..)| id).collect();
        assert_eq!(turns[0], established[0]);
        assert_eq!(turns.iter().position(|id| *id == stranger), Some(MAX_IN_A_ROW as usize));
        assert_eq!(turns.len(), 40);
        assert_eq!((queue.done(stranger), queue.done(stranger)), (Some(0), None));
    }

    #[test]
    fn cancelled_tasks_are_not_run() {
        let mut queue = TaskQueue::default();
        let all = [false, true].map(|is_established| {
            queue.push(1, is_established, [192, 0, 2, 1].into(), Task::KexBegin(Kex::X25519))
        });
        all.into_iter().for_each(|id| queue.cancel(id));
        assert!(queue.pop().is_none());
        assert_eq!(queue.unauthenticated(), 0);
    }

    #[test]
    fn cancelled_task_that_runs_has_no_owner() {
        let mut queue = TaskQueue::default();
        queue.push(1, false, [192, 0, 2, 1].into(), Task::KexBegin(Kex::X25519));
        let (id, ..) = queue.pop().unwrap();
        assert_eq!((queue.owner(id), queue.len()), (Some(1), 1));
        queue.cancel(id);
        assert_eq!((queue.owner(id), queue.done(id), queue.len()), (None, None, 0));
    }
}

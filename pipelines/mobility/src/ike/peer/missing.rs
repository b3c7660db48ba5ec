//! Child SAs that the configuration wants to be up, but that ended or were refused.

use super::{child::ChildState, creation::Target, request::QueuedRequest, state::Peer};
use crate::{
    ike::{context::Context, event::Event},
    retransmission::{MAX_BACK_OFF, back_off},
};
use alloc::vec::Vec;
use core::time::Duration;

/// The child SAs of one peer that are missing.
#[derive(Debug, Default)]
pub(in crate::ike) struct MissingChildren(Vec<Missing>);

/// A child SA that is missing, or that was and may be again soon.
#[derive(Debug)]
struct Missing {
    /// Index of its policy in the connection.
    policy: usize,
    /// Number of times that it was missing in a row.
    failures: u32,
    /// When we ask for it; `None` from then on.
    at: Option<Duration>,
    /// When it was last installed.
    installed_at: Option<Duration>,
}

impl MissingChildren {
    fn of(&mut self, policy: usize) -> &mut Missing {
        let at = self.0.iter().position(|missing| missing.policy == policy).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(Missing { policy, failures: 0, at: None, installed_at: None });
        }
        &mut self.0[at]
    }
}

impl Peer {
    /// Notes that a child SA with this policy ended or was refused. If we connect to the peer, it is
    /// asked for again; the wait doubles each time that it does not last.
    pub(in crate::ike) fn miss_child(&mut self, cx: &mut Context<'_>, policy: usize) {
        let Some(connection) = self.connection(cx).filter(|connection| connection.remote.is_some()) else {
            return;
        };
        let Some(name) = connection.children.get(policy).map(|child| child.name.clone()) else { return };
        if !self.is_established() || self.has_child(policy) {
            return;
        }
        let missing = self.missing.get_or_insert_default().of(policy);
        if missing.at.is_some() {
            return;
        }
        if missing.installed_at.take().is_some_and(|at| at + MAX_BACK_OFF <= cx.now) {
            missing.failures = 0;
        }
        let wait = cx.jittered(back_off(missing.failures));
        missing.failures += 1;
        missing.at = Some(cx.now + wait);
        cx.tell(Event::ChildMissing { peer: self.id, name, wait });
    }

    /// Notes that a child SA with this policy was installed.
    pub(in crate::ike) fn note_installed(&mut self, now: Duration, policy: usize) {
        if let Some(missing) = &mut self.missing {
            let missing = missing.of(policy);
            (missing.at, missing.installed_at) = (None, Some(now));
        }
    }

    /// Returns when [`Peer::ask_for_missing`] must be called.
    pub(in crate::ike) fn missing_at(&self) -> Option<Duration> {
        self.missing.as_ref()?.0.iter().filter_map(|missing| missing.at).min()
    }

    /// Asks for the missing child SAs whose wait is over.
    pub(in crate::ike) fn ask_for_missing(&mut self, now: Duration) {
        if !self.is_established() {
            return;
        }
        let all = self.missing.iter_mut().flat_map(|missing| &mut missing.0);
        let due = all.filter_map(|missing| missing.at.take_if(|at| *at <= now).map(|_| missing.policy));
        for policy in due.collect::<Vec<_>>() {
            if !self.has_child(policy) {
                self.enqueue(QueuedRequest::Child(policy));
            }
        }
    }

    /// Returns true if there is a child SA with this policy, or we are creating one.
    fn has_child(&mut self, policy: usize) -> bool {
        let is_alive = |state| !matches!(state, ChildState::Deleting { .. } | ChildState::Lingering { .. });
        self.children.iter().any(|child| child.sa.policy == policy && is_alive(child.state()))
            || self.queued.contains(&QueuedRequest::Child(policy))
            || self.own_create(|target| target == Target::Child(policy)).is_some()
    }
}

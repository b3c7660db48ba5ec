//! Child SAs that the configuration wants to be up, but that ended or were refused.

use super::child::AgreedChild;
use crate::retransmission::{MAX_BACK_OFF, back_off};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// The child SAs of one peer that are missing.
#[derive(Debug, Default)]
pub(in crate::ike) struct MissingChildren(Vec<Missing>);

/// A child SA that is missing, or that was and may be again soon.
#[derive(Debug)]
struct Missing {
    /// Index of its policy in the connection.
    policy: usize,
    /// The child SA that ended, if there was one: only another that carries all its traffic is as good.
    ended: Option<Box<AgreedChild>>,
    /// Number of times that it was missing in a row.
    failures: u32,
    /// When it is asked for; `None` from then on.
    at: Option<Duration>,
    /// When it was last installed.
    installed_at: Option<Duration>,
}

impl MissingChildren {
    /// Notes that a child SA with this policy is missing, such as the one that `ended`. Returns the wait
    /// until it is asked for, unless that is known already. The wait, which `jittered` varies, doubles
    /// each time that the child SA did not last.
    pub(in crate::ike) fn insert(
        &mut self,
        now: Duration,
        policy: usize,
        ended: Option<AgreedChild>,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> Option<Duration> {
        let missing = self.of(policy);
        if missing.at.is_some() {
            return None;
        }
        missing.ended = ended.map(Box::new);
        if missing.installed_at.take().is_some_and(|at| at + MAX_BACK_OFF <= now) {
            missing.failures = 0;
        }
        let wait = jittered(back_off(missing.failures));
        missing.failures += 1;
        missing.at = Some(now + wait);
        Some(wait)
    }

    /// Notes that a child SA was installed. It is what its policy misses only if it carries what is missing,
    /// or we asked for it (`began`): it is as much as the peer allows then.
    pub(in crate::ike) fn note_installed(&mut self, now: Duration, installed: &AgreedChild, began: bool) {
        let missing = self.of(installed.policy);
        let carries = |ended: &AgreedChild| installed.covers(ended);
        let is_asked_for = began && installed.replaces.is_none();
        if is_asked_for || missing.ended.as_deref().is_none_or(carries) {
            (missing.at, missing.ended, missing.installed_at) = (None, None, Some(now));
        }
    }

    /// Returns the child SA with this policy that ended, if it is still missing.
    pub(in crate::ike) fn ended(&self, policy: usize) -> Option<&AgreedChild> {
        self.0.iter().find(|missing| missing.policy == policy)?.ended.as_deref()
    }

    /// Returns when [`Self::take_due`] must be called.
    pub(in crate::ike) fn poll_timeout(&self) -> Option<Duration> {
        self.0.iter().filter_map(|missing| missing.at).min()
    }

    /// Returns the policies of those that must be asked for at `now`, each once.
    pub(in crate::ike) fn take_due(&mut self, now: Duration) -> Vec<usize> {
        let due = |missing: &mut Missing| missing.at.take_if(|at| *at <= now).map(|_| missing.policy);
        self.0.iter_mut().filter_map(due).collect()
    }

    fn of(&mut self, policy: usize) -> &mut Missing {
        let at = self.0.iter().position(|missing| missing.policy == policy).unwrap_or(self.0.len());
        if at == self.0.len() {
            self.0.push(Missing { policy, ended: None, failures: 0, at: None, installed_at: None });
        }
        &mut self.0[at]
    }
}

//! Child SAs that the configuration wants to be up, but that ended or were refused.

use crate::retransmission::{MAX_BACK_OFF, back_off};
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
    /// When it is asked for; `None` from then on.
    at: Option<Duration>,
    /// When it was last installed.
    installed_at: Option<Duration>,
}

impl MissingChildren {
    /// Notes that a child SA with this policy is missing. Returns the wait until it is asked for,
    /// unless that is known already. The wait, which `jittered` varies, doubles each time that the
    /// child SA did not last.
    pub(in crate::ike) fn insert(
        &mut self,
        now: Duration,
        policy: usize,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> Option<Duration> {
        let missing = self.of(policy);
        if missing.at.is_some() {
            return None;
        }
        if missing.installed_at.take().is_some_and(|at| at + MAX_BACK_OFF <= now) {
            missing.failures = 0;
        }
        let wait = jittered(back_off(missing.failures));
        missing.failures += 1;
        missing.at = Some(now + wait);
        Some(wait)
    }

    /// Notes that a child SA with this policy was installed.
    pub(in crate::ike) fn note_installed(&mut self, now: Duration, policy: usize) {
        let missing = self.of(policy);
        (missing.at, missing.installed_at) = (None, Some(now));
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
            self.0.push(Missing { policy, failures: 0, at: None, installed_at: None });
        }
        &mut self.0[at]
    }
}

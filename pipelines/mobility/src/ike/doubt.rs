//! Decides whose moves are followed before they are confirmed.
//!
//! A move makes the gateway send to an address that somebody claims for a peer. Whoever repeatedly
//! claims a foreign address could make the gateway flood it, with 16 MiB for each small packet. So
//! after an unconfirmed move, a peer is probed before it is followed for a while; and while there
//! are many unconfirmed moves, so is everybody. A probe costs an honest peer one round trip. A
//! confirmed move frees its share for the next, so a crowd behind a restarted NAT gets through.

use super::pool::Owner;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

/// Time for which a peer is probed first after an unconfirmed move; doubles with each further one.
const BASE_DISTRUST: Duration = Duration::from_secs(600);
/// The longest of these times. When as much time has passed after the last, all is forgotten.
const MAX_DISTRUST: Duration = Duration::from_secs(24 * 3600);
/// The wait after an unanswered probe; this doubles with each further one.
const BASE_WAIT: Duration = Duration::from_secs(1);
/// Most times that the wait is doubled.
const MAX_DOUBLINGS: u32 = 5;
/// Most peers that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// Unconfirmed moves of all peers, both pending ones and those that failed in the current
/// [`PERIOD`], from which on everybody is probed first.
const MAX_UNCONFIRMED: usize = 32;
/// The same limit as a share of the connected principals, if that is more: one in so many. A peer
/// gains no moves by connecting more devices under one name, or without a proved name.
const SHARE: usize = 16;
const PERIOD: Duration = Duration::from_secs(60);

/// The record of an owner's unconfirmed moves.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// Number of moves that were followed and not confirmed.
    followed: u32,
    /// The peer is probed first until then.
    until: Duration,
    /// Number of consecutive probes that it did not answer.
    unanswered: u32,
    /// When the peer may be probed next.
    next_probe_at: Duration,
}

/// Owners whose moves were not confirmed. Reconnecting does not remove them.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    peers: BTreeMap<Owner, Doubt>,
    /// Owners of pending moves that are followed. If an owner has several devices, the others are
    /// probed first meanwhile.
    followed: BTreeSet<Owner>,
    /// When the current period began, and the number of followed moves that failed in it.
    recent: (Duration, usize),
}

impl Doubts {
    /// Returns true if a move of this owner's peer is followed before it is confirmed, given the
    /// number of connected principals.
    pub(super) fn is_trusted(&self, now: Duration, owner: &Owner, connected: usize) -> bool {
        let (began, failed) = self.recent;
        let failed = if began + PERIOD <= now { 0 } else { failed };
        self.followed.len() + failed < MAX_UNCONFIRMED.max(connected / SHARE)
            && !self.followed.contains(owner)
            && self.peers.get(owner).is_none_or(|doubt| doubt.until <= now)
    }

    /// Records that a move is followed, until [`Doubts::fail`] or [`Doubts::confirm`] reports its
    /// result.
    pub(super) fn follow(&mut self, owner: Owner) {
        self.followed.insert(owner);
    }

    /// Returns when this owner's peers may be probed next.
    pub(super) fn next_probe_at(&self, now: Duration, owner: &Owner) -> Duration {
        self.peers.get(owner).map_or(now, |doubt| doubt.next_probe_at.max(now))
    }

    /// Records that a move was not confirmed; `followed` says that the gateway had followed it.
    pub(super) fn fail(&mut self, now: Duration, owner: Owner, followed: bool) {
        if followed {
            self.followed.remove(&owner);
            if self.recent.0 + PERIOD <= now {
                self.recent = (now, 0);
            }
            self.recent.1 += 1;
        }
        if self.peers.len() >= MAX_REMEMBERED && !self.peers.contains_key(&owner) {
            self.make_room();
        }
        let doubt = self.peers.entry(owner).or_default();
        if doubt.until + MAX_DISTRUST < now {
            *doubt = Doubt::default();
        }
        doubt.followed += u32::from(followed);
        let distrust = BASE_DISTRUST * (1 << doubt.followed.saturating_sub(1).min(16));
        doubt.until = doubt.until.max(now + distrust.min(MAX_DISTRUST));
        doubt.next_probe_at = now + BASE_WAIT * (1 << doubt.unanswered.min(MAX_DOUBLINGS));
        doubt.unanswered += 1;
    }

    /// Records that a move was confirmed; `followed` says that the gateway had followed it. The
    /// owner may be probed again at once. It is not trusted any sooner; otherwise moving back and
    /// forth would gain as much as before.
    pub(super) fn confirm(&mut self, owner: &Owner, followed: bool) {
        if followed {
            self.followed.remove(owner);
        }
        if let Some(doubt) = self.peers.get_mut(owner) {
            (doubt.unanswered, doubt.next_probe_at) = (0, Duration::ZERO);
        }
    }

    /// Forgets the owner that would be trusted again first.
    fn make_room(&mut self) {
        let first = self.peers.iter().min_by_key(|(_, doubt)| doubt.until).map(|(owner, _)| owner.clone());
        first.map(|owner| self.peers.remove(&owner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use alloc::format;

    const SECOND: Duration = Duration::from_secs(1);

    fn owner(n: usize) -> Owner {
        (0, Identity::from_text(&format!("p{n}.test")).unwrap())
    }

    #[test]
    fn trust_returns_with_time_and_later_after_each_failure() {
        let mut doubts = Doubts::default();
        let mut now = 1000 * SECOND;
        for wait in [600, 1200, 2400] {
            assert!(doubts.is_trusted(now, &owner(1), 0));
            doubts.fail(now, owner(1), true);
            doubts.confirm(&owner(1), false);
            now += (wait - 1) * SECOND;
            assert!(!doubts.is_trusted(now, &owner(1), 0), "after {wait}");
            assert!(doubts.is_trusted(now, &owner(2), 0));
            now += SECOND;
        }
        now += 3 * MAX_DISTRUST;
        doubts.fail(now, owner(1), true);
        assert!(doubts.is_trusted(now + BASE_DISTRUST, &owner(1), 0), "all is forgotten");
    }

    #[test]
    fn probes_become_rare_until_one_is_answered() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        for wait in [1, 2, 4, 8, 16, 32, 32] {
            doubts.fail(now, owner(1), false);
            assert_eq!(doubts.next_probe_at(now, &owner(1)), now + wait * SECOND);
        }
        doubts.confirm(&owner(1), false);
        assert_eq!(doubts.next_probe_at(now, &owner(1)), now);
    }

    #[test]
    fn pending_and_failed_moves_of_all_peers_count_together() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        let trusted = |doubts: &Doubts, connected| doubts.is_trusted(now, &owner(99), connected);
        (0..31).for_each(|n| doubts.follow(owner(n)));
        assert!(trusted(&doubts, 31));
        doubts.follow(owner(31));
        assert!(!trusted(&doubts, 32) && !trusted(&doubts, 32 * SHARE));
        assert!(trusted(&doubts, 33 * SHARE), "many are connected");
        // A failed move still counts; a confirmed one does not.
        doubts.fail(now, owner(0), true);
        assert!(!trusted(&doubts, 32));
        doubts.confirm(&owner(1), true);
        assert!(trusted(&doubts, 32));
    }

    #[test]
    fn many_failures_of_different_peers_are_enough_and_memory_is_bounded() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        (0..32).for_each(|n| doubts.fail(now, owner(n), true));
        assert!(!doubts.is_trusted(now + 59 * SECOND, &owner(99), 0));
        assert!(doubts.is_trusted(now + 60 * SECOND, &owner(99), 0));
        (0..2 * MAX_REMEMBERED).for_each(|n| doubts.fail(now + SECOND * n as u32, owner(n), false));
        assert_eq!(doubts.peers.len(), MAX_REMEMBERED);
        assert!(doubts.peers.contains_key(&owner(2 * MAX_REMEMBERED - 1)));
    }
}

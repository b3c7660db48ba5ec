//! Whose moves are followed before they are confirmed.
//!
//! A move makes a gateway send to where somebody says that a peer is. Who keeps saying so of a
//! place that is not its own would have the gateway flood it: with 16 MiB for each small packet. So
//! a peer whose move was not confirmed is asked first for a while, and while many moves of whomever
//! are not confirmed, everybody is. Being asked first costs an honest peer one round trip, and a
//! confirmed move makes room for the next: a crowd behind a NAT that restarts gets through.

use super::pool::Owner;
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

/// How long a peer is asked first after a move that was not confirmed; twice that after the next,
/// and so on.
const DISTRUST: Duration = Duration::from_secs(600);
/// The longest of these times. As long after the last of them all is forgotten.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The wait after a question that was not answered; twice that after the next, and so on.
const WAIT: Duration = Duration::from_secs(1);
/// The longest wait, as doublings of the first.
const MOST_DOUBLINGS: u32 = 5;
/// Most peers that are remembered.
const MOST: usize = 4096;
/// Moves of whomever that are followed and not confirmed, with those that failed in one [`PERIOD`]:
/// from there on everybody is asked first.
const MOST_FOLLOWED: usize = 32;
/// The same as a share of the principals that are connected, where that is more: one in so many.
/// Who connects more devices in one name, or many without a proved one, has no more moves for it.
const SHARE: usize = 16;
const PERIOD: Duration = Duration::from_secs(60);

/// What is remembered of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// Moves that were followed and not confirmed.
    followed: u32,
    /// It is asked first until then.
    until: Duration,
    /// Questions in a row that it did not answer.
    unanswered: u32,
    /// Not to be asked before.
    ask_at: Duration,
}

/// Whom moves were not confirmed of. A peer stays in it when it connects anew.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    peers: BTreeMap<Owner, Doubt>,
    /// Whose move is followed and not confirmed yet. An owner may have many devices: the others are
    /// asked first meanwhile.
    followed: BTreeSet<Owner>,
    /// When the period began, and the moves in it that were followed and failed.
    recent: (Duration, usize),
}

impl Doubts {
    /// Whether a move of this peer is followed before it is confirmed, where so many principals are
    /// connected.
    pub(super) fn is_trusted(&self, now: Duration, owner: &Owner, connected: usize) -> bool {
        let (began, failed) = self.recent;
        let failed = if began + PERIOD <= now { 0 } else { failed };
        self.followed.len() + failed < MOST_FOLLOWED.max(connected / SHARE)
            && !self.followed.contains(owner)
            && self.peers.get(owner).is_none_or(|doubt| doubt.until <= now)
    }

    /// A move of this peer is followed, until [`Doubts::fail`] or [`Doubts::confirm`] says what
    /// became of it.
    pub(super) fn follow(&mut self, owner: Owner) {
        self.followed.insert(owner);
    }

    /// When this peer may be asked where it is.
    pub(super) fn ask_at(&self, now: Duration, owner: &Owner) -> Duration {
        self.peers.get(owner).map_or(now, |doubt| doubt.ask_at.max(now))
    }

    /// A move of this peer was not confirmed; `followed`: and had been followed.
    pub(super) fn fail(&mut self, now: Duration, owner: Owner, followed: bool) {
        if followed {
            self.followed.remove(&owner);
            if self.recent.0 + PERIOD <= now {
                self.recent = (now, 0);
            }
            self.recent.1 += 1;
        }
        if self.peers.len() >= MOST && !self.peers.contains_key(&owner) {
            self.make_room();
        }
        let doubt = self.peers.entry(owner).or_default();
        if doubt.until + LONGEST < now {
            *doubt = Doubt::default();
        }
        doubt.followed += u32::from(followed);
        let distrust = DISTRUST * (1 << doubt.followed.saturating_sub(1).min(16));
        doubt.until = doubt.until.max(now + distrust.min(LONGEST));
        doubt.ask_at = now + WAIT * (1 << doubt.unanswered.min(MOST_DOUBLINGS));
        doubt.unanswered += 1;
    }

    /// A move of this peer was confirmed; `followed`: and had been followed. It may be asked again
    /// at once. It is not trusted the sooner, or moves to and fro would be worth as much as before.
    pub(super) fn confirm(&mut self, owner: &Owner, followed: bool) {
        if followed {
            self.followed.remove(owner);
        }
        if let Some(doubt) = self.peers.get_mut(owner) {
            (doubt.unanswered, doubt.ask_at) = (0, Duration::ZERO);
        }
    }

    /// Forgets the peer that would be trusted again first.
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
    fn trust_comes_back_with_time_and_later_each_time() {
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
        now += 3 * LONGEST;
        doubts.fail(now, owner(1), true);
        assert!(doubts.is_trusted(now + DISTRUST, &owner(1), 0), "all is forgotten");
    }

    #[test]
    fn questions_become_rare_until_one_is_answered() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        for wait in [1, 2, 4, 8, 16, 32, 32] {
            doubts.fail(now, owner(1), false);
            assert_eq!(doubts.ask_at(now, &owner(1)), now + wait * SECOND);
        }
        doubts.confirm(&owner(1), false);
        assert_eq!(doubts.ask_at(now, &owner(1)), now);
    }

    #[test]
    fn moves_of_whomever_count_together_while_they_are_under_way_and_when_they_fail() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        let trusted = |doubts: &Doubts, connected| doubts.is_trusted(now, &owner(99), connected);
        (0..31).for_each(|n| doubts.follow(owner(n)));
        assert!(trusted(&doubts, 31));
        doubts.follow(owner(31));
        assert!(!trusted(&doubts, 32) && !trusted(&doubts, 32 * SHARE));
        assert!(trusted(&doubts, 33 * SHARE), "many are connected");
        // What fails counts on, and what is confirmed does not.
        doubts.fail(now, owner(0), true);
        assert!(!trusted(&doubts, 32));
        doubts.confirm(&owner(1), true);
        assert!(trusted(&doubts, 32));
    }

    #[test]
    fn many_failures_of_whomever_are_enough_and_memory_is_bounded() {
        let mut doubts = Doubts::default();
        let now = 1000 * SECOND;
        (0..32).for_each(|n| doubts.fail(now, owner(n), true));
        assert!(!doubts.is_trusted(now + 59 * SECOND, &owner(99), 0));
        assert!(doubts.is_trusted(now + 60 * SECOND, &owner(99), 0));
        (0..2 * MOST).for_each(|n| doubts.fail(now + SECOND * n as u32, owner(n), false));
        assert_eq!(doubts.peers.len(), MOST);
        assert!(doubts.peers.contains_key(&owner(2 * MOST - 1)));
    }
}

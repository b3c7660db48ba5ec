//! Decides whether a link whose peer shows up by a new path follows it, and limits how often.
//!
//! The fast path reports a path only for an authentic packet that is the newest of its SA, so only
//! the peer itself can cause a report. What remains is the link's policy, and a limit for peers
//! that flap: a bucket of [`BURST`] moves that regains one every [`REFILL`]. A move that finds the
//! bucket empty waits; a later one replaces it.

use alloc::boxed::Box;
use core::time::Duration;

/// Moves that a peer may make at once.
pub const BURST: u32 = 8;
/// Time until a peer may make one more move.
pub const REFILL: Duration = Duration::from_millis(500);

/// The policy for a peer that shows up by a new path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Send to the new path from now on.
    Follow,
    /// Report the new path, but do not use it.
    Notify,
    /// Do nothing.
    Ignore,
    /// Remember the new path, and use it when a home agent says that the peer is there.
    HomeAgent,
}

/// The decision about a path by which a peer was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<P> {
    /// Send by this path from now on, and confirm it by [`Roaming::handle_move`].
    Follow(P),
    /// Report this path, and stay where the link is.
    Notify(P),
    /// Remember this path, and stay where the link is.
    Remember(P),
    /// Call [`Roaming::handle_timeout`] at this time.
    Wait(Duration),
}

/// The roaming of one link.
#[derive(Debug)]
pub struct Roaming<P> {
    policy: Policy,
    /// True once a path is known: the first one is always followed.
    is_known: bool,
    /// Moves left in the bucket.
    moves: u32,
    refilled: Duration,
    /// When a path was last decided about, and that path. Like the next one boxed, since most links have
    /// none.
    last: Option<Box<(Duration, P)>>,
    /// A move that has to wait: until when, and its path.
    waiting: Option<Box<(Duration, P)>>,
}

impl<P: Copy + PartialEq> Roaming<P> {
    /// Creates the state of a link. `is_known` says whether its path is already known; if not, the
    /// first one that is reported is followed whatever the policy.
    pub fn new(now: Duration, policy: Policy, is_known: bool) -> Self {
        Self { policy, is_known, moves: BURST, refilled: now, last: None, waiting: None }
    }

    /// Notes that the link was moved: because of [`Decision::Follow`], by hand, or by a protocol.
    /// Until then, any path is accepted.
    pub fn handle_move(&mut self) {
        self.is_known = true;
        (self.last, self.waiting) = (None, None);
    }

    /// Handles a report that the fast path saw an authentic, newest packet of the peer by `path`.
    /// Returns the decision, unless nothing is to be done.
    pub fn handle_report(&mut self, now: Duration, path: P) -> Option<Decision<P>> {
        match self.policy {
            Policy::Ignore if self.is_known => return None,
            // It costs no more than the report itself, and the home agent limits the moves.
            Policy::HomeAgent if self.is_known => return Some(Decision::Remember(path)),
            _ => {}
        }
        let notifies = self.policy == Policy::Notify && self.is_known;
        // Several tunnels of a link show the same move.
        let is_last = |(at, last): &(Duration, P)| *last == path && now < *at + REFILL;
        if self.waiting.is_none() && self.last.as_deref().is_some_and(is_last) {
            return (!notifies).then_some(Decision::Follow(path));
        }
        self.refill(now);
        if self.moves == 0 {
            let until = self.waiting.as_deref().map_or(self.refilled + REFILL, |(until, _)| *until);
            return match self.waiting.replace(Box::new((until, path))) {
                None => Some(Decision::Wait(until)),
                Some(_) => None,
            };
        }
        self.moves -= 1;
        (self.last, self.waiting) = (Some(Box::new((now, path))), None);
        Some(if notifies { Decision::Notify(path) } else { Decision::Follow(path) })
    }

    /// Returns true if a move has to wait.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Decides about the move whose wait is over at `now`, if there is one.
    pub fn handle_timeout(&mut self, now: Duration) -> Option<Decision<P>> {
        let (_, path) = *self.waiting.take_if(|waiting| waiting.0 <= now)?;
        self.handle_report(now, path)
    }

    fn refill(&mut self, now: Duration) {
        while self.moves < BURST && self.refilled + REFILL <= now {
            self.moves += 1;
            self.refilled += REFILL;
        }
        if self.moves == BURST {
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn known(policy: Policy) -> Roaming<char> {
        Roaming::new(MS(0), policy, true)
    }

    /// Has the peer flap between two paths at `now`, and returns the paths that are followed.
    fn flap(roaming: &mut Roaming<char>, now: Duration, times: usize) -> Vec<char> {
        let paths = ['a', 'b'].into_iter().cycle().take(times);
        paths.filter(|path| roaming.handle_report(now, *path) == Some(Decision::Follow(*path))).collect()
    }

    #[test]
    fn policy_decides_once_a_path_is_known() {
        for (policy, is_known, expected) in [
            (Policy::Follow, true, Some(Decision::Follow('b'))),
            (Policy::Notify, true, Some(Decision::Notify('b'))),
            (Policy::Ignore, true, None),
            (Policy::HomeAgent, true, Some(Decision::Remember('b'))),
            (Policy::Ignore, false, Some(Decision::Follow('b'))),
            (Policy::HomeAgent, false, Some(Decision::Follow('b'))),
        ] {
            let mut roaming = Roaming::new(MS(0), policy, is_known);
            assert_eq!(roaming.handle_report(MS(1), 'b'), expected, "{policy:?} {is_known}");
        }
    }

    #[test]
    fn until_a_first_path_was_taken_every_one_is_offered() {
        let mut roaming = Roaming::new(MS(0), Policy::Ignore, false);
        assert_eq!(roaming.handle_report(MS(1), 'a'), Some(Decision::Follow('a')));
        assert_eq!(roaming.handle_report(MS(2), 'b'), Some(Decision::Follow('b')));
        roaming.handle_move();
        assert_eq!(roaming.handle_report(MS(3), 'c'), None);
    }

    #[test]
    fn reports_of_many_tunnels_are_one_move() {
        let mut roaming = known(Policy::Follow);
        for ms in 1..100 {
            assert_eq!(roaming.handle_report(MS(ms), 'a'), Some(Decision::Follow('a')));
        }
        let others = flap(&mut roaming, MS(100), 100);
        assert_eq!(others.len(), BURST as usize, "the first of these goes on with the same move");
        let mut roaming = known(Policy::Notify);
        let told = (1..100).filter_map(|ms| roaming.handle_report(MS(ms), 'a'));
        assert_eq!(told.collect::<Vec<_>>(), [Decision::Notify('a')]);
    }

    #[test]
    fn what_a_home_agent_decides_is_remembered_however_often_it_changes() {
        let mut roaming = known(Policy::HomeAgent);
        for (i, path) in ['a', 'b'].into_iter().cycle().take(100).enumerate() {
            assert_eq!(roaming.handle_report(MS(i as u64), path), Some(Decision::Remember(path)));
        }
    }

    #[test]
    fn a_flapping_peer_is_damped_and_ends_where_it_was_last_seen() {
        let mut roaming = known(Policy::Follow);
        let (mut followed, mut waits) = (0, vec![]);
        for i in 0..100 {
            match roaming.handle_report(MS(i), if i % 2 == 0 { 'a' } else { 'b' }) {
                Some(Decision::Follow(_)) => followed += 1,
                Some(Decision::Wait(until)) => waits.push(until),
                other => assert_eq!(other, None),
            }
        }
        assert_eq!(followed, BURST);
        let [until] = waits[..] else { panic!("{waits:?}") };
        assert!(until <= MS(99) + REFILL);
        assert_eq!(roaming.handle_timeout(until - MS(1)), None);
        assert_eq!(roaming.handle_timeout(until), Some(Decision::Follow('b')));
        assert_eq!(roaming.handle_timeout(until), None);
    }

    #[test]
    fn time_refills_the_bucket_but_not_beyond_its_size() {
        let mut roaming = known(Policy::Follow);
        for round in 1..4 {
            assert_eq!(flap(&mut roaming, MS(60_000 * round), 20).len(), BURST as usize);
        }
    }

    #[test]
    fn a_move_by_other_means_cancels_a_waiting_one() {
        let mut roaming = known(Policy::Follow);
        flap(&mut roaming, MS(0), 20);
        roaming.handle_move();
        assert_eq!(roaming.handle_timeout(MS(10_000)), None);
    }
}

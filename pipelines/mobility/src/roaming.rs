//! Decides whether a peer that shows up by a new path is followed, and limits how often.
//!
//! The fast path reports a path only for an authentic packet that is the newest of its SA, so only
//! the peer itself can cause a report. What remains is the tunnel's policy, and a limit for peers
//! that flap: a bucket of [`BURST`] moves that regains one every [`REFILL`]. A move that finds the
//! bucket empty waits; a later one replaces it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
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
}

/// The result of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<K, P> {
    /// The link moved: send by this path from now on, and confirm it by [`Roaming::handle_move`].
    PeerMoved {
        /// The peer.
        peer: K,
        /// Its new path.
        path: P,
    },
    /// The peer was seen by this path, but policy says not to move.
    PeerSeen {
        /// The peer.
        peer: K,
        /// The path.
        path: P,
    },
}

#[derive(Debug)]
struct Peer<P> {
    policy: Policy,
    /// True once a path is known: the first one is always followed.
    known: bool,
    moves: u32,
    refilled: Duration,
    /// A move that has to wait: until when, and its path.
    waiting: Option<(Duration, P)>,
}

/// All peers that may move. Call order: any `handle_*`, then [`Roaming::poll_event`] until `None`,
/// then [`Roaming::poll_timeout`].
#[derive(Debug)]
pub struct Roaming<K, P> {
    peers: BTreeMap<K, Peer<P>>,
    waiting: BTreeSet<(Duration, K)>,
    events: VecDeque<Event<K, P>>,
}

impl<K: Copy + Ord, P: Copy> Default for Roaming<K, P> {
    fn default() -> Self {
        Self { peers: BTreeMap::new(), waiting: BTreeSet::new(), events: VecDeque::new() }
    }
}

impl<K: Copy + Ord, P: Copy> Roaming<K, P> {
    /// Adds a peer. `known` says whether its path is already known; if not, the first one that is
    /// reported is followed whatever the policy.
    pub fn insert(&mut self, now: Duration, peer: K, policy: Policy, known: bool) {
        self.remove(peer);
        self.peers.insert(peer, Peer { policy, known, moves: BURST, refilled: now, waiting: None });
    }

    /// Forgets a peer.
    pub fn remove(&mut self, peer: K) {
        if let Some((when, _)) = self.peers.remove(&peer).and_then(|state| state.waiting) {
            self.waiting.remove(&(when, peer));
        }
    }

    /// Notes that the peer was moved: because of [`Event::PeerMoved`], by hand, or by a protocol.
    /// Until then, any path is accepted.
    pub fn handle_move(&mut self, peer: K) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.known = true;
            if let Some((when, _)) = state.waiting.take() {
                self.waiting.remove(&(when, peer));
            }
        }
    }

    /// Handles a report that the fast path saw an authentic, newest packet of `peer` by `path`.
    pub fn handle_report(&mut self, now: Duration, peer: K, path: P) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.policy == Policy::Ignore && state.known {
            return;
        }
        state.refill(now);
        if state.moves == 0 {
            let when = state.waiting.map_or(state.refilled + REFILL, |(when, _)| when);
            state.waiting = Some((when, path));
            self.waiting.insert((when, peer));
            return;
        }
        state.moves -= 1;
        if let Some((when, _)) = state.waiting.take() {
            self.waiting.remove(&(when, peer));
        }
        self.events.push_back(match state.policy {
            Policy::Notify if state.known => Event::PeerSeen { peer, path },
            _ => Event::PeerMoved { peer, path },
        });
    }

    /// Makes the moves whose wait is over at `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(when, peer)) = self.waiting.first() {
            if when > now {
                return;
            }
            self.waiting.pop_first();
            if let Some((_, path)) = self.peers.get_mut(&peer).and_then(|state| state.waiting.take()) {
                self.handle_report(now, peer, path);
            }
        }
    }

    /// Returns when [`Roaming::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.first().map(|(when, _)| *when)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event<K, P>> {
        self.events.pop_front()
    }
}

impl<P> Peer<P> {
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
    use alloc::vec::Vec;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn moves(roaming: &mut Roaming<u32, char>) -> Vec<char> {
        core::iter::from_fn(|| roaming.poll_event())
            .map(|event| match event {
                Event::PeerMoved { path, .. } | Event::PeerSeen { path, .. } => path,
            })
            .collect()
    }

    #[test]
    fn policy_decides_once_a_path_is_known() {
        for (policy, known, expected) in [
            (Policy::Follow, true, Some(Event::PeerMoved { peer: 1, path: 'b' })),
            (Policy::Notify, true, Some(Event::PeerSeen { peer: 1, path: 'b' })),
            (Policy::Ignore, true, None),
            (Policy::Ignore, false, Some(Event::PeerMoved { peer: 1, path: 'b' })),
        ] {
            let mut roaming = Roaming::default();
            roaming.insert(MS(0), 1, policy, known);
            roaming.handle_report(MS(1), 1, 'b');
            roaming.handle_report(MS(1), 2, 'x');
            assert_eq!(roaming.poll_event(), expected, "{policy:?} {known}");
            assert_eq!(roaming.poll_event(), None);
        }
    }

    #[test]
    fn until_a_first_path_was_taken_every_one_is_offered() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Ignore, false);
        roaming.handle_report(MS(1), 1, 'a');
        roaming.handle_report(MS(2), 1, 'b');
        assert_eq!(moves(&mut roaming), ['a', 'b']);
        roaming.handle_move(1);
        roaming.handle_report(MS(3), 1, 'c');
        assert_eq!(moves(&mut roaming), []);
    }

    #[test]
    fn a_flapping_peer_is_damped_and_ends_where_it_was_last_seen() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Follow, true);
        for i in 0..100 {
            roaming.handle_report(MS(i), 1, if i % 2 == 0 { 'a' } else { 'b' });
        }
        assert_eq!(moves(&mut roaming).len(), BURST as usize);
        let when = roaming.poll_timeout().unwrap();
        assert!(when <= MS(99) + REFILL);
        roaming.handle_timeout(when - MS(1));
        assert_eq!(moves(&mut roaming), []);
        roaming.handle_timeout(when);
        assert_eq!(moves(&mut roaming), ['b']);
        assert_eq!(roaming.poll_timeout(), None);
    }

    #[test]
    fn time_refills_the_bucket_but_not_beyond_its_size() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Follow, true);
        for round in 1..4 {
            let now = MS(60_000 * round);
            (0..20).for_each(|_| roaming.handle_report(now, 1, 'a'));
            assert_eq!(moves(&mut roaming).len(), BURST as usize);
        }
    }

    #[test]
    fn a_move_by_other_means_cancels_a_waiting_one() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Follow, true);
        (0..20).for_each(|_| roaming.handle_report(MS(0), 1, 'a'));
        moves(&mut roaming);
        roaming.handle_move(1);
        roaming.handle_timeout(MS(10_000));
        assert_eq!((roaming.poll_timeout(), moves(&mut roaming)), (None, Vec::new()));
    }
}

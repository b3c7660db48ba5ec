//! Whether a peer that shows up by a new path is followed, and how often.
//!
//! The fast path reports a path only for an authentic packet that is the newest of its SA, so a
//! report is the peer's own doing. What is left to decide is the tunnel's policy, and what to do
//! with a peer that flaps: a bucket of [`BURST`] moves that refills by one each [`REFILL`]; a move
//! that finds it empty waits, and a later one replaces it.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

/// Moves that a peer may make at once.
pub const BURST: u32 = 8;
/// After how long it may make one more.
pub const REFILL: Duration = Duration::from_millis(500);

/// What to do when a peer shows up by a new path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Send to it from now on.
    Follow,
    /// Only say so.
    Notify,
    /// Nothing.
    Ignore,
}

/// What came of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<K, P> {
    /// The link moved: send by this path from now on, and say so by [`Roaming::handle_move`].
    PeerMoved {
        /// Whose.
        peer: K,
        /// Its new path.
        path: P,
    },
    /// The peer was seen by this path, and policy says to leave it at that.
    PeerSeen {
        /// Whose.
        peer: K,
        /// The path.
        path: P,
    },
}

#[derive(Debug)]
struct Peer<P> {
    policy: Policy,
    /// Whether any path is known yet: the first one is always followed.
    known: bool,
    moves: u32,
    refilled: Duration,
    /// The path of a move that has to wait, and until when.
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
    /// Adds a peer. `known` says whether it has a path to begin with; where not, the first one
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

    /// The peer was moved: as [`Event::PeerMoved`] said, by hand, or by a protocol. Until it was,
    /// any path is taken.
    pub fn handle_move(&mut self, peer: K) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.known = true;
            if let Some((when, _)) = state.waiting.take() {
                self.waiting.remove(&(when, peer));
            }
        }
    }

    /// The fast path saw an authentic, newest packet of `peer` by `path`.
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

    /// Time has come to `now`.
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

    /// When [`Roaming::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.first().map(|(when, _)| *when)
    }

    /// The next event.
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
    fn patience_refills_the_bucket_but_not_beyond_its_size() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Follow, true);
        for round in 1..4 {
            let now = MS(60_000 * round);
            (0..20).for_each(|_| roaming.handle_report(now, 1, 'a'));
            assert_eq!(moves(&mut roaming).len(), BURST as usize);
        }
    }

    #[test]
    fn a_move_by_other_means_cancels_what_waits() {
        let mut roaming = Roaming::default();
        roaming.insert(MS(0), 1, Policy::Follow, true);
        (0..20).for_each(|_| roaming.handle_report(MS(0), 1, 'a'));
        moves(&mut roaming);
        roaming.handle_move(1);
        roaming.handle_timeout(MS(10_000));
        assert_eq!((roaming.poll_timeout(), moves(&mut roaming)), (None, Vec::new()));
    }
}

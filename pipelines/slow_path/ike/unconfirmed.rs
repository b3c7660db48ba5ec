//! The bound on what is sent to where a peer has not shown that it is.

use std::{collections::BTreeMap, time::Duration};
use wayfarer_mobility::ike::event::PeerId;

/// Bytes that are sent on a path until its peer has confirmed it, and on all such paths together.
const UNCONFIRMED: u64 = 16 << 20;
const UNCONFIRMED_IN_ALL: u64 = 1 << 30;
/// How often they are counted: a peer decides how many tunnels there are to count.
const EVERY: Duration = Duration::from_millis(2);

/// Peers on a path that they have not confirmed.
#[derive(Debug, Default)]
pub(super) struct UnconfirmedPaths {
    /// The bytes sent to each before it moved there.
    before: BTreeMap<PeerId, u64>,
    /// When they are counted next, since the start.
    next: Duration,
}

impl UnconfirmedPaths {
    /// Adds a peer, to which `sent` bytes were sent so far. One that is there already stays as it
    /// is.
    pub(super) fn insert(&mut self, peer: PeerId, sent: u64) {
        self.before.entry(peer).or_insert(sent);
    }

    /// Forgets a peer: its path is confirmed, or it is gone.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.before.remove(&peer);
    }

    /// Takes out and returns the peers to which more was sent than may be. `sent` returns the bytes
    /// sent to a peer in all.
    pub(super) fn take_exceeding(&mut self, now: Duration, sent: impl Fn(PeerId) -> u64) -> Vec<PeerId> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + EVERY;
        let most = most(self.before.len());
        let exceeding = self.before.extract_if(.., |peer, before| sent(*peer).saturating_sub(*before) > most);
        exceeding.map(|(peer, _)| peer).collect()
    }
}

/// Returns the bytes that are sent on each of so many paths until its peer has confirmed it.
fn most(paths: usize) -> u64 {
    UNCONFIRMED.min(UNCONFIRMED_IN_ALL / paths.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paths_that_are_not_confirmed_share_one_bound() {
        assert_eq!([0, 1, 64].map(most), [16 << 20; 3]);
        for paths in [65, 10_000, 1 << 20] {
            assert!(most(paths) * paths as u64 <= 1 << 30, "{paths}");
        }
    }
}

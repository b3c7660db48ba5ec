//! Limits what is sent on paths that a peer has not confirmed.

use std::{collections::BTreeMap, time::Duration};
use wayfarer_mobility::ike::event::PeerId;

/// Bytes that are sent on one unconfirmed path, and on all of them together.
const MAX_BYTES: u64 = 16 << 20;
const MAX_TOTAL_BYTES: u64 = 1 << 30;
/// Time between two counts. Counting takes longer with more tunnels, whose number peers decide.
const COUNT_INTERVAL: Duration = Duration::from_millis(2);

/// Peers on a path that they have not confirmed.
#[derive(Debug, Default)]
pub(super) struct UnconfirmedPaths {
    /// Bytes sent to each peer before it moved.
    before: BTreeMap<PeerId, u64>,
    /// When they are counted next, since the start.
    next: Duration,
}

impl UnconfirmedPaths {
    /// Adds a peer to which `sent` bytes were sent so far. Keeps the entry of a peer that is
    /// already there.
    pub(super) fn insert(&mut self, peer: PeerId, sent: u64) {
        self.before.entry(peer).or_insert(sent);
    }

    /// Removes a peer, because its path is confirmed or it is gone.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.before.remove(&peer);
    }

    /// Removes and returns the peers to which too much was sent. `sent` returns the total bytes
    /// sent to a peer.
    pub(super) fn take_exceeding(&mut self, now: Duration, sent: impl Fn(PeerId) -> u64) -> Vec<PeerId> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + COUNT_INTERVAL;
        let limit = limit(self.before.len());
        let exceeding =
            self.before.extract_if(.., |peer, before| sent(*peer).saturating_sub(*before) > limit);
        exceeding.map(|(peer, _)| peer).collect()
    }
}

/// Returns how many bytes may be sent on each of this number of unconfirmed paths.
fn limit(paths: usize) -> u64 {
    MAX_BYTES.min(MAX_TOTAL_BYTES / paths.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unconfirmed_paths_share_one_limit() {
        assert_eq!([0, 1, 64].map(limit), [16 << 20; 3]);
        for paths in [65, 10_000, 1 << 20] {
            assert!(limit(paths) * paths as u64 <= 1 << 30, "{paths}");
        }
    }
}

//! The last peers that did not connect, or got no child SA.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};
use wayfarer_mobility::path::network;

/// Peers that are remembered.
const MAX_FAILED: usize = 100;
/// A network's share of them. If there is no room, the oldest of a network with more makes some, that of
/// the newest first, so that a flood from one network leaves those of others.
const SHARE: usize = 10;

/// A peer that did not connect, or got no child SA.
#[derive(Debug)]
pub(super) struct FailedPeer {
    /// When it failed, since the start.
    pub(super) at: Duration,
    /// Its address.
    pub(super) remote: SocketAddr,
    /// What it called itself, if it got that far.
    pub(super) claimed: Option<String>,
    /// The identity that it proved, if it got that far.
    pub(super) proved: Option<String>,
    /// The name of its connection, if it got that far.
    pub(super) connection: Option<String>,
    /// How it authenticated or tried to, if it got that far.
    pub(super) method: Option<String>,
    /// Why, in plain words.
    pub(super) reason: String,
}

/// Such peers, the newest first.
#[derive(Debug, Default)]
pub(super) struct FailedPeers(VecDeque<FailedPeer>);

impl FailedPeers {
    /// Remembers a peer.
    pub(super) fn insert(&mut self, peer: FailedPeer) {
        if self.0.len() >= MAX_FAILED {
            let own = network(peer.remote.ip());
            let mut counts = BTreeMap::from([(own, 1)]);
            for other in &self.0 {
                *counts.entry(network(other.remote.ip())).or_default() += 1;
            }
            let most = counts.iter().max_by_key(|(_, count)| **count).map_or(own, |(most, _)| *most);
            let crowd = if counts[&own] > SHARE { own } else { most };
            let is_crowd = |other: &FailedPeer| network(other.remote.ip()) == crowd;
            let oldest = self.0.iter().rposition(is_crowd).filter(|_| counts[&crowd] > SHARE);
            self.0.remove(oldest.unwrap_or(MAX_FAILED - 1));
        }
        self.0.push_front(peer);
    }

    /// Returns the peers, the newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &FailedPeer> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(failed: &mut FailedPeers, at: Duration, remote: SocketAddr) {
        let (claimed, proved, method) = (None, None, None);
        let (connection, reason) = (Some("office".to_owned()), "no common algorithms".to_owned());
        failed.insert(FailedPeer { at, remote, claimed, proved, connection, method, reason });
    }

    #[test]
    fn remembers_the_last_hundred_failures() {
        let mut failed = FailedPeers::default();
        for n in 0..300u32 {
            let remote = SocketAddr::from(((n << 8).to_be_bytes(), 500));
            fail(&mut failed, Duration::from_secs(1), remote);
        }
        let all: Vec<_> = failed.iter().collect();
        assert_eq!((all.len(), all[0].remote), (MAX_FAILED, ([0, 1, 43, 0], 500).into()));
        assert_eq!(all[0].reason, "no common algorithms");
        assert_eq!(all[0].connection.as_deref(), Some("office"));
    }

    #[test]
    fn flood_drives_out_only_its_own_failures() {
        let mut failed = FailedPeers::default();
        let now = Duration::from_secs(1);
        let other = SocketAddr::from(([198, 51, 100, 1], 500));
        fail(&mut failed, now, other);
        for port in 1..=300 {
            fail(&mut failed, now, ([192, 0, 2, 7], port).into());
        }
        let all: Vec<_> = failed.iter().map(|peer| peer.remote).collect();
        assert_eq!((all.len(), all[0].port(), all[MAX_FAILED - 1]), (MAX_FAILED, 300, other));
        // Nor does it leave others that come later without room.
        for n in 0..80u8 {
            fail(&mut failed, now, ([203, 0, n, 1], 500).into());
        }
        let all: Vec<_> = failed.iter().map(|peer| peer.remote).collect();
        assert_eq!((all.len(), all[MAX_FAILED - 1]), (MAX_FAILED, other));
    }
}

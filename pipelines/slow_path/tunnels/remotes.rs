//! Finds tunnels by the address and UDP port of their peer.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};
use wayfarer_dataplane::sa::{Encap, Path, TunnelId};

/// The tunnels, by a hash of their peer's address and UDP port, which are three times as long. Its secret
/// keeps peers from choosing addresses with one hash.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    by_hash: BTreeSet<(u32, TunnelId)>,
    secret: RandomState,
}

impl Remotes {
    pub(super) fn insert(&mut self, path: &Path, id: TunnelId) {
        self.by_hash.insert((self.hash(path), id));
    }

    pub(super) fn remove(&mut self, path: &Path, id: TunnelId) {
        self.by_hash.remove(&(self.hash(path), id));
    }

    /// Returns the tunnels whose peer has the remote address and port of `path`, and perhaps a few others.
    pub(super) fn candidates(&self, path: &Path) -> impl Iterator<Item = TunnelId> {
        let hash = self.hash(path);
        self.by_hash.range((hash, TunnelId(0))..=(hash, TunnelId(u32::MAX))).map(|(_, id)| *id)
    }

    fn hash(&self, path: &Path) -> u32 {
        self.secret.hash_one((path.remote, udp_port(path))) as u32
    }
}

/// Returns whether two paths lead to the same address and UDP port.
pub(super) fn same_remote(a: &Path, b: &Path) -> bool {
    (a.remote, udp_port(a)) == (b.remote, udp_port(b))
}

/// Returns the peer's UDP port; `None` without UDP.
fn udp_port(path: &Path) -> Option<u16> {
    match path.encap {
        Encap::Udp { remote, .. } => Some(remote),
        Encap::None => None,
    }
}

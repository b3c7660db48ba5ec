//! Who is connected, and in whose name.

use super::{event::PeerId, pool::Owner};
use alloc::collections::{BTreeMap, BTreeSet};

/// Peers of one name.
type Peers = BTreeSet<PeerId>;

/// The peers that have proved who they are.
#[derive(Debug, Default)]
pub(super) struct Connected {
    /// By whose addresses they have.
    identities: BTreeMap<Owner, Peers>,
    /// By who answers for what they do.
    principals: BTreeMap<Owner, Peers>,
    /// Both of each.
    names: BTreeMap<PeerId, [Owner; 2]>,
}

impl Connected {
    pub(super) fn insert(&mut self, peer: PeerId, owner: Owner, principal: Owner) {
        self.identities.entry(owner.clone()).or_default().insert(peer);
        self.principals.entry(principal.clone()).or_default().insert(peer);
        self.names.insert(peer, [owner, principal]);
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, peer: PeerId) -> bool {
        let Some([owner, principal]) = self.names.remove(&peer) else { return false };
        take(&mut self.identities, owner, peer);
        take(&mut self.principals, principal, peer);
        true
    }

    /// Number of peers.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Number of those who answer for peers.
    pub(super) fn principals(&self) -> usize {
        self.principals.len()
    }

    /// The peers of an owner, the oldest first.
    pub(super) fn of(&self, owner: &Owner) -> &Peers {
        static NONE: Peers = Peers::new();
        self.identities.get(owner).unwrap_or(&NONE)
    }

    /// Whether a connection of the configuration has a peer.
    pub(super) fn has_peer_of(&self, connection: usize) -> bool {
        self.principals.keys().any(|(of, _)| *of == connection)
    }
}

/// Takes a peer out of those of one name.
fn take(all: &mut BTreeMap<Owner, Peers>, name: Owner, peer: PeerId) {
    if let Some(peers) = all.get_mut(&name) {
        peers.remove(&peer);
        if peers.is_empty() {
            all.remove(&name);
        }
    }
}

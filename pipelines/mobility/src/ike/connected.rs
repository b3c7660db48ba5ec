//! The connected peers, by owner and by principal.

use super::{event::PeerId, pool::Owner};
use crate::identity::Identity;
use alloc::collections::{BTreeMap, BTreeSet};

/// Peers of one owner or principal.
type Peers = BTreeSet<PeerId>;

static NONE: Peers = Peers::new();

/// A peer that has just been authenticated.
#[derive(Debug)]
pub(super) struct NewPeer {
    pub(super) peer: PeerId,
    /// The owner of its inner addresses.
    pub(super) owner: Owner,
    /// The principal to whom its requests and moves are charged.
    pub(super) principal: Owner,
    /// True if it replaces the owner's other peers.
    pub(super) takes_over: bool,
    /// True if it says that it has no other IKE SA with us (RFC 7296 §2.4).
    pub(super) initial_contact: bool,
}

/// The peers that are authenticated.
#[derive(Debug, Default)]
pub(super) struct ConnectedPeers {
    /// By owner.
    identities: BTreeMap<Owner, Peers>,
    /// By principal.
    principals: BTreeMap<Owner, Peers>,
    /// Owner and principal of each peer.
    names: BTreeMap<PeerId, [Owner; 2]>,
    /// Peers that count for no limit, because another one replaces them.
    replaced: Peers,
}

impl ConnectedPeers {
    pub(super) fn insert(&mut self, new_peer: &NewPeer) {
        let NewPeer { peer, owner, principal, .. } = new_peer;
        self.identities.entry(owner.clone()).or_default().insert(*peer);
        self.principals.entry(principal.clone()).or_default().insert(*peer);
        self.names.insert(*peer, [owner.clone(), principal.clone()]);
    }

    /// Removes a peer; returns true if it was there.
    pub(super) fn remove(&mut self, peer: PeerId) -> bool {
        let Some([owner, principal]) = self.names.remove(&peer) else { return false };
        self.replaced.remove(&peer);
        remove_from(&mut self.identities, owner, peer);
        remove_from(&mut self.principals, principal, peer);
        true
    }

    /// Counts a connected peer for no limit, or for all of them again, because another one replaces it
    /// or no longer does.
    pub(super) fn set_replaced(&mut self, peer: PeerId, is_replaced: bool) {
        match is_replaced {
            true if self.names.contains_key(&peer) => self.replaced.insert(peer),
            _ => self.replaced.remove(&peer),
        };
    }

    /// Returns those of these peers that count for the limit of an owner, the oldest first.
    pub(super) fn counted(&self, peers: &Peers) -> impl Iterator<Item = PeerId> {
        peers.iter().copied().filter(|peer| !self.is_replaced(*peer))
    }

    /// Returns true if a peer counts for no limit, because another one replaces it.
    pub(super) fn is_replaced(&self, peer: PeerId) -> bool {
        self.replaced.contains(&peer)
    }

    /// Returns how many peers count for the limit of all peers. The others are as many at most, because
    /// each has a successor that counts.
    pub(super) fn counted_in_all(&self) -> usize {
        self.names.len() - self.replaced.len()
    }

    /// Returns the number of entries in all indices.
    pub(super) fn entries(&self) -> usize {
        self.identities.len() + self.principals.len() + self.names.len() + self.replaced.len()
    }

    /// Returns the number of principals.
    pub(super) fn principals(&self) -> usize {
        self.principals.len()
    }

    /// Returns the peers of an owner, the oldest first.
    pub(super) fn of_owner(&self, owner: &Owner) -> &Peers {
        self.identities.get(owner).unwrap_or(&NONE)
    }

    /// Returns the peers of a principal, the oldest first.
    pub(super) fn of_principal(&self, principal: &Owner) -> &Peers {
        self.principals.get(principal).unwrap_or(&NONE)
    }

    /// Returns true if a connection, whose name has this number, has a peer.
    pub(super) fn has_peer_of(&self, connection: usize) -> bool {
        // This identity precedes all others.
        let first = self.principals.range((connection, Identity::anybody())..).next();
        first.is_some_and(|((of, _), _)| *of == connection)
    }
}

/// Removes a peer from those of one owner or principal.
fn remove_from(all: &mut BTreeMap<Owner, Peers>, name: Owner, peer: PeerId) {
    if let Some(peers) = all.get_mut(&name) {
        peers.remove(&peer);
        if peers.is_empty() {
            all.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_peer_whatever_its_name_is() {
        let named = Identity::from_text("a.test").unwrap();
        for name in [Identity::anybody(), Identity::unnamed(0), named] {
            let mut connected = ConnectedPeers::default();
            let (peer, owner) = (PeerId(1), (2, name));
            let principal = owner.clone();
            let new_peer = NewPeer { peer, owner, principal, takes_over: false, initial_contact: false };
            connected.insert(&new_peer);
            assert_eq!([1, 2, 3].map(|connection| connected.has_peer_of(connection)), [false, true, false]);
            assert!(connected.remove(peer) && !connected.has_peer_of(2) && !connected.remove(peer));
        }
    }
}

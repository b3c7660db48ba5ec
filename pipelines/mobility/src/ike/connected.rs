//! Who is connected, and in whose name.

use super::{event::PeerId, pool::Owner};
use crate::identity::Identity;
use alloc::collections::{BTreeMap, BTreeSet};

/// Peers of one name.
type Peers = BTreeSet<PeerId>;

static NONE: Peers = Peers::new();

/// A peer that has just proved who it is.
#[derive(Debug)]
pub(super) struct NewPeer {
    pub(super) peer: PeerId,
    /// Whose addresses it has.
    pub(super) owner: Owner,
    /// Who answers for what it does.
    pub(super) principal: Owner,
    /// It takes the place of itself.
    pub(super) takes_over: bool,
    /// It says that it has no other IKE SA with us (RFC 7296 §2.4).
    pub(super) initial_contact: bool,
}

/// The peers that have proved who they are.
#[derive(Debug, Default)]
pub(super) struct ConnectedPeers {
    /// By whose addresses they have.
    identities: BTreeMap<Owner, Peers>,
    /// By who answers for what they do.
    principals: BTreeMap<Owner, Peers>,
    /// Both of each.
    names: BTreeMap<PeerId, [Owner; 2]>,
}

impl ConnectedPeers {
    pub(super) fn insert(&mut self, new_peer: &NewPeer) {
        let NewPeer { peer, owner, principal, .. } = new_peer;
        self.identities.entry(owner.clone()).or_default().insert(*peer);
        self.principals.entry(principal.clone()).or_default().insert(*peer);
        self.names.insert(*peer, [owner.clone(), principal.clone()]);
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

    /// Returns the number of entries in all indices.
    pub(super) fn entries(&self) -> usize {
        self.identities.len() + self.principals.len() + self.names.len()
    }

    /// Number of those who answer for peers.
    pub(super) fn principals(&self) -> usize {
        self.principals.len()
    }

    /// The peers of an owner, the oldest first.
    pub(super) fn of(&self, owner: &Owner) -> &Peers {
        self.identities.get(owner).unwrap_or(&NONE)
    }

    /// The peers for whom a principal answers, the oldest first.
    pub(super) fn answered_for_by(&self, principal: &Owner) -> &Peers {
        self.principals.get(principal).unwrap_or(&NONE)
    }

    /// Whether a connection of the configuration has a peer.
    pub(super) fn has_peer_of(&self, connection: usize) -> bool {
        // This name comes before all others.
        let first = self.principals.range((connection, Identity::anybody())..).next();
        first.is_some_and(|((of, _), _)| *of == connection)
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

//! What may be seen of peers: all but their keys.

use super::{
    event::{ChildId, PeerId},
    peer::Peer,
    suite::IkeSuite,
};
use crate::{
    identity::Identity,
    path::{Addresses, Nat},
};
use core::{net::IpAddr, time::Duration};

pub use super::peer::State;

/// How much is kept of all peers together. All of it is zero when the last peer is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Peers in any state.
    pub peers: usize,
    /// Those of them that have not proved who they are.
    pub half_open: usize,
    /// SPIs of IKE SAs.
    pub spis: usize,
    /// SPIs of child SAs, those too that are reserved for others.
    pub child_spis: usize,
    /// Pairs of child SAs.
    pub children: usize,
    /// Tasks that wait or are being done.
    pub tasks: usize,
    /// Entries of the indices by name.
    pub names: usize,
    /// Inner addresses in use.
    pub leases: usize,
}

/// What may be seen of a peer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    peer: &'a Peer,
}

impl<'a> View<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self { peer }
    }

    /// Its number.
    pub fn id(&self) -> PeerId {
        self.peer.id
    }

    /// Its connection of the configuration.
    pub fn connection(&self) -> Option<usize> {
        self.peer.connection
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.peer.state()
    }

    /// Who it has proved to be, by EAP where that was the proof; until then, who it says it is.
    pub fn identity(&self) -> Option<&'a Identity> {
        self.peer.name()
    }

    /// Where it is.
    pub fn addresses(&self) -> Addresses {
        self.peer.addresses
    }

    /// NATs on the way.
    pub fn nat(&self) -> Nat {
        self.peer.nat
    }

    /// Whether its addresses may change.
    pub fn mobike(&self) -> bool {
        self.peer.mobike
    }

    /// How often it moved, and when it did last.
    pub fn moves(&self) -> (u64, Option<Duration>) {
        (self.peer.moves, self.peer.moved_at)
    }

    /// How often keys were changed.
    pub fn rekeys(&self) -> u64 {
        self.peer.rekeys
    }

    /// When it began.
    pub fn since(&self) -> Duration {
        self.peer.since()
    }

    /// Algorithms of its IKE SA.
    pub fn suite(&self) -> Option<&'a IkeSuite> {
        self.peer.suite()
    }

    /// Bytes of memory that it takes while it is half open, as far as can be told.
    pub fn half_open_memory(&self) -> usize {
        self.peer.half_open_memory()
    }

    /// SPIs of its IKE SA, the initiator's first.
    pub fn spis(&self) -> Option<[u64; 2]> {
        self.peer.active_spis()
    }

    /// Returns the number of its IKE SAs: one, and those that are to replace it or were replaced.
    pub fn ike_sas(&self) -> usize {
        self.peer.ike_sas.len()
    }

    /// Inner addresses that it has, or that we got from it.
    pub fn inner(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.peer.inner()
    }

    /// Its child SAs.
    pub fn children(&self) -> impl Iterator<Item = ChildId> + use<'a> {
        self.peer.child_ids()
    }
}

//! The visible state of a peer: everything but its keys.

use super::{
    endpoint::Endpoint,
    event::{ChildId, PeerId},
    method::Method,
    peer::Peer,
    suite::{EspSuite, IkeSuite},
};
use crate::{
    aaa::grant::Grant,
    identity::Identity,
    path::{Addresses, Nat},
};
use core::{net::IpAddr, time::Duration};

pub use super::peer::State;

/// The visible state of a peer.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    peer: &'a Peer,
}

impl<'a> View<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self { peer }
    }

    /// Returns the peer's number.
    pub fn id(&self) -> PeerId {
        self.peer.id
    }

    /// Returns the index of its connection in the configuration.
    pub fn connection(&self) -> Option<usize> {
        self.peer.connection
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        self.peer.state()
    }

    /// Returns the identity that it proved, by EAP if EAP was used; until then, the one that it
    /// claims.
    pub fn identity(&self) -> Option<&'a Identity> {
        self.peer.name()
    }

    /// Returns the identity that it claims, once it does.
    pub fn claimed(&self) -> Option<&'a Identity> {
        self.peer.claimed()
    }

    /// Returns the identity that it proved, once it has.
    pub fn proved(&self) -> Option<&'a Identity> {
        self.peer.proved()
    }

    /// Returns how it authenticates, once it has begun to.
    pub fn method(&self) -> Option<Method> {
        self.peer.method
    }

    /// Returns its addresses.
    pub fn addresses(&self) -> Addresses {
        self.peer.addresses
    }

    /// Returns the NATs on its path.
    pub fn nat(&self) -> Nat {
        self.peer.nat
    }

    /// Returns true if its addresses may change.
    pub fn mobike(&self) -> bool {
        self.peer.mobike
    }

    /// Returns true if we connected to it.
    pub fn is_ours(&self) -> bool {
        self.peer.is_initiator
    }

    /// Returns how often it moved, and when it last did.
    pub fn moves(&self) -> (u64, Option<Duration>) {
        (self.peer.moves, self.peer.moved_at)
    }

    /// Returns how often SAs were rekeyed.
    pub fn rekeys(&self) -> u64 {
        self.peer.rekeys
    }

    /// Returns when it began to connect.
    pub fn since(&self) -> Duration {
        self.peer.since()
    }

    /// Returns the algorithms of its IKE SA.
    pub fn suite(&self) -> Option<&'a IkeSuite> {
        self.peer.suite()
    }

    /// Returns the memory in bytes that it takes while it is half open, approximately.
    pub fn half_open_memory(&self) -> usize {
        self.peer.half_open_memory()
    }

    /// Returns the SPIs of its IKE SA, the initiator's first.
    pub fn spis(&self) -> Option<[u64; 2]> {
        self.peer.active_spis()
    }

    /// Returns the number of its IKE SAs: the active one, its successors and predecessors.
    pub fn ike_sas(&self) -> usize {
        self.peer.ike_sas.len()
    }

    /// Returns the inner addresses that we leased to it, or that it assigned to us.
    pub fn inner(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        self.peer.inner()
    }

    /// Returns what a RADIUS server granted to it.
    pub fn grant(&self) -> Option<&'a Grant> {
        self.peer.grant.as_deref()
    }

    /// Returns its child SAs.
    pub fn children(&self) -> impl Iterator<Item = ChildId> + use<'a> {
        self.peer.child_ids()
    }

    /// Returns the algorithms of a child SA of its.
    pub fn child_suite(&self, child: ChildId) -> Option<&'a EspSuite> {
        self.peer.children.iter().find(|one| one.id == child).map(|one| &one.sa.suite)
    }
}

impl Endpoint {
    /// Returns a peer.
    pub fn peer(&self, id: PeerId) -> Option<View<'_>> {
        self.peers.get(&id).map(View::new)
    }

    /// Returns the host name by which we found a peer that we connect to.
    pub fn dialled_name(&self, peer: PeerId) -> Option<&str> {
        self.dials.name_of(peer)
    }

    /// Returns all peers.
    pub fn peers(&self) -> impl Iterator<Item = View<'_>> {
        self.peers.values().map(View::new)
    }
}

//! What is installed for peers: their tunnels, by the numbers that key exchange has for them.

use crate::slow_path::{links::Links, tunnels::Tunnels};
use std::collections::{BTreeMap, BTreeSet};
use wayfarer_dataplane::sa::TunnelId;
use wayfarer_mobility::ike::event::{ChildId, PeerId};

/// All peers that are connected, and all tunnels that key exchange made.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    children: BTreeMap<ChildId, Child>,
    /// Tunnels named so far.
    named: u64,
}

/// A peer that is connected.
#[derive(Debug)]
struct Peer {
    name: String,
    /// Index of its connection.
    connection: usize,
    children: BTreeSet<ChildId>,
    /// Packets that had come from it when that was asked last.
    received: u64,
    /// What tunnels of it that are gone carried.
    gone: Carried,
}

/// A pair of child SAs that is installed.
#[derive(Debug)]
struct Child {
    peer: PeerId,
    tunnel: TunnelId,
    /// The one whose traffic it takes over as soon as it is sent by.
    replaces: Option<ChildId>,
}

/// What tunnels of a peer have carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    /// Bytes sent to it.
    pub(super) sent: u64,
    /// Packets that came from it.
    received: u64,
}

impl Carried {
    fn and(self, tunnel: TunnelId, tunnels: &Tunnels) -> Self {
        let Some(tunnel) = tunnels.get(tunnel) else { return self };
        Self {
            sent: self.sent + tunnel.outbound.life.carried().1,
            received: self.received + tunnel.inbound.life.carried().0,
        }
    }
}

impl Peers {
    /// Adds a peer that connected.
    pub(super) fn insert(&mut self, peer: PeerId, name: String, connection: usize) {
        let (children, gone) = (BTreeSet::new(), Carried::default());
        self.peers.insert(peer, Peer { name, connection, children, received: 0, gone });
    }

    /// Forgets a peer, and returns its name. Its tunnels stay until key exchange says otherwise.
    pub(super) fn remove(&mut self, peer: PeerId) -> Option<String> {
        self.peers.remove(&peer).map(|peer| peer.name)
    }

    /// Returns the name and the connection of a peer.
    pub(super) fn get(&self, peer: PeerId) -> Option<(&str, usize)> {
        self.peers.get(&peer).map(|peer| (&peer.name[..], peer.connection))
    }

    /// Returns a name that no tunnel has had, for one of `child` of the peer called `peer`.
    pub(super) fn name_tunnel(&mut self, peer: &str, child: &str) -> String {
        self.named += 1;
        format!("{peer}/{child}#{}", self.named)
    }

    /// Adds a child that was installed as `tunnel`.
    pub(super) fn add_child(
        &mut self,
        peer: PeerId,
        child: ChildId,
        tunnel: TunnelId,
        replaces: Option<ChildId>,
    ) {
        self.children.insert(child, Child { peer, tunnel, replaces });
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.children.insert(child);
        }
    }

    /// Leads traffic to a child; it takes the rules of the one that it replaces.
    pub(super) fn use_child(&mut self, child: ChildId, links: &mut Links) {
        let Some(Child { tunnel, replaces, .. }) = self.children.get_mut(&child) else { return };
        links.start_sending(*tunnel);
        if let Some(old) = replaces.take().and_then(|old| self.children.get(&old)) {
            links.stop_sending(old.tunnel);
        }
    }

    /// Takes a child away.
    pub(super) fn remove_child(&mut self, child: ChildId, links: &mut Links) {
        let Some(Child { peer, tunnel, .. }) = self.children.remove(&child) else { return };
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.children.remove(&child);
            peer.gone = peer.gone.and(tunnel, links.tunnels());
        }
        links.remove(tunnel);
    }

    /// Returns the tunnel that a child is installed as.
    pub(super) fn tunnel(&self, child: ChildId) -> Option<TunnelId> {
        self.children.get(&child).map(|child| child.tunnel)
    }

    /// Returns the tunnels of a peer.
    pub(super) fn tunnels(&self, peer: PeerId) -> impl Iterator<Item = TunnelId> {
        let children = self.peers.get(&peer).into_iter().flat_map(|peer| &peer.children);
        children.filter_map(|child| self.tunnel(*child))
    }

    /// Returns what all tunnels of a peer have carried, those that are gone too.
    pub(super) fn carried(&self, peer: PeerId, tunnels: &Tunnels) -> Carried {
        let gone = self.peers.get(&peer).map_or(Carried::default(), |peer| peer.gone);
        self.tunnels(peer).fold(gone, |carried, tunnel| carried.and(tunnel, tunnels))
    }

    /// Returns whether packets came from a peer since this was asked last; `None` if it is not
    /// there.
    pub(super) fn is_heard(&mut self, peer: PeerId, tunnels: &Tunnels) -> Option<bool> {
        let Carried { received, .. } = self.carried(peer, tunnels);
        let before = &mut self.peers.get_mut(&peer)?.received;
        Some(std::mem::replace(before, received) != received)
    }
}

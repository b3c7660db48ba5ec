//! The tunnels that are installed for IKE peers.

use crate::slow_path::{
    line_limit::LineLimit,
    links::{LinkId, Links},
    parts::Holder,
    tunnels::Tunnel,
};
use std::{collections::BTreeMap, iter, time::Duration};
use wayfarer_dataplane::sa::TunnelId;
use wayfarer_mobility::{
    ike::event::{ChildId, PeerId},
    path_mtu::PacketsSent,
};

/// The connected peers, and the tunnels of all child SAs.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    children: BTreeMap<ChildId, Child>,
    /// The child SAs that wait to replace one of another peer, by the old one.
    followers: BTreeMap<ChildId, ChildId>,
    /// Number of tunnel names given out so far.
    names: u64,
}

/// A connected peer.
#[derive(Debug)]
struct Peer {
    name: String,
    /// Index of its connection in the configuration.
    connection: usize,
    /// It, as whoever has its inner addresses.
    holder: Holder,
    /// When it connected, since the start.
    since: Duration,
    /// Packets received from it at the last liveness check.
    received: u64,
    /// Bytes of inner packets sent to it when the MTU of its path was last to be looked for.
    sent_bytes: u64,
    /// The MTU of its path that the log has told of last; `None` if that was the port's.
    told_mtu: Option<u16>,
    /// True if the log has told that it answers with more traffic than we ask for.
    told_widened: bool,
    /// Traffic of its tunnels that have been removed.
    removed: Traffic,
    /// Limits the log's lines about its moves.
    lines: LineLimit,
}

/// An installed child SA.
#[derive(Debug)]
struct Child {
    peer: PeerId,
    tunnel: TunnelId,
    /// The child SA whose traffic it takes over once it is used for sending.
    replaces: Option<ChildId>,
}

/// A peer whose link has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Index of its connection in the configuration.
    pub(super) connection: usize,
    /// When it connected, since the start.
    pub(super) since: Duration,
    /// All its traffic.
    pub(super) traffic: Traffic,
    /// Number of lines about its moves that the log leaves out and has not told of.
    pub(super) left_out: Option<u64>,
}

/// Traffic of a peer's tunnels: inner packets and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) received_packets: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_packets: u64,
    pub(super) sent_bytes: u64,
}
impl Traffic {
    fn plus(self, tunnel: &Tunnel) -> Self {
        let (received, sent) = (tunnel.inbound.life.carried(), tunnel.outbound.life.carried());
        Self {
            received_packets: self.received_packets + received.0,
            received_bytes: self.received_bytes + received.1,
            sent_packets: self.sent_packets + sent.0,
            sent_bytes: self.sent_bytes + sent.1,
        }
    }
}

impl Peers {
    /// Adds a connected peer.
    pub(super) fn insert(
        &mut self,
        now: Duration,
        peer: PeerId,
        name: String,
        connection: usize,
        holder: Holder,
    ) {
        let new = Peer {
            name,
            connection,
            holder,
            since: now,
            received: 0,
            sent_bytes: 0,
            told_mtu: None,
            told_widened: false,
            removed: Traffic::default(),
            lines: LineLimit::default(),
        };
        self.peers.insert(peer, new);
    }

    /// Removes and returns a peer. Its tunnels stay until IKE removes its child SAs.
    pub(super) fn remove(&mut self, peer: PeerId, links: &Links) -> Option<Ended> {
        let traffic = self.traffic(peer, links);
        let Peer { connection, since, mut lines, .. } = self.peers.remove(&peer)?;
        Some(Ended { connection, since, traffic, left_out: lines.take_left_out() })
    }

    /// Returns a peer's name, the index of its connection, and it as whoever has its inner addresses.
    pub(super) fn get(&self, peer: PeerId) -> Option<(&str, usize, &Holder)> {
        self.peers.get(&peer).map(|peer| (&peer.name[..], peer.connection, &peer.holder))
    }

    /// Returns `None` if the log must leave out a line about a move of a peer. Otherwise returns
    /// the number of lines that it left out before, if there are any.
    pub(super) fn admits_line(&mut self, now: Duration, peer: PeerId) -> Option<Option<u64>> {
        self.peers.get_mut(&peer)?.lines.admits(now)
    }

    /// Returns when a peer connected, since the start.
    pub(super) fn since(&self, peer: PeerId) -> Option<Duration> {
        self.peers.get(&peer).map(|peer| peer.since)
    }

    /// Returns a name for a tunnel of `child` of the peer called `peer`, which no tunnel has had.
    pub(super) fn name_tunnel(&mut self, peer: &str, child: &str) -> String {
        self.names += 1;
        format!("{peer}/{child}#{}", self.names)
    }

    /// Adds a child SA that was installed as `tunnel`. If it `replaces` another by a rekey, whichever
    /// waits to replace that one replaces the new one.
    pub(super) fn add_child(
        &mut self,
        peer: PeerId,
        child: ChildId,
        tunnel: TunnelId,
        replaces: Option<ChildId>,
    ) {
        self.children.insert(child, Child { peer, tunnel, replaces });
        if let Some(follower) = replaces.and_then(|old| self.followers.remove(&old)) {
            self.replace_child(follower, child);
        }
    }

    /// Has a child SA take over the traffic of `old`, of another peer, once it is used for sending or
    /// `old` ends.
    pub(super) fn replace_child(&mut self, child: ChildId, old: ChildId) {
        if let Some(new) = self.children.get_mut(&child) {
            new.replaces = Some(old);
            self.followers.insert(old, child);
        }
    }

    /// Returns the tunnels of a child SA and of all whose traffic it takes over. One that is replaced
    /// before it is used leaves to its successor what it has not taken over itself.
    pub(super) fn line_of(&self, child: ChildId) -> Vec<TunnelId> {
        let before = |child: &ChildId| self.children.get(child)?.replaces;
        iter::successors(Some(child), before).filter_map(|child| self.tunnel(child)).collect()
    }

    /// Starts sending by a child SA, and stops sending by those that it replaces.
    pub(super) fn use_child(&mut self, now: Duration, child: ChildId, links: &mut Links) {
        let line = self.line_of(child);
        let Some((tunnel, replaced)) = line.split_first() else { return };
        let mut last = child;
        while let Some(old) = self.children.get_mut(&last).and_then(|child| child.replaces.take()) {
            self.forget_follower(old, last);
            last = old;
        }
        for old in replaced {
            links.inherit_from(now, *old, *tunnel);
        }
        links.start_sending(*tunnel, replaced);
        for old in replaced {
            links.stop_sending(*old);
        }
    }

    /// Forgets that `child` waits to replace `old`, unless another one does.
    fn forget_follower(&mut self, old: ChildId, child: ChildId) {
        if self.followers.get(&old) == Some(&child) {
            self.followers.remove(&old);
        }
    }

    /// Removes a child SA and its tunnel.
    pub(super) fn remove_child(&mut self, now: Duration, child: ChildId, links: &mut Links) {
        if let Some(follower) = self.followers.remove(&child) {
            self.use_child(now, follower, links);
        }
        let Some(Child { peer, tunnel, replaces }) = self.children.remove(&child) else { return };
        if let Some(old) = replaces {
            self.forget_follower(old, child);
        }
        if let (Some(peer), Some(tunnel)) = (self.peers.get_mut(&peer), links.tunnels().get(tunnel)) {
            peer.removed = peer.removed.plus(tunnel);
        }
        links.remove(tunnel);
    }

    /// Returns the tunnel of a child SA.
    pub(super) fn tunnel(&self, child: ChildId) -> Option<TunnelId> {
        self.children.get(&child).map(|child| child.tunnel)
    }

    /// Returns the traffic of all tunnels of a peer, including removed ones.
    pub(super) fn traffic(&self, peer: PeerId, links: &Links) -> Traffic {
        let removed = self.peers.get(&peer).map_or(Traffic::default(), |peer| peer.removed);
        links.tunnels_of(LinkId::Ike(peer)).fold(removed, Traffic::plus)
    }

    /// Returns what was sent to a peer since the last call.
    pub(super) fn take_sent(&mut self, peer: PeerId, links: &Links) -> PacketsSent {
        let Traffic { sent_bytes, .. } = self.traffic(peer, links);
        let Some(peer) = self.peers.get_mut(&peer) else { return PacketsSent::None };
        let before = std::mem::replace(&mut peer.sent_bytes, sent_bytes);
        PacketsSent::of(sent_bytes.saturating_sub(before))
    }

    /// Notes the MTU of a peer's path, `None` for the port's. Returns true if the log has told of another
    /// one.
    pub(super) fn note_mtu(&mut self, peer: PeerId, mtu: Option<u16>) -> bool {
        self.peers.get_mut(&peer).is_some_and(|peer| std::mem::replace(&mut peer.told_mtu, mtu) != mtu)
    }

    /// Notes that a peer answers with more traffic than we ask for. Returns true the first time.
    pub(super) fn note_widened(&mut self, peer: PeerId) -> bool {
        self.peers.get_mut(&peer).is_some_and(|peer| !std::mem::replace(&mut peer.told_widened, true))
    }

    /// Returns true if packets were received from a peer since the last call; `None` if there is no
    /// such peer.
    pub(super) fn was_heard(&mut self, peer: PeerId, links: &Links) -> Option<bool> {
        let received = self.traffic(peer, links).received_packets;
        let before = &mut self.peers.get_mut(&peer)?.received;
        Some(std::mem::replace(before, received) != received)
    }
}

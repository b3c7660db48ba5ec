//! Peers that have just been authenticated, and those that make room for them.

use super::{
    bounds, connected::NewPeer, counter::Counter, endpoint::Endpoint, event::PeerId, peer::Peer,
    reason::Reason,
};
use alloc::vec::Vec;
use core::time::Duration;

impl Endpoint {
    /// Registers peers that have just been authenticated, and closes those that they replace.
    pub(super) fn settle_new_peers(&mut self, now: Duration) {
        while let Some(new_peer) = self.shared.new_peers.pop() {
            let id = new_peer.peer;
            if !self.peers.get(&id).is_some_and(Peer::is_established) {
                continue;
            }
            self.shared.connected.insert(&new_peer);
            self.succeed(now, &new_peer);
            self.dials.peer_established(id);
            self.replace_older(now, &new_peer);
            self.enforce_peer_limits(now, &new_peer);
        }
    }

    /// Enforces the limits for one owner, for peers without a name, and for all peers. Beyond any, a
    /// peer of the same device is closed that counts: the one that the new peer replaces, or the oldest.
    /// If there is none, the new peer is closed beyond the last limit, and the owner's oldest beyond the
    /// others: several after a reload has lowered the limit.
    fn enforce_peer_limits(&mut self, now: Duration, new_peer: &NewPeer) {
        let (NewPeer { owner, principal, .. }, connected) = (new_peer, &self.shared.connected);
        let settings = &self.environment.settings;
        let (peers, count, limit) = match owner.1.is_unnamed() {
            true => {
                let peers = connected.of_principal(principal);
                (peers, peers.len(), settings.peer_limit / bounds::NAMELESS_SHARE)
            }
            false => {
                let peers = connected.of_owner(owner);
                (peers, connected.counted(peers).count(), settings.device_limit)
            }
        };
        let Some(new) = self.peers.get(&new_peer.peer) else { return };
        let is_old = |id: &PeerId| Some(*id) == new.predecessor();
        let is_own =
            |id: &PeerId| is_old(id) || self.peers.get(id).is_some_and(|peer| peer.shares_remote_with(new));
        let is_full = connected.counted_in_all() > settings.peer_limit;
        let oldest = connected.counted(peers).filter(|id| *id != new_peer.peer);
        let (mut own, others): (Vec<PeerId>, Vec<PeerId>) = oldest.partition(is_own);
        own.sort_by_key(|id| !is_old(id));
        let excess = count.saturating_sub(limit.max(1)).max(usize::from(is_full && !own.is_empty()));
        let others: Vec<PeerId> = own.into_iter().chain(others).take(excess).collect();
        for other in &others {
            self.with(now, *other, |peer, cx| peer.close(cx, Reason::Replaced));
        }
        if is_full && others.is_empty() {
            self.shared.count(Counter::NoRoom);
            self.with(now, new_peer.peer, |peer, cx| peer.close(cx, Reason::Overload));
        }
    }

    /// Closes the peers that a new peer replaces, and tells them.
    fn replace_older(&mut self, now: Duration, new_peer: &NewPeer) {
        let others = self.shared.connected.of_owner(&new_peer.owner).iter().copied();
        let old = self.peers.get(&new_peer.peer).and_then(Peer::predecessor);
        let others: Vec<PeerId> = match (new_peer.takes_over, new_peer.initial_contact) {
            (false, false) => return,
            _ => others.filter(|id| *id != new_peer.peer && Some(*id) != old).collect(),
        };
        for id in others {
            let new = self.peers.get(&new_peer.peer).filter(|new| new.is_established());
            let (Some(new), Some(old)) = (new, self.peers.get(&id)) else { return };
            // Several devices may have this name. The same address and port mean the same device;
            // any other is replaced only if it does not answer.
            let is_same_device = new_peer.takes_over || new.shares_remote_with(old);
            let over = match is_same_device {
                true if new.gives_way_to(old) => new_peer.peer,
                true => id,
                false => {
                    self.with(now, id, Peer::check_liveness);
                    continue;
                }
            };
            self.with(now, over, |peer, cx| peer.close(cx, Reason::Replaced));
        }
    }
}

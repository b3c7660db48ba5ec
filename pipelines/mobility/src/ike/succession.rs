//! Peers that replace another when they authenticate again, make before break (RFC 7296 §2.8.3). The
//! state of each is in `peer::renewal`.

use super::{
    bounds,
    connected::NewPeer,
    endpoint::Endpoint,
    event::{ChildId, Event, PeerId},
    peer::{Peer, State, child::Child, succession::Succession},
};
use alloc::boxed::Box;
use core::time::Duration;

impl Endpoint {
    /// Authenticates again to the peers for which that is due. Each stays connected meanwhile.
    pub(super) fn renew_due(&mut self, now: Duration) {
        while let Some(old) = self.shared.renewals.pop() {
            self.renew(now, old);
        }
    }

    /// Makes a new peer on the path of `old`, to replace it. A connection that is no longer in the
    /// configuration is not made again.
    fn renew(&mut self, now: Duration, old: PeerId) -> Option<()> {
        let before = self.peers.get(&old).filter(|peer| peer.may_be_replaced() && !self.is_shutting_down)?;
        let connections = &self.environment.connections;
        let index = connections.successor(before.connection?)?;
        let (addresses, inner) = (before.addresses, before.assigned.to_vec());
        self.next_peer += 1;
        let id = PeerId(self.next_peer);
        let mut cx = self.environment.context(now, &mut self.shared);
        let mut peer = Peer::initiate(&mut cx, id, index, connections.get(index)?, addresses)?;
        peer.replace(old, inner);
        self.peers.insert(id, peer);
        self.settle(now, id, None);
        self.with(now, old, |peer, _| peer.be_replaced(id, None));
        Some(())
    }

    /// Hands the connection that an ended peer made over to the peer that replaces it, or that it was
    /// to replace. Returns what the ended peer knew of these.
    pub(super) fn leave_succession(&mut self, id: PeerId) -> Succession {
        let ended = self.peers.get_mut(&id).filter(|peer| peer.state() == State::Ended);
        let left = ended.map(Peer::take_succession).unwrap_or_default();
        let lives = |other: &PeerId| self.peers.get(other).is_some_and(|peer| peer.state() != State::Ended);
        if let Some(other) = [left.successor, left.predecessor].into_iter().flatten().find(lives) {
            self.dials.hand_over(id, other);
        }
        if let Some(old) = left.predecessor {
            self.shared.connected.set_replaced(old, false);
        }
        left
    }

    /// Lets a peer that has just been authenticated replace its predecessor, if that still lives. If the
    /// owner may have only one peer, or we replace it ourselves, it is closed after a while.
    pub(super) fn succeed(&mut self, now: Duration, NewPeer { peer: id, takes_over, .. }: &NewPeer) {
        let Some(new) = self.peers.get(id) else { return };
        let Some(old) = new.predecessor() else { return };
        if !self.peers.get(&old).is_some_and(Peer::is_established) {
            return self.with(now, *id, |peer, cx| peer.lose_predecessor(cx, old));
        }
        let is_ours = new.is_initiator;
        let until = (*takes_over || is_ours).then_some(now + bounds::REPLACED_WAIT);
        self.dials.hand_over(old, *id);
        // The two count as one for the limits. A longer chain does not, or it could have any length.
        let is_first = self.peers.get(&old).is_some_and(|old| old.predecessor().is_none());
        self.shared.connected.set_replaced(old, is_first);
        let path_mtu = self.peers.get(&old).and_then(|old| old.path_mtu.as_ref());
        let path_mtu = path_mtu.map(|known| Box::new(known.for_successor(now)));
        self.with(now, *id, |peer, _| peer.path_mtu = path_mtu);
        self.with(now, old, |peer, cx| {
            peer.be_replaced(*id, until);
            if !is_ours {
                peer.check_replaced(cx);
            }
        });
    }

    /// Moves the traffic of a predecessor's child SAs to those of `id` that are new, and closes the
    /// predecessor once we have moved all of it; [`Self::succeed`] bounds the wait for that. If the peer
    /// began, it closes its predecessor itself; and it has the new keys only when our answer has come, so
    /// the traffic moves with its first packet.
    pub(super) fn settle_succession(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(old) = peer.predecessor().filter(|_| peer.is_established()) else { return };
        let (is_ours, new_children) = (peer.is_initiator, peer.take_new_children());
        let is_done = is_ours && peer.has_taken_over() && !self.lacks_child(id, old);
        for child in new_children {
            if !self.peers.get(&id).is_some_and(|peer| peer.child_ids().any(|other| other == child)) {
                continue;
            }
            let before = self.child_before(id, child, old);
            if let Some(before) = before
                && let Some(before) = self.peers.get_mut(&old).and_then(|peer| peer.child(before))
            {
                before.follower = Some(child);
            }
            let events = [
                before.map(|old| Event::ChildFollows { child, old }),
                (is_ours || before.is_none()).then_some(Event::ChildUse { child }),
            ];
            self.shared.events.extend(events.into_iter().flatten());
        }
        if is_done {
            let until = now + self.environment.settings.linger;
            self.with(now, old, |peer, _| peer.retire_by(until));
        }
    }

    /// Returns true if the predecessor `old` still carries traffic by a policy for which the peer `id` has
    /// no child SA, because the other side has refused it so far.
    fn lacks_child(&self, id: PeerId, old: PeerId) -> bool {
        let carries = |peer, name: &str| {
            let children = self.peers.get(&peer).into_iter().flat_map(|peer| &peer.children);
            children.filter(|child| child.state().carries_traffic()).any(|child| child.sa.name == name)
        };
        let connection =
            self.peers.get(&id).and_then(|peer| self.environment.connections.get(peer.connection?));
        let mut policies = connection.into_iter().flat_map(|connection| &connection.children);
        policies.any(|policy| carries(old, &policy.name) && !carries(id, &policy.name))
    }

    /// Returns the child SA of the peer `old` whose traffic `child` of its successor `id` takes over: one
    /// that no other takes over, with the same selectors if there is one, or else with narrower ones.
    fn child_before(&self, id: PeerId, child: ChildId, old: PeerId) -> Option<ChildId> {
        let children_of = |peer| self.peers.get(&peer).into_iter().flat_map(|peer| &peer.children);
        let is_up = |child: ChildId| children_of(id).any(|other| other.id == child);
        let Child { sa: new, .. } = children_of(id).find(|other| other.id == child)?;
        let may_follow = |old: &&Child| {
            old.state().carries_traffic() && new.covers(&old.sa) && !old.follower.is_some_and(is_up)
        };
        let before = children_of(old).filter(may_follow).min_by_key(|old| !old.sa.covers(new));
        before.map(|old| old.id)
    }
}

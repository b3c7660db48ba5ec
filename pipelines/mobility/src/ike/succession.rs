//! Peers that replace another when they authenticate again, make before break (RFC 7296 §2.8.3). The
//! state of each is in `peer::renewal`.

use super::{
    bounds,
    connected::NewPeer,
    endpoint::Endpoint,
    event::{Event, PeerId},
    peer::{Peer, State, child::Child},
    selector,
};
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
    /// to replace. Returns these.
    pub(super) fn leave_succession(&mut self, id: PeerId) -> [Option<PeerId>; 2] {
        let ended = self.peers.get_mut(&id).filter(|peer| peer.state() == State::Ended);
        let relatives = ended.map_or([None; 2], Peer::take_relatives);
        let lives = |other: &PeerId| self.peers.get(other).is_some_and(|peer| peer.state() != State::Ended);
        if let Some(other) = relatives.into_iter().flatten().find(lives) {
            self.dials.hand_over(id, other);
        }
        relatives
    }

    /// Lets a peer that has just been authenticated replace its predecessor, if that still lives. If the
    /// owner may have only one peer, or we replace it ourselves, it is closed after a while.
    pub(super) fn succeed(&mut self, now: Duration, NewPeer { peer: id, takes_over, .. }: &NewPeer) {
        let Some(new) = self.peers.get(id) else { return };
        let Some(old) = new.predecessor() else { return };
        if !self.peers.get(&old).is_some_and(Peer::is_established) {
            return self.with(now, *id, |peer, cx| peer.part_from(cx, old));
        }
        let until = (*takes_over || new.is_initiator).then_some(now + bounds::REPLACED_WAIT);
        self.dials.hand_over(old, *id);
        self.with(now, old, |peer, _| peer.be_replaced(*id, until));
    }

    /// Moves the traffic of a predecessor's child SAs to those of `id` that are new, and closes the
    /// predecessor once we have moved all of it. If the peer began, it closes its predecessor itself; and
    /// it has the new keys only when our answer has come, so the traffic moves with its first packet.
    pub(super) fn settle_succession(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(old) = peer.predecessor().filter(|_| peer.is_established()) else { return };
        let (is_ours, new_children) = (peer.is_initiator, peer.take_new_children());
        let is_done = is_ours && peer.has_taken_over();
        let children_of = |peer| self.peers.get(&peer).into_iter().flat_map(|peer| &peer.children);
        for child in new_children {
            let Some(Child { sa: new, .. }) = children_of(id).find(|other| other.id == child) else {
                continue;
            };
            let carries_the_same = |old: &&Child| {
                old.state().carries_traffic()
                    && selector::is_within(&old.sa.local, &new.local)
                    && selector::is_within(&old.sa.remote, &new.remote)
            };
            let before = children_of(old).find(carries_the_same).map(|old| old.id);
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
}

//! Terminals that close or delete what they have at odd moments.

use super::{GATE, World};
use crate::datagram::Content;
use wayfarer::sim::disturbance::{By, Disturbance};
use wayfarer_mobility::ike::{
    view::State,
    wire::{ExchangeType, Header},
};

impl World {
    /// Returns true if the terminal `node` closes its link, or deletes its child SAs, around this message.
    pub(super) fn is_odd_moment(&mut self, node: usize, content: &Content) -> bool {
        let Content::Ike(message) = content else { return false };
        let is_rekey = Header::parse(message)
            .is_ok_and(|header| header.exchange == ExchangeType::CreateChildSa.number());
        let may_end = self.habits.closes_during_rekeys || self.habits.deletes_during_rekeys;
        node != GATE && may_end && is_rekey && self.random.below(8) == 0
    }

    /// Closes the link of the terminal `node`, or deletes its child SAs.
    pub(super) fn end_at_odd_moment(&mut self, node: usize) {
        let deletes = self.habits.deletes_during_rekeys;
        if !deletes || self.habits.closes_during_rekeys && self.random.percent(50) {
            return self.disturb(Disturbance::Close { terminal: node - 1, by: By::Terminal });
        }
        let (now, endpoint) = (self.now, &mut self.nodes[node].endpoint);
        let up = endpoint.peers().filter(|peer| peer.state() == State::Up);
        let all: Vec<_> = up.flat_map(|peer| peer.children().map(move |child| (peer.id(), child))).collect();
        all.into_iter().for_each(|(peer, child)| endpoint.delete_child(now, peer, child));
        self.work(node);
    }
}

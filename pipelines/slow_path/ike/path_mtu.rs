//! The MTU of the paths to peers, as probes find it.

use super::{
    driver::Ike,
    log::{self, About},
};
use crate::slow_path::{
    links::{FoundMtu, LinkId, Links},
    tunnels::Tunnel,
};
use std::time::Duration;
use wayfarer_mobility::ike::event::PeerId;

/// The longest probe in bytes. Peers need not take longer messages; strongSwan takes 10000 bytes.
const LONGEST: usize = 9000;

impl Ike {
    /// Has the endpoint look for the MTU of the path to `peer`, up to the longest packet that is sent by
    /// it and that no router may cut.
    pub(super) fn path_probe_due(&mut self, now: Duration, peer: PeerId, links: &Links) {
        let tunnels = links.tunnels_of(LinkId::Ike(peer)).filter(|tunnel| !tunnel.may_be_cut());
        let most = tunnels.map(|tunnel| tunnel.outbound.mtu().min(LONGEST) as u16).max();
        let sent = self.peers.take_sent(peer, links);
        self.endpoint.handle_path_probe_due(now, peer, most, sent);
    }

    /// Uses the MTU of a peer's path that probes have found, or the port's if that is `None`.
    pub(super) fn path_mtu_found(
        &mut self,
        now: Duration,
        peer: PeerId,
        found: FoundMtu,
        is_over: bool,
        links: &mut Links,
    ) {
        // Longer packets than the longest probe may not pass.
        let is_cut_short =
            || links.tunnels_of(LinkId::Ike(peer)).any(|tunnel| tunnel.outbound.mtu() > LONGEST);
        let found = match found.mtu {
            None if is_cut_short() => FoundMtu { mtu: Some(LONGEST as u16), is_limit: false, ..found },
            _ => found,
        };
        links.set_probed_mtu(LinkId::Ike(peer), found);
        if is_over
            && self.peers.note_mtu(peer, found.mtu.filter(|_| found.is_limit))
            && let Some(left_out) = self.peers.admits_line(now, peer)
            && let Some(mtu) = links.tunnels_of(LinkId::Ike(peer)).map(Tunnel::mtu).max()
        {
            log::path_mtu(About::of(&self.endpoint, peer), mtu, left_out);
        }
    }
}

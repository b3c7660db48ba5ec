//! The tunnels by which a link's traffic is sent.

use super::{LinkId, Links};
use crate::slow_path::policies;
use wayfarer_dataplane::sa::TunnelId;

impl Links {
    /// Starts to send traffic by a tunnel, from the next burst on.
    pub(in crate::slow_path) fn start_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| !tunnel.is_used) else { return };
        tunnel.start_use();
        let (holder, inbound) = (tunnel.holder.clone(), tunnel.inbound.clone());
        // While it waited, another peer may have gone on with its addresses.
        self.events.push_back(self.taken(&holder, &inbound.selectors));
        self.prefer(id);
    }

    /// Stops sending traffic by a tunnel. The tunnel still receives.
    pub(in crate::slow_path) fn stop_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_used) else { return };
        tunnel.is_used = false;
        let (holder, inbound) = (tunnel.holder.clone(), tunnel.inbound.clone());
        let held = self.held(&holder, &inbound.selectors);
        policies::unprotect(id, &inbound.selectors, &mut self.tables);
        self.events.push_back(self.left(&holder, held));
    }

    /// Sends the traffic of a tunnel by it rather than by older tunnels of its link with the same
    /// selectors: a peer that makes another may have lost those.
    pub(super) fn prefer(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let link = self.links.get(&LinkId::of(tunnel.owner, id));
        // They are in the order in which they were installed.
        let tunnels = link.iter().flat_map(|link| &link.tunnels).copied();
        let older: Vec<_> = tunnels.take_while(|other| *other != id).collect();
        policies::protect(&tunnel.outbound, &tunnel.inbound.selectors, &older, &mut self.tables);
    }
}

//! Follows the host's device, which may be made again while peers have assigned addresses to us.

use super::driver::Ike;
use crate::slow_path::links::{LinkId, Links};

impl Ike {
    /// Puts the inner addresses that peers assigned to us, with their routes, on another device of the
    /// host, which takes the place of the one before.
    pub(in crate::slow_path) fn use_host_device(&mut self, device: u32, links: &Links) {
        self.inner.use_device(device);
        for peer in self.inner.peers() {
            for tunnel in links.tunnels_of(LinkId::Ike(peer)) {
                self.inner.route(peer, &tunnel.inbound.selectors);
            }
        }
    }
}

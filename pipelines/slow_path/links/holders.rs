//! Whoever gets the packets to inner addresses.

use super::{Event, Links};
use crate::{
    gateway::tables::Tables,
    slow_path::{parts::Holder, policies, tunnels::Tunnel},
};
use wayfarer_dataplane::sa::{Flow, Selector};

impl Event {
    /// Returns the event that other tunnels may carry the traffic of these selectors now; `None` if there is
    /// no NAT, which alone would need to know.
    pub(super) fn tunnels_changed(selectors: &[Selector], tables: &Tables) -> Option<Self> {
        if tables.settings.nats.is_empty() {
            return None;
        }
        let mut prefixes = policies::prefixes(selectors);
        prefixes.retain(|prefix| prefix.is_ipv4());
        Some(Self::TunnelsChanged(prefixes))
    }
}

impl Links {
    /// Returns whoever gets the packets of a flow, if a tunnel carries them. Among tunnels in the same
    /// place the older one goes first, so that nobody takes anything away by claiming what is another's
    /// already.
    pub(in crate::slow_path) fn holder_of(&self, outbound: &Flow) -> Option<Holder> {
        let first = policies::first_tunnel(outbound, &self.tables)?;
        self.tunnels.get(first.tunnel()?).map(Tunnel::holder)
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests;

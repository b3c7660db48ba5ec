//! The tunnels by which a link's traffic is sent.

use super::{Event, LinkId, Links};
use crate::slow_path::{parts::TunnelParts, policies};
use std::{collections::BTreeSet, time::Duration};
use wayfarer_dataplane::{crypto::KeyError, sa::TunnelId};

impl Links {
    /// Installs tunnels that are links of their own, each with the MTU in bytes of the port that its
    /// packets leave by. Their traffic is sent by them from the next burst on. The rules of a prefix change
    /// once, however many tunnels share it: each change copies rules, and nothing is freed before the
    /// first turn.
    ///
    /// # Errors
    /// A key that is invalid for its algorithm. The tunnels before it only receive then.
    pub(in crate::slow_path) fn install_all(
        &mut self,
        now: Duration,
        all: impl IntoIterator<Item = (TunnelParts, usize)>,
    ) -> Result<(), KeyError> {
        let mut ids = Vec::new();
        for (parts, mtu) in all {
            ids.push(self.add(now, parts, mtu)?);
        }
        let installed = ids.iter().filter_map(|id| Some((*id, self.tunnels.get(*id)?)));
        let used = installed.filter(|(_, tunnel)| tunnel.is_used);
        let used: Vec<_> = used.map(|(id, tunnel)| (tunnel, self.followers.sent_by(id, tunnel))).collect();
        let rules = used.iter().flat_map(|(tunnel, sent)| policies::rules_of(&tunnel.outbound, sent));
        policies::protect_all(rules, &mut self.tables);
        let changed = used.iter().filter_map(|(_, sent)| Event::tunnels_changed(sent, &self.tables.tables));
        self.events.extend(changed);
        Ok(())
    }

    /// Starts to send traffic by a tunnel, from the next burst on. Among the tunnels of others, it takes the
    /// place of the tunnels `old`, which it replaces.
    pub(in crate::slow_path) fn start_sending(&mut self, id: TunnelId, old: &[TunnelId]) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| !tunnel.is_used) else { return };
        tunnel.start_use();
        self.prefer(id, old);
    }

    /// Stops sending traffic by a tunnel. The tunnel still receives.
    pub(in crate::slow_path) fn stop_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_used) else { return };
        tunnel.is_used = false;
        let sent = self.followers.sent_by(id, tunnel);
        policies::unprotect(id, &sent, &mut self.tables);
        self.events.extend(Event::tunnels_changed(&sent, &self.tables.tables));
    }

    /// Sends the traffic of a tunnel by it rather than by older tunnels of its link with the same
    /// selectors, since a peer that makes another may have lost those; and rather than by any such tunnel
    /// of the links of `old`, which it replaces.
    pub(super) fn prefer(&mut self, id: TunnelId, old: &[TunnelId]) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let own = LinkId::of(tunnel.owner(), id);
        let older = self.links.tunnels_of(own).take_while(|other| *other != id);
        // A peer decides how many of them are of one link. Each rule is compared with all of these.
        let owners = old.iter().filter_map(|old| Some(LinkId::of(self.tunnels.get(*old)?.owner(), *old)));
        let owners: BTreeSet<_> = owners.filter(|link| *link != own).collect();
        let before = owners.into_iter().flat_map(|link| self.links.tunnels_of(link));
        let older: Vec<_> = older.chain(before).collect();
        let sent = self.followers.sent_by(id, tunnel);
        policies::protect(&tunnel.outbound, &sent, &older, &mut self.tables);
        self.events.extend(Event::tunnels_changed(&sent, &self.tables.tables));
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests;

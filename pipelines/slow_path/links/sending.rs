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
mod tests {
    use crate::{
        config::model::Tunnel,
        sim::{fixtures::*, world::World},
        slow_path::parts::Holder,
    };
    use wayfarer_dataplane::{
        sa::{Flow, PortRange, Selector},
        wire::ip::protocol,
    };

    /// Returns an address in 10.128.0.0/9.
    fn address(n: u32) -> String {
        format!("10.{}.{}.{}", 128 + (n >> 16), n >> 8 & 255, n & 255)
    }

    fn own_prefix(n: u32) -> Selector {
        selector("10.99.0.0/24", &address(n))
    }

    fn own_side(n: u32) -> Selector {
        selector(&address(n), "10.98.0.0/16")
    }

    fn own_port(n: u32) -> Selector {
        let port = n as u16;
        let local_ports = PortRange { first: port, last: port };
        Selector { protocol: Some(protocol::UDP), local_ports, ..nothing_of_its_own(n) }
    }

    fn nothing_of_its_own(_: u32) -> Selector {
        selector("10.99.0.0/24", "10.98.0.0/16")
    }

    /// Makes a gateway that has just started with so many tunnels.
    fn started(count: u32, selector: fn(u32) -> Selector) -> World {
        let suite = suite("aes128gcm16");
        let tunnel = |n| Tunnel {
            selectors: vec![selector(n)],
            ..bare_tunnel(format!("t{n}"), sa(0x1000 + n, suite, n), sa(0x10_0000 + n, suite, n))
        };
        let mut config = config((0..count).map(tunnel).collect());
        config.gateway.tunnels = count as usize;
        World::with(config, 64)
    }

    #[test]
    fn start_replaces_no_rules_however_many_tunnels_share_a_prefix() {
        // Nothing is freed before the first turn.
        let replaced = |count, selector: fn(u32) -> Selector| {
            let mut world = started(count, selector);
            world.assembly.slow_path.links.tables.writer.collect()
        };
        let of_other_tables = replaced(1, own_prefix);
        for count in [2_000, 20_000] {
            let all = [own_prefix, own_side, own_port, nothing_of_its_own]
                .map(|selector| replaced(count, selector));
            assert_eq!(all, [of_other_tables; 4], "{count} tunnels");
        }
    }

    #[test]
    fn tunnels_of_a_prefix_go_in_the_order_of_the_configuration() {
        let holder = |selector: fn(u32) -> Selector, src: &str| {
            let world = started(1_200, selector);
            let (src, dst) = (ip(src).into(), ip("10.98.0.7").into());
            let (protocol, ports) = (protocol::UDP, Some((53, 5000)));
            let flow = Flow { src, dst, protocol, ports, is_later_fragment: false };
            world.assembly.slow_path.links.holder_of(&flow)
        };
        for n in [0, 511, 512, 1_199] {
            assert_eq!(holder(own_side, &address(n)), Some(Holder::manual(format!("t{n}").into())));
        }
        assert_eq!(holder(own_side, &address(1_200)), None);
        assert_eq!(holder(own_port, "10.99.0.9"), Some(Holder::manual("t53".into())));
        assert_eq!(holder(nothing_of_its_own, "10.99.0.9"), Some(Holder::manual("t0".into())));
    }
}

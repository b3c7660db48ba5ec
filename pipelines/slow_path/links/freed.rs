//! Inner addresses that change hands.

use super::{Event, LinkId, Links};
use crate::slow_path::{parts::Owner, policies};
use wayfarer_dataplane::sa::Selector;

impl Links {
    /// Returns the event that a tunnel of `owner` with these selectors causes before it is there, and after
    /// it is gone: inner addresses are another peer's from now on, if no other tunnel of the link has them.
    pub(super) fn freed(&self, owner: Owner, selectors: &[Selector]) -> Event {
        let link = match owner {
            Owner::Ike(peer, _) => Some(LinkId::Ike(peer)),
            Owner::Manual => None,
        };
        let tunnels = link.into_iter().flat_map(|link| self.tunnels_of(link));
        let own: Vec<_> = tunnels.flat_map(|tunnel| tunnel.inbound.selectors.iter()).collect();
        Event::Freed(policies::freed(selectors, &own, &self.tables))
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests {
    use super::*;
    use crate::{
        sim::{fixtures::*, world::World},
        slow_path::parts::TunnelParts,
    };
    use std::time::Duration;
    use wayfarer_dataplane::sa::TunnelId;
    use wayfarer_mobility::ike::event::{ChildId, PeerId};

    fn install(links: &mut Links, n: u32, peer: u64, inner: &str) {
        install_as(links, n, peer, inner, true);
    }

    fn install_as(links: &mut Links, n: u32, peer: u64, inner: &str, send: bool) -> TunnelId {
        let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
        parts.owner = Owner::Ike(PeerId(peer), ChildId(n.into()));
        parts.selectors = vec![selector("0.0.0.0/0", inner)];
        parts.send = send;
        links.install(Duration::ZERO, parts, 1500).unwrap()
    }

    /// Returns whether addresses change hands as a tunnel of `peer` for them comes or goes.
    fn is_freed(links: &Links, peer: u64, inner: &str) -> bool {
        let owner = Owner::Ike(PeerId(peer), ChildId(9));
        match links.freed(owner, &[selector("0.0.0.0/0", inner)]) {
            Event::Freed(prefixes) => !prefixes.is_empty(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_of_a_tunnel_that_waits_are_freed_again_when_it_is_used() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        let free = |links: &mut Links| {
            let is_freed = |event| matches!(event, Event::Freed(prefixes) if !prefixes.is_empty());
            links.events.drain(..).map(is_freed).collect::<Vec<_>>().contains(&true)
        };
        install(links, 1, 1, "10.98.0.0/24");
        let waiting = install_as(links, 2, 2, "10.98.0.7", false);
        assert!(free(links) && !free(links));
        links.start_sending(waiting);
        assert!(free(links));
        links.start_sending(waiting);
        assert!(!free(links));
    }

    #[test]
    fn addresses_are_freed_unless_a_tunnel_of_the_same_peer_is_next() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        install(links, 1, 1, "10.98.0.0/24");
        assert!(!is_freed(links, 1, "10.98.0.7") && is_freed(links, 2, "10.98.0.7"));
        assert!(!is_freed(links, 2, "10.98.0.0/24"), "as in a new authentication");
        assert!(is_freed(links, 1, "10.98.1.7"));
        install(links, 2, 2, "10.98.0.0/28");
        assert!(is_freed(links, 1, "10.98.0.7"));
    }
}

//! Inner addresses that change hands.

use super::{Event, Links};
use crate::slow_path::{parts::Holder, policies};
use std::collections::BTreeSet;
use wayfarer_dataplane::{sa::Selector, table::Prefix};

impl Links {
    /// Returns the event that a tunnel of `holder` with these selectors causes before it is there: it takes
    /// inner addresses that another has. Among tunnels in the same place the older one goes on, so that
    /// nobody takes anything away by claiming what is another's already.
    pub(super) fn taken(&self, holder: &Holder, selectors: &[Selector]) -> Event {
        let is_taken = |selector: &&Selector| match policies::first_tunnel(selector.remote, &self.tables) {
            Some(first) if place(&first.selector) >= place(selector) => false,
            _ => self.holder_of(selector.remote) != Some(holder),
        };
        let taken = selectors.iter().filter(is_taken).map(|selector| selector.remote);
        Event::Freed(taken.filter(|prefix| prefix.is_ipv4()).collect())
    }

    /// Returns the IPv4 prefixes of these selectors that `holder` has.
    pub(super) fn held(&self, holder: &Holder, selectors: &[Selector]) -> BTreeSet<Prefix> {
        let mut held = policies::prefixes(selectors);
        held.retain(|prefix| prefix.is_ipv4() && self.holder_of(*prefix) == Some(holder));
        held
    }

    /// Returns the event that `holder` causes who has had the prefixes `held`, after a tunnel is gone:
    /// another has some of them now, or nobody.
    pub(super) fn left(&self, holder: &Holder, mut held: BTreeSet<Prefix>) -> Event {
        held.retain(|prefix| self.holder_of(*prefix) != Some(holder));
        Event::Freed(held)
    }

    /// Returns whoever gets the packets to `prefix`, if a tunnel carries them.
    pub(in crate::slow_path) fn holder_of(&self, prefix: Prefix) -> Option<&Holder> {
        let first = policies::first_tunnel(prefix, &self.tables)?;
        self.tunnels.get(first.tunnel()?).map(|tunnel| &tunnel.holder)
    }
}

/// Returns where policy places the rule of a selector: one that is greater goes first.
fn place(selector: &Selector) -> (u8, u8) {
    (selector.rank.remote, selector.remote.length())
}

#[cfg(all(test, feature = "bench"))]
mod tests {
    use super::*;
    use crate::{
        sim::{fixtures::*, world::World},
        slow_path::parts::{Owner, TunnelParts},
    };
    use std::{sync::Arc, time::Duration};
    use wayfarer_dataplane::sa::TunnelId;
    use wayfarer_mobility::{
        identity::Identity,
        ike::event::{ChildId, PeerId},
    };

    fn install(links: &mut Links, n: u32, peer: u64, inner: &str) -> TunnelId {
        install_as(links, n, peer, inner, true)
    }

    /// Returns the peers of these numbers below 10, and those from 10 on that are the same ones again.
    fn holder(peer: u64) -> Holder {
        let identity = Identity::from_text(&format!("peer{}.test", peer % 10)).unwrap();
        Holder::Peer(Arc::new(("terminals".to_owned(), identity)))
    }

    fn install_as(links: &mut Links, n: u32, peer: u64, inner: &str, send: bool) -> TunnelId {
        let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
        parts.owner = Owner::Ike(PeerId(peer), ChildId(n.into()));
        parts.holder = holder(peer);
        parts.selectors = vec![selector("0.0.0.0/0", inner)];
        parts.send = send;
        links.install(Duration::ZERO, parts, 1500).unwrap()
    }

    /// Returns whether addresses change hands if a tunnel of `peer` for them comes.
    fn is_taken(links: &Links, peer: u64, inner: &str) -> bool {
        is_freed(links.taken(&holder(peer), &[selector("0.0.0.0/0", inner)]))
    }

    fn is_freed(event: Event) -> bool {
        matches!(event, Event::Freed(prefixes) if !prefixes.is_empty())
    }

    /// Returns whether addresses have changed hands since the last call.
    fn free(links: &mut Links) -> bool {
        links.events.drain(..).map(is_freed).collect::<Vec<_>>().contains(&true)
    }

    #[test]
    fn addresses_of_a_tunnel_that_waits_are_freed_again_when_it_is_used() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        install(links, 1, 1, "10.98.0.0/24");
        let waiting = install_as(links, 2, 2, "10.98.0.7", false);
        assert!(free(links) && !free(links));
        links.start_sending(waiting);
        assert!(free(links));
        links.start_sending(waiting);
        assert!(!free(links));
    }

    #[test]
    fn addresses_are_taken_unless_they_are_the_same_peers() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        install(links, 1, 1, "10.98.0.0/24");
        assert!(!is_taken(links, 1, "10.98.0.7") && is_taken(links, 2, "10.98.0.7"));
        assert!(!is_taken(links, 11, "10.98.0.7"), "as in a new authentication");
        assert!(!is_taken(links, 2, "10.98.0.0/24"), "the older tunnel goes on");
        assert!(is_taken(links, 1, "10.98.1.7"));
        install(links, 2, 2, "10.98.0.0/28");
        assert!(is_taken(links, 1, "10.98.0.7"));
    }

    #[test]
    fn an_address_that_two_peers_claim_is_freed_when_it_changes_hands() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        let [first, second] = [1, 2].map(|n| install(links, n, n.into(), "10.98.0.7"));
        free(links);
        // The first one authenticates again, and goes on in its own place.
        let again = install(links, 3, 11, "10.98.0.7");
        links.remove(second);
        assert!(!free(links), "nobody gets what the second one did not have");
        links.stop_sending(first);
        links.remove(first);
        assert!(!free(links), "the same peer has it");
        install(links, 4, 2, "10.98.0.7");
        assert!(!free(links));
        links.remove(again);
        assert!(free(links), "the second one has it now");
    }

    #[test]
    fn addresses_that_a_peer_sends_to_no_more_are_freed() {
        let mut world = World::with(config(vec![]), 512);
        let links = &mut world.assembly.slow_path.links;
        let tunnel = install(links, 1, 1, "10.98.0.7");
        free(links);
        links.stop_sending(tunnel);
        assert!(free(links));
        links.remove(tunnel);
        assert!(!free(links));
    }
}

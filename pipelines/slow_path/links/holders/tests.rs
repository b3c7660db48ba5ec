//! Tests of who gets the packets to inner addresses.

use super::*;
use crate::{
    config::model::{Config, Nat},
    sim::{fixtures::*, world::World},
    slow_path::parts::{OfPeer, TunnelParts},
};
use std::{collections::BTreeSet, time::Duration};
use wayfarer_dataplane::{sa::TunnelId, wire::ip::protocol};
use wayfarer_mobility::{
    identity::Identity,
    ike::event::{ChildId, PeerId},
};

/// Returns the peers of these numbers below 10, and those from 10 on that are the same ones again.
fn holder(peer: u64) -> Holder {
    let identity = Identity::from_text(&format!("peer{}.test", peer % 10)).unwrap();
    Holder::peer("terminals", identity.clone(), identity)
}

fn install(links: &mut Links, n: u32, peer: u64, inner: &str) -> TunnelId {
    install_as(links, n, peer, selector("0.0.0.0/0", inner), true)
}

fn install_as(links: &mut Links, n: u32, peer: u64, selector: Selector, send: bool) -> TunnelId {
    let mut parts = TunnelParts::from(&tunnel(n, suite("aes128gcm16")));
    let (of, child) = (PeerId(peer), ChildId(n.into()));
    parts.peer = Some(Box::new(OfPeer { peer: of, child, holder: holder(peer) }));
    parts.selectors = vec![selector];
    parts.send = send;
    links.install(Duration::ZERO, parts, 1500, &[]).unwrap()
}

/// Returns whether `peer` gets what `from` sends to an inner address.
fn gets_from(links: &Links, peer: u64, from: &str, inner: &str) -> bool {
    let (src, dst) = (ip(from).into(), ip(inner).into());
    let flow = Flow { src, dst, protocol: protocol::UDP, ports: Some((53, 5000)), is_later_fragment: false };
    links.holder_of(&flow) == Some(holder(peer))
}

fn gets(links: &Links, peer: u64, inner: &str) -> bool {
    gets_from(links, peer, "198.51.100.80", inner)
}

/// Returns the prefixes whose tunnels have changed since the last call.
fn changed(links: &mut Links) -> Vec<String> {
    let events = std::mem::take(&mut links.events).into_iter();
    let prefixes = events.filter_map(|event| match event {
        Event::TunnelsChanged(prefixes) => Some(prefixes),
        _ => None,
    });
    let all: BTreeSet<_> = prefixes.flatten().collect();
    all.iter().map(ToString::to_string).collect()
}

/// Makes a gateway without tunnels that has a NAT.
fn world_with_nat() -> World {
    let minute = Duration::from_secs(60);
    let nat = Nat {
        inside: vec!["10.98.0.0/16".parse().unwrap()],
        port: OUTSIDE,
        address: "203.0.113.1".parse().unwrap(),
        ports: 20_000..=20_999,
        mappings: 4,
        udp_timeout: minute,
        tcp_timeout: minute,
        tcp_transitory_timeout: minute,
        icmp_timeout: minute,
    };
    World::with(Config { nats: vec![nat], ..config(vec![]) }, 512)
}

#[test]
fn a_tunnel_that_waits_gets_its_addresses_when_it_is_used() {
    let mut world = world_with_nat();
    let links = &mut world.assembly.slow_path.links;
    install(links, 1, 1, "10.98.0.0/24");
    let waiting = install_as(links, 2, 2, selector("0.0.0.0/0", "10.98.0.7"), false);
    assert!(gets(links, 1, "10.98.0.7"));
    changed(links);
    links.start_sending(waiting, &[]);
    assert_eq!(changed(links).len(), 1);
    assert!(gets(links, 2, "10.98.0.7") && gets(links, 1, "10.98.0.8"));
    links.start_sending(waiting, &[]);
    assert!(changed(links).is_empty());
    links.stop_sending(waiting);
    assert_eq!(changed(links).len(), 1);
    assert!(gets(links, 1, "10.98.0.7"));
}

#[test]
fn an_address_that_two_peers_claim_stays_the_older_ones_when_it_authenticates_again() {
    let mut world = World::with(config(vec![]), 512);
    let links = &mut world.assembly.slow_path.links;
    let [first, second] = [1, 2].map(|n| install(links, n, n.into(), "10.98.0.7"));
    assert!(gets(links, 1, "10.98.0.7"));
    let again = install_as(links, 3, 11, selector("0.0.0.0/0", "10.98.0.7"), false);
    links.start_sending(again, &[first]);
    links.stop_sending(first);
    assert!(gets(links, 1, "10.98.0.7"));
    links.remove(first);
    assert!(gets(links, 1, "10.98.0.7"));
    // Whoever begins anew begins behind the others.
    let anew = install(links, 4, 21, "10.98.0.7");
    links.remove(again);
    assert!(gets(links, 2, "10.98.0.7"));
    links.remove(second);
    assert!(gets(links, 1, "10.98.0.7"));
    links.remove(anew);
    assert!(!gets(links, 1, "10.98.0.7"));
}

#[test]
fn a_flow_is_the_tunnels_that_covers_both_of_its_ends() {
    let mut world = World::with(config(vec![]), 512);
    let links = &mut world.assembly.slow_path.links;
    install(links, 1, 1, "10.98.0.0/24");
    install_as(links, 2, 2, selector("10.99.0.0/24", "10.98.0.7"), true);
    assert!(gets(links, 1, "10.98.0.7") && gets_from(links, 2, "10.99.0.9", "10.98.0.7"));
}

#[test]
fn only_changes_for_ipv4_are_told_and_only_if_there_is_a_nat() {
    for (mut world, told) in [(world_with_nat(), 1), (World::with(config(vec![]), 512), 0)] {
        let links = &mut world.assembly.slow_path.links;
        install_as(links, 1, 1, selector("::/0", "2001:db8::7"), true);
        assert!(changed(links).is_empty());
        install(links, 2, 2, "10.98.0.7");
        assert_eq!(changed(links).len(), told);
    }
}

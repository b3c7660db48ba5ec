//! Tests of the rules of many tunnels.

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
        let all =
            [own_prefix, own_side, own_port, nothing_of_its_own].map(|selector| replaced(count, selector));
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

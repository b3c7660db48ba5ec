//! Policies: longest prefix, ports and protocols, bypass and discard, and attempts to get around
//! them.

mod assigned;
mod narrowing;
mod reload;
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer::{
    config::model::{Config, Policy, PolicyAction, Remote},
    slow_path::neighbours::Stations,
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::{PortRange, Selector},
    wire::{checksum, ip::protocol},
};

const SUITE: &str = "aes128gcm16";

/// Makes a gateway with policies and with two tunnels to terminals at known addresses.
fn gateway(policies: Vec<(PolicyAction, Selector)>, change: impl FnOnce(&mut Config)) -> World {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    for (n, tunnel) in (1..).zip(&mut config.tunnels) {
        tunnel.remote = Remote::At(ip(&format!("192.0.2.{n}")), 0);
    }
    config.policies = policies.into_iter().map(|(action, selector)| Policy { action, selector }).collect();
    change(&mut config);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

fn terminal(n: u32) -> Terminal {
    Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}"))
}

/// Returns a datagram's two fragments, the later one first.
fn in_fragments(src: &str, dst: &str, ports: (u16, u16)) -> [Vec<u8>; 2] {
    let mut pieces = fragments(&datagram(src, dst, ports, &[7; 1000]), 600, 9);
    pieces.reverse();
    pieces.try_into().expect("two fragments")
}

fn to(dst: &str, port: u16) -> Vec<u8> {
    datagram("10.99.0.7", dst, (9, port), b"payload")
}

/// Sends a packet from inside and returns its fate: sealed or in clear on the outside, or the
/// reason for its drop.
fn fate(world: &mut World, packet: &[u8]) -> Result<&'static str, DropReason> {
    let before = world.all_drops();
    world.send(INSIDE, packet);
    let mut sent = world.take(OUTSIDE);
    // What IKE has to say does not count.
    sent.retain(|out| out[9] != protocol::UDP || out[20..22] != 500u16.to_be_bytes());
    match &sent[..] {
        [out] if out[9] == protocol::ESP => Ok("sealed"),
        [out] => {
            assert_eq!(*out, forwarded(packet));
            Ok("clear")
        }
        [] => Err(world.all_drops().into_iter().find(|drop| !before.contains(drop)).unwrap().0),
        many => panic!("{} packets", many.len()),
    }
}

#[test]
fn longest_prefix_decides_before_protocol_and_ports() {
    use PolicyAction::{Bypass, Discard};
    let udp = |remote: &str, first, last| Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first, last },
        ..selector("10.99.0.0/24", remote)
    };
    let tcp = Selector { protocol: Some(protocol::TCP), ..selector("10.99.0.0/24", "198.51.100.9") };
    let mut world = gateway(
        vec![
            (Bypass, selector("10.99.0.0/24", "0.0.0.0/0")),
            (Discard, selector("10.99.0.0/24", "198.51.100.0/24")),
            (Bypass, udp("198.51.100.7", 1000, 2000)),
            (Bypass, tcp),
        ],
        |_| {},
    );
    for (dst, port, expected) in [
        ("192.0.2.77", 5, Ok("clear")),
        ("198.51.100.1", 1500, Err(DropReason::Discard)),
        ("198.51.100.7", 1000, Ok("clear")),
        ("198.51.100.7", 2000, Ok("clear")),
        ("198.51.100.7", 2001, Err(DropReason::Discard)),
        ("198.51.100.9", 1500, Err(DropReason::Discard)),
        ("10.98.0.1", 5, Ok("sealed")),
        ("10.98.0.2", 5, Ok("sealed")),
        ("10.98.0.3", 5, Ok("clear")),
    ] {
        assert_eq!(fate(&mut world, &to(dst, port)), expected, "{dst}:{port}");
    }
}

#[test]
fn tunnel_goes_before_a_policy_of_the_same_prefix() {
    let mut world = gateway(vec![(PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"))], |config| {
        config.tunnels[0].selectors = vec![selector("10.99.0.0/24", "0.0.0.0/0")];
    });
    assert_eq!(fate(&mut world, &to("198.51.100.7", 5)), Ok("sealed"));
}

#[test]
fn bypass_does_not_pass_traffic_that_a_tunnel_protects() {
    let everything = (PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"));
    let mut world = gateway(vec![everything], |_| {});
    world.send(OUTSIDE, &datagram("198.51.100.7", "10.99.0.7", (1, 2), b"fine"));
    assert_eq!(world.take(INSIDE).len(), 1);
    world.send(
        OUTSIDE,
        &datagram("10.98.0.1", "10.99.0.7", (1, 2), b"unprotected, from a terminal's address"),
    );
    assert_eq!((world.take(INSIDE).len(), world.drops(Unprotected)), (0, 1));
}

#[test]
fn terminals_reach_each_other_only_through_both_tunnels() {
    // Terminal 1 may send anywhere; a bypass would let it out in clear.
    let everything = (PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"));
    let no_mail = Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 25, last: 25 },
        ..selector("0.0.0.0/0", "198.51.100.0/24")
    };
    let mut world = gateway(vec![everything, (PolicyAction::Discard, no_mail)], |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1")];
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "10.98.0.2")];
    });
    let mut one = terminal(1);
    let to_two = datagram("10.98.0.1", "10.98.0.2", (1, 2), b"to the other terminal");
    world.send(OUTSIDE, &one.seal(&to_two));
    let out = world.take(OUTSIDE);
    assert_eq!(terminal(2).open(&out[0]).2, forwarded(&to_two));
    // A discard policy holds for traffic from tunnels too.
    world.send(OUTSIDE, &one.seal(&datagram("10.98.0.1", "198.51.100.1", (1, 25), b"mail")));
    world.send(OUTSIDE, &one.seal(&datagram("10.98.0.1", "198.51.100.1", (1, 26), b"other")));
    assert_eq!((world.take(OUTSIDE).len(), world.all_drops()), (1, vec![(DropReason::Discard, 1)]));
    for nowhere in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "169.254.1.1"] {
        world.send(OUTSIDE, &one.seal(&datagram("10.98.0.1", nowhere, (1, 2), b"martian")));
    }
    assert_eq!((world.take(OUTSIDE).len(), world.drops(Martian)), (0, 4));
}

#[test]
fn discard_holds_from_a_tunnel_to_the_gateways_own_addresses() {
    let no_ssh = Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 22, last: 22 },
        ..selector("0.0.0.0/0", "203.0.113.1")
    };
    let mut config = config(vec![tunnel(1, suite(SUITE))]);
    config.tunnels[0].remote = Remote::At(ip("192.0.2.1"), 0);
    config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1")];
    config.policies = vec![Policy { action: PolicyAction::Discard, selector: no_ssh }];
    // The host's own stack is behind the inside port.
    let (mut ports, wires) = open_ports(1, 512);
    ports[INSIDE].is_host = true;
    ports[INSIDE].stations = Stations::Only(STATION_MAC[INSIDE]);
    ports[INSIDE].addresses.clear();
    let mut world = World::on(config, (ports, wires));
    let mut one = terminal(1);
    for (port, delivered, dropped) in [(23, 1, 0), (22, 0, 1)] {
        let packet = datagram("10.98.0.1", "203.0.113.1", (1, port), b"to the gateway");
        world.send(OUTSIDE, &one.seal(&packet));
        assert_eq!(
            (world.take(INSIDE).len(), world.drops(DropReason::Discard)),
            (delivered, dropped),
            "{port}"
        );
    }
    // A later fragment has no port, and could belong to the forbidden one. So it waits for the first.
    for (port, delivered, dropped) in [(23, 2, 1), (22, 0, 3)] {
        let [later, first] = in_fragments("10.98.0.1", "203.0.113.1", (1, port));
        world.send(OUTSIDE, &one.seal(&later));
        assert_eq!((world.take(INSIDE).len(), world.drops(DropReason::Discard)), (0, 1), "{port}");
        world.send(OUTSIDE, &one.seal(&first));
        assert_eq!(
            (world.take(INSIDE).len(), world.drops(DropReason::Discard)),
            (delivered, dropped),
            "{port}"
        );
    }
}

#[test]
fn discard_of_a_longer_source_prefix_holds_for_a_tunnel() {
    use PolicyAction::Discard;
    let port_7 = Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 7, last: 7 },
        ..selector("0.0.0.0/0", "10.98.0.5")
    };
    // This prefix is as long as the tunnel's, so the tunnel goes first.
    let as_wide = selector("0.0.0.0/0", "10.98.0.0/24");
    let mut world = gateway(vec![(Discard, port_7), (Discard, as_wide)], |config| {
        config.tunnels.truncate(1);
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.0/24")];
    });
    let mut one = terminal(1);
    for dst in ["10.99.0.7", "203.0.113.1"] {
        let before = world.drops(DropReason::Discard);
        for (src, port, dropped) in [("10.98.0.5", 8, 0), ("10.98.0.6", 7, 0), ("10.98.0.5", 7, 1)] {
            world.send(OUTSIDE, &one.seal(&datagram(src, dst, (port, 1), b"from a terminal")));
            assert_eq!(world.drops(DropReason::Discard) - before, dropped, "{src}:{port} to {dst}");
        }
    }
    assert_eq!(world.take(INSIDE).len(), 2);
    let before = world.drops(DropReason::Discard);
    for (port, passed, dropped) in [(8, 2, 0), (7, 0, 2)] {
        for piece in in_fragments("10.98.0.5", "10.99.0.7", (port, 1)) {
            world.send(OUTSIDE, &one.seal(&piece));
        }
        let counted = world.drops(DropReason::Discard) - before;
        assert_eq!((world.take(INSIDE).len(), counted), (passed, dropped), "{port}");
    }
}

#[test]
fn first_of_many_rules_that_covers_a_packet_decides() {
    // Each of eight inside networks has 250 pairs of rules. Of every four remote ports, it may
    // reach the first, although the following rule discards the first two. No rule covers the last
    // two.
    let host = |n: u32| format!("198.51.{}.{}", n / 250, n % 250 + 1);
    let rule = |n: u32, action, ports: (u16, u16)| {
        let selector = Selector {
            protocol: Some(protocol::UDP),
            remote_ports: PortRange { first: ports.0, last: ports.1 },
            ..Selector::configured(
                format!("10.99.{}.0/24", n % 8).parse().unwrap(),
                "0.0.0.0/0".parse().unwrap(),
            )
        };
        (action, selector)
    };
    let policies = (0..2000).flat_map(|n: u32| {
        let port = (n / 8 * 4) as u16;
        [rule(n, PolicyAction::Bypass, (port, port)), rule(n, PolicyAction::Discard, (port, port + 1))]
    });
    let mut world = gateway(policies.collect(), |_| {});
    for n in [0, 1, 8, 999, 1999] {
        let port = (n / 8 * 4) as u16;
        let source = format!("10.99.{}.7", n % 8);
        for (port, expected) in
            [(port, Ok("clear")), (port + 1, Err(DropReason::Discard)), (port + 2, Err(NoPolicy))]
        {
            let packet = datagram(&source, &host(n), (9, port), b"payload");
            assert_eq!(fate(&mut world, &packet), expected, "{source} to port {port}");
        }
    }
}

#[test]
fn tunnel_with_catch_all_selectors_reaches_the_inside() {
    // The second tunnel's selectors cover all networks in both directions; the first is an ordinary
    // terminal's.
    let mut world = gateway(vec![], |config| {
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "0.0.0.0/0")];
    });
    let up = datagram("10.98.0.2", "10.99.0.7", (1, 2), b"up");
    world.send(OUTSIDE, &terminal(2).seal(&up));
    assert_eq!(world.take(INSIDE), [forwarded(&up)], "{:?}", world.all_drops());
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    world.send(OUTSIDE, &terminal(1).seal(&up));
    assert_eq!(world.take(INSIDE), [forwarded(&up)], "{:?}", world.all_drops());
    for n in [1, 2] {
        world.send(INSIDE, &to(&format!("10.98.0.{n}"), 5));
        let out = world.take(OUTSIDE);
        assert_eq!(terminal(n).open(&out[0]).2, forwarded(&to(&format!("10.98.0.{n}"), 5)));
    }
}

#[test]
fn discard_of_clear_traffic_does_not_stop_a_tunnel() {
    // A policy of the configuration is installed once for each direction.
    let everything = || vec![selector("10.99.0.0/24", "0.0.0.0/0"), selector("0.0.0.0/0", "10.99.0.0/24")];
    let policies = everything().into_iter().map(|s| (PolicyAction::Discard, s)).collect();
    let mut world = gateway(policies, |_| {});
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    world.send(OUTSIDE, &terminal(1).seal(&up));
    assert_eq!(world.take(INSIDE), [forwarded(&up)], "{:?}", world.all_drops());
    assert_eq!(fate(&mut world, &to("10.98.0.1", 5)), Ok("sealed"));
    assert_eq!(fate(&mut world, &to("198.51.100.1", 5)), Err(DropReason::Discard));
}

#[test]
fn clear_packet_between_a_tunnels_own_addresses_is_dropped() {
    let mut world = gateway(vec![], |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.0/24")];
    });
    world.send(OUTSIDE, &datagram("10.98.0.9", "10.98.0.5", (1, 2), b"spoofed"));
    assert_eq!(world.all_drops(), [(Unprotected, 1)]);
}

#[test]
fn spoofed_inside_source_does_not_get_into_a_tunnel() {
    let mut world = gateway(vec![], |_| {});
    world.send(OUTSIDE, &datagram("10.99.0.7", "10.98.0.1", (1, 2), b"not from inside"));
    assert_eq!(world.all_drops(), [(SourcePort, 1)]);
    assert_eq!(world.out[OUTSIDE].len(), 0);
}

#[test]
fn ports_of_the_first_fragment_decide_for_the_later_ones() {
    let https = Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 443, last: 443 },
        ..selector("10.99.0.0/24", "10.98.0.0/24")
    };
    let everything = (PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"));
    let mut world = gateway(vec![everything], |config| config.tunnels[0].selectors = vec![https]);
    assert_eq!(fate(&mut world, &to("10.98.0.9", 443)), Ok("sealed"));
    assert_eq!(fate(&mut world, &to("10.98.0.9", 80)), Ok("clear"));
    for port in [443, 80] {
        let pieces = in_fragments("10.99.0.7", "10.98.0.9", (9, port));
        let [later, first] = &pieces;
        world.send(INSIDE, later);
        assert_eq!(world.take(OUTSIDE), [[0; 0]; 0], "{port}");
        world.send(INSIDE, first);
        let out = world.take(OUTSIDE);
        let passed = [first, later].map(|piece| forwarded(piece));
        match &out[..] {
            [sealed] if port == 443 => assert_eq!([terminal(1).open(sealed).2][..], joined(passed)),
            _ => assert_eq!((port, &out[..]), (80, &passed[..]), "{:?}", world.all_drops()),
        }
    }
    assert_eq!(world.all_drops(), []);
    // In clear, only what the tunnel is not for comes back.
    for (port, passed, dropped) in [(80, 2, 0), (443, 0, 2)] {
        let pieces = in_fragments("10.98.0.9", "10.99.0.7", (port, 9));
        pieces.iter().for_each(|piece| world.send(OUTSIDE, piece));
        assert_eq!((world.take(INSIDE).len(), world.drops(Unprotected)), (passed, dropped), "{port}");
    }
}

#[test]
fn packet_without_a_route_is_answered() {
    let mut world = gateway(vec![(PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"))], |config| {
        config.routes.clear();
    });
    assert_eq!(fate(&mut world, &to("198.51.100.7", 5)), Err(NoRoute));
    let answers = world.take(INSIDE);
    assert_eq!((answers.len(), &answers[0][20..22]), (1, &[3, 0][..]));
}

#[test]
fn silent_next_hop_costs_only_the_packets_that_wait_for_it() {
    let mut world = gateway(vec![(PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"))], |_| {});
    world.answer_neighbours = false;
    (0..20).for_each(|_| world.put(INSIDE, &datagram("10.99.0.7", "203.0.113.99", (1, 2), b"x")));
    world.settle();
    assert_eq!(world.slow_drops(SlowPathLimit), 4, "sixteen may wait for one address");
    world.pass(std::time::Duration::from_secs(4));
    assert_eq!(world.slow_drops(NeighbourFailed), 16);
    // The next packet starts a new resolution, which is answered.
    world.answer_neighbours = true;
    world.out = Default::default();
    world.send(INSIDE, &datagram("10.99.0.7", "203.0.113.99", (1, 2), b"x"));
    assert_eq!(world.take(OUTSIDE).len(), 1);
}

#[test]
fn each_packet_of_a_burst_is_judged_by_its_own_flow() {
    let https = Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 443, last: 443 },
        ..selector("10.99.0.0/24", "198.51.100.0/24")
    };
    let mut world = gateway(vec![(PolicyAction::Bypass, https)], |_| {});
    let changed = |change: fn(&mut [u8])| {
        let mut packet = to("198.51.100.7", 443);
        change(&mut packet);
        packet[10..12].fill(0);
        let sum = checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let (fine, port) = (to("198.51.100.7", 443), to("198.51.100.7", 80));
    let source = datagram("10.99.0.8", "198.51.100.7", (9, 443), b"payload");
    // The later fragment waits for its first one, and then is a duplicate of itself.
    let (tcp, later) = (changed(|p| p[9] = protocol::TCP), changed(|p| p[7] = 1));
    for packet in
        [&fine, &port, &fine, &tcp, &fine, &later, &fine, &source, &later, &later, &tcp, &port, &fine]
    {
        world.put(INSIDE, packet);
    }
    world.settle();
    let expected = [&fine, &fine, &fine, &fine, &source, &fine].map(|packet| forwarded(packet));
    assert_eq!(world.take(OUTSIDE), expected);
    assert_eq!(world.all_drops(), [(FragmentDuplicate, 2), (NoPolicy, 4)]);
}

#[test]
fn clear_packet_does_not_pass_with_a_tunnels_packet_of_its_flow() {
    let everything = (PolicyAction::Bypass, selector("0.0.0.0/0", "0.0.0.0/0"));
    let mut world = gateway(vec![everything], |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1")];
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "10.98.0.2")];
    });
    let to_two = datagram("10.98.0.1", "10.98.0.2", (1, 2), b"to the other terminal");
    let sealed = terminal(1).seal(&to_two);
    for packet in [&to_two, &sealed, &to_two] {
        world.put(OUTSIDE, packet);
    }
    world.settle();
    let out = world.take(OUTSIDE);
    assert_eq!((out.len(), world.all_drops()), (1, vec![(Unprotected, 2)]));
    assert_eq!(terminal(2).open(&out[0]).2, forwarded(&to_two));
}

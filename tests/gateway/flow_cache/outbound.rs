//! Remembered flows from this side notice every change of what they need, with the next packet.

use super::{
    gateway::{Spec, inner, path, prefix, server},
    kind::Kind,
    known::{Known, terminal_of},
};
use std::net::SocketAddr;
use wayfarer::{
    gateway::{
        policy::Rule,
        rings::{Event, Punt},
        tables::Hop,
    },
    sim::{
        fixtures::*,
        frames::{endpoints, forwarded, frame},
    },
};
use wayfarer_dataplane::{
    drop::DropReason,
    port::Mac,
    sa::{Due, Encap, Limits, TunnelId},
    table::Prefix,
    wire::{
        ethernet::{self, Ethernet},
        icmp::Problem,
        ip,
    },
};

const OTHER_MAC: Mac = [2, 0, 0, 0, 7, 7];
/// The number of the inside port in frames for the slow path.
const INSIDE_PORT: u16 = INSIDE as u16;

/// Returns the Ethernet header of a frame.
fn header_of(frame: &[u8]) -> Ethernet {
    Ethernet::parse(frame).expect("an Ethernet frame")
}

/// Returns where the outer packet in a frame goes.
fn destination(frame: &[u8]) -> SocketAddr {
    endpoints(&frame[ethernet::HEADER..]).expect("an IP packet").0.to
}

#[test]
fn change_of_the_peers_neighbour_is_noticed() {
    let mut known = Known::new();
    let peer = Prefix::host(path(1, 0, Encap::None).remote);
    for last in 1..=3 {
        let mac = [2, 0, 0, 0, 9, last];
        known.gateway.route(peer, Some(Hop::Port { port: OUTSIDE as u16, mac }));
        let out = known.send_down(64);
        assert_eq!(out.len(), 1, "{:?}", known.gateway.drops());
        assert_eq!(header_of(&out[0]).dst, mac);
        known.assert_known();
    }
    known.gateway.route(peer, Some(Hop::Resolve { port: OUTSIDE as u16, via: None }));
    assert_eq!(known.send_down(64).len(), 0);
    let punted = known.gateway.worker.take_punted();
    let [(INSIDE_PORT, Punt::Resolve { port, next }, packet)] = &punted[..] else { panic!("{punted:?}") };
    assert_eq!((usize::from(*port), Prefix::host(*next)), (OUTSIDE, peer));
    assert_eq!(known.terminal.open(packet).2, forwarded(&Known::down(64)));
    known.gateway.route(peer, Some(Hop::Port { port: OUTSIDE as u16, mac: OTHER_MAC }));
    assert_eq!(header_of(&known.send_down(64)[0]).dst, OTHER_MAC);
    known.assert_known();
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn change_of_the_route_to_the_peer_is_noticed() {
    let mut known = Known::new();
    let peer = Prefix::host(path(1, 0, Encap::None).remote);
    known.gateway.route(peer, Some(Hop::Port { port: INSIDE_PORT, mac: OTHER_MAC }));
    assert_eq!(known.send_down(64).len(), 0);
    let out = known.gateway.worker.take(INSIDE);
    assert_eq!(out.len(), 1, "{:?}", known.gateway.drops());
    assert_eq!(
        header_of(&out[0]),
        Ethernet { dst: OTHER_MAC, src: GATEWAY_MAC[INSIDE], ethertype: ethernet::IPV4 }
    );
    known.gateway.route(peer, None);
    assert_eq!(header_of(&known.send_down(64)[0]).dst, STATION_MAC[OUTSIDE]);
    known.assert_known();

    // Of the network that the peer is in.
    known.gateway.route(prefix("192.0.2.0/24"), None);
    assert_eq!(known.send_down(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::NoRoute, 1)]);
    let punted = known.gateway.worker.take_punted();
    assert!(matches!(punted[..], [(INSIDE_PORT, Punt::Problem(Problem::Unreachable), _)]), "{punted:?}");
    for (to, last) in [("0.0.0.0/0", 1), ("192.0.0.0/16", 2), ("192.0.2.0/25", 3)] {
        let mac = [2, 0, 0, 0, 8, last];
        known.gateway.route(prefix(to), Some(Hop::Port { port: OUTSIDE as u16, mac }));
        assert_eq!(header_of(&known.send_down(64)[0]).dst, mac, "{to}");
        known.send_down(64);
    }
}

#[test]
fn move_of_the_peer_is_noticed() {
    let mut known = Known::new();
    let udp = |remote| Encap::Udp { local: 4500, remote };
    for (address, encap) in [
        (1, Encap::None),
        (1, udp(40_000)),
        (1, udp(40_001)),
        (0, udp(40_001)),
        (2, Encap::None),
        (2, udp(999)),
        (0, Encap::Udp { local: 14_500, remote: 999 }),
        (0, Encap::None),
    ] {
        let path = path(1, address, encap);
        known.gateway.move_to(1, path, 1500);
        let out = known.send_down(64);
        assert_eq!(out.len(), 1, "{path}: {:?}", known.gateway.drops());
        let (ends, _) = endpoints(&out[0][ethernet::HEADER..]).unwrap();
        let ports = match encap {
            Encap::None => (0, 0),
            Encap::Udp { local, remote } => (local, remote),
        };
        assert_eq!(ends.from, SocketAddr::new(path.local, ports.0));
        assert_eq!(ends.to, SocketAddr::new(path.remote, ports.1));
        assert_eq!(known.terminal.open(&out[0][ethernet::HEADER..]).2, forwarded(&Known::down(64)), "{path}");
        // At each path, the flow is in use before the next move.
        known.send_down(64);
    }
    known.assert_known();
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn move_of_the_peer_to_another_port_and_back_is_noticed() {
    let mut known = Known::new();
    let [home, away] = [0, 1].map(|address| path(1, address, Encap::None));
    known.gateway.route(Prefix::host(away.remote), Some(Hop::Port { port: INSIDE_PORT, mac: OTHER_MAC }));
    for _ in 0..3 {
        known.gateway.move_to(1, away, 1500);
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(destination(&known.gateway.worker.take(INSIDE)[0]).ip(), away.remote);
        known.gateway.move_to(1, home, 1500);
        assert_eq!(destination(&known.send_down(64)[0]).ip(), home.remote);
        known.assert_known();
    }
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn packet_sealed_for_a_new_path_in_the_middle_of_a_turn_leaves_by_that() {
    let mut known = Known::new();
    let away = path(1, 1, Encap::None);
    known.gateway.route(Prefix::host(away.remote), Some(Hop::Port { port: INSIDE_PORT, mac: OTHER_MAC }));
    // First, somebody else moves.
    for (n, port, destination_mac) in [(9, OUTSIDE, STATION_MAC[OUTSIDE]), (1, INSIDE, OTHER_MAC)] {
        known.assert_known();
        known.gateway.put(INSIDE, &Known::down(64));
        let sa = known.gateway.pairs[&n].outbound.clone();
        let new = path(n, 1, Encap::None);
        let hits = known.gateway.worker.counters.flow_hits.value();
        known.gateway.change_in_turn(move |writer| sa.set_path(writer, new, 1500));
        known.gateway.settle();
        let [outside, inside] = [OUTSIDE, INSIDE].map(|port| known.gateway.take(port));
        let frames = if port == OUTSIDE { [&outside, &inside] } else { [&inside, &outside] };
        let ([frame], []) = (&frames[0][..], &frames[1][..]) else { panic!("{outside:?} {inside:?}") };
        assert_eq!(
            header_of(frame),
            Ethernet { dst: destination_mac, src: GATEWAY_MAC[port], ethertype: ethernet::IPV4 }
        );
        let to = if n == 1 { away } else { path(1, 0, Encap::None) };
        assert_eq!(destination(frame).ip(), to.remote);
        assert_eq!(known.gateway.worker.counters.flow_hits.value(), hits + 1);
    }
    assert_eq!(known.gateway.drops(), []);
}

/// Returns whether the flow of terminal 1 is still remembered after another terminal of its network has
/// moved.
fn is_known_after_a_neighbours_move() -> bool {
    let mut known = Known::new();
    known.gateway.move_to(9, path(9, 1, Encap::None), 1500);
    let hits = known.gateway.worker.counters.flow_hits.value();
    assert_eq!(known.send_down(64).len(), 1);
    known.gateway.worker.counters.flow_hits.value() > hits
}

#[test]
fn move_of_a_neighbour_costs_no_flow() {
    // By chance, both may share a part.
    assert!((0..3).any(|_| is_known_after_a_neighbours_move()));
}

#[test]
fn change_before_a_flow_is_learnt_is_noticed_later_in_that_turn() {
    let mut known = Known::new();
    // A packet for no SA comes first, and so its flow is learnt before the other packet is looked at.
    let stranger = Spec::new(5);
    let esp = stranger.terminal().seal(&Kind::USUAL.up(5, 64));
    known.gateway.put(OUTSIDE, &esp);
    known.gateway.put(INSIDE, &Known::down(64));
    let tables = known.gateway.worker.tables.clone();
    let to = Prefix::host(inner(1));
    known.gateway.change_in_turn(move |writer| assert!(tables.policies.remove(writer, to)));
    known.gateway.settle();
    assert_eq!(known.gateway.take(OUTSIDE).len(), 0, "sealed by a policy that is gone");
    assert_eq!(known.gateway.drops(), [(DropReason::UnknownSpi, 1), (DropReason::NoPolicy, 1)]);
}

#[test]
fn flow_is_learnt_in_a_turn_in_which_others_move() {
    let mut known = Known::new();
    known.gateway.move_to(1, path(1, 1, Encap::None), 1500);
    known.gateway.put(INSIDE, &Known::down(64));
    let other = known.gateway.pairs[&9].outbound.clone();
    known.gateway.change_in_turn(move |writer| other.set_path(writer, path(9, 1, Encap::None), 1500));
    known.gateway.settle();
    let hits = known.gateway.worker.counters.flow_hits.value();
    known.gateway.take(OUTSIDE);
    assert_eq!(known.send_down(64).len(), 1);
    assert_eq!(known.gateway.worker.counters.flow_hits.value(), hits + 1);
}

#[test]
fn smaller_mtu_of_the_path_is_noticed_and_the_sender_hears_of_it() {
    let mut known = Known::new();
    let mut refused = 0;
    // RFC 4303 tunnel over IPv4 with AES-GCM-16: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4.
    for (mtu, fits) in [(600, 546), (576, 522), (1500, 1446)] {
        known.gateway.move_to(1, path(1, 0, Encap::None), mtu);
        let [passes, big] = [fits, fits + 1].map(|length| Known::down(length - 28));
        assert_eq!(known.gateway.exchange(INSIDE, std::slice::from_ref(&big), OUTSIDE).len(), 0, "{mtu}");
        refused += 1;
        assert_eq!(known.gateway.drops(), [(DropReason::TooBig, refused)]);
        let problem = Punt::Problem(Problem::TooBig { mtu: fits as u16 });
        assert_eq!(known.gateway.worker.take_punted(), [(INSIDE_PORT, problem, big.clone())]);
        let out = known.gateway.exchange(INSIDE, &[passes], OUTSIDE);
        assert_eq!(
            out.iter().map(|frame| frame.len() - ethernet::HEADER).collect::<Vec<_>>(),
            [usize::from(mtu)]
        );
        // Without DF it is cut.
        let mut big = big;
        ip::allow_fragments(&mut big, ip::V4_HEADER, 7);
        assert_eq!(known.gateway.exchange(INSIDE, &[big], OUTSIDE).len(), 2, "{mtu}");
        known.assert_known();
    }
}

#[test]
fn new_sa_is_used_at_once_and_the_old_one_never_again() {
    let mut known = Known::new();
    for generation in 1..=5 {
        let spec = Spec { generation, ..Spec::new(1) };
        known.gateway.install(&spec);
        known.terminal = spec.terminal();
        for seq in 1..=2 {
            let out = known.send_down(64);
            assert_eq!(out.len(), 1, "{:?}", known.gateway.drops());
            let (_, number, packet, _) = known.terminal.open(&out[0][ethernet::HEADER..]);
            assert_eq!((number, packet), (seq, forwarded(&Known::down(64))));
        }
        known.assert_known();
    }
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn limits_hold_for_known_flows_and_each_is_reported_once() {
    let limits = Limits { soft_packets: 20, hard_packets: 30, ..Limits::NONE };
    let mut known = Known::with(&Spec { limits, ..Spec::new(1) });
    let sa = known.gateway.pairs[&1].outbound.clone();
    let (before, _) = sa.life.carried();
    assert!(before < 20, "{before} packets to make the flow known");
    let packets = vec![Known::down(64); 10];
    let mut sealed = before;
    for _ in 0..10 {
        sealed += known.gateway.exchange(INSIDE, &packets, OUTSIDE).len() as u64;
    }
    assert_eq!(sealed, 30);
    assert_eq!(known.gateway.drops(), [(DropReason::SaExpired, before + 100 - 30)]);
    let due = |due| Event::Due { tunnel: TunnelId(1), inbound: false, due };
    assert_eq!(known.gateway.worker.take_events(), [Due::Soft, Due::Hard].map(due));
    assert_eq!(sa.life.carried().0, before + 100);
}

#[test]
fn limit_in_bytes_holds_for_a_known_flow() {
    let length = Known::down(64).len() as u64;
    let limits = Limits { hard_bytes: 10 * length, ..Limits::NONE };
    let mut known = Known::with(&Spec { limits, ..Spec::new(1) });
    let before = known.gateway.pairs[&1].outbound.life.carried().1 / length;
    let out = known.gateway.exchange(INSIDE, &vec![Known::down(64); 20], OUTSIDE);
    assert_eq!(out.len() as u64, 10 - before);
    let due = Event::Due { tunnel: TunnelId(1), inbound: false, due: Due::Hard };
    assert_eq!(known.gateway.worker.take_events(), [due]);
}

#[test]
fn last_sequence_number_ends_a_known_flow() {
    let sequence = u64::from(u32::MAX) - 20;
    let mut known = Known::with(&Spec { sequence, ..Spec::new(1) });
    let sa = known.gateway.pairs[&1].outbound.clone();
    let left = u64::from(u32::MAX) - sa.sequence();
    let out: Vec<_> =
        (0..4).flat_map(|_| known.gateway.exchange(INSIDE, &vec![Known::down(64); 10], OUTSIDE)).collect();
    assert_eq!(out.len() as u64, left);
    let last = known.terminal.open(&out[out.len() - 1][ethernet::HEADER..]).1;
    assert_eq!((last, sa.sequence()), (u32::MAX.into(), u32::MAX.into()));
    assert_eq!(known.gateway.drops(), [(DropReason::SequenceExhausted, 40 - left)]);
    let due = Event::Due { tunnel: TunnelId(1), inbound: false, due: Due::Sequence };
    assert_eq!(known.gateway.worker.take_events(), [due]);
}

#[test]
fn port_that_is_down_drops_packets_of_known_flows() {
    let mut known = Known::new();
    for round in 1..=2 {
        known.gateway.worker.rings.set_down(OUTSIDE, true);
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::PortDown, round)]);
        known.gateway.worker.rings.set_down(OUTSIDE, false);
        known.assert_known();
    }
}

#[test]
fn source_that_moves_to_another_port_is_refused() {
    let mut known = Known::new();
    let source = Prefix::host(server(0));
    for (round, hop) in (1..).zip([
        Hop::Port { port: OUTSIDE as u16, mac: OTHER_MAC },
        Hop::Resolve { port: OUTSIDE as u16, via: None },
        Hop::Local,
    ]) {
        known.gateway.route(source, Some(hop));
        assert_eq!(known.send_down(64).len(), 0, "{hop:?}");
        assert_eq!(known.gateway.drops(), [(DropReason::SourcePort, round)]);
        known.gateway.route(source, None);
        assert_eq!(known.send_down(64).len(), 1);
        known.assert_known();
    }
    // The network of the source.
    known.gateway.route(prefix("10.99.0.0/24"), None);
    assert_eq!(known.send_down(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::SourcePort, 4)]);
}

#[test]
fn tunnel_for_the_source_forbids_that_it_comes_in_clear() {
    let mut known = Known::new();
    let other = Spec::new(9);
    let action = known.gateway.protect(9);
    for round in 1..=2 {
        let back =
            Rule { selector: selector("10.98.0.0/16", &server(0).to_string()), action: action.clone() };
        let rules = [other.rules(&action), vec![back]].concat();
        known.gateway.set_tunnel_rules(9, rules);
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::Unprotected, round)]);
        known.gateway.set_tunnel_rules(9, other.rules(&action));
        assert_eq!(known.send_down(64).len(), 1);
        known.assert_known();
    }
}

#[test]
fn ports_own_mac_addresses_may_change() {
    let mut known = Known::new();
    known.gateway.worker.tables.settings.ports[OUTSIDE].mac.set(OTHER_MAC);
    assert_eq!(header_of(&known.send_down(64)[0]).src, OTHER_MAC);
    known.gateway.worker.tables.settings.ports[OUTSIDE].mac.set(GATEWAY_MAC[OUTSIDE]);
    known.assert_known();

    known.gateway.worker.tables.settings.ports[INSIDE].mac.set(OTHER_MAC);
    assert_eq!(known.send_down(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::ForeignMac, 1)]);
    known.gateway.put_frame(INSIDE, &frame(OTHER_MAC, STATION_MAC[INSIDE], &Known::down(64)));
    known.gateway.settle();
    assert_eq!(known.gateway.worker.take(OUTSIDE).len(), 1);
}

#[test]
fn destination_that_becomes_the_gateways_own_is_no_longer_forwarded() {
    let mut known = Known::new();
    let destination = Prefix::host(inner(1));
    for (round, hop) in (1..).zip([Hop::Local, Hop::Host]) {
        known.gateway.route(destination, Some(hop));
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::NotForUs, round)]);
        known.gateway.route(destination, None);
        assert_eq!(known.send_down(64).len(), 1);
        known.assert_known();
    }
}

#[test]
fn known_flow_does_not_excuse_a_broken_packet() {
    let mut known = Known::new();
    let good = Known::down(64);
    let change = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        packet
    };
    let resum = |packet: &mut Vec<u8>| {
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        ip::set_total_len(packet, ip::V4_HEADER, length);
    };
    for (packet, reason) in [
        (change(&|packet| packet[10] ^= 1), DropReason::IpChecksum),
        (change(&|packet| _ = packet.pop()), DropReason::IpTotalLength),
        (
            change(&|packet| {
                packet[8] = 1;
                resum(packet);
            }),
            DropReason::HopLimit,
        ),
        (
            change(&|packet| {
                packet[8] = 0;
                resum(packet);
            }),
            DropReason::HopLimit,
        ),
        (
            change(&|packet| {
                packet[0] = 0x46;
                resum(packet);
            }),
            DropReason::IpChecksum,
        ),
    ] {
        let before = known.gateway.worker.counters.drops.of(reason);
        let out = known.gateway.exchange(INSIDE, &[packet, good.clone()], OUTSIDE);
        assert_eq!(out.len(), 1, "{reason:?}");
        assert_eq!(known.gateway.worker.counters.drops.of(reason), before + 1, "{:?}", known.gateway.drops());
        assert_eq!(terminal_of(&out[0]), 1);
    }
    known.assert_known();
}

//! Remembered SAs and destinations of packets from terminals notice every change of what they need, with
//! the next packet.

use super::{
    gateway::{GATEWAY6, Spec, inner, path, prefix, server},
    known::Known,
};
use std::sync::atomic::Ordering::Relaxed;
use wayfarer::{
    gateway::{
        input_port::from_link,
        rings::{Event, Punt},
        tables::Hop,
    },
    sim::{
        fixtures::*,
        frames::{forwarded, frame, udp_packet},
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

/// Returns the Ethernet header of a frame.
fn header_of(frame: &[u8]) -> Ethernet {
    Ethernet::parse(frame).expect("an Ethernet frame")
}

#[test]
fn removed_sa_opens_nothing_more() {
    let spec = Spec::new(1);
    let mut known = Known::new();
    for round in 1..=3 {
        known.gateway.end(1);
        assert_eq!(known.send_up(64).len(), 0);
        assert_eq!(known.send_down(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::UnknownSpi, round), (DropReason::NoPolicy, round)]);
        // It begins anew, with the same SPI.
        known.gateway.install(&spec);
        known.terminal = spec.terminal();
        known.assert_known();
    }
}

#[test]
fn narrower_selectors_of_a_new_sa_apply_at_once() {
    let mut known = Known::new();
    // Another host, another server, and only another port.
    let mut to_port = selector("10.99.0.0/24", &inner(1).to_string());
    (to_port.local_ports.first, to_port.local_ports.last) = (54, 54);
    for (round, narrower) in (1..).zip([
        selector("10.99.0.0/24", "10.98.1.2"),
        selector(&server(1).to_string(), &inner(1).to_string()),
        to_port,
    ]) {
        let narrow = Spec { selectors: vec![narrower], ..Spec::new(1) };
        known.gateway.install(&narrow);
        assert_eq!(known.send_up(64).len(), 0, "{round}");
        assert_eq!(known.gateway.drops(), [(DropReason::InnerSelector, round)]);
        assert_eq!(known.gateway.pairs[&1].inbound.refused.selector.load(Relaxed), 1);
        known.gateway.install(&Spec::new(1));
        known.assert_known();
    }
}

#[test]
fn new_sa_for_another_source_or_address_refuses_the_old_ones() {
    let mut known = Known::new();
    known.gateway.install(&Spec { is_pinned: true, path: path(1, 1, Encap::None), ..Spec::new(1) });
    assert_eq!(known.send_up(64).len(), 0);
    known.gateway.install(&Spec { local: GATEWAY6, ..Spec::new(1) });
    assert_eq!(known.send_up(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::WrongDestination, 1), (DropReason::PinnedSource, 1)]);
    known.gateway.install(&Spec { is_pinned: true, local: GATEWAY, ..Spec::new(1) });
    assert_eq!(known.send_up(64).len(), 1);
}

#[test]
fn address_that_is_no_longer_the_gateways_own_receives_nothing() {
    let mut known = Known::new();
    let own = Prefix::host(GATEWAY);
    for (hop, reason) in [(None, DropReason::NoPolicy), (Some(Hop::Host), DropReason::NotForUs)] {
        known.gateway.route(own, hop);
        assert_eq!(known.send_up(64).len(), 0);
        assert_eq!(known.gateway.worker.counters.drops.of(reason), 1, "{:?}", known.gateway.drops());
        known.gateway.route(own, Some(Hop::Local));
        assert_eq!(known.send_up(64).len(), 1);
        known.assert_known();
    }
}

#[test]
fn change_of_the_servers_neighbour_is_noticed() {
    let mut known = Known::new();
    let to = Prefix::host(server(0));
    for last in 1..=3 {
        let mac = [2, 0, 0, 0, 9, last];
        known.gateway.route(to, Some(Hop::Port { port: INSIDE as u16, mac }));
        let out = known.send_up(64);
        assert_eq!(out.len(), 1, "{:?}", known.gateway.drops());
        assert_eq!(header_of(&out[0]).dst, mac);
        known.assert_known();
    }
    known.gateway.route(to, Some(Hop::Resolve { port: INSIDE as u16, via: None }));
    assert_eq!(known.send_up(64).len(), 0);
    let punt = Punt::Resolve { port: INSIDE as u16, next: server(0) };
    let waiting = forwarded(&Known::up(64));
    assert_eq!(known.gateway.worker.take_punted(), [(from_link(1), punt, waiting)]);
    known.gateway.route(to, Some(Hop::Port { port: INSIDE as u16, mac: OTHER_MAC }));
    assert_eq!(header_of(&known.send_up(64)[0]).dst, OTHER_MAC);
    known.assert_known();
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn change_of_the_route_to_the_server_is_noticed() {
    let mut known = Known::new();
    let to = Prefix::host(server(0));
    known.gateway.route(to, Some(Hop::Port { port: OUTSIDE as u16, mac: OTHER_MAC }));
    assert_eq!(known.send_up(64).len(), 0);
    let out = known.gateway.worker.take(OUTSIDE);
    assert_eq!(out.iter().map(|frame| header_of(frame).dst).collect::<Vec<_>>(), [OTHER_MAC]);
    known.gateway.route(to, None);
    assert_eq!(header_of(&known.send_up(64)[0]).dst, STATION_MAC[INSIDE]);
    known.assert_known();

    known.gateway.route(prefix("10.99.0.0/24"), None);
    assert_eq!(known.send_up(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::NoRoute, 1)]);
    let problem = Punt::Problem(Problem::Unreachable);
    assert_eq!(known.gateway.worker.take_punted(), [(from_link(1), problem, Known::up(64))]);
    for (to, last) in [("0.0.0.0/0", 1), ("10.99.0.0/16", 2), ("10.99.0.0/25", 3)] {
        let mac = [2, 0, 0, 0, 8, last];
        known.gateway.route(prefix(to), Some(Hop::Port { port: INSIDE as u16, mac }));
        for _ in 0..3 {
            assert_eq!(header_of(&known.send_up(64)[0]).dst, mac, "{to}");
        }
    }
}

#[test]
fn destination_that_becomes_the_gateways_own_is_no_longer_forwarded() {
    let mut known = Known::new();
    let to = Prefix::host(server(0));
    for (round, hop) in (1..).zip([Hop::Local, Hop::Host]) {
        known.gateway.route(to, Some(hop));
        assert_eq!(known.send_up(64).len(), 0, "{hop:?}");
        assert_eq!(known.gateway.drops(), [(DropReason::NotForUs, round)]);
        known.gateway.route(to, None);
        assert_eq!(known.send_up(64).len(), 1);
        known.assert_known();
    }
}

#[test]
fn smaller_mtu_of_the_servers_port_is_noticed_and_the_sender_hears_of_it() {
    let mut known = Known::new();
    let mut refused = 0;
    for mtu in [600, 576, 1400] {
        known.gateway.worker.tables.settings.ports[INSIDE].set_mtu(mtu);
        assert_eq!(known.send_up(mtu + 1 - 28).len(), 0, "{mtu}");
        refused += 1;
        assert_eq!(known.gateway.drops(), [(DropReason::TooBig, refused)]);
        let problem = Punt::Problem(Problem::TooBig { mtu: mtu as u16 });
        let big = Known::up(mtu + 1 - 28);
        assert_eq!(known.gateway.worker.take_punted(), [(from_link(1), problem, big.clone())]);
        assert_eq!(known.send_up(mtu - 28).len(), 1, "{mtu}");
        // Without DF it is cut.
        let mut big = big;
        ip::allow_fragments(&mut big, ip::V4_HEADER, 7);
        let sealed = known.terminal.seal(&big);
        assert_eq!(known.gateway.exchange(OUTSIDE, &[sealed], INSIDE).len(), 2, "{mtu}");
        known.assert_known();
    }
}

#[test]
fn limits_hold_for_known_sas_and_each_is_reported_once() {
    let limits = Limits { soft_packets: 20, hard_packets: 30, ..Limits::NONE };
    let mut known = Known::with(&Spec { limits, ..Spec::new(1) });
    let sa = known.gateway.pairs[&1].inbound.clone();
    let (before, _) = sa.life.carried();
    assert!(before < 20, "{before} packets to make the SA known");
    let mut opened = before;
    for _ in 0..10 {
        let sealed: Vec<_> = (0..10).map(|_| known.terminal.seal(&Known::up(64))).collect();
        opened += known.gateway.exchange(OUTSIDE, &sealed, INSIDE).len() as u64;
    }
    assert_eq!(opened, 30);
    assert_eq!(known.gateway.drops(), [(DropReason::SaExpired, before + 100 - 30)]);
    let due = |due| Event::Due { tunnel: TunnelId(1), inbound: true, due };
    assert_eq!(known.gateway.worker.take_events(), [Due::Soft, Due::Hard].map(due));
}

#[test]
fn port_that_is_down_drops_packets_of_known_flows() {
    let mut known = Known::new();
    for round in 1..=2 {
        known.gateway.worker.rings.set_down(INSIDE, true);
        assert_eq!(known.send_up(64).len(), 0);
        assert_eq!(known.gateway.drops(), [(DropReason::PortDown, round)]);
        known.gateway.worker.rings.set_down(INSIDE, false);
        known.assert_known();
    }
}

#[test]
fn ports_own_mac_addresses_may_change() {
    let mut known = Known::new();
    known.gateway.worker.tables.settings.ports[INSIDE].mac.set(OTHER_MAC);
    assert_eq!(header_of(&known.send_up(64)[0]).src, OTHER_MAC);
    known.gateway.worker.tables.settings.ports[INSIDE].mac.set(GATEWAY_MAC[INSIDE]);
    known.assert_known();

    known.gateway.worker.tables.settings.ports[OUTSIDE].mac.set(OTHER_MAC);
    assert_eq!(known.send_up(64).len(), 0);
    assert_eq!(known.gateway.drops(), [(DropReason::ForeignMac, 1)]);
    let sealed = known.terminal.seal(&Known::up(64));
    known.gateway.put_frame(OUTSIDE, &frame(OTHER_MAC, STATION_MAC[OUTSIDE], &sealed));
    known.gateway.settle();
    assert_eq!(known.gateway.worker.take(INSIDE).len(), 1);
}

#[test]
fn window_of_a_known_sa_refuses_what_it_refuses_of_any() {
    let mut known = Known::new();
    let old = known.terminal.seal(&Known::up(64));
    known.terminal.seq += 2000;
    let newest = known.terminal.seal(&Known::up(64));
    let zero = known.terminal.seal_as(&Known::up(64), ip::protocol::IPV4, 0);
    let mut forged = known.terminal.seal(&Known::up(64));
    let end = forged.len() - 1;
    forged[end] ^= 1;
    let mut cut = known.terminal.seal(&Known::up(64));
    cut.truncate(60);
    ip::set_total_len(&mut cut, ip::V4_HEADER, 60);
    let mut short = known.terminal.seal(&Known::up(64));
    short.truncate(48);
    ip::set_total_len(&mut short, ip::V4_HEADER, 48);
    for (packet, reason) in [
        (newest.clone(), None),
        (newest.clone(), Some(DropReason::ReplayDuplicate)),
        (old, Some(DropReason::ReplayStale)),
        (zero, Some(DropReason::SequenceZero)),
        (forged, Some(DropReason::NotAuthentic)),
        (cut, Some(DropReason::NotAuthentic)),
        (short, Some(DropReason::EspTruncated)),
        (newest, Some(DropReason::ReplayDuplicate)),
    ] {
        let before = reason.map(|reason| known.gateway.worker.counters.drops.of(reason));
        let out = known.gateway.exchange(OUTSIDE, &[packet], INSIDE);
        assert_eq!(out.len(), usize::from(reason.is_none()), "{reason:?}");
        let after = reason.map(|reason| known.gateway.worker.counters.drops.of(reason));
        assert_eq!(after, before.map(|drops| drops + 1), "{reason:?}: {:?}", known.gateway.drops());
    }
    let refused = &known.gateway.pairs[&1].inbound.refused;
    assert_eq!((refused.replayed.load(Relaxed), refused.forged.load(Relaxed)), (4, 2));
    known.assert_known();
}

#[test]
fn packet_that_comes_twice_in_one_burst_passes_once() {
    let mut known = Known::new();
    let sealed = known.terminal.seal(&Known::up(64));
    assert_eq!(known.gateway.exchange(OUTSIDE, &vec![sealed; 5], INSIDE).len(), 1);
    assert_eq!(known.gateway.drops(), [(DropReason::ReplayDuplicate, 4)]);
}

#[test]
fn every_new_path_of_a_known_sa_is_reported_once() {
    let mut known = Known::new();
    let udp = |local, remote| Encap::Udp { local, remote };
    for path in [
        path(1, 1, Encap::None),
        path(1, 1, udp(4500, 40_000)),
        path(1, 1, udp(4500, 40_001)),
        path(1, 0, udp(4500, 40_001)),
        path(1, 0, udp(14_500, 40_001)),
        path(1, 0, Encap::None),
    ] {
        known.terminal.address = path.remote;
        (known.terminal.port, known.terminal.gateway_port) = match path.encap {
            Encap::None => (None, 4500),
            Encap::Udp { local, remote } => (Some(remote), local),
        };
        for _ in 0..3 {
            assert_eq!(known.send_up(64).len(), 1, "{path}: {:?}", known.gateway.drops());
        }
        let event = Event::NewPath { tunnel: TunnelId(1), path };
        assert_eq!(known.gateway.worker.take_events(), [event]);
        known.gateway.pairs[&1].inbound.report_taken();
        known.gateway.move_to(1, path, 1500);
        assert_eq!(known.send_up(64).len(), 1);
        assert_eq!(known.gateway.worker.take_events(), []);
    }
    known.assert_known();
}

#[test]
fn packets_within_a_known_sa_are_still_checked() {
    let mut known = Known::new();
    let mut last_hop = Known::up(64);
    last_hop[8] = 1;
    let mut congested = Known::up(64);
    congested[1] = 0b11;
    for packet in [&mut last_hop, &mut congested] {
        let length = packet.len();
        ip::set_total_len(packet, ip::V4_HEADER, length);
    }
    let mut broken = Known::up(64);
    broken[10] ^= 1;
    let mut cut = Known::up(64);
    cut.pop();
    let foreign = udp_packet(inner(2), server(0), (1001, 53), b"another terminal's");
    let martian = udp_packet(ip("127.0.0.1"), server(0), (1001, 53), b"nobody's");
    for (packet, next_header, reason) in [
        (&last_hop, 4, Some(DropReason::HopLimit)),
        (&congested, 4, None),
        (&broken, 4, Some(DropReason::InnerMalformed)),
        (&cut, 4, Some(DropReason::InnerMalformed)),
        (&foreign, 4, Some(DropReason::InnerSelector)),
        (&martian, 4, Some(DropReason::InnerSelector)),
        (&Known::up(64), 41, Some(DropReason::InnerMalformed)),
        (&Known::up(64), 17, Some(DropReason::NextHeader)),
        (&Known::up(64), 59, Some(DropReason::Dummy)),
        (&Known::up(64), 4, None),
    ] {
        known.terminal.seq += 1;
        let sealed = known.terminal.seal_as(packet, next_header, known.terminal.seq);
        let before = reason.map(|reason| known.gateway.worker.counters.drops.of(reason));
        let out = known.gateway.exchange(OUTSIDE, &[sealed], INSIDE);
        let expected: Vec<_> = reason.is_none().then(|| forwarded(packet)).into_iter().collect();
        let got: Vec<_> = out.iter().map(|frame| frame[ethernet::HEADER..].to_vec()).collect();
        assert_eq!(got, expected, "{next_header} {reason:?}");
        let after = reason.map(|reason| known.gateway.worker.counters.drops.of(reason));
        assert_eq!(after, before.map(|drops| drops + 1), "{reason:?}: {:?}", known.gateway.drops());
    }
    known.assert_known();
}

#[test]
fn congestion_mark_of_an_outer_packet_reaches_the_inner_one_of_a_known_sa() {
    let mut known = Known::new();
    // RFC 6040 §4.2: a mark is copied to a packet that may carry it, and forbidden on others.
    for (inner_ecn, outer_ecn, expected) in
        [(0b00, 0b11, None), (0b10, 0b11, Some(0b11)), (0b10, 0b01, Some(0b01)), (0b10, 0b00, Some(0b10))]
    {
        let mut packet = Known::up(64);
        ip::set_traffic_class(&mut packet, inner_ecn);
        let mut sealed = known.terminal.seal(&packet);
        ip::set_traffic_class(&mut sealed, outer_ecn);
        let out = known.gateway.exchange(OUTSIDE, &[sealed], INSIDE);
        let ecn: Vec<_> = out.iter().map(|frame| frame[ethernet::HEADER + 1]).collect();
        assert_eq!(ecn, expected.into_iter().collect::<Vec<u8>>(), "{inner_ecn:02b} {outer_ecn:02b}");
    }
    assert_eq!(known.gateway.drops(), [(DropReason::EcnForbidden, 1)]);
}

//! Flows of every kind are treated as without what is remembered, and notice every change of what they need,
//! with the next packet.

use super::{
    gateway::{Spec, TestGateway, prefix},
    kind::Kind,
    known::Known,
    odd::{with_options, with_ttl},
    ports::{HOST, Ports},
};
use std::net::SocketAddr;
use wayfarer::{
    gateway::{
        policy::Action,
        rings::{Event, Punt},
        tables::Hop,
    },
    sim::{fixtures::*, frames::endpoints},
};
use wayfarer_dataplane::{
    drop::DropReason,
    port::Mac,
    sa::{Due, Encap, Limits, Mode, Selector, TunnelId},
    table::Prefix,
    wire::{
        checksum,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
    },
};

/// Returns the IP packets in frames.
fn packets(frames: &[Vec<u8>]) -> Vec<&[u8]> {
    frames.iter().map(|frame| &frame[ethernet::HEADER..]).collect()
}

/// Returns the Ethernet headers of frames.
fn headers(frames: &[Vec<u8>]) -> Vec<Ethernet> {
    frames.iter().map(|frame| Ethernet::parse(frame).expect("an Ethernet frame")).collect()
}

/// Returns how many packets were dropped for this reason.
fn drops(known: &Known, reason: DropReason) -> u64 {
    known.gateway.worker.counters.drops.of(reason)
}

/// Asserts that the next packet in neither direction comes out, for these reasons.
fn assert_neither(known: &mut Known, [down, up]: [DropReason; 2], what: &str) {
    let before = [down, up].map(|reason| drops(known, reason));
    assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (0, 0), "{what}");
    let both = u64::from(down == up);
    let after = [down, up].map(|reason| drops(known, reason));
    assert_eq!(after, before.map(|drops| drops + 1 + both), "{what}: {:?}", known.gateway.drops());
}

/// Returns the sum over a UDP datagram with its pseudo-header, which is 0 if its checksum is right.
fn sum_of(packet: &[u8]) -> u16 {
    let header = IpHeader::parse(packet).expect("an IP packet");
    let datagram = header.payload(packet);
    let pseudo = checksum::pseudo_header(header.src, header.dst, protocol::UDP, datagram.len());
    checksum::finish(checksum::add(pseudo, datagram))
}

#[test]
fn packets_arrive_whole_in_both_directions() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        for size in [0, 1, 7, 16, 200, 1000, 1300] {
            let out = known.send_down(size);
            let [packet] = packets(&out)[..] else { panic!("{kind:?} {size}: {:?}", known.gateway.drops()) };
            let (ends, _) = endpoints(packet).unwrap();
            let path = kind.path(1, false);
            assert_eq!((ends.from.ip(), ends.to.ip()), (path.local, path.remote), "{kind:?}");
            assert_eq!(known.terminal.open(packet).2, kind.opened(&kind.down(size)), "{kind:?} {size}");
            assert!(!kind.has_checksum() || sum_of(packet) == 0, "{kind:?} {size}");
            let out = known.send_up(size);
            assert_eq!(packets(&out), [&kind.arrived(&kind.up(1, size))[..]], "{kind:?} {size}");
        }
        known.assert_known();
        assert_eq!(known.gateway.drops(), [], "{kind:?}");
    }
}

#[test]
fn flows_of_the_shortest_packets_are_remembered() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let hits = |known: &Known| known.gateway.worker.counters.flow_hits.value();
        let before = hits(&known);
        for _ in 0..3 {
            assert_eq!((known.send_down(0).len(), known.send_up(0).len()), (1, 1), "{kind:?}");
        }
        assert_eq!(hits(&known), before + 6, "{kind:?}");
    }
}

#[test]
fn udp_checksum_over_ipv6_is_as_without_remembered_flows() {
    let kinds = Kind::all().into_iter().filter(|kind| kind.has_checksum() && !kind.is_host);
    for (kind, is_wanted) in kinds.flat_map(|kind| [true, false].map(|is_wanted| (kind, is_wanted))) {
        for ports in [Ports::Two, Ports::Filling] {
            let mut spec = kind.spec(1);
            spec.marking.udp6_checksum = is_wanted;
            let mut gateways = [0, 64]
                .map(|flow_cache| TestGateway::on(ports, flow_cache, false, std::slice::from_ref(&spec)));
            for size in [64, 65, 64, 65] {
                let [without, with] =
                    gateways.each_mut().map(|gateway| gateway.exchange(INSIDE, &[kind.down(size)], OUTSIDE));
                assert!(without == with, "{kind:?}: {without:02x?}, not {with:02x?}");
                let packet = packets(&with)[0];
                let has_none = packet[ip::V6_HEADER + 6..ip::V6_HEADER + 8] == [0, 0];
                assert_eq!(has_none, !is_wanted, "{kind:?}");
                // A port that fills in the checksum expects the sum of the pseudo-header.
                assert_eq!(sum_of(packet) == 0, is_wanted && ports == Ports::Two, "{kind:?} {ports:?}");
            }
            assert!(gateways[1].worker.counters.flow_hits.value() > 0, "{kind:?}");
        }
    }
}

/// Once a packet takes the whole way, so do those behind it.
#[test]
fn packets_of_one_flow_stay_in_order() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let burst: Vec<_> = [64, 65, 66].map(|size| kind.down(size)).into();
        let odd = with_options(burst[0].clone());
        let out = known.gateway.exchange(kind.port(), &[odd, burst[1].clone(), burst[2].clone()], OUTSIDE);
        let numbers: Vec<_> = packets(&out).iter().map(|packet| known.terminal.open(packet).1).collect();
        assert!(
            numbers.len() == 3 && numbers.is_sorted(),
            "{kind:?}: {numbers:?} {:?}",
            known.gateway.drops()
        );
        let last = known.terminal.open(packets(&out)[2]).2;
        assert_eq!(last, kind.opened(&burst[2]), "{kind:?}");

        let inner: Vec<_> = [64, 65, 66].map(|size| kind.up(1, size)).into();
        let mut sealed: Vec<_> = inner.iter().map(|packet| kind.seal(&mut known.terminal, packet)).collect();
        sealed[0] = with_ttl(sealed[0].clone(), 1);
        let out = known.gateway.exchange(OUTSIDE, &sealed, kind.port());
        let lengths: Vec<_> = packets(&out).iter().map(|packet| packet.len()).collect();
        assert_eq!(lengths, inner.iter().map(Vec::len).collect::<Vec<_>>(), "{kind:?}");
        known.assert_known();
    }
}

#[test]
fn change_of_policy_is_noticed() {
    for kind in Kind::all() {
        // The operator's prefixes are longer than those of the tunnel.
        let (here, there) = kind.networks();
        let selectors = vec![selector(here, there)];
        let mut known = Known::of_spec(kind, &Spec { selectors, ..kind.spec(1) });
        let (here, there) = kind.ends(1);
        for round in 1..=2 {
            known.gateway.set_policy(Prefix::host(there), Some(Action::Discard));
            assert_eq!(known.send_down(64).len(), 0, "{kind:?}");
            assert_eq!(drops(&known, DropReason::Discard), 2 * round - 1, "{kind:?}");
            known.gateway.set_policy(Prefix::host(there), None);
            known.assert_known();

            known.gateway.set_policy(Prefix::host(here), Some(Action::Discard));
            assert_eq!(known.send_up(64).len(), 0, "{kind:?}");
            assert_eq!(drops(&known, DropReason::Discard), 2 * round, "{kind:?}");
            known.gateway.set_policy(Prefix::host(here), None);
            known.assert_known();
        }
    }
}

#[test]
fn change_of_the_route_and_the_neighbour_of_the_peer_is_noticed() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let peer = Prefix::host(kind.path(1, false).remote);
        for last in 1..=2 {
            let mac = [2, 0, 0, 0, 9, last];
            known.gateway.route(peer, Some(Hop::Port { port: OUTSIDE as u16, mac }));
            let [header] = headers(&known.send_down(64))[..] else { panic!("{kind:?}") };
            assert_eq!((header.dst, header.src), (mac, GATEWAY_MAC[OUTSIDE]), "{kind:?}");
            known.assert_known();
        }
        known.gateway.route(peer, Some(Hop::Port { port: INSIDE as u16, mac: STATION_MAC[INSIDE] }));
        assert_eq!(known.send_down(64).len(), 0, "{kind:?}");
        let [header] = headers(&known.gateway.take(INSIDE))[..] else { panic!("{kind:?}") };
        assert_eq!((header.dst, header.src), (STATION_MAC[INSIDE], GATEWAY_MAC[INSIDE]), "{kind:?}");
        known.gateway.route(peer, Some(Hop::Resolve { port: OUTSIDE as u16, via: None }));
        assert_eq!(known.send_down(64).len(), 0, "{kind:?}");
        let punted = known.gateway.worker.take_punted();
        assert!(matches!(punted[..], [(_, Punt::Resolve { .. }, _)]), "{kind:?}: {punted:?}");
        known.gateway.route(peer, None);
        known.assert_known();
        // The network that the peer is in.
        known.gateway.route(prefix(kind.outer_network()), None);
        assert_eq!(known.send_down(64).len(), 0, "{kind:?}");
        assert_eq!(known.gateway.drops(), [(DropReason::NoRoute, 1)], "{kind:?}");
    }
}

#[test]
fn change_of_the_way_to_the_partner_is_noticed() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let here = kind.ends(1).0;
        for last in 1..=2 {
            let mac: Mac = [2, 0, 0, 0, 9, last];
            let own: Mac = [2, 0, 0, 0, 8, last];
            let tables = known.gateway.worker.tables.clone();
            tables.settings.ports[kind.port()].mac.set(own);
            match &tables.settings.host {
                Some(host) => host.mac.set(mac),
                None => {
                    let hop = Hop::Port { port: INSIDE as u16, mac };
                    known.gateway.route(Prefix::host(here), Some(hop));
                }
            }
            let [header] = headers(&known.send_up(64))[..] else { panic!("{kind:?}") };
            assert_eq!((header.dst, header.src), (mac, own), "{kind:?}");
        }
        // To the old MAC address of the port, nothing comes in any more.
        assert_eq!(known.send_down(64).len(), 0, "{kind:?}");
        assert_eq!(known.gateway.drops(), [(DropReason::ForeignMac, 1)], "{kind:?}");

        known.gateway.route(Prefix::host(here), None);
        if !kind.is_host {
            known.gateway.route(prefix(kind.networks().0), None);
        }
        assert_eq!(known.send_up(64).len(), 0, "{kind:?}");
        // In transport mode, the outer packet itself is no longer for the gateway.
        let reason = match kind.mode {
            Mode::Tunnel => DropReason::NoRoute,
            Mode::Transport => DropReason::Unprotected,
        };
        assert_eq!(drops(&known, reason), 1, "{kind:?}: {:?}", known.gateway.drops());
    }
}

#[test]
fn destination_that_the_host_takes_over_is_noticed() {
    for kind in Kind::all().into_iter().filter(|kind| !kind.is_host) {
        let spec = kind.spec(1);
        let mut gateway = TestGateway::on(Ports::WithHost, 64, false, std::slice::from_ref(&spec));
        let mut terminal = spec.terminal();
        let (here, there) = kind.ends(1);
        for round in 0..3 {
            for is_host in [false, true] {
                let hop = is_host.then_some(Hop::Host);
                gateway.route(Prefix::host(here), hop);
                let exit = if is_host { HOST } else { INSIDE };
                for _ in 0..3 {
                    let sealed = kind.seal(&mut terminal, &kind.up(1, 64));
                    let out = gateway.exchange(OUTSIDE, &[sealed], exit);
                    let expected = if is_host { kind.up(1, 64) } else { kind.arrived(&kind.up(1, 64)) };
                    assert_eq!(packets(&out), [&expected[..]], "{kind:?} {round} {is_host}");
                }
            }
            gateway.route(Prefix::host(here), None);
            assert_eq!(gateway.exchange(INSIDE, &[kind.down(64)], OUTSIDE).len(), 1, "{kind:?} {round}");
            gateway.route(Prefix::host(there), Some(Hop::Host));
            assert_eq!(gateway.exchange(INSIDE, &[kind.down(64)], OUTSIDE).len(), 0, "{kind:?} {round}");
            assert_eq!(packets(&gateway.take(HOST)), [&kind.down(64)[..]], "{kind:?} {round}");
            gateway.route(Prefix::host(there), None);
        }
        assert!(gateway.worker.counters.flow_hits.value() > 6, "{kind:?}");
    }
}

#[test]
fn narrower_selectors_of_a_new_sa_apply_at_once() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let spec = kind.spec(1);
        let tcp = Selector { protocol: Some(protocol::TCP), ..spec.selectors[0].clone() };
        for _ in 0..2 {
            known.gateway.install(&Spec { selectors: vec![tcp.clone()], ..spec.clone() });
            assert_neither(
                &mut known,
                [DropReason::NoPolicy, DropReason::InnerSelector],
                &format!("{kind:?}"),
            );
            known.gateway.install(&spec);
            known.assert_known();
        }
    }
}

#[test]
fn removed_sa_is_not_used_any_more() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        let spec = kind.spec(1);
        for _ in 0..2 {
            known.gateway.end(1);
            assert_neither(&mut known, [DropReason::NoPolicy, DropReason::UnknownSpi], &format!("{kind:?}"));
            // It begins anew, with the same SPI.
            known.gateway.install(&spec);
            known.terminal = spec.terminal();
            known.assert_known();
        }
    }
}

#[test]
fn move_of_the_peer_is_noticed() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        for has_moved in [true, false, true] {
            let path = kind.path(1, has_moved);
            known.gateway.move_to(1, path, 1500);
            let out = known.send_down(64);
            let [packet] = packets(&out)[..] else { panic!("{kind:?}: {:?}", known.gateway.drops()) };
            let (ends, _) = endpoints(packet).unwrap();
            let (local, remote) = match path.encap {
                Encap::None => (0, 0),
                Encap::Udp { local, remote } => (local, remote),
            };
            assert_eq!(ends.from, SocketAddr::new(path.local, local), "{kind:?}");
            assert_eq!(ends.to, SocketAddr::new(path.remote, remote), "{kind:?}");
            assert_eq!(known.terminal.open(packet).2, kind.opened(&kind.down(64)), "{kind:?}");
            known.assert_known();
        }
    }
}

#[test]
fn every_new_path_is_reported_once() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        for has_moved in [true, false, true] {
            let path = kind.path(1, has_moved);
            known.terminal.address = path.remote;
            known.terminal.port = match path.encap {
                Encap::None => None,
                Encap::Udp { remote, .. } => Some(remote),
            };
            for _ in 0..3 {
                assert_eq!(known.send_up(64).len(), 1, "{kind:?}: {:?}", known.gateway.drops());
            }
            let event = Event::NewPath { tunnel: TunnelId(1), path };
            assert_eq!(known.gateway.worker.take_events(), [event], "{kind:?}");
            known.gateway.pairs[&1].inbound.report_taken();
            known.gateway.move_to(1, path, 1500);
            assert_eq!(known.send_up(64).len(), 1, "{kind:?}");
            assert_eq!(known.gateway.worker.take_events(), [], "{kind:?}");
        }
        known.assert_known();
    }
}

#[test]
fn smaller_mtu_of_the_path_is_noticed() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        // Long enough that IPv6 packets are not cut outside instead (RFC 2473 §7.1).
        for (round, mtu) in (1..).zip([1450, 1400, 1500]) {
            known.gateway.move_to(1, kind.path(1, false), mtu);
            let fits = kind.longest(mtu.into()) - kind.header_len() - 8;
            assert_eq!(known.send_down(fits + 1).len(), 0, "{kind:?} {mtu}");
            assert_eq!(known.gateway.drops(), [(DropReason::TooBig, round)], "{kind:?} {mtu}");
            let out = known.send_down(fits);
            let [packet] = packets(&out)[..] else { panic!("{kind:?}: {:?}", known.gateway.drops()) };
            assert!(
                (usize::from(mtu) - 3..=mtu.into()).contains(&packet.len()),
                "{kind:?}: {}",
                packet.len()
            );
            known.assert_known();
        }
    }
}

#[test]
fn smaller_mtu_of_the_servers_port_is_noticed() {
    for kind in Kind::all().into_iter().filter(|kind| !kind.is_host) {
        let mut known = Known::of(kind);
        for (round, mtu) in (1..).zip([600, 500, 1400]) {
            known.gateway.worker.tables.settings.ports[INSIDE].set_mtu(mtu);
            let fits = mtu - kind.header_len() - 8;
            assert_eq!((known.send_up(fits + 1).len(), known.send_up(fits).len()), (0, 1), "{kind:?} {mtu}");
            assert_eq!(known.gateway.drops(), [(DropReason::TooBig, round)], "{kind:?} {mtu}");
            known.assert_known();
        }
    }
}

#[test]
fn limits_hold_for_known_flows_and_sas() {
    for kind in Kind::all() {
        let limits = Limits { soft_packets: 20, hard_packets: 30, ..Limits::NONE };
        let mut known = Known::of_spec(kind, &Spec { limits, ..kind.spec(1) });
        let pair = &known.gateway.pairs[&1];
        let before = [pair.outbound.life.carried().0, pair.inbound.life.carried().0];
        assert!(before.iter().all(|packets| *packets < 20), "{kind:?}: {before:?}");
        let mut carried = before;
        for _ in 0..50 {
            carried[0] += known.send_down(64).len() as u64;
            carried[1] += known.send_up(64).len() as u64;
        }
        assert_eq!(carried, [30; 2], "{kind:?}");
        let expected: u64 = before.iter().map(|before| before + 50 - 30).sum();
        assert_eq!(known.gateway.drops(), [(DropReason::SaExpired, expected)], "{kind:?}");
        let mut events = known.gateway.worker.take_events();
        events.retain(|event| matches!(event, Event::Due { inbound: true, .. }));
        let due = |due| Event::Due { tunnel: TunnelId(1), inbound: true, due };
        assert_eq!(events, [Due::Soft, Due::Hard].map(due), "{kind:?}");
    }
}

#[test]
fn last_sequence_number_ends_a_known_flow() {
    for kind in Kind::all() {
        let sequence = u64::from(u32::MAX) - 20;
        let mut known = Known::of_spec(kind, &Spec { sequence, ..kind.spec(1) });
        let sa = known.gateway.pairs[&1].outbound.clone();
        let left = u64::from(u32::MAX) - sa.sequence();
        let sent: usize = (0..40).map(|_| known.send_down(64).len()).sum();
        assert_eq!((sent as u64, sa.sequence()), (left, u32::MAX.into()), "{kind:?}");
        assert_eq!(known.gateway.drops(), [(DropReason::SequenceExhausted, 40 - left)], "{kind:?}");
    }
}

#[test]
fn extended_numbers_go_on_beyond_their_lower_half() {
    for kind in Kind::all() {
        let sequence = u64::from(u32::MAX) - 20;
        let mut known = Known::of_spec(kind, &Spec { sequence, esn: true, ..kind.spec(1) });
        for _ in 0..40 {
            assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (1, 1), "{kind:?}");
        }
        let pair = &known.gateway.pairs[&1];
        let numbers = [pair.outbound.sequence(), pair.inbound.window.top()];
        assert!(numbers.iter().all(|number| *number > u32::MAX.into()), "{kind:?}: {numbers:?}");
        known.assert_known();
        assert_eq!(known.gateway.drops(), [], "{kind:?}");
    }
}

#[test]
fn port_that_is_down_drops_packets_of_known_flows() {
    for kind in Kind::all() {
        let mut known = Known::of(kind);
        for _ in 0..2 {
            let rings = known.gateway.worker.rings.clone();
            let set_down =
                |is_down| [OUTSIDE, kind.port()].iter().for_each(|&port| rings.set_down(port, is_down));
            set_down(true);
            assert_neither(&mut known, [DropReason::PortDown; 2], &format!("{kind:?}"));
            set_down(false);
            known.assert_known();
        }
    }
}

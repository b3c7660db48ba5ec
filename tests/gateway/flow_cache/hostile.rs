//! Flows that somebody makes in order to fill what workers remember cost a miss each, and nothing more.

use super::{
    gateway::{Spec, TestGateway, inner, inner6, path, server, server6},
    known::{Known, terminal_of},
    odd::tcp_packet,
    ports::Ports,
};
use crate::allocation::counted;
use std::{net::IpAddr, ops::Range};
use wayfarer::{
    gateway::tables::Hop,
    sim::{
        fixtures::*,
        frames::{forwarded, udp_packet},
        random::Random,
    },
};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Encap, PortRange, Selector},
    table::Prefix,
    wire::{ethernet, ip::protocol, tcp},
};

const TERMINALS: u32 = 32;

/// Returns a packet of a flow to terminal `n` that was not seen before, most likely.
fn new_flow(n: u32, random: &mut Random) -> Vec<u8> {
    let ports = (1024 + random.below(60_000) as u16, 1024 + random.below(60_000) as u16);
    udp_packet(server(random.below(200) as u32), inner(n), ports, b"down")
}

/// With room for four flows, all flows collide.
#[test]
fn flows_that_collide_come_out_as_without_a_cache() {
    let specs: Vec<_> = (0..TERMINALS).map(Spec::new).collect();
    let mut gateways = [0, 4].map(|flow_cache| TestGateway::new(flow_cache, false, &specs));
    let mut terminals: Vec<_> = specs.iter().map(Spec::terminal).collect();
    let mut random = Random(15);
    for round in 0..150 {
        let down: Vec<_> = (0..TERMINALS)
            .map(|n| match random.percent(80) {
                true => new_flow(n, &mut random),
                false => udp_packet(server(0), inner(n), (53, 53), b"again"),
            })
            .collect();
        let up: Vec<_> = (0..TERMINALS)
            .map(|n| {
                let to = server(random.below(200) as u32);
                terminals[n as usize].seal(&udp_packet(inner(n), to, (53, 53), b"up"))
            })
            .collect();
        for (port, packets, exit) in [(INSIDE, &down, OUTSIDE), (OUTSIDE, &up, INSIDE)] {
            let [mut without, mut with] = [0, 1].map(|at| gateways[at].exchange(port, packets, exit));
            // One packet of each SA, so that each has the same number in both.
            without.sort_unstable();
            with.sort_unstable();
            assert_eq!(without.len(), packets.len(), "round {round}: {:?}", gateways[0].drops());
            assert!(without == with, "round {round}: {:?}", gateways[1].drops());
        }
    }
}

#[test]
fn flood_of_new_flows_takes_no_memory() {
    let spec = Spec::new(1);
    let mut gateway = TestGateway::new(64, false, std::slice::from_ref(&spec));
    let mut terminal = spec.terminal();
    let mut random = Random(16);
    // With the first packets, the thread sets up its state.
    gateway.exchange(INSIDE, &[new_flow(1, &mut random)], OUTSIDE);
    let first = terminal.seal(&udp_packet(inner(1), server(0), (53, 53), b"up"));
    gateway.exchange(OUTSIDE, &[first], INSIDE);
    let mut frames = 0;
    for round in 0..500 {
        for spi in 0..16_u32 {
            gateway.put(INSIDE, &new_flow(1, &mut random));
            // Packets of known and unknown SAs to destinations that were not seen before.
            let to = server(random.below(200) as u32);
            let mut sealed = terminal.seal(&udp_packet(inner(1), to, (53, 53), b"up"));
            if spi % 2 == 0 {
                sealed[20..24].copy_from_slice(&(0x7000_0000 + random.below(1 << 24) as u32).to_be_bytes());
            }
            gateway.put(OUTSIDE, &sealed);
        }
        let worker = &mut gateway.worker;
        assert_eq!(counted(|| while worker.turn() {}), 0, "round {round}");
        frames += gateway.worker.take(OUTSIDE).len() + gateway.worker.take(INSIDE).len();
    }
    assert_eq!(frames, 500 * (16 + 8), "{:?}", gateway.drops());
    assert_eq!(gateway.drops(), [(DropReason::UnknownSpi, 500 * 8)]);
}

#[test]
fn flow_is_remembered_again_soon_after_a_flood() {
    let mut known = Known::new();
    let mut random = Random(17);
    for _ in 0..100 {
        let flood: Vec<_> = (0..32).map(|_| new_flow(1, &mut random)).collect();
        assert_eq!(known.gateway.exchange(INSIDE, &flood, OUTSIDE).len(), 32);
    }
    // For a while, flows are not looked for.
    for _ in 0..600 {
        assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (1, 1));
    }
    known.assert_known();
    assert_eq!(known.gateway.drops(), []);
}

#[test]
fn flood_of_new_flows_takes_free_slots_and_few_others() {
    let spec = Spec::new(1);
    let mut gateway = TestGateway::new(1 << 10, false, std::slice::from_ref(&spec));
    let mut hits_of = |packets: &[Vec<u8>]| {
        let before = gateway.worker.counters.flow_hits.value();
        assert_eq!(gateway.exchange(INSIDE, packets, OUTSIDE).len(), packets.len(), "{:?}", gateway.drops());
        gateway.worker.counters.flow_hits.value() - before
    };
    let flows = |range: Range<u16>| -> Vec<_> {
        range.map(|n| udp_packet(server(0), inner(1), (1024 + n, 53), b"down")).collect()
    };
    let (usual, flood) = (flows(0..512), flows(512..3712));
    let mut hits_of_all = |flows: &[Vec<u8>]| -> u64 { flows.chunks(32).map(&mut hits_of).sum() };
    // A worker learns half of the flows of a full burst.
    (0..2).for_each(|_| _ = hits_of_all(&usual));
    // Half of each burst are usual flows.
    let mixed: Vec<_> = usual.iter().cycle().zip(&flood).flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    let hits = hits_of_all(&mixed);
    assert!(hits > 2000, "{hits}");
    let [usual, flood] = [&usual[..], &flood[flood.len() - 512..]].map(hits_of_all);
    assert!(usual > 256 && flood < 128, "{usual} {flood}");
}

/// How often the flows of a test are sent that must not be taken for one another.
const ROUNDS: u64 = 8;
/// The slots of gateways without and with a cache of flows.
const CACHES: [usize; 2] = [0, 1 << 14];

/// Returns the functions that number servers and terminals in one family.
fn addresses(v6: bool) -> [fn(u32) -> IpAddr; 2] {
    if v6 { [server6, inner6] } else { [server, inner] }
}

/// The hash of flows is not the only thing that somebody may choose. These differ from the first one in one
/// field each, by which each has a tunnel of its own. Only their input port leaves them none.
#[test]
fn flows_that_differ_in_one_field_are_not_taken_for_one_another() {
    for (ports, v6) in
        [Ports::Two, Ports::InVlans].into_iter().flat_map(|ports| [(ports, false), (ports, true)])
    {
        let [server, inner] = addresses(v6);
        let flows = [
            (server(0), inner(1), protocol::UDP, (1, 2)),
            (server(1), inner(1), protocol::UDP, (1, 2)),
            (server(0), inner(2), protocol::UDP, (1, 2)),
            (server(0), inner(1), protocol::TCP, (1, 2)),
            (server(0), inner(1), protocol::UDP, (3, 2)),
            (server(0), inner(1), protocol::UDP, (1, 3)),
            (server(0), inner(1), protocol::UDP, (2, 1)),
        ];
        let specs: Vec<_> =
            (1..).zip(flows).map(|(n, flow)| Spec { selectors: only(flow), ..Spec::new(n) }).collect();
        let packets = flows.map(|(src, dst, protocol, ends)| match protocol {
            protocol::TCP => tcp_packet(src, dst, ends, tcp::ACK, &[0; 40]),
            _ => udp_packet(src, dst, ends, &[0; 40]),
        });
        let nobodys = udp_packet(server(0), inner(3), (1, 2), &[0; 40]);
        let mut gateways = CACHES.map(|flow_cache| TestGateway::on(ports, flow_cache, false, &specs));
        for round in 0..ROUNDS {
            for (n, packet) in (1..).zip(packets.iter().chain([&nobodys])) {
                let expected = if packet == &nobodys { vec![] } else { vec![n] };
                let packet = std::slice::from_ref(packet);
                let [without, with] = [0, 1].map(|at| gateways[at].exchange(INSIDE, packet, OUTSIDE));
                let tunnels: Vec<_> = with.iter().map(|frame| terminal_of(frame)).collect();
                let drops = gateways[1].drops();
                assert_eq!(tunnels, expected, "{ports:?} {v6}, round {round}: {drops:?}");
                assert!(without == with, "{ports:?} {v6}, round {round}: {n}");
                // By the other port, sources on this side are spoofed.
                let [without, with] = [0, 1].map(|at| gateways[at].exchange(OUTSIDE, packet, OUTSIDE));
                assert_eq!((without.len(), with.len()), (0, 0), "{ports:?} {v6}, round {round}: {n}");
            }
        }
        let flows = flows.len() as u64;
        for gateway in &gateways {
            let drops = [(DropReason::NoPolicy, 2 * ROUNDS), (DropReason::SourcePort, flows * ROUNDS)];
            assert_eq!(gateway.drops(), drops, "{ports:?} {v6}");
        }
        assert_hits(&gateways, flows * (ROUNDS - 2));
    }
}

/// Returns selectors of one flow from this side, given as source, destination, protocol and ports.
fn only((src, dst, protocol, (src_port, dst_port)): (IpAddr, IpAddr, u8, (u16, u16))) -> Vec<Selector> {
    let [local_ports, remote_ports] = [src_port, dst_port].map(|port| PortRange { first: port, last: port });
    let addresses = selector(&src.to_string(), &dst.to_string());
    vec![Selector { protocol: Some(protocol), local_ports, remote_ports, ..addresses }]
}

/// Those of another SA, to another address of the gateway, and to another station inside.
#[test]
fn packets_out_of_tunnels_that_differ_in_one_field_are_not_taken_for_one_another() {
    let macs = [STATION_MAC[INSIDE], [2, 0, 0, 0, 0, 0x99]];
    // The path to an IPv4 or IPv6 address of the terminal.
    for (outer, another) in [(0, ip("203.0.113.77")), (2, ip("2001:db8:1::77"))] {
        for v6 in [false, true] {
            let [server, inner] = addresses(v6);
            let specs = [1, 2].map(|n| {
                let path = path(n, outer, Encap::None);
                Spec { local: path.local, path, ..Spec::new(n) }
            });
            let mut gateways = CACHES.map(|flow_cache| {
                let mut gateway = TestGateway::new(flow_cache, false, &specs);
                gateway.route(Prefix::host(another), Some(Hop::Local));
                let hop = Hop::Port { port: INSIDE as u16, mac: macs[1] };
                gateway.route(Prefix::host(server(1)), Some(hop));
                gateway
            });
            let mut terminals = specs.each_ref().map(Spec::terminal);
            for round in 0..ROUNDS {
                for (n, to, is_elsewhere) in
                    [(0, 0, false), (1, 0, false), (0, 1, false), (1, 1, false), (0, 0, true)]
                {
                    let plain = udp_packet(inner(n + 1), server(to), (1, 2), &[0; 40]);
                    let terminal = &mut terminals[n as usize];
                    terminal.gateway = if is_elsewhere { another } else { specs[0].local };
                    let packet = [terminal.seal(&plain)];
                    let [without, with] = [0, 1].map(|at| gateways[at].exchange(OUTSIDE, &packet, INSIDE));
                    let passed = with.iter().map(|frame| (&frame[..6], &frame[ethernet::HEADER..]));
                    let plain = forwarded(&plain);
                    let expected = (!is_elsewhere).then_some((&macs[to as usize][..], &plain[..]));
                    let drops = gateways[1].drops();
                    assert!(passed.eq(expected), "{outer} {v6}, round {round}: {drops:?}");
                    assert!(without == with, "{outer} {v6}, round {round}");
                }
            }
            for gateway in &gateways {
                assert_eq!(gateway.drops(), [(DropReason::WrongDestination, ROUNDS)]);
            }
            // The first packet of an SA shows that, the next one its destination.
            assert_hits(&gateways, 4 * (ROUNDS - 2));
        }
    }
}

/// Asserts that packets of the second gateway only were of flows that it remembered, and at least so many.
fn assert_hits(gateways: &[TestGateway; 2], least: u64) {
    let [without, with] = gateways.each_ref().map(|gateway| gateway.worker.counters.flow_hits.value());
    assert!(without == 0 && with >= least, "{without} and {with} hits");
}

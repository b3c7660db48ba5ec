//! Flows that somebody makes in order to fill what workers remember cost a miss each, and nothing more.

use super::{
    gateway::{Spec, TestGateway, inner, server},
    known::Known,
};
use crate::allocation::counted;
use wayfarer::sim::{fixtures::*, frames::udp_packet, random::Random};
use wayfarer_dataplane::{drop::DropReason, wire::ip};

const TERMINALS: u32 = 32;

/// Returns a packet of a flow to terminal `n` that was not seen before, most likely.
fn new_flow(n: u32, random: &mut Random) -> Vec<u8> {
    let ports = (1024 + random.below(60_000) as u16, 1024 + random.below(60_000) as u16);
    udp_packet(server(random.below(200) as u32), inner(n), ports, b"down")
}

/// With room for two flows, all flows collide.
#[test]
fn flows_that_collide_come_out_as_without_a_cache() {
    let specs: Vec<_> = (0..TERMINALS).map(Spec::new).collect();
    let mut gateways = [0, 2].map(|flow_cache| TestGateway::new(flow_cache, false, &specs));
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
    for _ in 0..16 {
        assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (1, 1));
    }
    known.assert_known();
    assert_eq!(known.gateway.drops(), []);
}

/// The hash of flows is not the only thing that somebody may choose: these differ in one field only.
#[test]
fn flows_that_differ_in_one_field_are_not_taken_for_one_another() {
    let specs = [Spec::new(1), Spec::new(2)];
    let mut gateways = [0, 1 << 14].map(|flow_cache| TestGateway::new(flow_cache, false, &specs));
    let flow = |from: u32, n: u32, ports: (u16, u16), protocol: u8| {
        let mut packet = udp_packet(server(from), inner(n), ports, &[0; 40]);
        packet[9] = protocol;
        let length = packet.len();
        ip::set_total_len(&mut packet, ip::V4_HEADER, length);
        packet
    };
    // The last is not one that a tunnel carries.
    let mut flows = vec![
        flow(0, 1, (1, 2), ip::protocol::UDP),
        flow(1, 1, (1, 2), ip::protocol::UDP),
        flow(0, 2, (1, 2), ip::protocol::UDP),
        flow(0, 1, (3, 2), ip::protocol::UDP),
        flow(0, 1, (1, 3), ip::protocol::UDP),
        flow(0, 1, (2, 1), ip::protocol::UDP),
        flow(0, 1, (1, 2), ip::protocol::TCP),
        flow(0, 3, (1, 2), ip::protocol::UDP),
    ];
    for round in 0..8 {
        for packet in &flows {
            let packet = std::slice::from_ref(packet);
            let [without, with] = [0, 1].map(|at| gateways[at].exchange(INSIDE, packet, OUTSIDE));
            assert!(without == with, "round {round}: {:?} {:?}", gateways[0].drops(), gateways[1].drops());
        }
        // By the other port, sources on this side are spoofed.
        let packet = std::slice::from_ref(&flows[0]);
        let [without, with] = [0, 1].map(|at| gateways[at].exchange(OUTSIDE, packet, OUTSIDE));
        assert_eq!((without.len(), with.len()), (0, 0));
        flows.rotate_left(1);
    }
    for gateway in &gateways {
        assert_eq!(gateway.drops(), [(DropReason::NoPolicy, 8 + 1), (DropReason::SourcePort, 7)]);
    }
}

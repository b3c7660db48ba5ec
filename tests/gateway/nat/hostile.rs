//! Hostile packets to and through a NAT, while another terminal's traffic must go on.

use super::*;
use wayfarer::sim::{mutation::mutated, random::Random};
use wayfarer_dataplane::wire::tcp::RST;

#[test]
fn nobody_outside_can_pose_as_a_terminal() {
    let mut bench = Bench::new();
    let port = bench.port_of(2, &udp(2, 6000)).unwrap();
    for packet in [
        datagram("10.98.0.1", OUTER, (5000, port), b"hairpin"),
        datagram("10.98.0.1", SERVER, (5000, 53), b"outward"),
        icmp("10.98.0.1", OUTER, 3, &[&[0; 4][..], &bench.up(2, &udp(2, 6000))[0]].concat()),
    ] {
        bench.world.send(OUTSIDE, &packet);
        assert_eq!(bench.world.take(OUTSIDE), [[0; 0]; 0]);
    }
    let pieces = fragments(&datagram("10.98.0.1", OUTER, (5000, port), &[1; 2000]), 1400, 9);
    pieces.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
    bench.world.settle();
    assert_eq!((bench.drops(Unprotected), bench.show().users.len()), (5, 1));
}

/// The default route leads to every inner address outside, so the way back shows nothing.
#[test]
fn nobody_outside_can_pose_as_an_inner_host_without_a_tunnel() {
    let mut bench = Bench::new();
    let port = bench.port_of(2, &udp(2, 6000)).unwrap();
    bench.world.send(OUTSIDE, &datagram("10.98.0.99", OUTER, (5000, port), b"hairpin"));
    let pieces = fragments(&datagram("10.98.0.99", OUTER, (5000, port), &[1; 2000]), 1400, 9);
    pieces.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
    bench.world.settle();
    assert_eq!(bench.world.take(OUTSIDE), [[0; 0]; 0]);
    assert_eq!((bench.drops(SourcePort), bench.show().users.len()), (3, 1), "{:?}", bench.world.all_drops());
}

/// A fragment from outside does not join those out of a tunnel.
#[test]
fn nobody_outside_adds_to_fragments_out_of_a_tunnel() {
    let mut bench = Bench::new();
    let port = bench.port_of(2, &udp(2, 6000)).unwrap();
    let pieces = fragments(&datagram("10.98.0.1", OUTER, (5000, port), &[1; 2000]), 1400, 9);
    bench.tunnelled(1, &pieces[0]);
    bench.world.send(OUTSIDE, &pieces[1]);
    assert_eq!((bench.received(2).len(), bench.show().users.len()), (0, 1));
    bench.tunnelled(1, &pieces[1]);
    assert_eq!(joined(bench.received(2)).len(), 1, "{:?}", bench.world.all_drops());
}

/// Only the port outside leads to the server, so nothing else goes into the terminal's tunnel as the
/// server's.
#[test]
fn nobody_inside_adds_to_fragments_of_a_server() {
    let mut bench = Bench::new();
    let port = bench.port_of(1, &udp(1, 5000)).unwrap();
    let pieces = fragments(&datagram(SERVER, OUTER, (53, port), &[1; 2000]), 1400, 9);
    bench.world.send(OUTSIDE, &pieces[0]);
    bench.world.send(INSIDE, &pieces[1]);
    assert_eq!((bench.received(1).len(), bench.drops(SourcePort)), (0, 2), "{:?}", bench.world.all_drops());
}

#[test]
fn resets_and_answers_from_inside_open_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.up(1, &segment("10.98.0.1", SERVER, (5000, 443), RST)), [[0; 0]; 0]);
    assert_eq!(bench.up(1, &pong("10.98.0.1", SERVER, 7)), [[0; 0]; 0]);
    assert_eq!((bench.drops(NatUnknown), bench.drops(NatProtocol), bench.show().mappings), (1, 1, 0));
}

#[test]
fn tiny_first_fragments_are_refused() {
    let mut bench = Bench::new();
    let mut sent = segment("10.98.0.1", SERVER, (5000, 443), SYN);
    sent.extend([0; 40]);
    let length = sent.len();
    wayfarer_dataplane::wire::ip::set_total_len(&mut sent, 20, length);
    for piece in fragments(&sent, 36, 9) {
        assert_eq!(bench.up(1, &piece), [[0; 0]; 0]);
    }
    assert_eq!((bench.drops(NatProtocol), bench.show().mappings), (4, 0));
}

#[test]
fn any_packet_leaves_others_untouched() {
    let mut bench = Bench::new();
    let port = bench.port_of(2, &udp(2, 6000)).unwrap();
    let one = bench.port_of(1, &udp(1, 5000)).unwrap();
    let out = bench.up(1, &udp(1, 5000)).remove(0);
    let mut random = Random(7);
    let about = |packet: &[u8], from: &str, to: &str| icmp(from, to, 3, &[&[0; 4], packet].concat());
    let outside = [
        answer(one),
        segment(SERVER, OUTER, (443, one), SYN),
        pong(SERVER, OUTER, one),
        about(&out, SERVER, OUTER),
        fragments(&datagram(SERVER, OUTER, (53, one), &[1; 100]), 60, 1)[0].clone(),
    ];
    let inside = [
        udp(1, 5000),
        segment("10.98.0.1", SERVER, (5000, 443), SYN),
        ping("10.98.0.1", SERVER, 5000),
        about(&answer(5000), "10.98.0.1", SERVER),
        datagram("10.98.0.1", OUTER, (5000, one), b"hairpin"),
        fragments(&datagram("10.98.0.1", SERVER, (5000, 53), &[1; 100]), 60, 1)[0].clone(),
    ];
    for round in 0..20_000u32 {
        let from_inside = round % 2 == 0;
        let templates = if from_inside { &inside[..] } else { &outside[..] };
        let template = &templates[round as usize / 2 % templates.len()];
        let mut packet = mutated(template, &templates[random.index(templates.len())], &mut random);
        packet.truncate(1400);
        // A right header checksum, so that most of them get further.
        if packet.len() >= 20 && packet[0] >> 4 == 4 {
            let header = usize::from(packet[0] & 0xf) * 4;
            if (20..=packet.len()).contains(&header) {
                let length = packet.len();
                wayfarer_dataplane::wire::ip::set_total_len(&mut packet, header, length);
            }
        }
        if from_inside {
            bench.tunnelled(1, &packet);
        } else if !packet.is_empty() {
            bench.world.send(OUTSIDE, &packet);
        }
        bench.world.take(INSIDE);
        bench.world.take(OUTSIDE);
        if round % 100 == 0 {
            assert_eq!(bench.port_of(2, &udp(2, 6000)), Some(port), "{round}");
            assert_eq!(bench.down(2, &answer(port)).len(), 1, "{round} {:?}", bench.world.all_drops());
        }
    }
    assert!(bench.show().users.iter().all(|user| user.mappings <= 16));
    assert_eq!(bench.drops(WorkerFault), 0);
}

#[test]
fn every_port_outside_stays_silent() {
    let mut bench = Bench::new();
    for port in FIRST..=LAST {
        for packet in [answer(port), segment(SERVER, OUTER, (443, port), SYN), pong(SERVER, OUTER, port)] {
            bench.world.put(OUTSIDE, &packet);
        }
        if port % 100 == 0 {
            bench.world.settle();
        }
    }
    bench.world.settle();
    // The replies may be to pings of the host.
    assert_eq!((bench.drops(NatUnknown), bench.drops(NotForUs)), (2000, 1000));
    assert_eq!(bench.world.take(OUTSIDE), [[0; 0]; 0]);
    assert_eq!(bench.show().mappings, 0);
}

//! Inner packets in fragments through tunnels for a port, which only the first fragment shows (RFC 4301
//! §7).

use super::{
    outer_fragments::{forwarded_whole, fragmentable},
    path_mtu::{in_udp, over_ipv6},
};
use proptest::prelude::*;
use wayfarer::{
    config::model::{Config, Policy, PolicyAction, Remote, Tunnel},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::*,
    sa::{PortRange, Selector},
    wire::ip::{self, V6_HEADER, protocol},
};

const SUITE: &str = "aes128gcm16";
/// A host inside, by family.
const HOST: [&str; 2] = ["10.99.0.7", "fd00:99::7"];
/// The inner address of the first terminal, by family.
const TERMINAL: [&str; 2] = ["10.98.0.1", "fd00:98::1"];
/// The port of each terminal that its tunnel is for.
const PORT: u16 = 443;

/// Limits a selector to one port of the peer.
fn for_port(selector: &mut Selector, port: u16) {
    selector.protocol = Some(protocol::UDP);
    selector.remote_ports = PortRange { first: port, last: port };
}

/// Makes a gateway whose two tunnels are for [`PORT`].
fn gateway(change: impl FnOnce(&mut Config)) -> World {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    for (n, tunnel) in (1..).zip(&mut config.tunnels) {
        tunnel.remote = Remote::At(ip(&format!("192.0.2.{n}")), 4500);
        tunnel.selectors.iter_mut().for_each(|selector| for_port(selector, PORT));
    }
    change(&mut config);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Lets everything pass in clear that no tunnel is for.
fn bypass(config: &mut Config) {
    let everything = [selector("0.0.0.0/0", "0.0.0.0/0"), selector("::/0", "::/0")];
    config.policies = everything.map(|selector| Policy { action: PolicyAction::Bypass, selector }).into();
}

fn terminal(n: u32) -> Terminal {
    Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}"))
}

fn payload(v6: bool, length: usize) -> Vec<u8> {
    (0..length - if v6 { 48 } else { 28 }).map(|at| (at / 7) as u8).collect()
}

/// A datagram of `length` bytes to a port of the first terminal.
fn down(v6: bool, port: u16, length: usize) -> Vec<u8> {
    let family = usize::from(v6);
    datagram(HOST[family], TERMINAL[family], (9, port), &payload(v6, length))
}

/// A datagram of `length` bytes from a port of the first terminal.
fn up(v6: bool, port: u16, length: usize) -> Vec<u8> {
    let family = usize::from(v6);
    datagram(TERMINAL[family], HOST[family], (port, 9), &payload(v6, length))
}

/// Has the host inside send these fragments, of which the one at `first` comes first.
fn send_down(world: &mut World, pieces: &[Vec<u8>], first: usize) {
    pieces.iter().cycle().skip(first).take(pieces.len()).for_each(|piece| world.put(INSIDE, piece));
    world.settle();
}

/// Has a terminal send these fragments, each in ESP of its own.
fn send_up(world: &mut World, terminal: &mut Terminal, pieces: &[Vec<u8>], first: usize) {
    for piece in pieces.iter().cycle().skip(first).take(pieces.len()) {
        world.put(OUTSIDE, &terminal.seal(piece));
    }
    world.settle();
}

/// Returns the only packet that went to terminal `n`, which may have been in outer fragments.
fn received(world: &mut World, n: u32) -> Vec<u8> {
    let out = world.take(OUTSIDE);
    assert!(out.iter().all(|packet| packet.len() <= 1500));
    let [sealed] = &joined(out)[..] else { panic!("one packet: {:?}", world.all_drops()) };
    terminal(n).open(sealed).2
}

#[test]
fn datagram_in_fragments_goes_whole_and_is_cut_outside() {
    let outsides: [fn(&mut Tunnel); 3] = [|_| {}, in_udp, over_ipv6];
    for outside in outsides {
        for v6 in [false, true] {
            let mut world = gateway(|config| outside(&mut config.tunnels[0]));
            let shapes =
                [(2000, 1500, 0), (2000, 1500, 1), (1200, 600, 2), (9000, 1500, 3), (60_000, 1500, 0)];
            for (id, (length, mtu, first)) in (1..).zip(shapes) {
                let packet = down(v6, PORT, length);
                let pieces = fragments(&packet, mtu, id);
                assert!(pieces.len() > first);
                send_down(&mut world, &pieces, first);
                assert!(received(&mut world, 1) == forwarded_whole(&packet, id), "{v6} {length}");
            }
            assert_eq!((world.all_drops(), world.counters().sealed.value()), (vec![], 5));
        }
    }
}

#[test]
fn datagram_in_fragments_to_another_port_goes_as_policy_says_of_the_first() {
    for v6 in [false, true] {
        let pieces = fragments(&down(v6, PORT + 1, 2000), 1500, 7);
        for first in [0, 1] {
            let mut world = gateway(|_| {});
            send_down(&mut world, &pieces, first);
            assert_eq!((world.take(OUTSIDE), world.all_drops()), (vec![], vec![(NoPolicy, 2)]));
            let mut world = gateway(bypass);
            send_down(&mut world, &pieces, first);
            let passed: Vec<_> = pieces.iter().map(|piece| forwarded(piece)).collect();
            assert_eq!((world.take(OUTSIDE), world.all_drops()), (passed, vec![]), "{v6} {first}");
        }
    }
}

#[test]
fn fragments_out_of_a_tunnel_pass_if_the_first_one_may() {
    for v6 in [false, true] {
        for first in 0..3 {
            let (mut world, mut one) = (gateway(|_| {}), terminal(1));
            let pieces = fragments(&up(v6, PORT, 3000), 1400, 7);
            send_up(&mut world, &mut one, &pieces, first);
            let passed: Vec<_> = pieces.iter().map(|piece| forwarded(piece)).collect();
            assert_eq!((world.take(INSIDE), world.all_drops()), (passed, vec![]), "{v6} {first}");
            let pieces = fragments(&up(v6, PORT + 1, 3000), 1400, 8);
            send_up(&mut world, &mut one, &pieces, first);
            assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(InnerSelector, 3)]));
            assert_eq!(world.counters().opened.value(), 6);
        }
    }
}

/// A terminal whose kernel cuts what it has encrypted.
#[test]
fn datagram_that_came_whole_in_outer_fragments_is_cut_as_before() {
    let (mut world, mut one) = (gateway(|_| {}), terminal(1));
    let inner = fragmentable(up(false, PORT, 2000));
    fragments(&one.seal(&inner), 1500, 7).iter().for_each(|piece| world.put(OUTSIDE, piece));
    world.settle();
    let [first, last] = &world.take(INSIDE)[..] else { panic!("two fragments: {:?}", world.all_drops()) };
    assert_eq!([&first[20..], &last[20..]].concat(), inner[20..]);
    // The first one has more behind it. The last one begins where that ends, in units of eight bytes.
    let offset = (first.len() as u16 - 20) / 8;
    assert_eq!([&first[6..8], &last[6..8]], [&[0x20, 0][..], &offset.to_be_bytes()]);
    assert_eq!(world.all_drops(), []);
}

#[test]
fn fragments_go_on_whole_through_another_tunnel_for_a_port() {
    let mut world = gateway(|config| {
        for (tunnel, [own, other]) in config.tunnels.iter_mut().zip([[1, 2], [2, 1]]) {
            let [own, other] = [own, other].map(|n| format!("10.98.0.{n}"));
            tunnel.selectors = vec![selector(&other, &own)];
            for_port(&mut tunnel.selectors[0], PORT);
        }
    });
    let mut one = terminal(1);
    let packet = datagram("10.98.0.1", "10.98.0.2", (PORT, PORT), &payload(false, 2000));
    let pieces = fragments(&packet, 1400, 7);
    for first in [0, 1] {
        send_up(&mut world, &mut one, &pieces, first);
        assert!(received(&mut world, 2) == forwarded_whole(&packet, 7), "{first}");
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn fragments_whose_hops_ran_out_are_answered_once() {
    let mut world = gateway(|_| {});
    let mut packet = down(false, PORT, 2000);
    packet[8] = 1;
    ip::set_total_len(&mut packet, 20, 2000);
    let pieces = fragments(&packet, 1500, 7);
    send_down(&mut world, &pieces, 1);
    let answers = world.take(INSIDE);
    assert_eq!((world.take(OUTSIDE), world.all_drops()), (vec![], vec![(HopLimit, 2)]));
    assert_eq!(
        (answers.len(), &answers[0][20..22], &answers[0][28..100]),
        (1, &[11, 0][..], &pieces[0][..72])
    );
}

/// Destination options behind the fragment header stand before UDP, so only the first fragment shows that
/// it is UDP.
#[test]
fn protocol_behind_extension_headers_is_that_of_the_first_fragment() {
    let mut world = gateway(|config| {
        for selector in &mut config.tunnels[0].selectors {
            selector.remote_ports = PortRange::ANY;
        }
    });
    let plain = down(true, PORT, 2000);
    let pieces = fragments(&plain, 1280, 7);
    send_down(&mut world, &pieces, 0);
    let out: Vec<_> = world.take(OUTSIDE).iter().map(|packet| terminal(1).open(packet).2).collect();
    assert_eq!(out, pieces.iter().map(|piece| forwarded(piece)).collect::<Vec<_>>());
    let mut packet = plain;
    packet.splice(V6_HEADER..V6_HEADER, [protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
    // What is cut begins right behind the IPv6 header, whatever that names.
    packet[6] = 200;
    let total = packet.len();
    ip::set_total_len(&mut packet, V6_HEADER, total);
    let mut pieces = fragments(&packet, 1280, 8);
    pieces.iter_mut().for_each(|piece| piece[V6_HEADER] = protocol::DESTINATION);
    packet[6] = protocol::DESTINATION;
    for first in [0, 1] {
        send_down(&mut world, &pieces, first);
        assert!(received(&mut world, 1) == forwarded(&packet), "{first}");
    }
    assert_eq!(world.all_drops(), []);
}

/// RFC 8200 §4.5: it could get past policy, and write over the ports of the first fragment.
#[test]
fn protocol_that_a_later_fragment_names_does_not_count() {
    let (mut world, mut one) = (gateway(bypass), terminal(1));
    let lying = |packet: Vec<u8>| {
        let mut pieces = fragments(&packet, 1280, 7);
        pieces[1][V6_HEADER] = protocol::TCP;
        pieces
    };
    let packet = down(true, PORT, 2000);
    send_down(&mut world, &lying(packet.clone()), 1);
    assert!(received(&mut world, 1) == forwarded_whole(&packet, 7));
    let pieces = lying(up(true, PORT, 2000));
    send_up(&mut world, &mut one, &pieces, 1);
    let passed: Vec<_> = pieces.iter().map(|piece| forwarded(piece)).collect();
    assert_eq!((world.take(INSIDE), world.all_drops()), (passed, vec![]));
}

#[test]
fn options_in_fragments_stay() {
    let (mut world, mut one) = (gateway(|_| {}), terminal(1));
    let with_options = |mut packet: Vec<u8>| {
        // A timestamp, which only the first fragment has, and router alert (RFC 2113).
        packet.splice(20..20, [68, 4, 5, 0, 0x94, 4, 0, 0]);
        packet[0] = 0x47;
        let total = packet.len();
        ip::set_total_len(&mut packet, 28, total);
        packet
    };
    let packet = with_options(down(false, PORT, 2000));
    send_down(&mut world, &fragments(&packet, 1400, 7), 1);
    assert!(received(&mut world, 1) == forwarded_whole(&packet, 7));
    let pieces = fragments(&with_options(up(false, PORT, 2000)), 1400, 7);
    send_up(&mut world, &mut one, &pieces, 1);
    let passed: Vec<_> = pieces.iter().map(|piece| forwarded(piece)).collect();
    assert_eq!((world.take(INSIDE), world.all_drops()), (passed, vec![]));
}

#[test]
fn packet_that_is_too_long_to_be_sealed_is_counted() {
    let mut world = gateway(|_| {});
    let pieces = fragments(&down(false, PORT, 65_400), 1500, 7);
    send_down(&mut world, &pieces, 0);
    assert_eq!(world.all_drops(), [(ReassembledTooLong, pieces.len() as u64)]);
    let packet = down(false, PORT, 2000);
    send_down(&mut world, &fragments(&packet, 1500, 8), 0);
    assert!(received(&mut world, 1) == forwarded_whole(&packet, 8), "the room is free again");
}

#[test]
fn fragments_that_overlap_are_refused_both_ways() {
    for v6 in [false, true] {
        let at = if v6 { V6_HEADER + 8 } else { 20 };
        // The second one shows another port for the same packet.
        let forged = |pieces: &[Vec<u8>]| {
            let mut forged = pieces.to_vec();
            forged.insert(1, pieces[0].clone());
            forged[1][at..at + 4].copy_from_slice(&[0, 80, 0, 80]);
            forged
        };
        let (mut world, mut one) = (gateway(bypass), terminal(1));
        let pieces = forged(&fragments(&down(v6, PORT, 2000), 1500, 7));
        send_down(&mut world, &pieces, 0);
        assert_eq!((world.take(OUTSIDE), world.all_drops()), (vec![], vec![(FragmentOverlap, 3)]));
        let pieces = forged(&fragments(&up(v6, PORT, 2000), 1400, 7));
        send_up(&mut world, &mut one, &pieces, 0);
        assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(FragmentOverlap, 6)]));
    }
}

/// RFC 7112 §4: the ports are in the second fragment, so that policy would take the packet for another.
#[test]
fn first_fragment_too_short_for_the_ports_gets_past_nothing() {
    let tiny = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet.splice(V6_HEADER..V6_HEADER, [protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
        packet[6] = 200;
        let total = packet.len();
        ip::set_total_len(&mut packet, V6_HEADER, total);
        let mut pieces = fragments(&packet, V6_HEADER + 16, 7);
        pieces.iter_mut().for_each(|piece| piece[V6_HEADER] = protocol::DESTINATION);
        pieces
    };
    let (mut world, mut one) = (gateway(bypass), terminal(1));
    let pieces = tiny(&down(true, PORT, 200));
    let count = pieces.len() as u64;
    for first in [0, 1] {
        send_down(&mut world, &pieces, first);
    }
    assert_eq!((world.take(OUTSIDE), world.all_drops()), (vec![], vec![(FragmentTiny, 2 * count)]));
    send_up(&mut world, &mut one, &tiny(&up(true, PORT, 200)), 1);
    assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(FragmentTiny, 3 * count)]));
}

/// RFC 7112 §4, in a first fragment that has more headers than are read, and in one that need not wait.
#[test]
fn ports_and_the_type_of_icmp_hide_behind_nothing() {
    let [src, dst] = [TERMINAL[1], HOST[1]].map(ip);
    let head = |next, field| [next, 0, 0, field, 0, 0, 0, 7];
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let first = [&[protocol::FRAGMENT, 32][..], &[0; 262], &head(protocol::DESTINATION, 1)].concat();
    let first = [&first[..], &options(protocol::UDP)].concat();
    let first = ip_packet(src, dst, protocol::DESTINATION, &first);
    let later = [&head(protocol::TCP, 8)[..], &up(true, PORT, 100)[V6_HEADER..]].concat();
    let later = ip_packet(src, dst, protocol::FRAGMENT, &later);
    let mut world = gateway(bypass);
    world.send(OUTSIDE, &first);
    world.send(OUTSIDE, &later);
    assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(FragmentHeaders, 1)]));
    // The type of ICMP says whether it is an error, which is judged by what it quotes.
    let icmp = [head(protocol::DESTINATION, 1), options(protocol::ICMPV6)].concat();
    let icmp = ip_packet(src, dst, protocol::FRAGMENT, &icmp);
    let mut world = gateway(|config| config.tunnels[0].selectors = tunnel(1, suite(SUITE)).selectors);
    send_up(&mut world, &mut terminal(1), &[icmp], 0);
    assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(FragmentTiny, 1)]));
}

/// RFC 1858 §3: IPv4 has eight bytes in each fragment, which show the ports.
#[test]
fn smallest_fragments_pass_and_more_than_64_do_not() {
    let (mut world, mut one) = (gateway(bypass), terminal(1));
    let packet = down(false, PORT, 20 + 8 * 60);
    let pieces = fragments(&packet, 28, 7);
    assert_eq!(pieces.len(), 60);
    send_down(&mut world, &pieces, 1);
    assert!(received(&mut world, 1) == forwarded_whole(&packet, 7));
    let pieces = fragments(&up(false, PORT, 20 + 8 * 60), 28, 7);
    send_up(&mut world, &mut one, &pieces, 1);
    assert_eq!((world.take(INSIDE).len(), world.all_drops()), (60, vec![]));
    let many = fragments(&down(false, PORT, 20 + 8 * 200), 28, 8);
    send_down(&mut world, &many, 1);
    let many = fragments(&up(false, PORT, 20 + 8 * 200), 28, 8);
    send_up(&mut world, &mut one, &many, 1);
    assert_eq!((world.take(OUTSIDE).len(), world.take(INSIDE).len()), (0, 0));
    let crowded = world.drops(FragmentCrowded);
    assert!(crowded >= 2 * (200 - 64) && world.all_drops() == [(FragmentCrowded, crowded)]);
}

#[test]
fn fragments_without_end_leave_room_for_others() {
    let (mut world, mut one, mut two) = (gateway(|_| {}), terminal(1), terminal(2));
    let good = datagram("10.98.0.2", "10.99.0.7", (PORT, 9), &[7; 2000]);
    let good = fragments(&good, 1400, 7);
    world.send(OUTSIDE, &two.seal(&good[0]));
    for id in 0..1000 {
        world.put(OUTSIDE, &one.seal(&fragments(&up(false, PORT, 2000), 1400, id)[0]));
        if id % 100 == 0 {
            world.settle();
        }
    }
    // What another peer has begun goes on.
    world.send(OUTSIDE, &two.seal(&good[1]));
    assert_eq!(world.take(INSIDE).len(), 2, "{:?}", world.all_drops());
    for id in 0..1000 {
        world.put(INSIDE, &fragments(&down(false, PORT, 2000), 1500, id)[0]);
        if id % 100 == 0 {
            world.settle();
        }
    }
    // And so does what a host of the flooded network begins.
    let packet = down(false, PORT, 2000);
    send_down(&mut world, &fragments(&packet, 1500, 2000), 0);
    assert!(received(&mut world, 1) == forwarded_whole(&packet, 2000));
    let crowded = world.drops(FragmentCrowded);
    assert_eq!(world.all_drops(), [(FragmentCrowded, crowded)]);
    assert!(crowded >= 2000 - 128, "{crowded}");
}

/// Selectors may let two peers send from one address.
#[test]
fn nobody_adds_to_the_packet_of_a_peer() {
    let mut world = gateway(|config| {
        config.tunnels[1].selectors = vec![selector("10.99.0.0/24", "10.98.0.0/24")];
        for_port(&mut config.tunnels[1].selectors[0], PORT);
    });
    let [mut one, mut two] = [1, 2].map(terminal);
    let pieces = fragments(&up(false, PORT, 2000), 1400, 7);
    let mut forged = pieces[1].clone();
    forged[100] ^= 1;
    world.send(OUTSIDE, &one.seal(&pieces[0]));
    world.send(OUTSIDE, &two.seal(&forged));
    world.send(OUTSIDE, &forged);
    assert_eq!((world.take(INSIDE).len(), world.all_drops()), (0, vec![]));
    world.send(OUTSIDE, &one.seal(&pieces[1]));
    assert_eq!(world.take(INSIDE), pieces.iter().map(|piece| forwarded(piece)).collect::<Vec<_>>());
}

/// Only the port of the first fragment leads to the packet's source.
#[test]
fn nobody_outside_adds_to_the_packet_of_a_host_inside() {
    for v6 in [false, true] {
        let mut world = gateway(|_| {});
        let packet = down(v6, PORT, 2000);
        let pieces = fragments(&packet, 1500, 7);
        let mut forged = pieces[1].clone();
        forged[100] ^= 1;
        world.send(OUTSIDE, &forged);
        send_down(&mut world, &pieces, 0);
        assert!(received(&mut world, 1) == forwarded_whole(&packet, 7));
        assert_eq!(world.all_drops(), []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Checks that whatever fragments come from either side, nothing to the tunnel's port leaves in clear,
    /// and good packets pass.
    #[test]
    fn any_fragments_disturb_nobody(
        shapes in prop::collection::vec(
            (any::<[bool; 4]>(), 0u16..3, 0u16..12, 0usize..12, any::<u8>()),
            1..60,
        ),
    ) {
        let (mut world, mut one, mut two) = (gateway(bypass), terminal(1), terminal(2));
        for ([v6, is_up, more, has_options], id, at, units, byte) in shapes {
            let family = usize::from(v6);
            let [src, dst] = match is_up {
                true => [TERMINAL[family], HOST[family]],
                false => [HOST[family], TERMINAL[family]],
            };
            // Ports of the tunnel, or others.
            let mut part = vec![byte; units * 8];
            if at == 0 && units > 0 && byte & 1 == 0 {
                part[..4].copy_from_slice(&[1, 187, 1, 187]);
            }
            let packet = if v6 {
                let next = if has_options { protocol::DESTINATION } else { protocol::UDP };
                let field = at << 3 | u16::from(more);
                let head = [&[next, 0][..], &field.to_be_bytes(), &u32::from(id).to_be_bytes()].concat();
                ip_packet(ip(src), ip(dst), protocol::FRAGMENT, &[head, part].concat())
            } else {
                let mut packet = ip_packet(ip(src), ip(dst), protocol::UDP, &part);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8].copy_from_slice(&(at | if more { 0x2000 } else { 0 }).to_be_bytes());
                let options = if has_options { 24 } else { 20 };
                packet.splice(20..20, [0x94, 4, 0, 0].into_iter().take(options - 20));
                packet[0] = 0x40 | (options as u8 / 4);
                let total = packet.len();
                ip::set_total_len(&mut packet, options, total);
                packet
            };
            match is_up {
                true => world.put(OUTSIDE, &one.seal(&packet)),
                false => world.put(INSIDE, &packet),
            }
        }
        world.settle();
        let is_clear = |packet: &&Vec<u8>| terminal(1).try_open(packet).is_none();
        for packet in world.take(OUTSIDE).iter().filter(is_clear) {
            let header = ip::IpHeader::parse(packet).unwrap();
            let is_to_port = header.payload(packet).starts_with(&[1, 187, 1, 187]);
            prop_assert!(header.fragment == ip::Fragment::Later || !is_to_port, "{:x?}", packet);
        }
        world.take(INSIDE);
        let good = datagram("10.98.0.2", "10.99.0.7", (PORT, 9), &[7; 2000]);
        let good = fragments(&good, 1400, 9);
        send_up(&mut world, &mut two, &good, 1);
        let passed: Vec<_> = good.iter().map(|piece| forwarded(piece)).collect();
        prop_assert_eq!(world.take(INSIDE), passed, "{:?}", world.all_drops());
        prop_assert_eq!(world.drops(WorkerFault), 0);
    }
}

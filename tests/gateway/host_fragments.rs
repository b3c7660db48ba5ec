//! Fragments that the host's own kernel makes, through SAs in transport mode (RFC 4303 §3.3.4).

use super::outer_fragments::fragmentable;
use wayfarer::{
    config::model::{Config, Encapsulation, Policy, PolicyAction, Remote},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    crypto::Suite,
    drop::DropReason::*,
    sa::{Mode, PortRange},
    wire::{
        checksum,
        ip::{self, IpHeader, V6_HEADER, protocol},
    },
};

const SUITE: &str = "aes128gcm16";
/// The addresses of the host and its peer, by family.
const ENDS: [[&str; 2]; 2] = [["203.0.113.1", "192.0.2.1"], ["2001:db8:1::1", "2001:db8:2::1"]];

/// Makes a host with an SA in transport mode, and its peer.
fn host(v6: bool, suite: Suite, change: impl FnOnce(&mut Config)) -> (World, Terminal) {
    let [here, there] = ENDS[usize::from(v6)];
    let mut transport = tunnel(1, suite);
    transport.mode = Mode::Transport;
    (transport.local, transport.remote) = (ip(here), Remote::At(ip(there), 4500));
    transport.selectors = vec![selector(here, there)];
    let mut config = config(vec![transport]);
    change(&mut config);
    let mut peer = Terminal::new(1, suite, there);
    peer.port = (config.tunnels[0].encap != Encapsulation::None).then_some(4500);
    let (mut ports, wires) = open_host_ports(512);
    ports[INSIDE].addresses.clear();
    let mut world = World::on(config, (ports, wires));
    world.meet_neighbours();
    // The router outside is resolved for a packet of each family.
    world.send(INSIDE, &sent(v6, 53, 60));
    world.out = Default::default();
    (world, peer)
}

/// Makes a datagram of the host to a port of its peer, of `length` bytes with headers.
fn sent(v6: bool, port: u16, length: usize) -> Vec<u8> {
    let [here, there] = ENDS[usize::from(v6)];
    let payload: Vec<u8> = (0..length - if v6 { 48 } else { 28 }).map(|at| (at / 7) as u8).collect();
    datagram(here, there, (1, port), &payload)
}

/// Has the host send a packet in fragments of `mtu` bytes, of which the one at `first` comes first, and
/// returns what goes out.
fn send(world: &mut World, packet: &[u8], mtu: usize, first: usize) -> Vec<Vec<u8>> {
    let mut pieces = fragments(packet, mtu, 7);
    pieces.rotate_left(first);
    pieces.iter().for_each(|piece| world.put(INSIDE, piece));
    world.settle();
    world.take(OUTSIDE)
}

#[test]
fn packets_in_fragments_are_sealed_whole_and_cut_afterwards() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut world, peer) = host(v6, suite(SUITE), |config| {
            if udp {
                config.tunnels[0].encap = Encapsulation::Udp(4500);
            }
        });
        let head = if v6 { 40 } else { 20 };
        for (length, first) in [(1501, 0), (1700, 1), (3028, 2), (9000, 0), (60_000, 1)] {
            let packet = sent(v6, 53, length);
            let out = send(&mut world, &packet, 1500, first);
            assert!(out.len() > 1 && out.iter().all(|piece| piece.len() <= 1500), "{v6} {udp} {length}");
            let [whole] = &joined(out)[..] else { panic!("one packet") };
            let (outer, _, payload, next) = peer.open(whole);
            assert_eq!((next, outer.hop_limit), (protocol::UDP, 64));
            assert!(payload == packet[head..], "{v6} {udp} {length}");
            if v6 && udp {
                let [src, dst] = ENDS[1].map(ip);
                let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, whole.len() - head);
                assert_eq!(checksum::finish(checksum::add(pseudo, &whole[head..])), 0);
            }
        }
        assert_eq!(world.all_drops(), []);
        assert_eq!(world.counters().sealed.value(), 6);
    }
}

#[test]
fn every_suite_seals_long_packets() {
    for &suite in Suite::ALL {
        let (mut world, peer) = host(false, suite, |_| {});
        for length in [1900, 9001, 60_002] {
            let packet = sent(false, 53, length);
            let [whole] = &joined(send(&mut world, &packet, 1500, 0))[..] else { panic!("{suite}") };
            assert!(peer.open(whole).2 == packet[20..], "{suite} {length}");
        }
    }
}

#[test]
fn packet_that_fits_once_joined_goes_whole() {
    for v6 in [false, true] {
        let (mut world, peer) = host(v6, suite(SUITE), |_| {});
        let packet = sent(v6, 53, 1400);
        let [out] = &send(&mut world, &packet, 1280, 0)[..] else { panic!("{:?}", world.all_drops()) };
        let header = IpHeader::parse(out).unwrap();
        assert!(!header.has_options() && header.protocol == protocol::ESP, "no fragment header");
        assert_eq!(peer.open(out).2, packet[header.header_len()..]);
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn packet_of_the_host_that_may_be_cut_is_cut_afterwards() {
    let (mut world, peer) = host(false, suite(SUITE), |_| {});
    let packet = fragmentable(sent(false, 53, 1500));
    world.send(INSIDE, &packet);
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 2, "{:?}", world.all_drops());
    assert_eq!(peer.open(&joined(out)[0]).2, packet[20..]);
    // Otherwise, the host hears of the size that passes.
    world.send(INSIDE, &sent(false, 53, 1500));
    assert_eq!((world.take(OUTSIDE).len(), world.take(INSIDE).len(), world.drops(TooBig)), (0, 1, 1));
}

/// Only the first fragment shows whether the SA is for the packet.
#[test]
fn ports_in_the_first_fragment_decide_for_all() {
    for first in [0, 1] {
        let is_dns = |config: &mut Config| {
            let selector = &mut config.tunnels[0].selectors[0];
            selector.protocol = Some(protocol::UDP);
            selector.remote_ports = PortRange { first: 53, last: 53 };
        };
        let (mut world, peer) = host(false, suite(SUITE), |config| {
            is_dns(config);
            let [here, there] = ENDS[0];
            let bypass = Policy { action: PolicyAction::Bypass, selector: selector(here, there) };
            config.policies = vec![bypass];
        });
        let protected = sent(false, 53, 3028);
        let [whole] = &joined(send(&mut world, &protected, 1500, first))[..] else { panic!("one packet") };
        assert_eq!(peer.open(whole).2, protected[20..]);
        let other = sent(false, 54, 3028);
        let in_clear = send(&mut world, &other, 1500, first);
        let expected: Vec<_> = fragments(&other, 1500, 7).iter().map(|piece| forwarded(piece)).collect();
        assert_eq!((in_clear, world.all_drops()), (expected, vec![]));
        let (mut world, _) = host(false, suite(SUITE), is_dns);
        assert_eq!(send(&mut world, &other, 1500, first), [[0; 0]; 0]);
        assert_eq!(world.all_drops(), [(NoPolicy, 3)]);
    }
}

#[test]
fn packet_that_cannot_be_sealed_is_counted_and_leaves_the_room_to_others() {
    let (mut world, peer) = host(false, suite(SUITE), |_| {});
    let too_long = sent(false, 53, 65_500);
    assert_eq!(send(&mut world, &too_long, 1500, 0), [[0; 0]; 0]);
    let pieces = fragments(&too_long, 1500, 7).len() as u64;
    assert_eq!(world.all_drops(), [(ReassembledTooLong, pieces)]);
    let next = sent(false, 53, 3028);
    let [whole] = &joined(send(&mut world, &next, 1500, 0))[..] else { panic!("one packet") };
    assert_eq!(peer.open(whole).2, next[20..]);
}

/// As two processors send them to one device.
#[test]
fn two_long_packets_whose_fragments_alternate_are_both_sealed() {
    for v6 in [false, true] {
        let (mut world, peer) = host(v6, suite(SUITE), |_| {});
        let packet = sent(v6, 53, 60_000);
        let pieces = [7, 8].map(|id| fragments(&packet, 1500, id));
        for (one, other) in pieces[0].iter().zip(&pieces[1]) {
            world.put(INSIDE, one);
            world.put(INSIDE, other);
        }
        world.settle();
        let out = joined(world.take(OUTSIDE));
        assert_eq!((out.len(), world.all_drops()), (2, vec![]), "{v6}");
        let head = if v6 { 40 } else { 20 };
        assert!(out.iter().all(|whole| peer.open(whole).2 == packet[head..]), "{v6}");
    }
}

/// RFC 791 §3.1: the first outer fragment has them, and the others those that are to be copied.
#[test]
fn ipv4_options_stay_before_esp() {
    let (mut world, peer) = host(false, suite(SUITE), |_| {});
    let mut packet = sent(false, 53, 3000);
    // Router alert (RFC 2113).
    packet.splice(20..20, [0x94, 4, 0, 0]);
    packet[0] = 0x46;
    let length = packet.len();
    ip::set_total_len(&mut packet, 24, length);
    let out = send(&mut world, &packet, 1500, 1);
    assert!(out.len() > 1 && out.iter().all(|piece| piece[20..24] == [0x94, 4, 0, 0]), "{out:?}");
    let [whole] = &joined(out)[..] else { panic!("one packet") };
    assert!(peer.open(whole).2 == packet[24..]);
    assert_eq!(world.all_drops(), []);
}

/// The first fragment shows UDP, and the others show the extension header.
#[test]
fn all_fragments_of_a_packet_with_an_extension_header_are_refused() {
    const UNASSIGNED: u8 = 200;
    let mut packet = sent(true, 53, 3028);
    packet.splice(V6_HEADER..V6_HEADER, [protocol::UDP, 0, 1, 4, 0, 0, 0, 0]);
    packet[6] = UNASSIGNED;
    let length = packet.len();
    ip::set_total_len(&mut packet, V6_HEADER, length);
    let mut pieces = fragments(&packet, 1500, 7);
    // The header belongs to what was cut.
    pieces.iter_mut().for_each(|piece| piece[V6_HEADER] = protocol::DESTINATION);
    for first in 0..pieces.len() {
        let (mut world, _) = host(true, suite(SUITE), |_| {});
        pieces.iter().cycle().skip(first).take(pieces.len()).for_each(|piece| world.put(INSIDE, piece));
        world.settle();
        assert_eq!(world.all_drops(), [(TransportFragment, 3)], "{first}");
    }
}

/// RFC 4303 §3.3.4: a peer seals whole packets.
#[test]
fn fragments_inside_esp_of_transport_mode_are_refused() {
    let (mut world, peer) = host(true, suite(SUITE), |_| {});
    let [here, there] = ENDS[1];
    let pieces = fragments(&datagram(there, here, (53, 1), &[7; 100]), 88, 7);
    for (number, piece) in (1..).zip(&pieces) {
        world.send(OUTSIDE, &peer.seal_as(&piece[V6_HEADER..], protocol::FRAGMENT, number));
    }
    assert_eq!((pieces.len(), world.take(INSIDE)), (3, vec![]));
    assert_eq!(world.all_drops(), [(TransportFragment, 3)]);
}

/// RFC 7112 §4: policy wants TCP from that port protected, which only the second fragment shows.
#[test]
fn host_gets_no_first_fragment_in_clear_that_hides_its_ports() {
    let (mut world, _) = host(true, suite(SUITE), |config| {
        let selector = &mut config.tunnels[0].selectors[0];
        selector.protocol = Some(protocol::TCP);
        selector.remote_ports = PortRange { first: 443, last: 443 };
    });
    let [here, there] = ENDS[1].map(ip);
    let part = |next, field, payload: [u8; 8]| {
        let part = [[next, 0, 0, field, 0, 0, 0, 7], payload].concat();
        ip_packet(there, here, protocol::FRAGMENT, &part)
    };
    let first = part(protocol::DESTINATION, 1, [protocol::TCP, 0, 1, 4, 0, 0, 0, 0]);
    // The protocol that a later one names does not count (RFC 8200 §4.5).
    let later = part(protocol::UDP, 8, [1, 187, 0, 22, 0, 0, 0, 0]);
    world.put(OUTSIDE, &later);
    world.send(OUTSIDE, &first);
    assert_eq!((world.take(INSIDE), world.drops(FragmentTiny)), (vec![later], 1));
}

#[test]
fn fragments_of_different_packets_stay_in_order_with_others() {
    let (mut world, peer) = host(false, suite(SUITE), |_| {});
    for length in [100, 3000, 200, 1600, 300] {
        fragments(&sent(false, 53, length), 1500, length as u16)
            .iter()
            .for_each(|piece| world.put(INSIDE, piece));
    }
    world.settle();
    let out = joined(world.take(OUTSIDE));
    let lengths: Vec<_> = out.iter().map(|packet| peer.open(packet).2.len() + 20).collect();
    assert_eq!(lengths, [100, 3000, 200, 1600, 300], "{:?}", world.all_drops());
}

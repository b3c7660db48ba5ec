//! Outer packets in fragments: for IPv6 inside, which has no MTU below 1280 bytes (RFC 2473 §7.1), and
//! for tunnels with `outer_fragments`.

use super::path_mtu::{in_udp, over_ipv6, report};
use std::collections::BTreeSet;
use wayfarer::{
    config::model::{Encapsulation, Remote, Tunnel},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::{Df, Mode, PortRange, Selector},
    wire::{
        checksum,
        fragment::Part,
        ip::{self, IpHeader, protocol},
    },
};

const SUITE: &str = "aes128gcm16";

fn gateway(change: impl Fn(&mut Tunnel)) -> (World, Terminal) {
    let mut tunnel = tunnel(1, suite(SUITE));
    tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
    change(&mut tunnel);
    let mut world = World::new(vec![tunnel]);
    world.meet_neighbours();
    (world, Terminal::new(1, suite(SUITE), "192.0.2.1"))
}

/// A packet of `length` bytes to the terminal that must not be fragmented.
fn down(length: usize) -> Vec<u8> {
    datagram("10.99.0.7", "10.98.0.1", (2, 1), &vec![7; length - 28])
}

/// Does the same over IPv6.
fn down6(length: usize) -> Vec<u8> {
    datagram("fd00:99::7", "fd00:98::1", (2, 1), &vec![7; length - 48])
}

/// Clears DF of an IPv4 packet.
pub(crate) fn fragmentable(mut packet: Vec<u8>) -> Vec<u8> {
    ip::allow_fragments(&mut packet, 20, 77);
    packet
}

/// Returns a packet that was cut with the identification `id`, as it is forwarded once it is whole again.
/// By hand, so that the gateway's own code is not compared with itself.
pub(crate) fn forwarded_whole(packet: &[u8], id: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].fill(0);
    packet[8] -= 1;
    packet[10..12].fill(0);
    let header = &packet[..usize::from(packet[0] & 0xf) * 4];
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    // RFC 1071: the sum of ones' complements. The carries of one addition cause at most one more.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!sum as u16).to_be_bytes());
    packet
}

/// Sends a packet that must go out in fragments of at most `mtu` bytes. Returns what they join to.
fn in_fragments(world: &mut World, inner: &[u8], mtu: usize) -> Vec<u8> {
    world.send(INSIDE, inner);
    let fragments = world.take(OUTSIDE);
    assert!(fragments.len() > 1, "{:?} {:?}", fragments, world.all_drops());
    let parts: Vec<Part> = fragments
        .iter()
        .map(|fragment| {
            let header = IpHeader::parse(fragment).unwrap();
            assert!(fragment.len() <= mtu && fragment.len() == header.total_len());
            assert!(!header.is_ipv4() || !header.dont_fragment);
            Part::read(&header, fragment).unwrap()
        })
        .collect();
    assert!(parts.iter().all(|part| part.id == parts[0].id));
    let [whole] = &joined(fragments)[..] else { panic!("one packet") };
    whole.clone()
}

/// Sends a packet and returns the MTU that its sender is told.
fn refused(world: &mut World, inner: &[u8]) -> u32 {
    world.send(INSIDE, inner);
    assert_eq!((world.take(OUTSIDE).len(), world.drops(TooBig)), (0, 1));
    let answer = world.take(INSIDE).pop().unwrap();
    let at = if inner[0] >> 4 == 4 { 24 } else { 44 };
    u32::from_be_bytes(*answer[at..].first_chunk().unwrap())
}

#[test]
fn ipv6_inside_has_no_mtu_below_1280_whatever_is_outside() {
    type Change = fn(&mut Tunnel);
    let kinds: [(Change, usize); 4] = [
        (|_| {}, 576),
        (in_udp, 1300),
        (over_ipv6, 1280),
        (
            |tunnel| {
                over_ipv6(tunnel);
                in_udp(tunnel);
            },
            1280,
        ),
    ];
    for (change, mtu) in kinds {
        let (mut world, terminal) = gateway(|tunnel| {
            change(tunnel);
            tunnel.mtu = Some(mtu);
        });
        for length in [1278, 1280] {
            let whole = in_fragments(&mut world, &down6(length), mtu);
            let header = IpHeader::parse(&whole).unwrap();
            assert_eq!(terminal.open(&whole).2, forwarded(&down6(length)));
            if !header.is_ipv4() && header.protocol == ip::protocol::UDP {
                let [src, dst] = [header.src, header.dst].map(std::net::IpAddr::from);
                let pseudo = checksum::pseudo_header(src, dst, 17, whole.len() - 40);
                assert_eq!(checksum::finish(checksum::add(pseudo, &whole[40..])), 0);
            }
        }
        assert_eq!(world.all_drops(), []);
        assert_eq!(refused(&mut world, &down6(1281)), 1280);
        // What fits goes whole, and IPv4 hears of its limit as ever.
        world.send(INSIDE, &down6(500));
        assert_eq!(joined(world.take(OUTSIDE)).len(), 1);
        world.send(INSIDE, &down(1280));
        assert_eq!((world.drops(TooBig), world.take(OUTSIDE).len()), (2, 0));
    }
}

#[test]
fn reported_mtu_below_1280_does_not_stop_ipv6() {
    let (mut world, terminal) = gateway(|_| {});
    world.send(INSIDE, &down6(1400));
    let outer = world.take(OUTSIDE).pop().unwrap();
    world.send(OUTSIDE, &report(&outer, 1000, 8));
    assert_eq!(refused(&mut world, &down6(1400)), 1280);
    let whole = in_fragments(&mut world, &down6(1280), 1000);
    assert_eq!(terminal.open(&whole).2, forwarded(&down6(1280)));
}

#[test]
fn report_that_quotes_a_fragment_of_ours_is_believed() {
    type Change = fn(&mut Tunnel);
    // What shows eight bytes of ESP behind the IP header, and what becomes of a report about a later
    // fragment: in UDP, it may be the host's.
    let kinds: [(Change, usize, DropReason); 3] =
        [(|_| {}, 8, PathMtu), (over_ipv6, 16, PathMtu), (in_udp, 16, NotForUs)];
    for (change, quoted, refusal) in kinds {
        let (mut world, terminal) = gateway(|tunnel| {
            change(tunnel);
            (tunnel.mtu, tunnel.outer_fragments) = (Some(1400), true);
        });
        world.send(INSIDE, &down(1500));
        let fragments = world.take(OUTSIDE);
        world.send(OUTSIDE, &report(&fragments[1], 1300, quoted));
        let refused = world.slow_drops(refusal) + world.drops(refusal);
        assert_eq!(refused, 1, "a later fragment shows no SPI: {:?}", world.all_drops());
        world.send(INSIDE, &down(1500));
        assert!(world.take(OUTSIDE).iter().any(|fragment| fragment.len() > 1300));
        world.send(OUTSIDE, &report(&fragments[0], 1300, quoted));
        let whole = in_fragments(&mut world, &down(1500), 1300);
        assert_eq!(terminal.open(&whole).2, forwarded(&down(1500)));
    }
}

#[test]
fn outer_fragments_leave_inner_senders_the_mtu_of_ethernet() {
    let small = |tunnel: &mut Tunnel| (tunnel.mtu, tunnel.outer_fragments) = (Some(1000), true);
    let (mut world, terminal) = gateway(small);
    for inner in [down(947), down(1500), down6(1500), fragmentable(down(1500))] {
        let whole = in_fragments(&mut world, &inner, 1000);
        assert_eq!(terminal.open(&whole).2, forwarded(&inner));
    }
    assert_eq!(world.all_drops(), []);
    assert_eq!(refused(&mut world, &down(1501)), 1500);
    // A longer one that may be cut is cut inside, where the terminal need not join anything.
    world.send(INSIDE, &fragmentable(down(1600)));
    let out = world.take(OUTSIDE);
    assert_eq!(out.iter().map(|packet| terminal.open(packet).2.len()).max(), Some(940));
    // No cut is made without need: over a path that takes more, all goes whole.
    let (mut world, terminal) = gateway(|tunnel| tunnel.outer_fragments = true);
    world.send(INSIDE, &down(1446));
    let [packet] = &world.take(OUTSIDE)[..] else { panic!("one packet") };
    assert_eq!((packet.len(), terminal.open(packet).2), (1500, forwarded(&down(1446))));
}

/// RFC 4301 §7: all fragments of an inner packet but the first would hide the ports that the peer compares.
#[test]
fn tunnel_whose_selectors_have_ports_cuts_outside() {
    type Change = fn(&mut Selector);
    let kinds: [Change; 2] = [
        |selector| selector.remote_ports = PortRange { first: 1, last: 9 },
        |selector| selector.local_ports = PortRange { first: 2, last: 2 },
    ];
    for change in kinds {
        let outsides: [fn(&mut Tunnel); 3] = [|_| {}, in_udp, over_ipv6];
        for outside in outsides {
            let (mut world, terminal) = gateway(|tunnel| {
                outside(tunnel);
                (tunnel.mtu, tunnel.df) = (Some(1280), Df::Set);
                tunnel.selectors[0].protocol = Some(protocol::UDP);
                change(&mut tunnel.selectors[0]);
            });
            // The last ones fill a frame.
            for length in [1279, 1400, 1500, 1760, 1778] {
                let inner = fragmentable(down(length));
                let whole = in_fragments(&mut world, &inner, 1280);
                assert_eq!(terminal.open(&whole).2, forwarded(&inner));
            }
            assert_eq!(world.all_drops(), []);
            // The DF bit decides as ever, and what fits goes whole.
            let limit = refused(&mut world, &down(1279)) as usize;
            assert!((1200..1240).contains(&limit));
            for inner in [down(limit), fragmentable(down(limit))] {
                world.send(INSIDE, &inner);
                let [packet] = &world.take(OUTSIDE)[..] else { panic!("one packet") };
                assert_eq!(terminal.open(packet).2, forwarded(&inner));
            }
        }
    }
    // Protocols are in every fragment, so these do not change where packets are cut.
    let (mut world, terminal) = gateway(|tunnel| {
        tunnel.mtu = Some(1280);
        tunnel.selectors[0].protocol = Some(protocol::UDP);
    });
    world.send(INSIDE, &fragmentable(down(1500)));
    let out = world.take(OUTSIDE);
    let [one, two] = &out[..] else { panic!("two packets") };
    assert_eq!(joined([terminal.open(one).2, terminal.open(two).2]).len(), 1);
}

#[test]
fn packets_keep_their_order_and_get_their_own_identifications() {
    let (mut world, terminal) = gateway(|tunnel| (tunnel.mtu, tunnel.outer_fragments) = (Some(1000), true));
    let lengths = [100, 1500, 1500, 200, 1700, 300, 1500, 400];
    for length in lengths {
        world.put(INSIDE, &fragmentable(down(length)));
    }
    // Many fill more than a burst with their fragments.
    (0..56).for_each(|_| world.put(INSIDE, &down(1500)));
    world.settle();
    let out = world.take(OUTSIDE);
    // Those of the first fragments.
    let ids: BTreeSet<_> = out.iter().filter(|p| p[6] & 0x20 != 0).map(|p| [p[4], p[5]]).collect();
    let opened: Vec<_> = joined(out).iter().map(|packet| terminal.open(packet)).collect();
    let numbers: Vec<u64> = opened.iter().map(|(_, number, ..)| *number).collect();
    assert_eq!(numbers, (1..=65).collect::<Vec<_>>(), "{:?}", world.all_drops());
    let expected = [100, 1500, 1500, 200, 940, 780, 300, 1500, 400];
    assert_eq!(opened[..9].iter().map(|(_, _, inner, _)| inner.len()).collect::<Vec<_>>(), expected);
    assert_eq!(ids.len(), 3 + 56);
    assert_eq!(world.counters().sealed.value(), 65);
}

/// Nothing else tells the peer which fragments of their path belong together.
#[test]
fn sas_of_one_path_have_identifications_of_their_own() {
    let tunnels = (1..=4).map(|n| {
        let mut tunnel = tunnel(n, suite(SUITE));
        tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
        (tunnel.mtu, tunnel.outer_fragments) = (Some(1000), true);
        tunnel
    });
    let mut world = World::new(tunnels.collect());
    world.meet_neighbours();
    for (length, pieces) in [(100, 1), (1500, 2)] {
        let mut ids = BTreeSet::new();
        for n in 1..=4 {
            let inner = datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), &vec![7; length - 28]);
            world.send(INSIDE, &fragmentable(inner));
            let out = world.take(OUTSIDE);
            assert_eq!(out.len(), pieces, "{:?}", world.all_drops());
            ids.extend(out.iter().map(|packet| [packet[4], packet[5]]));
        }
        // They are random, so some may be the same by chance, but not all.
        assert!(ids.len() > 1, "{length}: {ids:?}");
    }
}

#[test]
fn routers_may_cut_the_packets_of_a_tunnel_with_outer_fragments() {
    for (df, expected) in [(Df::default_for(true), false), (Df::Copy, true)] {
        let (mut world, _) = gateway(|tunnel| (tunnel.outer_fragments, tunnel.df) = (true, df));
        world.send(INSIDE, &down(500));
        let outer = world.take(OUTSIDE).pop().unwrap();
        assert_eq!(IpHeader::parse(&outer).unwrap().dont_fragment, expected);
    }
}

#[test]
fn tcp_segments_fit_without_fragments() {
    let mut syn = vec![0; 44];
    ip::emit(&mut syn, ip("10.99.0.7"), ip("10.98.0.1"), 6, 24);
    (syn[32], syn[33]) = (0x60, 2);
    syn[40..44].copy_from_slice(&[2, 4, 5, 180]);
    let (mut world, terminal) = gateway(|tunnel| (tunnel.mtu, tunnel.outer_fragments) = (Some(1000), true));
    world.send(INSIDE, &syn);
    let inner = terminal.open(&world.take(OUTSIDE)[0]).2;
    assert_eq!(u16::from_be_bytes([inner[42], inner[43]]), 946 - 40);
}

#[test]
fn transport_mode_sends_outer_fragments_too() {
    for v6 in [false, true] {
        let [here, there] =
            if v6 { ["2001:db8:1::1", "2001:db8:2::1"] } else { ["203.0.113.1", "192.0.2.1"] };
        let mut transport = tunnel(1, suite(SUITE));
        transport.mode = Mode::Transport;
        transport.local = ip(here);
        transport.remote = Remote::At(ip(there), 0);
        transport.selectors = vec![selector(here, there)];
        (transport.mtu, transport.outer_fragments) = (Some(1280), !v6);
        let mut world = World::host(vec![transport]);
        world.meet_neighbours();
        let length = if v6 { 1280 } else { 1500 };
        let head = if v6 { 48 } else { 28 };
        let inner = datagram(here, there, (1, 2), &vec![7; length - head]);
        let whole = in_fragments(&mut world, &inner, 1280);
        let terminal = Terminal::new(1, suite(SUITE), there);
        assert_eq!(terminal.open(&whole).2, inner[head - 8..]);
        assert_eq!(
            refused(&mut world, &datagram(here, there, (1, 2), &vec![7; length + 1 - head])),
            length as u32
        );
    }
}

#[test]
fn packet_whose_fragments_find_no_frames_is_counted_and_leaves_none_behind() {
    let mut config = config(vec![tunnel(1, suite(SUITE))]);
    config.gateway.frames = 8;
    (config.tunnels[0].remote, config.tunnels[0].encap) =
        (Remote::At(ip("192.0.2.1"), 4500), Encapsulation::Udp(4500));
    (config.tunnels[0].mtu, config.tunnels[0].outer_fragments) = (Some(576), true);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    (0..6).for_each(|_| world.put(INSIDE, &down(1500)));
    world.settle();
    let lost = world.drops(NoBuffer);
    assert!(lost > 0 && world.all_drops() == [(NoBuffer, lost)], "{:?}", world.all_drops());
    world.take(OUTSIDE);
    let terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let whole = in_fragments(&mut world, &down(1500), 576);
    assert_eq!(terminal.open(&whole).2, forwarded(&down(1500)));
}

//! Fragmentation before encryption, ICMP errors to senders, MSS, DSCP, ECN, DF, TFC padding, TTL.

use std::collections::BTreeSet;
use wayfarer::{
    config::model::{Encapsulation, Remote, Route, Tunnel},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::*,
    sa::Df,
    wire::{
        checksum,
        ip::{self, IpHeader},
    },
};

const SUITE: &str = "aes128gcm16";

fn world(change: impl Fn(&mut Tunnel)) -> (World, Terminal) {
    let mut tunnels = vec![tunnel(1, suite(SUITE)), tunnel(2, suite("aes256-sha512"))];
    for t in &mut tunnels {
        t.remote = Remote::At(ip("192.0.2.1"), 4500);
        change(t);
    }
    (World::new(tunnels), Terminal::new(1, suite(SUITE), "192.0.2.1"))
}

fn down(payload: usize) -> Vec<u8> {
    datagram("10.99.0.7", "10.98.0.1", (2, 1), &vec![7; payload])
}

/// Clears DF of an IPv4 packet, and sets its identification to `id`.
fn fragmentable(mut packet: Vec<u8>, id: u16) -> Vec<u8> {
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6] = 0;
    let total = packet.len();
    ip::set_total_len(&mut packet, 20, total);
    packet
}

/// Reassembles the payload of IPv4 fragments, which must be in order.
fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = vec![];
    for (i, f) in fragments.iter().enumerate() {
        let header = IpHeader::parse(f).unwrap();
        let field = u16::from_be_bytes([f[6], f[7]]);
        assert_eq!(usize::from(field & 0x1fff) * 8, payload.len());
        assert_eq!(field & 0x2000 != 0, i + 1 < fragments.len());
        payload.extend_from_slice(header.payload(f));
    }
    payload
}

#[test]
fn fragments_too_big_packets_before_encryption() {
    let (mut world, terminal) = world(|_| {});
    let whole = fragmentable(down(1472), 77);
    assert_eq!(whole.len(), 1500);
    world.put(INSIDE, &whole);
    world.put(INSIDE, &down(100));
    world.settle();
    let out = world.take(OUTSIDE);
    assert!(out.iter().all(|p| p.len() <= 1500));
    let opened: Vec<Vec<u8>> = out.iter().map(|p| terminal.open(p).2).collect();
    assert_eq!(opened.len(), 3, "{:?}", world.all_drops());
    assert_eq!(reassemble(&opened[..2]), whole[20..]);
    assert!(opened[..2].iter().all(|f| f[4..6] == 77u16.to_be_bytes() && f[8] == 63));
    assert_eq!(opened[2], forwarded(&down(100)));
}

#[test]
fn fragments_of_a_fragment_keep_offsets_and_copied_options() {
    let (mut world, terminal) = world(|_| {});
    world.meet_neighbours();
    // A middle fragment of a datagram, with one option to be copied to every fragment and one for
    // the first only.
    let mut packet = fragmentable(down(1440), 5);
    packet.splice(20..20, [0x94, 4, 0, 0, 7, 3, 4, 0]);
    packet[0] = 0x47;
    packet[6..8].copy_from_slice(&[0x20, 0x10]);
    ip::set_total_len(&mut packet, 28, 1476);
    world.send(INSIDE, &packet);
    let opened: Vec<_> = world.take(OUTSIDE).iter().map(|p| terminal.open(p).2).collect();
    assert_eq!(opened.len(), 2, "{:?}", world.all_drops());
    let headers: Vec<_> = opened.iter().map(|p| IpHeader::parse(p).unwrap()).collect();
    assert_eq!((headers[0].header_len(), &opened[0][20..28]), (28, &packet[20..28]));
    assert_eq!((headers[1].header_len(), &opened[1][20..24]), (24, &packet[20..24]));
    let field = |i: usize| u16::from_be_bytes([opened[i][6], opened[i][7]]);
    let first_len = headers[0].payload(&opened[0]).len();
    // Both have "more fragments" set, because the datagram continues after the packet.
    assert_eq!((field(0), field(1)), (0x2010, 0x2010 + (first_len / 8) as u16));
    let whole = [headers[0].payload(&opened[0]), headers[1].payload(&opened[1])].concat();
    assert_eq!(whole, packet[28..]);
    // The last fragment of a datagram that would exceed the largest IP packet.
    let mut beyond = fragmentable(down(1472), 5);
    beyond[6..8].copy_from_slice(&[0x1f, 0xff]);
    ip::set_total_len(&mut beyond, 20, 1500);
    world.send(INSIDE, &beyond);
    assert_eq!(world.all_drops(), [(IpTotalLength, 1)]);
}

#[test]
fn sender_of_an_unfragmentable_packet_gets_the_size_that_fits() {
    let (mut world, terminal) = world(|_| {});
    world.send(INSIDE, &down(1472));
    assert_eq!(world.all_drops(), [(TooBig, 1)]);
    let answers = world.take(INSIDE);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    let header = IpHeader::parse(answer).unwrap();
    assert_eq!((header.src, header.dst), (ip("10.99.0.1").into(), ip("10.99.0.7").into()));
    assert_eq!((answer[20], answer[21], checksum::of(&answer[20..])), (3, 4, 0));
    let mtu = usize::from(u16::from_be_bytes([answer[26], answer[27]]));
    // RFC 4303 tunnel over IPv4 with AES-GCM-16: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4.
    assert_eq!(mtu, 1446);
    assert_eq!(answer[28..48], down(1472)[..20]);
    // Exactly that size passes, and fills the link.
    world.send(INSIDE, &down(mtu - 28));
    let out = world.take(OUTSIDE);
    assert_eq!((out[0].len(), terminal.open(&out[0]).2.len()), (1500, mtu));
}

#[test]
fn ipv6_senders_get_packet_too_big() {
    let (mut world, terminal) = world(|_| {});
    let big = datagram("fd00:99::7", "fd00:98::1", (2, 1), &[7; 1452]);
    world.send(INSIDE, &big);
    let answers = world.take(INSIDE);
    let [answer] = &answers[..] else { panic!("{:?}", world.all_drops()) };
    assert_eq!((answer[40], answer[41], &answer[44..48]), (2, 0, &1446u32.to_be_bytes()[..]));
    let pseudo = checksum::pseudo_header(ip("fd00:99::1"), ip("fd00:99::7"), 58, answer.len() - 40);
    assert_eq!(checksum::finish(checksum::add(pseudo, &answer[40..])), 0);
    world.send(INSIDE, &datagram("fd00:99::7", "fd00:98::1", (2, 1), &[7; 1446 - 48]));
    assert_eq!(terminal.open(&world.take(OUTSIDE)[0]).2.len(), 1446);
}

/// The gateway's addresses on other ports are the host's too, which believes no packet from them.
#[test]
fn host_behind_a_port_without_an_address_hears_from_the_one_it_writes_to() {
    for addresses in [0, 1] {
        let mut tunnel = tunnel(1, suite(SUITE));
        tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
        tunnel.selectors = vec![selector("10.55.0.7", "10.98.0.1"), selector("fd00:55::7", "fd00:98::1")];
        let mut config = config(vec![tunnel]);
        for host in ["10.55.0.7/32", "fd00:55::7/128"] {
            config.routes.push(Route { to: host.parse().unwrap(), via: None, port: INSIDE });
        }
        let (mut ports, wires) = open_host_ports(512);
        // The first one is of IPv4.
        ports[INSIDE].addresses.truncate(addresses);
        let mut world = World::on(config, (ports, wires));
        let own = if addresses == 0 { "10.98.0.1" } else { "10.99.0.1" };
        for (host, peer, from) in
            [("10.55.0.7", "10.98.0.1", own), ("fd00:55::7", "fd00:98::1", "fd00:98::1")]
        {
            world.send(INSIDE, &datagram(host, peer, (2, 1), &[7; 1450]));
            let answers = world.take(INSIDE);
            let [answer] = &answers[..] else { panic!("{host}: {:?}", world.all_drops()) };
            let header = IpHeader::parse(answer).unwrap();
            assert_eq!((header.src, header.dst), (ip(from).into(), ip(host).into()));
            let kind = if header.is_ipv4() { [3, 4] } else { [2, 0] };
            assert_eq!(header.payload(answer)[..2], kind);
        }
        assert_eq!(world.all_drops(), [(TooBig, 2)]);
    }
}

#[test]
fn icmp_error_to_a_terminal_goes_through_its_tunnel() {
    let (mut world, mut terminal) = world(|_| {});
    let mut last_hop = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"traceroute");
    last_hop[8] = 1;
    ip::set_total_len(&mut last_hop, 20, 38);
    world.send(OUTSIDE, &terminal.seal(&last_hop));
    assert_eq!(world.all_drops(), [(HopLimit, 1)]);
    let out = world.take(OUTSIDE);
    let (_, _, answer, _) = terminal.open(&out[0]);
    assert_eq!((answer[20], answer[21], &answer[12..20]), (11, 0, &[10, 99, 0, 1, 10, 98, 0, 1][..]));
    assert_eq!(answer[28..], last_hop);
}

#[test]
fn sends_no_icmp_error_about_an_icmp_error() {
    let (mut world, _) = world(|_| {});
    let mut error = down(1472);
    error[9] = 1;
    error[20..22].copy_from_slice(&[3, 1]);
    ip::set_total_len(&mut error, 20, 1500);
    world.send(INSIDE, &error);
    assert_eq!((world.all_drops(), world.take(INSIDE).len()), (vec![(TooBig, 1)], 0));
}

#[test]
fn clamps_tcp_segment_size_in_both_directions() {
    let syn = |src: &str, dst: &str, mss: u16| {
        let mut packet = vec![0; 44];
        ip::emit(&mut packet, ip(src), ip(dst), 6, 24);
        packet[32] = 0x60;
        packet[33] = 2;
        packet[40..44].copy_from_slice(&[2, 4, (mss >> 8) as u8, mss as u8]);
        let pseudo = checksum::pseudo_header(ip(src), ip(dst), 6, 24);
        let sum = checksum::finish(checksum::add(pseudo, &packet[20..]));
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    let mss = |packet: &[u8]| {
        let header = IpHeader::parse(packet).unwrap();
        let pseudo = checksum::pseudo_header(header.src, header.dst, 6, 24);
        assert_eq!(checksum::finish(checksum::add(pseudo, &packet[20..44])), 0);
        u16::from_be_bytes([packet[42], packet[43]])
    };
    let (mut world, mut terminal) = world(|_| {});
    for (asked, expected) in [(1460, 1406), (1406, 1406), (500, 500)] {
        world.send(OUTSIDE, &terminal.seal(&syn("10.98.0.1", "10.99.0.7", asked)));
        world.send(INSIDE, &syn("10.99.0.7", "10.98.0.1", asked));
        assert_eq!(mss(&world.take(INSIDE)[0]), expected);
        assert_eq!(mss(&terminal.open(&world.take(OUTSIDE)[0]).2), expected);
    }
}

#[test]
fn outer_header_has_configured_dscp_df_and_ecn() {
    let marked = |class: u8, df: bool| {
        let mut packet = down(20);
        packet[1] = class;
        packet[6] = if df { 0x40 } else { 0 };
        let total = packet.len();
        ip::set_total_len(&mut packet, 20, total);
        packet
    };
    for (dscp, df, inner, expected) in [
        (None, Df::Copy, (0xb8 | 2, true), (0xb8 | 2, true)),
        (None, Df::Copy, (0x28 | 1, false), (0x28 | 1, false)),
        (Some(10), Df::Set, (0xb8 | 3, false), (10 << 2 | 3, true)),
        (Some(0), Df::Clear, (0xb8, true), (0, false)),
    ] {
        let (mut world, terminal) = world(|t| (t.dscp, t.df) = (dscp, df));
        world.send(INSIDE, &marked(inner.0, inner.1));
        let out = world.take(OUTSIDE);
        let (outer, _, plain, _) = terminal.open(&out[0]);
        assert_eq!((outer.traffic_class, outer.dont_fragment), expected);
        assert_eq!(outer.hop_limit, 64);
        assert_eq!(plain, forwarded(&marked(inner.0, inner.1)));
    }
}

#[test]
fn fragmentable_outer_packets_have_different_identifications() {
    let (mut world, _) = world(|t| t.df = Df::Clear);
    (0..3).for_each(|_| world.put(INSIDE, &down(20)));
    world.settle();
    let ids: BTreeSet<_> = world.take(OUTSIDE).iter().map(|p| [p[4], p[5]]).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn traffic_flow_confidentiality_makes_all_packets_one_size() {
    let (mut world, mut terminal) = world(|t| t.tfc = 1400);
    for payload in [0, 10, 500, 1372, 1400] {
        world.put(INSIDE, &down(payload));
    }
    world.settle();
    let out = world.take(OUTSIDE);
    let sizes: Vec<_> = out.iter().map(Vec::len).collect();
    assert_eq!(sizes[..4], [sizes[0]; 4]);
    assert!(sizes[4] > sizes[0]);
    for (packet, payload) in out.iter().zip([0, 10, 500, 1372, 1400]) {
        let plain = terminal.open(packet).2;
        let inner = forwarded(&down(payload));
        assert!(plain.starts_with(&inner) && plain[inner.len()..].iter().all(|&b| b == 0));
    }
    // In the other direction, the padding after the inner packet is cut off.
    let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"short");
    let mut padded = inner.clone();
    padded.resize(900, 0);
    world.send(OUTSIDE, &terminal.seal(&padded));
    assert_eq!(world.take(INSIDE), [forwarded(&inner)]);
}

#[test]
fn udp_over_ipv6_has_a_valid_checksum_or_zero_as_configured() {
    for has_checksum in [true, false] {
        let (mut world, _) = world(|t| {
            t.local = ip("2001:db8:1::1");
            t.remote = Remote::At(ip("2001:db8:2::1"), 4500);
            t.encap = Encapsulation::Udp(4500);
            t.udp6_checksum = has_checksum;
        });
        world.send(INSIDE, &down(33));
        let out = world.take(OUTSIDE);
        let packet = &out[0];
        if has_checksum {
            let pseudo =
                checksum::pseudo_header(ip("2001:db8:1::1"), ip("2001:db8:2::1"), 17, packet.len() - 40);
            assert_eq!(checksum::finish(checksum::add(pseudo, &packet[40..])), 0);
            assert_ne!(packet[46..48], [0, 0]);
        } else {
            assert_eq!(packet[46..48], [0, 0]);
        }
    }
}

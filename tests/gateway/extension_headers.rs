//! IPv6 extension headers before ESP and IKE, and in packets of transport mode.

use super::fragments::{gateway_for_terminals, messages};
use wayfarer::config::model::{Remote, Tunnel};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::{
    drop::DropReason::*,
    sa::Mode,
    wire::ip::{self, IpHeader, V6_HEADER, protocol},
};

const SUITE: &str = "aes128gcm16";
const HERE: &str = "2001:db8:1::1";
const THERE: &str = "2001:db8:2::1";

/// An extension header: its kind, and its bytes behind the next one's kind.
type Extension = (u8, [u8; 7]);

const HOP_BY_HOP: Extension = (protocol::HOP_BY_HOP, [0, 5, 2, 0, 0, 1, 0]);
const DESTINATION: Extension = (protocol::DESTINATION, [0, 1, 4, 0, 0, 0, 0]);
/// A route that was travelled.
const ROUTING: Extension = (protocol::ROUTING, [0, 4, 0, 0, 0, 0, 0]);
const UNKNOWN: Extension = (protocol::DESTINATION, [0, 0xc2, 4, 0, 0, 0, 0]);
const UNTRAVELLED: Extension = (protocol::ROUTING, [0, 4, 1, 0, 0, 0, 0]);

/// Puts extension headers behind the IPv6 header of a packet.
fn extended(packet: &[u8], extensions: &[Extension]) -> Vec<u8> {
    let mut out = packet[..V6_HEADER].to_vec();
    let mut names_next = 6;
    for (kind, rest) in extensions {
        out[names_next] = *kind;
        names_next = out.len();
        out.push(packet[6]);
        out.extend(rest);
    }
    out.extend(&packet[V6_HEADER..]);
    let total = out.len();
    ip::set_total_len(&mut out, V6_HEADER, total);
    out
}

fn gateway(change: impl FnOnce(&mut Tunnel)) -> World {
    let mut tunnel = tunnel(1, suite(SUITE));
    (tunnel.local, tunnel.remote) = (ip(HERE), Remote::At(ip(THERE), 4500));
    change(&mut tunnel);
    let mut world =
        if tunnel.mode == Mode::Tunnel { World::new(vec![tunnel]) } else { World::host(vec![tunnel]) };
    world.meet_neighbours();
    world
}

fn transport(tunnel: &mut Tunnel) {
    tunnel.mode = Mode::Transport;
    tunnel.selectors = vec![selector(HERE, THERE)];
}

#[test]
fn esp_is_found_behind_headers_that_may_be_skipped() {
    for port in [None, Some(4500)] {
        let (mut world, mut terminal) = (gateway(|_| {}), Terminal::new(1, suite(SUITE), THERE));
        terminal.port = port;
        let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"inside");
        for chain in [
            &[DESTINATION][..],
            &[HOP_BY_HOP],
            &[ROUTING],
            &[HOP_BY_HOP, DESTINATION, ROUTING, DESTINATION],
            &[DESTINATION; 8],
        ] {
            world.send(OUTSIDE, &extended(&terminal.seal(&inner), chain));
            assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{chain:?}: {:?}", world.all_drops());
        }
        assert_eq!(world.all_drops(), []);
        let strange = [&[UNKNOWN][..], &[UNTRAVELLED], &[DESTINATION, HOP_BY_HOP], &[ROUTING, UNKNOWN]];
        for (chain, count) in strange.into_iter().zip(1..) {
            world.send(OUTSIDE, &extended(&terminal.seal(&inner), chain));
            assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(OuterOptions, count)]));
        }
        world.send(OUTSIDE, &extended(&terminal.seal(&inner), &[DESTINATION; 9]));
        assert_eq!((world.take(INSIDE), world.drops(IpHeaderLength)), (vec![], 1));
    }
}

#[test]
fn ike_is_found_behind_headers_that_may_be_skipped() {
    let mut world = gateway_for_terminals();
    let before = messages(&mut world);
    let message = datagram(THERE, HERE, (500, 500), &[0x29; 100]);
    world.send(OUTSIDE, &extended(&message, &[HOP_BY_HOP, DESTINATION]));
    assert_eq!((messages(&mut world), world.all_drops()), (before + 1, vec![]));
    world.send(OUTSIDE, &extended(&message, &[UNKNOWN]));
    assert_eq!((messages(&mut world), world.all_drops()), (before + 1, vec![(OuterOptions, 1)]));
}

/// Puts the fragments of a packet on the wire outside, each with its headers before the fragment header.
fn send_pieces(world: &mut World, packet: &[u8], chains: [&[Extension]; 2], id: u16) -> Vec<Vec<u8>> {
    let pieces = fragments(packet, 1280, id);
    assert_eq!(pieces.len(), 2);
    let pieces: Vec<_> = pieces.iter().zip(chains).map(|(piece, chain)| extended(piece, chain)).collect();
    for first in [1, 0] {
        world.put(OUTSIDE, &pieces[first]);
    }
    world.settle();
    pieces
}

/// RFC 8200 §4.5: each fragment has headers of its own before the fragment header.
#[test]
fn fragments_are_found_behind_headers_that_may_be_skipped() {
    for port in [None, Some(4500)] {
        let (mut world, mut terminal) = (gateway(|_| {}), Terminal::new(1, suite(SUITE), THERE));
        terminal.port = port;
        let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300]);
        let long = [HOP_BY_HOP, DESTINATION, ROUTING];
        let skippable: [[&[Extension]; 2]; 3] = [[&[HOP_BY_HOP]; 2], [&long, &[]], [&[], &long]];
        for (id, chains) in (1..).zip(skippable) {
            send_pieces(&mut world, &terminal.seal(&inner), chains, id);
            assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{chains:?}: {:?}", world.all_drops());
        }
        // The only fragment of a packet.
        let small = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"small");
        let atomic = &fragments(&terminal.seal(&small), 1280, 7)[0];
        world.send(OUTSIDE, &extended(atomic, &long));
        assert_eq!(world.take(INSIDE), [forwarded(&small)], "{:?}", world.all_drops());
        assert_eq!(world.all_drops(), []);
        // Whichever of them must not be skipped, the packet is lost.
        let strange: [[&[Extension]; 2]; 2] = [[&[UNKNOWN], &[]], [&[], &[HOP_BY_HOP, UNTRAVELLED]]];
        for (count, chains) in (1..).zip(strange) {
            send_pieces(&mut world, &terminal.seal(&inner), chains, 9);
            assert_eq!((world.take(INSIDE), world.all_drops()), (vec![], vec![(OuterOptions, 2 * count)]));
        }
    }
}

/// Headers behind the fragment header are cut with the rest, and only the first fragment shows what is
/// behind them.
#[test]
fn headers_in_fragments_may_be_skipped_too() {
    for (headers, dropped) in
        [([DESTINATION, DESTINATION], vec![]), ([DESTINATION, UNKNOWN], vec![(OuterOptions, 1)])]
    {
        for port in [None, Some(4500)] {
            let (mut world, mut terminal) = (gateway(|_| {}), Terminal::new(1, suite(SUITE), THERE));
            terminal.port = port;
            let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300]);
            let mut whole = extended(&terminal.seal(&inner), &headers);
            // What is cut begins right behind the IPv6 header, whatever that names.
            whole[6] = 200;
            let mut pieces = fragments(&whole, 1280, 7);
            pieces.iter_mut().for_each(|piece| piece[V6_HEADER] = protocol::DESTINATION);
            pieces.iter().rev().for_each(|piece| world.put(OUTSIDE, piece));
            world.settle();
            let expected = if dropped.is_empty() { vec![forwarded(&inner)] } else { vec![] };
            assert_eq!((world.take(INSIDE), world.all_drops()), (expected, dropped.clone()), "{port:?}");
        }
    }
}

#[test]
fn fragment_behind_more_headers_than_are_read_is_refused() {
    let (mut world, mut terminal) = (gateway(|_| {}), Terminal::new(1, suite(SUITE), THERE));
    let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300]);
    let pieces = fragments(&terminal.seal(&inner), 1280, 7);
    let mut long = extended(&pieces[0], &[DESTINATION, DESTINATION]);
    // The first of them has 256 bytes now.
    long[V6_HEADER + 1] = 31;
    long.splice(V6_HEADER + 8..V6_HEADER + 8, [0; 248]);
    let total = long.len();
    ip::set_total_len(&mut long, V6_HEADER, total);
    world.send(OUTSIDE, &long);
    assert_eq!(world.all_drops(), [(FragmentHeaders, 1)]);
    // The good one passes.
    pieces.iter().for_each(|piece| world.put(OUTSIDE, piece));
    world.settle();
    assert_eq!(world.take(INSIDE), [forwarded(&inner)], "{:?}", world.all_drops());
}

#[test]
fn ipv4_options_before_esp_are_refused_in_fragments_as_in_whole_packets() {
    let mut world = gateway(|tunnel| (tunnel.local, tunnel.remote) = (GATEWAY, Remote::Any));
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let mut sealed = terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300]));
    // Router alert (RFC 2113).
    sealed.splice(20..20, [0x94, 4, 0, 0]);
    sealed[0] = 0x46;
    let total = sealed.len();
    ip::set_total_len(&mut sealed, 24, total);
    let pieces = fragments(&sealed, 1280, 7);
    pieces.iter().for_each(|piece| world.put(OUTSIDE, piece));
    world.settle();
    assert_eq!((pieces.len(), world.take(INSIDE).len(), world.all_drops()), (2, 0, vec![(OuterOptions, 1)]));
    world.send(OUTSIDE, &sealed);
    assert_eq!((world.take(INSIDE).len(), world.all_drops()), (0, vec![(OuterOptions, 2)]));
}

/// The host judges for itself what stands before its own datagrams.
#[test]
fn fragments_of_the_hosts_datagrams_keep_their_headers() {
    let mut world = World::host(vec![tunnel(1, suite(SUITE))]);
    world.meet_neighbours();
    let packet = datagram(THERE, HERE, (9, 53), &[7; 1300]);
    let pieces = send_pieces(&mut world, &packet, [&[HOP_BY_HOP, UNKNOWN], &[UNKNOWN]], 7);
    assert_eq!((world.take(INSIDE), world.all_drops()), (pieces, vec![]));
}

#[test]
fn transport_mode_keeps_the_headers_before_esp() {
    for port in [None, Some(4500)] {
        let (mut world, mut terminal) = (gateway(transport), Terminal::new(1, suite(SUITE), THERE));
        terminal.port = port;
        let chain = [HOP_BY_HOP, DESTINATION];
        let up = datagram(THERE, HERE, (9, 10), b"up");
        let sealed = terminal.seal_as(&up[V6_HEADER..], protocol::UDP, 1);
        world.send(OUTSIDE, &extended(&sealed, &chain));
        assert_eq!(world.take(INSIDE), [extended(&up, &chain)], "{:?}", world.all_drops());
    }
    let (mut world, terminal) = (gateway(transport), Terminal::new(1, suite(SUITE), THERE));
    let down = datagram(HERE, THERE, (10, 9), b"down");
    world.send(INSIDE, &extended(&down, &[DESTINATION, ROUTING]));
    let out = world.take(OUTSIDE).remove(0);
    let (outer, _, payload, next) = terminal.open(&out);
    assert_eq!((next, &payload[..]), (protocol::UDP, &down[V6_HEADER..]));
    let head = outer.header_len();
    let mut expected = extended(&down, &[DESTINATION, ROUTING])[..head].to_vec();
    expected[V6_HEADER + 8] = protocol::ESP;
    ip::set_total_len(&mut expected, V6_HEADER, out.len());
    assert_eq!((head, &out[..head]), (V6_HEADER + 16, &expected[..]));
    assert_eq!(world.all_drops(), []);
}

#[test]
fn sender_of_a_packet_with_extension_headers_learns_what_fits() {
    let (mut world, terminal) = (gateway(transport), Terminal::new(1, suite(SUITE), THERE));
    let down =
        |length: usize| extended(&datagram(HERE, THERE, (1, 2), &vec![7; length - 56]), &[DESTINATION]);
    world.send(INSIDE, &down(1500));
    let answer = world.take(INSIDE).remove(0);
    assert_eq!((world.all_drops(), &answer[40..42]), (vec![(TooBig, 1)], &[2, 0][..]));
    let mtu = u32::from_be_bytes(*answer[44..].first_chunk().unwrap()) as usize;
    world.send(INSIDE, &down(mtu));
    let [packet] = &world.take(OUTSIDE)[..] else { panic!("{:?}", world.all_drops()) };
    assert!((1497..=1500).contains(&packet.len()), "{}", packet.len());
    assert_eq!(terminal.open(packet).2, down(mtu)[48..]);
    world.send(INSIDE, &down(mtu + 1));
    assert_eq!((world.take(OUTSIDE).len(), world.drops(TooBig)), (0, 2));
}

/// In transport mode the header is the host's own, and so is its DF bit.
#[test]
fn transport_mode_keeps_the_df_bit() {
    let [here, there] = ["203.0.113.1", "192.0.2.1"];
    for df in [true, false] {
        let mut world = gateway(|tunnel| {
            transport(tunnel);
            (tunnel.local, tunnel.remote) = (ip(here), Remote::At(ip(there), 4500));
            tunnel.selectors = vec![selector(here, there)];
        });
        let mut terminal = Terminal::new(1, suite(SUITE), there);
        let marked = |mut packet: Vec<u8>| {
            if !df {
                ip::allow_fragments(&mut packet, 20, 7);
            }
            packet
        };
        for port in [None, Some(4500)] {
            terminal.port = port;
            terminal.seq += 1;
            let up = marked(datagram(there, here, (9, 10), b"up"));
            let sealed = marked(terminal.seal_as(&up[20..], protocol::UDP, terminal.seq));
            world.send(OUTSIDE, &sealed);
            assert_eq!(world.take(INSIDE), [up], "{df} {:?}", world.all_drops());
        }
        let down = |length: usize| marked(datagram(here, there, (10, 9), &vec![7; length - 28]));
        world.send(INSIDE, &down(1000));
        let out = world.take(OUTSIDE).remove(0);
        let (outer, _, payload, _) = terminal.open(&out);
        assert_eq!((outer.dont_fragment, &payload[..]), (df, &down(1000)[20..]));
        assert_eq!((&out[4..6], IpHeader::parse(&out).unwrap().total_len()), (&down(1000)[4..6], out.len()));
        // One that does not fit is reported to the host, or cut behind ESP if it may be (RFC 4303 §3.3.4).
        world.send(INSIDE, &down(1500));
        let pieces = if df { 0 } else { 2 };
        assert_eq!(world.take(OUTSIDE).len(), pieces);
        assert_eq!(world.all_drops(), if df { vec![(TooBig, 1)] } else { vec![] });
        assert_eq!(world.take(INSIDE).first().map(|report| report[20..22] == [3, 4]), df.then_some(true));
    }
}

//! ESP to the gateway that comes in IP fragments and is longer than a frame.

use super::outer_fragments::fragmentable;
use std::time::Duration;
use wayfarer::{
    config::model::{Config, Policy, PolicyAction, Remote},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    crypto::Suite,
    drop::DropReason::{self, *},
    sa::{Mode, PortRange},
    wire::{
        checksum,
        ip::{self, IpHeader, protocol},
    },
};

const SUITE: &str = "aes128gcm16";

/// Makes a configuration with tunnels of two terminals, whose first ends at this address of the gateway.
fn settings(suite: Suite, v6: bool, port: Option<u16>) -> (Config, Terminal) {
    let address = if v6 { "2001:db8:2::1" } else { "192.0.2.1" };
    let mut terminal = Terminal::new(1, suite, address);
    terminal.port = port;
    let mut config = config(vec![tunnel(1, suite), tunnel(2, suite)]);
    for (n, tunnel) in (1..).zip(&mut config.tunnels) {
        tunnel.remote = Remote::At(ip(&format!("192.0.2.{n}")), 4500);
    }
    config.tunnels[0].local = terminal.gateway;
    config.tunnels[0].remote = Remote::At(terminal.address, 4500);
    (config, terminal)
}

fn gateway(suite: Suite, v6: bool, port: Option<u16>) -> (World, Terminal) {
    let (config, terminal) = settings(suite, v6, port);
    (started(World::with(config, 512)), terminal)
}

fn started(mut world: World) -> World {
    world.meet_neighbours();
    world
}

/// A packet of `length` bytes of the first terminal, with DF.
fn up(length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length - 28).map(|at| (at / 7) as u8).collect();
    datagram("10.98.0.1", "10.99.0.7", (1, 2), &payload)
}

/// Puts a packet on the wire outside in fragments.
fn put(world: &mut World, packet: &[u8], id: u16) {
    fragments(packet, 1500, id).iter().for_each(|piece| world.put(OUTSIDE, piece));
}

fn send(world: &mut World, packet: &[u8], id: u16) {
    put(world, packet, id);
    world.settle();
}

#[test]
fn inner_packets_of_every_length_are_forwarded() {
    for (v6, port) in [(false, None), (false, Some(1000)), (true, None), (true, Some(1000))] {
        let (mut world, mut terminal) = gateway(suite(SUITE), v6, port);
        let lengths = [1700, 1760, 1778, 1779, 2048, 3001, 9000, 65_300];
        for (id, length) in (1..).zip(lengths) {
            let inner = fragmentable(up(length));
            send(&mut world, &terminal.seal(&inner), id);
            let out = world.take(INSIDE);
            assert!(out.len() > 1 && out.iter().all(|piece| piece.len() <= 1500), "{length}");
            assert!(out.iter().all(|piece| piece[4..6] == inner[4..6]));
            let [whole] = &joined(out)[..] else { panic!("one packet") };
            assert!(whole[20..] == inner[20..], "{v6} {port:?} {length}");
            assert_eq!((whole[8], &whole[12..20]), (63, &inner[12..20]));
        }
        assert_eq!(world.all_drops(), []);
        assert_eq!(world.counters().opened.value(), lengths.len() as u64);
        assert_eq!(world.counters().opened_bytes.value(), lengths.iter().sum::<usize>() as u64);
    }
}

#[test]
fn every_suite_opens_long_packets() {
    for &suite in Suite::ALL {
        let (mut world, mut terminal) = gateway(suite, false, Some(1000));
        for (id, length) in (1..).zip([1900, 9000, 60_001]) {
            let inner = fragmentable(up(length));
            send(&mut world, &terminal.seal(&inner), id);
            let [whole] = &joined(world.take(INSIDE))[..] else { panic!("{suite} {:?}", world.all_drops()) };
            assert!(whole[20..] == inner[20..], "{suite} {length}");
        }
    }
}

/// Sends a packet that must not be cut, and returns the ICMP message that its sender gets through the
/// tunnel.
fn refused(world: &mut World, terminal: &mut Terminal, inner: &[u8]) -> Vec<u8> {
    let before = world.drops(TooBig);
    let sealed = terminal.seal(inner);
    send(world, &sealed, 1);
    assert_eq!((world.take(INSIDE).len(), world.drops(TooBig) - before), (0, 1), "{:?}", world.all_drops());
    let [answer] = &world.take(OUTSIDE)[..] else { panic!("one answer") };
    terminal.open(answer).2
}

#[test]
fn sender_of_a_packet_that_must_not_be_cut_learns_what_passes() {
    let (mut world, mut terminal) = gateway(suite(SUITE), false, None);
    for length in [1501, 1779, 9000, 60_000] {
        let answer = refused(&mut world, &mut terminal, &up(length));
        assert_eq!((&answer[20..22], &answer[26..28]), (&[3, 4][..], &1500u16.to_be_bytes()[..]), "{length}");
        // The quote is of the packet as it was.
        assert!(up(length).starts_with(&answer[28..]) && answer.len() == 576, "{length}");
        assert_eq!(checksum::of(&answer[20..]), 0);
    }
    let up6 = |length: usize| datagram("fd00:98::1", "fd00:99::7", (1, 2), &vec![7; length - 48]);
    for length in [1501, 1779, 9000, 60_000] {
        let answer = refused(&mut world, &mut terminal, &up6(length));
        assert_eq!((&answer[40..42], &answer[44..48]), (&[2, 0][..], &1500u32.to_be_bytes()[..]), "{length}");
        assert!(up6(length).starts_with(&answer[48..]) && answer.len() == 1280, "{length}");
    }
    for inner in [up(1500), up6(1500)] {
        send(&mut world, &terminal.seal(&inner), 9);
        assert_eq!(world.take(INSIDE), [forwarded(&inner)]);
    }
}

#[test]
fn every_length_passes_or_its_sender_learns_why() {
    let (mut world, mut terminal) = gateway(suite(SUITE), false, Some(1000));
    let up6 = |length: usize| datagram("fd00:98::1", "fd00:99::7", (1, 2), &vec![7; length - 48]);
    for (id, length) in (1..).zip((48..=9000).step_by(89).chain([1500, 1501, 1778, 1779, 9000])) {
        for inner in [up(length), fragmentable(up(length)), up6(length)] {
            // The gateway answers so many problems in a second.
            world.pass(Duration::from_millis(50));
            send(&mut world, &terminal.seal(&inner), id);
            let (got, answers) = (joined(world.take(INSIDE)), world.take(OUTSIDE));
            let is_cut = inner[0] >> 4 == 4 && inner[6] == 0;
            match length <= 1500 || is_cut {
                true => assert_eq!((got.len(), got[0].len(), answers.len()), (1, length, 0), "{length}"),
                false => assert_eq!((got.len(), answers.len()), (0, 1), "{length}"),
            }
        }
    }
}

#[test]
fn long_packets_are_checked_like_others() {
    let (mut world, mut terminal) = gateway(suite(SUITE), false, None);
    let inner = fragmentable(up(4000));
    let sealed = terminal.seal(&inner);
    let mut expected: Vec<DropReason> = vec![];
    let mut refuse = |world: &mut World, packet: &[u8], reason| {
        send(world, packet, 1);
        expected.push(reason);
        let counted: u64 = world.all_drops().iter().map(|(_, n)| n).sum();
        assert_eq!((world.take(INSIDE).len(), counted), (0, expected.len() as u64), "{reason:?}");
        assert!(world.drops(reason) > 0, "{reason:?}: {:?}", world.all_drops());
    };
    // A forgery does not use up its number.
    for at in [sealed.len() - 1, 2000] {
        let mut forged = sealed.clone();
        forged[at] ^= 1;
        refuse(&mut world, &forged, NotAuthentic);
    }
    send(&mut world, &sealed, 2);
    assert_eq!(joined(world.take(INSIDE)).len(), 1);
    refuse(&mut world, &sealed, ReplayDuplicate);
    // Nor does one that is refused come twice.
    let foreign = terminal.seal(&datagram("10.98.0.9", "10.99.0.7", (1, 2), &[7; 4000]));
    refuse(&mut world, &foreign, InnerSelector);
    refuse(&mut world, &foreign, ReplayDuplicate);
    let garbage = terminal.seal_as(&[0x45; 4000], 4, 50);
    refuse(&mut world, &garbage, InnerMalformed);
    let mut unknown = sealed.clone();
    unknown[20..24].copy_from_slice(&[9; 4]);
    refuse(&mut world, &unknown, UnknownSpi);
    refuse(&mut world, &terminal.wrap(&[0; 4000]), SpiReserved);
    // Longer than the room for one, in which others go on to be opened.
    let too_long = fragments(&terminal.wrap(&[9; 65_500]), 1500, 1);
    too_long.iter().for_each(|piece| world.put(OUTSIDE, piece));
    world.settle();
    assert_eq!(world.drops(ReassembledTooLong), too_long.len() as u64);
    send(&mut world, &terminal.seal_as(&inner, 4, 60), 3);
    assert_eq!(joined(world.take(INSIDE)).len(), 1);
}

#[test]
fn long_packet_goes_on_through_another_tunnel() {
    let (mut config, mut one) = settings(suite(SUITE), false, None);
    config.tunnels[0].selectors = vec![selector("10.98.0.2", "10.98.0.1")];
    config.tunnels[1].selectors = vec![selector("10.98.0.1", "10.98.0.2")];
    let mut world = started(World::with(config, 512));
    let two = Terminal::new(2, suite(SUITE), "192.0.2.2");
    let inner = |length| datagram("10.98.0.1", "10.98.0.2", (1, 2), &vec![7; length - 28]);
    for length in [1700, 5000] {
        send(&mut world, &one.seal(&fragmentable(inner(length))), 1);
        let out = world.take(OUTSIDE);
        assert!(out.iter().all(|packet| packet.len() <= 1500));
        let [whole] = &joined(out.iter().map(|packet| two.open(packet).2))[..] else { panic!("one packet") };
        assert!(whole[20..] == inner(length)[20..], "{:?}", world.all_drops());
    }
    assert_eq!(world.all_drops(), []);
    // Its sender gets by with what it is told.
    let mut length = 5000;
    let mut passed = vec![];
    for _ in 0..3 {
        send(&mut world, &one.seal(&inner(length)), 1);
        let out = world.take(OUTSIDE);
        match out.iter().find_map(|packet| one.try_open(packet)) {
            Some((_, _, answer, _)) => length = usize::from(u16::from_be_bytes([answer[26], answer[27]])),
            None => passed = out,
        }
    }
    assert_eq!(passed.iter().map(|packet| two.open(packet).2.len()).collect::<Vec<_>>(), [1446]);
}

#[test]
fn policy_and_hop_limit_come_before_the_length() {
    let (mut config, mut one) = settings(suite(SUITE), false, None);
    config.policies =
        vec![Policy { action: PolicyAction::Discard, selector: selector("10.98.0.0/24", "10.99.0.9") }];
    config.tunnels[0].selectors.push(selector("10.98.0.2", "10.98.0.1"));
    let mut with_ports = selector("10.98.0.1", "10.98.0.2");
    with_ports.protocol = Some(protocol::UDP);
    with_ports.remote_ports = PortRange { first: 2, last: 2 };
    config.tunnels[1].selectors = vec![with_ports];
    let mut world = started(World::with(config, 512));
    let two = Terminal::new(2, suite(SUITE), "192.0.2.2");
    let to = |dst: &str, length: usize, hops: u8, df: bool| {
        let mut packet = datagram("10.98.0.1", dst, (1, 2), &vec![7; length - 28]);
        packet[8] = hops;
        ip::set_total_len(&mut packet, 20, length);
        if df { packet } else { fragmentable(packet) }
    };
    let mut expected = [(HopLimit, 0), (Discard, 0), (TooBig, 0)];
    for (dst, hops, df, drop, kind) in [
        ("10.99.0.7", 1, true, 0, Some([11, 0])),
        ("10.99.0.7", 1, false, 0, Some([11, 0])),
        ("10.99.0.9", 64, true, 1, None),
        ("10.99.0.9", 64, false, 1, None),
        ("10.98.0.2", 1, false, 0, Some([11, 0])),
        ("10.98.0.2", 64, true, 2, Some([3, 4])),
    ] {
        send(&mut world, &one.seal(&to(dst, 5000, hops, df)), 1);
        expected[drop].1 += 1;
        for (reason, count) in expected {
            assert_eq!(world.drops(reason), count, "{dst} {hops} {df}: {:?}", world.all_drops());
        }
        let answers: Vec<_> = world.take(OUTSIDE).iter().map(|packet| one.open(packet).2).collect();
        assert_eq!(answers.len(), usize::from(kind.is_some()), "{dst} {hops} {df}");
        assert!(answers.iter().all(|answer| Some(&answer[20..22]) == kind.as_ref().map(|kind| &kind[..])));
        if df && kind == Some([3, 4]) {
            assert_eq!(answers[0][26..28], 1446u16.to_be_bytes());
        }
        assert_eq!(world.take(INSIDE).len(), 0);
    }
    // One that may be cut goes whole all the same, and is cut outside: its pieces would not show their
    // ports.
    for length in [1778, 1779, 5000, 65_200] {
        send(&mut world, &one.seal(&to("10.98.0.2", length, 64, false)), 1);
        let [whole] = &joined(world.take(OUTSIDE))[..] else { panic!("{:?}", world.all_drops()) };
        assert!(two.open(whole).2 == forwarded(&to("10.98.0.2", length, 64, false)), "{length}");
    }
}

#[test]
fn long_packet_overtakes_nothing() {
    let (mut world, mut terminal) = gateway(suite(SUITE), false, None);
    for (id, length) in [(1, 100), (2, 4000), (3, 200), (4, 5000), (5, 300)] {
        put(&mut world, &terminal.seal(&fragmentable(up(length))), id);
    }
    world.settle();
    let lengths: Vec<_> = joined(world.take(INSIDE)).iter().map(Vec::len).collect();
    assert_eq!(lengths, [100, 4000, 200, 5000, 300], "{:?}", world.all_drops());
}

#[test]
fn long_packet_to_the_host_is_cut_for_it_whatever_its_header_says() {
    let (mut config, mut terminal) = settings(suite(SUITE), false, None);
    config.tunnels[0].selectors =
        vec![selector("203.0.113.1", "10.98.0.1"), selector("2001:db8:1::1", "fd00:98::1")];
    let mut world = started(World::host(config.tunnels));
    let payload = vec![7; 4000];
    for inner in [
        datagram("10.98.0.1", "203.0.113.1", (1, 53), &payload),
        fragmentable(datagram("10.98.0.1", "203.0.113.1", (1, 53), &payload)),
        datagram("fd00:98::1", "2001:db8:1::1", (1, 53), &payload),
    ] {
        send(&mut world, &terminal.seal(&inner), 1);
        let out = world.take(INSIDE);
        assert!(out.len() > 1 && out.iter().all(|piece| piece.len() <= 1500), "{:?}", world.all_drops());
        let [whole] = &joined(out)[..] else { panic!("one packet") };
        // IPv4 pieces have an identification, and no DF bit.
        let same = if inner[0] >> 4 == 4 { 12 } else { 0 };
        assert!(whole[same..] == inner[same..] && whole[8] == inner[8]);
    }
    assert_eq!(world.all_drops(), []);
}

#[test]
fn long_packets_of_transport_mode_reach_the_host() {
    for [here, there] in [["203.0.113.1", "192.0.2.1"], ["2001:db8:1::1", "2001:db8:2::1"]] {
        let mut transport = tunnel(1, suite(SUITE));
        transport.mode = Mode::Transport;
        (transport.local, transport.remote) = (ip(here), Remote::At(ip(there), 4500));
        transport.selectors = vec![selector(here, there)];
        let mut world = started(World::host(vec![transport]));
        let terminal = Terminal::new(1, suite(SUITE), there);
        // The first ones fit a frame, but are longer than the MTU of the host's device.
        for (number, length) in (1..).zip([1500, 1600, 1700, 4000, 60_000]) {
            let inner = datagram(there, here, (1, 53), &vec![7; length]);
            let head = IpHeader::parse(&inner).unwrap().header_len();
            send(&mut world, &terminal.seal_as(&inner[head..], protocol::UDP, number), 1);
            let [whole] = &joined(world.take(INSIDE))[..] else { panic!("{:?}", world.all_drops()) };
            assert_eq!(IpHeader::parse(whole).unwrap().protocol, protocol::UDP);
            assert!(whole[head..] == inner[head..], "{here} {length}");
        }
        assert_eq!(world.all_drops(), []);
    }
}

#[test]
fn long_packet_without_frames_for_its_pieces_is_counted_and_leaves_none_behind() {
    let (mut config, mut terminal) = settings(suite(SUITE), false, None);
    config.gateway.frames = 8;
    let mut world = started(World::with(config, 512));
    let inner = fragmentable(up(3400));
    let mut put = |world: &mut World, id| {
        let pieces = fragments(&terminal.seal(&inner), 1776, id);
        assert_eq!(pieces.len(), 2);
        pieces.iter().for_each(|piece| world.put(OUTSIDE, piece));
    };
    for round in 1..20 {
        (0..3).for_each(|n| put(&mut world, 3 * round + n));
        world.settle();
        let lost = world.drops(NoBuffer);
        assert!(lost > 0 && world.all_drops() == [(NoBuffer, lost)], "{:?}", world.all_drops());
        world.take(INSIDE);
    }
    put(&mut world, 99);
    world.settle();
    assert_eq!(joined(world.take(INSIDE)).len(), 1);
}

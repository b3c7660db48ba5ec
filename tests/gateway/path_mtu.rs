//! The MTU of the path outside, as routers report it (RFC 4301 §8.2), and what forged reports change.

use std::{net::IpAddr, time::Duration};
use wayfarer::{
    config::model::{Encapsulation, Remote, Tunnel},
    control::protocol::{Command, Outcome, Reply, SaView, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::*,
    sa::Mode,
    wire::{
        checksum,
        ip::{self, protocol},
    },
};

/// The longest inner packet that AES-GCM carries in outer packets of 1500 bytes without UDP, over
/// IPv4 and IPv6.
const FULL: [usize; 2] = [1446, 1426];

fn world(change: impl Fn(&mut Tunnel)) -> World {
    let mut tunnels = vec![tunnel(1, suite("aes128gcm16")), tunnel(2, suite("aes128gcm16"))];
    for (n, tunnel) in (1..).zip(&mut tunnels) {
        tunnel.remote = Remote::At(ip(&format!("192.0.2.{n}")), 4500);
        change(tunnel);
    }
    World::new(tunnels)
}

pub(crate) fn over_ipv6(tunnel: &mut Tunnel) {
    tunnel.local = ip("2001:db8:1::1");
    tunnel.remote = Remote::At(ip("2001:db8:2::1"), 4500);
}

pub(crate) fn in_udp(tunnel: &mut Tunnel) {
    tunnel.encap = Encapsulation::Udp(4500);
}

/// A packet of `length` bytes to terminal `n` that must not be fragmented.
fn down(n: u32, length: usize) -> Vec<u8> {
    datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), &vec![7; length - 28])
}

/// Sends a packet to terminal `n` and returns the outer packet, or the MTU that its sender is told.
fn send(world: &mut World, n: u32, length: usize) -> Result<Vec<u8>, u16> {
    world.send(INSIDE, &down(n, length));
    match (world.take(OUTSIDE).pop(), world.take(INSIDE).pop()) {
        (Some(outer), None) => Ok(outer),
        (None, Some(answer)) => Err(u16::from_be_bytes([answer[26], answer[27]])),
        other => panic!("{other:?} {:?}", world.all_drops()),
    }
}

/// A router's report that `packet` is longer than `mtu`, with `quoted` bytes of it behind the IP
/// header.
pub(crate) fn report(packet: &[u8], mtu: u32, quoted: usize) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let (to, ip_len) = match v4 {
        true => (IpAddr::from(*packet[12..].first_chunk::<4>().unwrap()), 20),
        false => (IpAddr::from(*packet[8..].first_chunk::<16>().unwrap()), 40),
    };
    let from = ip(if v4 { "198.51.100.1" } else { "2001:db8:9::1" });
    let quote = &packet[..ip_len + quoted];
    let kind = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let mut out = vec![0; 48 + quote.len()];
    let at = ip::emit(&mut out, from, to, kind, 8 + quote.len());
    out.truncate(at + 8 + quote.len());
    out[at..at + 2].copy_from_slice(if v4 { &[3, 4] } else { &[2, 0] });
    out[at + 4..at + 8].copy_from_slice(&mtu.to_be_bytes());
    out[at + 8..].copy_from_slice(quote);
    let pseudo = if v4 { 0 } else { checksum::pseudo_header(from, to, kind, out.len() - at) };
    let sum = checksum::finish(checksum::add(pseudo, &out[at..]));
    out[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    out
}

fn sa(world: &mut World) -> SaView {
    match world.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(mut all)) => all.remove(0),
        other => panic!("{other:?}"),
    }
}

fn shown(world: &mut World) -> Option<u16> {
    sa(world).path_mtu
}

#[test]
fn inner_senders_hear_of_a_smaller_mtu_outside() {
    type Kind = (fn(&mut Tunnel), usize, usize);
    let kinds: [Kind; 3] = [(|_| {}, 54, FULL[0]), (over_ipv6, 74, FULL[1]), (in_udp, 62, FULL[0] - 8)];
    for (change, room, full) in kinds {
        let mut world = world(change);
        let outer = send(&mut world, 1, 1430 - room).unwrap();
        world.send(OUTSIDE, &report(&outer, 1400, 16));
        assert_eq!((shown(&mut world), world.all_drops()), (Some(1400), vec![]), "room {room}");
        assert_eq!(sa(&mut world).path_mtu_source.as_deref(), Some("router"));
        let told = send(&mut world, 1, 1430 - room).unwrap_err();
        let fits = send(&mut world, 1, told.into()).unwrap();
        assert!((1397..=1400).contains(&fits.len()), "{told} makes {}", fits.len());
        // A longer one is not believed, a shorter one is.
        world.send(OUTSIDE, &report(&fits, 1450, 16));
        assert_eq!((shown(&mut world), world.slow_drops(PathMtu)), (Some(1400), 1));
        world.send(OUTSIDE, &report(&fits, 1300, 16));
        assert_eq!(shown(&mut world), Some(1300));
        // Each is forgotten ten minutes after it came.
        world.now += Duration::from_secs(599);
        world.settle();
        assert_eq!(shown(&mut world), Some(1300));
        world.now += Duration::from_secs(1);
        world.settle();
        assert_eq!((shown(&mut world), sa(&mut world).path_mtu_source), (None, None));
        assert!(send(&mut world, 1, full).is_ok());
    }
}

#[test]
fn router_that_names_no_mtu_has_the_next_plateau() {
    let mut world = world(|_| {});
    let outer = send(&mut world, 1, FULL[0]).unwrap();
    world.send(OUTSIDE, &report(&outer, 0, 8));
    assert_eq!(shown(&mut world), Some(1492));
    // No more than what every host takes is given up (RFC 791 §3.1).
    world.send(OUTSIDE, &report(&outer, 68, 8));
    assert_eq!(shown(&mut world), Some(576));
}

#[test]
fn smaller_mtu_ends_with_its_path() {
    let mut world = world(|_| {});
    let outer = send(&mut world, 1, FULL[0]).unwrap();
    world.send(OUTSIDE, &report(&outer, 1300, 8));
    assert!(send(&mut world, 1, FULL[0]).is_err());
    assert!(send(&mut world, 2, FULL[0]).is_ok(), "another link has its own path");
    let moved = Command::SaMove { tunnel: "t1".into(), remote: ip("192.0.2.77"), port: None };
    assert!(matches!(world.ask(moved).outcome, Outcome::Result(Reply::Done)));
    assert!(send(&mut world, 1, FULL[0]).is_ok());
    // What is said of the path before is too late.
    world.send(OUTSIDE, &report(&outer, 1300, 8));
    assert_eq!((shown(&mut world), world.slow_drops(PathMtu)), (None, 1));
}

#[test]
fn reports_of_packets_that_were_not_sent_lately_change_nothing() {
    let mut world = world(|tunnel| {
        if tunnel.name == "t2" {
            in_udp(tunnel);
        }
    });
    let mut outer = send(&mut world, 1, FULL[0]).unwrap();
    for _ in 0..3 {
        outer = send(&mut world, 1, FULL[0]).unwrap();
    }
    let udp = send(&mut world, 2, FULL[0] - 8).unwrap();
    let changed = |packet: &[u8], at: usize, value: u8| {
        let mut packet = packet.to_vec();
        packet[at] ^= value;
        packet
    };
    let mut forged = vec![
        report(&changed(&outer, 23, 1), 1300, 8),
        report(&changed(&outer, 27, 0x10), 1300, 8),
        report(&changed(&outer, 24, 0x80), 1300, 8),
        report(&changed(&outer, 27, 4), 1300, 8),
        report(&changed(&outer, 19, 3), 1300, 8),
        report(&changed(&udp, 23, 1), 1300, 16),
        report(&udp, 1300, 8),
        report(&outer, 1500, 8),
        report(&outer, 65535, 8),
    ];
    // Only the message's checksum is wrong.
    forged.push(changed(&report(&outer, 1300, 8), 27, 1));
    let mtus = [0, 68, 576, 65535].into_iter();
    forged.extend(mtus.map(|mtu| report(&changed(&outer, 23, 1), mtu, 8)));
    let count = forged.len() as u64;
    for forged in forged {
        world.send(OUTSIDE, &forged);
    }
    assert_eq!(world.slow_drops(PathMtu), count);
    assert_eq!(world.all_drops(), []);
    assert!(send(&mut world, 1, FULL[0]).is_ok() && send(&mut world, 2, FULL[0] - 8).is_ok());
    world.send(OUTSIDE, &report(&outer, 1300, 8));
    assert!(send(&mut world, 1, FULL[0]).is_err(), "the same packet as it was sent");
}

#[test]
fn host_hears_of_a_smaller_mtu_in_transport_mode() {
    let mut transport = tunnel(1, suite("aes128gcm16"));
    transport.mode = Mode::Transport;
    transport.remote = Remote::At(ip("192.0.2.1"), 0);
    transport.selectors = vec![selector("203.0.113.1", "192.0.2.1")];
    let mut world = World::host(vec![transport]);
    let big = datagram("203.0.113.1", "192.0.2.1", (1, 2), &[0; 1400]);
    world.send(INSIDE, &big);
    let outer = world.take(OUTSIDE).pop().unwrap();
    world.send(OUTSIDE, &report(&outer, 1400, 8));
    world.send(INSIDE, &big);
    let answers = world.take(INSIDE);
    assert_eq!((answers.len(), world.drops(TooBig)), (1, 1));
    let told = usize::from(u16::from_be_bytes([answers[0][26], answers[0][27]]));
    world.send(INSIDE, &datagram("203.0.113.1", "192.0.2.1", (1, 2), &vec![0; told - 28]));
    assert!(world.take(OUTSIDE).pop().unwrap().len() <= 1400);
}

#[test]
fn storm_of_reports_is_bounded_and_disturbs_no_traffic() {
    let mut world = world(|tunnel| {
        if tunnel.name == "t2" {
            over_ipv6(tunnel);
        }
    });
    world.meet_neighbours();
    let mut terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    let outer = [send(&mut world, 1, FULL[0]).unwrap(), send(&mut world, 2, FULL[1]).unwrap()];
    let mut forged = outer[0].clone();
    forged[20] ^= 1;
    let before = world.counters().punted.value();
    let rounds = 100;
    for round in 0..rounds {
        for mtu in [0, 68, 1279, 65535] {
            for packet in [&outer[0], &forged, &outer[1]] {
                world.put(OUTSIDE, &report(packet, mtu, 8));
            }
        }
        world.put(OUTSIDE, &terminal.seal(&up));
        world.put(INSIDE, &down(1, 500));
        if round % 10 == 0 {
            world.settle();
            assert_eq!(
                (world.take(INSIDE).len(), world.take(OUTSIDE).len()),
                if round == 0 { (1, 1) } else { (10, 10) }
            );
        }
    }
    world.settle();
    assert_eq!((world.take(INSIDE).len(), world.take(OUTSIDE).len()), (9, 9));
    // Every report was looked at or counted. Two of them lowered the MTU of the first link.
    let (full, punted) = (world.drops(PuntRingFull), world.counters().punted.value() - before);
    assert_eq!(full + punted, 12 * rounds);
    assert!((punted - 2..=punted).contains(&world.slow_drops(PathMtu)), "{punted}");
    assert_eq!(shown(&mut world), Some(576));
    assert!(send(&mut world, 2, FULL[1]).is_ok(), "IPv6 has no MTU below 1280");
}

//! Terminals that move, and packets that do not make the gateway follow.

use std::time::Duration;
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer::{
    config::model::{Remote, Roam},
    control::protocol::{Command, Outcome, Reply, SaView, View},
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::ip::{IpHeader, protocol},
};

const SUITE: &str = "aes128gcm16";

fn world(change: impl Fn(&mut wayfarer::config::model::Tunnel)) -> (World, [Terminal; 2]) {
    let mut tunnels = vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))];
    tunnels.iter_mut().for_each(change);
    let terminals =
        [Terminal::new(1, suite(SUITE), "192.0.2.1"), Terminal::new(2, suite(SUITE), "192.0.2.2")];
    (World::new(tunnels), terminals)
}

fn up(n: u32) -> Vec<u8> {
    datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), b"up")
}

/// Sends a packet to terminal `n`, and returns the address that the gateway sends it to, with the
/// port if it uses UDP.
fn goes_to(world: &mut World, n: u32) -> (String, Option<u16>) {
    world.send(INSIDE, &datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), b"down"));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    let header = IpHeader::parse(&out[0]).unwrap();
    let port = (header.protocol == protocol::UDP).then(|| u16::from_be_bytes([out[0][22], out[0][23]]));
    (header.dst.to_string(), port)
}

fn views(world: &mut World) -> Vec<SaView> {
    match world.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn traffic_follows_address_port_and_encapsulation() {
    let (mut world, [mut one, mut two]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    world.send(OUTSIDE, &two.seal(&up(2)));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), None));
    for (address, port) in [
        ("192.0.2.77", None),
        ("198.51.100.9", Some(1234)),
        ("198.51.100.9", Some(4321)),
        ("192.0.2.1", None),
    ] {
        (one.address, one.port) = (ip(address), port);
        world.send(OUTSIDE, &one.seal(&up(1)));
        assert_eq!(goes_to(&mut world, 1), (address.to_owned(), port));
        // The other terminal stays where it is.
        assert_eq!(goes_to(&mut world, 2), ("192.0.2.2".into(), None));
    }
    let all = views(&mut world);
    assert_eq!((all[0].moves, all[1].moves), (4, 0));
    assert_eq!(all[0].state, "up");
}

#[test]
fn sends_nothing_before_the_peers_address_is_known() {
    let (mut world, [mut one, _]) = world(|t| t.roam = Roam::Ignore);
    world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
    assert_eq!(world.all_drops(), [(DropReason::NoEndpoint, 1)]);
    assert_eq!(views(&mut world)[0].state, "waiting");
    // The first address is taken under every roaming policy.
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), None));
    one.address = ip("192.0.2.99");
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), None));
}

#[test]
fn first_path_that_cannot_be_used_is_not_the_known_one() {
    let (mut world, [mut one, _]) = world(|t| t.roam = Roam::Ignore);
    // Nobody can answer to UDP port 0.
    one.port = Some(0);
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(views(&mut world)[0].state, "waiting");
    one.port = Some(700);
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), Some(700)));
}

#[test]
fn only_an_authentic_newest_packet_moves_a_link() {
    let (mut world, [mut one, _]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    let (first, second) = (one.seal(&up(1)), one.seal(&up(1)));
    world.send(OUTSIDE, &second);
    let elsewhere = |packet: &[u8]| {
        let mut copy = packet.to_vec();
        copy[12..16].copy_from_slice(&[198, 51, 100, 66]);
        wayfarer_dataplane::wire::ip::set_total_len(&mut copy, 20, packet.len());
        copy
    };
    // An older packet, delayed and sent from elsewhere, is authentic and in the window, but not the
    // newest.
    world.send(OUTSIDE, &elsewhere(&first));
    assert_eq!(world.take(INSIDE).len(), 3);
    assert_eq!(goes_to(&mut world, 1).0, "192.0.2.1");
    // A copy of the newest packet is a replay.
    world.send(OUTSIDE, &elsewhere(&second));
    assert_eq!(goes_to(&mut world, 1).0, "192.0.2.1");
    // A forged packet with a higher number does not authenticate.
    let mut forged = elsewhere(&one.seal(&up(1)));
    let last = forged.len() - 1;
    forged[last] ^= 0x80;
    world.send(OUTSIDE, &forged);
    assert_eq!(goes_to(&mut world, 1).0, "192.0.2.1");
    assert_eq!(world.all_drops(), [(DropReason::ReplayDuplicate, 1), (DropReason::NotAuthentic, 1)]);
}

#[test]
fn policy_notify_reports_the_new_path_and_stays() {
    let (mut world, [mut one, _]) = world(|t| {
        t.roam = Roam::Notify;
        t.remote = Remote::At(ip("192.0.2.1"), 0);
    });
    one.address = ip("198.51.100.9");
    one.port = Some(700);
    (0..3).for_each(|_| world.send(OUTSIDE, &one.seal(&up(1))));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), None));
    assert_eq!(views(&mut world)[0].seen.as_deref(), Some("198.51.100.9:700"));
}

#[test]
fn pinned_tunnel_drops_packets_from_elsewhere() {
    let (mut world, [mut one, _]) = world(|t| {
        t.pin_source = true;
        t.remote = Remote::At(ip("192.0.2.1"), 0);
    });
    let good = one.seal(&up(1));
    one.address = ip("192.0.2.9");
    world.put(OUTSIDE, &one.seal(&up(1)));
    world.put(OUTSIDE, &good);
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 1);
    assert_eq!(world.all_drops(), [(DropReason::PinnedSource, 1)]);
}

#[test]
fn flapping_is_damped_and_the_last_source_wins() {
    let (mut world, [mut one, _]) = world(|_| {});
    for i in 0..200u8 {
        one.address = ip(if i % 2 == 0 { "192.0.2.10" } else { "192.0.2.11" });
        world.send(OUTSIDE, &one.seal(&up(1)));
    }
    let moves = views(&mut world)[0].moves;
    assert!((1..=8).contains(&moves), "{moves} moves");
    // The terminal stops moving. The gateway follows within the damping time, and no packet from
    // the terminal is lost meanwhile.
    one.address = ip("192.0.2.12");
    world.send(OUTSIDE, &one.seal(&up(1)));
    world.pass(Duration::from_secs(1));
    assert_eq!(goes_to(&mut world, 1).0, "192.0.2.12");
    assert_eq!(world.take(INSIDE).len(), 201);
}

#[test]
fn damped_move_that_the_peer_reverses_is_not_made() {
    let (mut world, [mut one, _]) = world(|_| {});
    for i in 0..20u8 {
        one.address = ip(if i % 2 == 0 { "192.0.2.10" } else { "192.0.2.11" });
        world.send(OUTSIDE, &one.seal(&up(1)));
    }
    // The token bucket is empty. The peer goes back for good to the address that the gateway sends
    // to now.
    let (settled, _) = goes_to(&mut world, 1);
    one.address = ip(&settled);
    world.send(OUTSIDE, &one.seal(&up(1)));
    world.pass(Duration::from_secs(2));
    assert_eq!(goes_to(&mut world, 1).0, settled);
}

/// Checks that the gateway follows a peer again to a path that it gave up as unconfirmed.
#[test]
fn path_that_was_given_up_is_followed_again() {
    let (mut world, [mut one, _]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    one.address = ip("198.51.100.9");
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(goes_to(&mut world, 1).0, "198.51.100.9");
    let now = world.now;
    world.assembly.slow_path.move_by_hand(now, "t1", ip("192.0.2.1"), None).unwrap();
    assert_eq!(goes_to(&mut world, 1).0, "192.0.2.1");
    world.send(OUTSIDE, &one.seal(&up(1)));
    assert_eq!(goes_to(&mut world, 1).0, "198.51.100.9");
}

#[test]
fn flapping_peer_does_not_hide_moves_of_others() {
    let (mut world, [mut one, mut two]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    world.send(OUTSIDE, &two.seal(&up(2)));
    // While the slow path is not running, more packets than the ring of events holds come, each
    // from another port.
    for n in 0..6000u16 {
        one.port = Some(1000 + n);
        world.put(OUTSIDE, &one.seal(&up(1)));
        let (worker, _) = &mut world.assembly.workers[0];
        while worker.turn() {}
        while world.wires[INSIDE].receive(|_| ()).is_some() {}
    }
    assert_eq!(world.assembly.handles[0].rings.events.len(), 8);
    two.address = ip("198.51.100.2");
    world.send(OUTSIDE, &two.seal(&up(2)));
    assert_eq!(goes_to(&mut world, 2), ("198.51.100.2".into(), None));
    world.send(OUTSIDE, &one.seal(&up(1)));
    // The first terminal has moved too often at once, so the gateway follows it a little later.
    world.pass(Duration::from_secs(1));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.1".into(), Some(6999)));
}

#[test]
fn move_by_hand_changes_the_path() {
    let (mut world, [mut one, _]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    let to = |tunnel: &str, remote: &str, port| Command::SaMove {
        tunnel: tunnel.into(),
        remote: ip(remote),
        port,
    };
    assert_eq!(world.ask(to("t1", "192.0.2.50", Some(4500))).outcome, Outcome::Result(Reply::Done));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.50".into(), Some(4500)));
    assert_eq!(world.ask(to("t1", "192.0.2.51", None)).outcome, Outcome::Result(Reply::Done));
    assert_eq!(goes_to(&mut world, 1), ("192.0.2.51".into(), Some(4500)));
    for (tunnel, remote, why) in [("t9", "192.0.2.1", "no tunnel"), ("t1", "2001:db8::1", "families")] {
        let Outcome::Error(text) = world.ask(to(tunnel, remote, None)).outcome else { panic!() };
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn follows_no_move_to_an_impossible_address() {
    let (mut world, [mut one, _]) = world(|_| {});
    world.send(OUTSIDE, &one.seal(&up(1)));
    for nowhere in ["224.0.0.5", "255.255.255.255", "0.0.0.0", "127.0.0.1", "203.0.113.1", "10.99.0.1"] {
        one.address = ip(nowhere);
        world.send(OUTSIDE, &one.seal(&up(1)));
        assert_eq!(goes_to(&mut world, 1).0, "192.0.2.1", "{nowhere}");
    }
}

#[test]
fn sends_keepalives_by_timer_and_drops_received_ones() {
    let (mut world, [mut one, _]) = world(|t| t.keepalive = Some(Duration::from_secs(20)));
    one.port = Some(1234);
    world.send(OUTSIDE, &one.seal(&up(1)));
    world.pass(Duration::from_secs(45));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 2);
    for packet in out {
        assert_eq!((&packet[20..24], &packet[28..]), (&[0x11, 0x94, 0x04, 0xd2][..], &[0xff][..]));
    }
    world.send(OUTSIDE, &one.wrap(&[0xff]));
    assert_eq!(world.all_drops(), [(DropReason::Keepalive, 1)]);
}

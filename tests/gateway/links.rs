//! A link of several tunnels: they move together, and share one limit for moves.

use std::{cell::Cell, time::Duration};
use wayfarer::control::protocol::{Command, Outcome, Reply, SaView, View};
use wayfarer::sim::{
    fixtures::{INSIDE, OUTSIDE, config, ip},
    frames::datagram,
    ike::{configured::for_terminals, peer::Peer, side::Message},
    terminal::Terminal,
    world::World,
};
use wayfarer_dataplane::{crypto::Backend, drop::DropReason, wire::ip::IpHeader};

/// The host inside that each tunnel leads to.
const INSIDE_HOSTS: [&str; 2] = ["10.99.0.7", "10.99.0.207"];

/// Makes a gateway and a terminal that has connected to it, with a link of two tunnels. The gateway
/// follows moves as `roam` says.
fn connected(roam: &str) -> (World, [Terminal; 2]) {
    let (world, tunnels, _) = connected_with(roam, "");
    (world, tunnels)
}

/// Does the same with these `lifetimes`, and also returns the terminal's side of IKE.
pub(super) fn connected_with(roam: &str, lifetimes: &str) -> (World, [Terminal; 2], Peer) {
    connected_for(["10.98.1.0/24", "10.98.2.0/24"], ["10.99.0.0/25", "10.99.0.128/25"], roam, lifetimes)
}

/// Does the same with a tunnel between each of these prefixes `there` and `here`.
fn connected_for(
    there: [&str; 2],
    here: [&str; 2],
    roam: &str,
    lifetimes: &str,
) -> (World, [Terminal; 2], Peer) {
    let two = |local: [&str; 2], remote: [&str; 2]| {
        let child =
            |n: usize| format!("inner_local = [\"{}\"]\ninner_remote = [\"{}\"]", local[n], remote[n]);
        format!("{}\n{lifetimes}\n[[connection.child]]\nname = \"second\"\n{}", child(0), child(1))
    };
    let mut config = config(vec![]);
    let keys = format!("esp = [\"aes256gcm16\"]\nroam = \"{roam}\"\n{}", two(here, ["10.98.0.0/16"; 2]));
    config.ike = for_terminals("10.97.0.0/24", &keys);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let text = format!(
        r#"
[[connection]]
name = "office"
local = "192.0.2.1"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
{}
"#,
        two(there, here)
    );
    let mut peer = Peer::new(&text, "192.0.2.1");
    peer.connect(&mut world);
    peer.until(&mut world, |peer| peer.side.children().len() == 2);
    let children = peer.side.children();
    let tunnels = [0, 1].map(|n| Terminal::negotiated(children[n], Backend::Portable));
    (world, tunnels, peer)
}

/// Returns a packet to the inside by tunnel `n` of the link.
fn up(n: usize) -> Vec<u8> {
    datagram(&format!("10.98.{}.7", n + 1), INSIDE_HOSTS[n], (1, 2), b"up")
}

/// Has the terminal send by tunnel `n` from `address`.
pub(super) fn send_from(world: &mut World, tunnels: &mut [Terminal; 2], n: usize, address: &str) {
    tunnels[n].address = ip(address);
    let sealed = tunnels[n].seal(&up(n));
    world.send(OUTSIDE, &sealed);
    assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
}

fn views(world: &mut World) -> Vec<SaView> {
    match world.ask(Command::Show { what: View::Sa }).outcome {
        Outcome::Result(Reply::Sa(all)) => all,
        other => panic!("{other:?}"),
    }
}

/// Returns the addresses to which the gateway sends traffic of each tunnel.
fn destinations(world: &mut World) -> [String; 2] {
    world.take(OUTSIDE);
    [0, 1].map(|n| {
        let down = datagram(INSIDE_HOSTS[n], &format!("10.98.{}.7", n + 1), (2, 1), b"down");
        world.send(INSIDE, &down);
        let out = world.take(OUTSIDE);
        assert_eq!(out.len(), 1, "{:?}", world.all_drops());
        IpHeader::parse(&out[0]).unwrap().dst.to_string()
    })
}

#[test]
fn one_packet_from_elsewhere_moves_all_tunnels() {
    let (mut world, mut tunnels) = connected("follow");
    assert_eq!(destinations(&mut world), ["192.0.2.1"; 2]);
    send_from(&mut world, &mut tunnels, 1, "192.0.2.77");
    assert_eq!(destinations(&mut world), ["192.0.2.77"; 2]);
    // The other tunnel shows the same move, which is no further one.
    send_from(&mut world, &mut tunnels, 0, "192.0.2.77");
    assert_eq!(views(&mut world).iter().map(|tunnel| tunnel.moves).collect::<Vec<_>>(), [1, 1]);
}

/// A peer may make a child SA anew, because it has lost the one that it had.
#[test]
fn newest_of_two_tunnels_for_the_same_traffic_carries_it() {
    let (mut world, mut tunnels, _) = connected_for(["10.98.1.0/24"; 2], ["10.99.0.0/25"; 2], "follow", "");
    for tunnel in &mut tunnels {
        let sealed = tunnel.seal(&up(0));
        world.send(OUTSIDE, &sealed);
        assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
    }
    world.take(OUTSIDE);
    world.send(INSIDE, &datagram(INSIDE_HOSTS[0], "10.98.1.7", (2, 1), b"down"));
    let out = world.take(OUTSIDE);
    assert!(tunnels[0].try_open(&out[0]).is_none());
    assert!(tunnels[1].try_open(&out[0]).is_some());
}

/// Returns whether the gateway sends in UDP by each tunnel.
fn uses_udp(world: &mut World) -> Vec<bool> {
    views(world).iter().map(|tunnel| tunnel.encap.as_deref() == Some("udp")).collect()
}

#[test]
fn encapsulation_follows_the_terminals_packets() {
    let (mut world, mut tunnels) = connected("follow");
    for port in [Some(4500), None, Some(4500)] {
        tunnels[0].port = port;
        send_from(&mut world, &mut tunnels, 0, "192.0.2.1");
        assert_eq!(uses_udp(&mut world), [port.is_some(); 2]);
        assert_eq!(destinations(&mut world), ["192.0.2.1"; 2]);
    }
}

/// For a second after a terminal has announced a move, packets from its old address move nothing
/// back: they may be late. One that comes later does, although the path has been reported before.
#[test]
fn path_that_was_refused_is_reported_again_if_the_terminal_is_still_there() {
    let (mut world, mut tunnels, mut peer) = connected_with("follow", "");
    let here = peer.side.connected_peers()[0];
    peer.side.endpoint.handle_local(world.now, here, ip("192.0.2.77"), None).unwrap();
    settle(&mut world, &mut peer);
    assert_eq!(destinations(&mut world), ["192.0.2.77"; 2]);
    send_from(&mut world, &mut tunnels, 0, "192.0.2.1");
    assert_eq!(destinations(&mut world), ["192.0.2.77"; 2]);
    world.pass(Duration::from_millis(1100));
    send_from(&mut world, &mut tunnels, 0, "192.0.2.1");
    assert_eq!(destinations(&mut world), ["192.0.2.1"; 2]);
}

/// A path that is never followed costs the slow path one report a second.
#[test]
fn refused_path_is_reported_once_a_second() {
    let (mut world, [mut tunnel, _]) = connected("follow");
    // Nobody can be reached at UDP port 0.
    tunnel.port = Some(0);
    let mut reports = 0;
    for _ in 0..100 {
        let sealed = tunnel.seal(&up(0));
        world.put(OUTSIDE, &sealed);
        let (worker, _) = &mut world.assembly.workers[0];
        while worker.turn() {}
        reports += world.assembly.handles[0].rings.events.len();
        world.pass(Duration::from_millis(100));
    }
    assert!((9..=11).contains(&reports), "{reports} reports in ten seconds");
}

#[test]
fn links_of_ike_are_not_moved_by_hand() {
    let (mut world, _) = connected("follow");
    let tunnel = views(&mut world)[0].tunnel.clone();
    let answer = world.ask(Command::SaMove { tunnel, remote: ip("192.0.2.99"), port: None });
    assert!(matches!(answer.outcome, Outcome::Error(_)), "{answer:?}");
    assert_eq!(destinations(&mut world), ["192.0.2.1"; 2]);
}

#[test]
fn tunnels_share_the_limit_for_moves() {
    let (mut world, mut tunnels) = connected("notify");
    let seen = |world: &mut World| {
        let seen = |tunnel: SaView| tunnel.seen.map(|seen| seen.split(':').next().unwrap().to_owned());
        views(world).into_iter().map(seen).collect::<Option<Vec<_>>>()
    };
    for n in 0..40 {
        send_from(&mut world, &mut tunnels, n % 2, &format!("192.0.2.{}", 100 + n));
    }
    assert_eq!(seen(&mut world).unwrap(), ["192.0.2.107"; 2], "eight moves at once");
    world.pass(Duration::from_secs(1));
    assert_eq!(seen(&mut world).unwrap(), ["192.0.2.139"; 2], "the last one after a while");
    assert_eq!(destinations(&mut world), ["192.0.2.1"; 2]);
}

/// Carries the messages of the exchanges under way.
pub(super) fn settle(world: &mut World, peer: &mut Peer) {
    let rounds = Cell::new(0);
    peer.until(world, |_| rounds.replace(rounds.get() + 1) == 16);
}

/// Has the gateway rekey the link's child SAs, and returns the terminal's end of the first new one with
/// the terminal's answer, which is not sent yet.
fn rekeyed(world: &mut World, peer: &mut Peer) -> (Terminal, Vec<Message>) {
    let before = peer.side.children().len();
    let rekey = Command::PeerRekey { peer: "one.test".into(), ike: false };
    assert_eq!(world.ask(rekey).outcome, Outcome::Result(Reply::Done));
    peer.receive(world);
    let answer = peer.side.work(world.now);
    assert_eq!((peer.side.children().len(), answer.len()), (before + 1, 1));
    (peer.tunnel(), answer)
}

/// Some terminals send by a new SA before their answer to the gateway's rekey has come.
#[test]
fn packets_that_come_before_the_answer_to_a_rekey_are_kept() {
    let (mut world, _, mut peer) = connected_with("follow", "");
    let (mut new, answer) = rekeyed(&mut world, &mut peer);
    for port in [None, Some(4500), None] {
        new.port = port;
        let sealed = new.seal(&up(0));
        world.send(OUTSIDE, &sealed);
    }
    let forged = new.wrap(&[&new.spi_out.to_be_bytes()[..], &[0, 0, 0, 9], &[7; 40]].concat());
    world.send(OUTSIDE, &forged);
    assert_eq!((world.take(INSIDE).len(), world.all_drops()), (0, vec![]));
    peer.send(&mut world, answer);
    world.settle();
    assert_eq!(world.take(INSIDE).len(), 3);
    assert_eq!(world.all_drops(), [(DropReason::NotAuthentic, 1)]);
    assert_eq!(world.slow_drops(DropReason::UnknownSpi), 0);
}

#[test]
fn few_packets_are_kept_for_an_answer_that_is_late_or_never_comes() {
    let (mut world, _, mut peer) = connected_with("follow", "");
    let (mut new, answer) = rekeyed(&mut world, &mut peer);
    (0..100).for_each(|_| {
        let sealed = new.seal(&up(0));
        world.send(OUTSIDE, &sealed);
    });
    assert_eq!(world.drops(DropReason::UnknownSpi), 100 - 32);
    // They are of no use any more when the answer comes.
    world.pass(Duration::from_secs(2));
    peer.send(&mut world, answer);
    world.settle();
    assert_eq!((world.take(INSIDE).len(), world.slow_drops(DropReason::UnknownSpi)), (0, 32));
    let sealed = new.seal(&up(0));
    world.send(OUTSIDE, &sealed);
    assert_eq!(world.take(INSIDE).len(), 1, "the SA is there");
    // Packets of an SA that never comes are dropped when the peer ends.
    settle(&mut world, &mut peer);
    let (mut other, _) = rekeyed(&mut world, &mut peer);
    let sealed = other.seal(&up(0));
    world.send(OUTSIDE, &sealed);
    assert_eq!(world.drops(DropReason::UnknownSpi), 100 - 32);
    world.ask(Command::PeerDown { peer: "one.test".into(), bar_ms: None });
    assert_eq!(world.slow_drops(DropReason::UnknownSpi), 33);
    world.send(OUTSIDE, &sealed);
    assert_eq!(world.drops(DropReason::UnknownSpi), 100 - 32 + 1);
}

#[test]
fn child_sas_that_reach_their_limits_are_rekeyed_and_do_not_end_the_link() {
    let lifetimes = "[connection.lifetime]\npackets = 1000";
    let (mut world, mut tunnels, mut peer) = connected_with("follow", lifetimes);
    // The hard limit comes before the terminal answers the request for a new child SA.
    for _ in 0..2000 {
        let sealed = tunnels[0].seal(&up(0));
        world.put(OUTSIDE, &sealed);
        world.settle();
    }
    let passed = world.take(INSIDE).len();
    assert!((1000..2000).contains(&passed), "{passed} packets before the limit");
    let made = |peer: &Peer| peer.side.children().len();
    assert_eq!((made(&peer), views(&mut world).len()), (2, 2), "the link is still there");
    peer.until(&mut world, |peer| made(peer) == 3);
    let mut newest = peer.tunnel();
    world.send(OUTSIDE, &newest.seal(&up(0)));
    assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
}

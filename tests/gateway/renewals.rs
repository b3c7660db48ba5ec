//! A terminal that authenticates again: the gateway's tunnels of its old IKE SA and of the new one.

use crate::links::settle;
use std::time::Duration;
use wayfarer::sim::{
    fixtures::{INSIDE, OUTSIDE, config},
    frames::datagram,
    ike::{
        configured::{for_terminals, ike},
        peer::Peer,
    },
    terminal::esp_in,
    world::World,
};
use wayfarer_mobility::ike::{connection::Connection, settings::Settings};

const SECOND: Duration = Duration::from_secs(1);
const TERMINAL: &str = "192.0.2.1";
/// A terminal with one tunnel.
const ONE: &str = r#"
[[connection]]
name = "office"
local = "192.0.2.1"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
esp = ["aes256gcm16"]
inner_local = ["10.98.0.0/16"]
inner_remote = ["10.99.0.0/24"]
"#;
/// Another tunnel for the same traffic.
const ANOTHER: &str = r#"
[[connection.child]]
name = "another"
inner_local = ["10.98.0.0/16"]
inner_remote = ["10.99.0.0/24"]
"#;

/// Returns a terminal's connection, which authenticates again after half a minute.
fn office(text: &str) -> Connection {
    let mut connection = ike(text, TERMINAL).connections.remove(0).protocol;
    connection.lifetimes.authentication = Some(60 * SECOND);
    connection
}

/// Makes a gateway, and a terminal that has connected to it with this many tunnels.
fn connected(text: &str, tunnels: usize) -> (World, Peer) {
    let mut config = config(vec![]);
    let net = "esp = [\"aes256gcm16\"]\ninner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"10.98.0.0/16\"]";
    config.ike = for_terminals("10.97.0.0/24", net);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let mut terminal = ike(text, TERMINAL);
    terminal.connections[0].protocol = office(text);
    let mut peer = Peer::with(terminal, TERMINAL);
    peer.may_end = true;
    peer.connect(&mut world);
    peer.until(&mut world, |peer| peer.side.children().len() == tunnels);
    settle(&mut world, &mut peer);
    (world, peer)
}

/// Lets time pass on both sides.
fn pass(world: &mut World, peer: &mut Peer, time: Duration) {
    world.pass(time);
    peer.side.endpoint.handle_timeout(world.now);
    settle(world, peer);
}

/// Has the terminal authenticate again, and waits until it has made this many tunnels in all.
fn renew(world: &mut World, peer: &mut Peer, tunnels: usize) {
    pass(world, peer, 30 * SECOND);
    peer.until(world, |peer| peer.side.children().len() == tunnels);
    settle(world, peer);
    assert_eq!(peer.side.connected_peers().len(), 2, "the old IKE SA is still there");
}

/// Returns the SPI by which the gateway sends to the terminal.
fn used_spi(world: &mut World) -> u32 {
    world.take(OUTSIDE);
    world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.7", (2, 1), b"down"));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    let (_, esp) = esp_in(&out[0]).unwrap();
    u32::from_be_bytes(esp[..4].try_into().unwrap())
}

/// The gateway uses the new tunnel when a packet comes by it, or the old one ends. Neither may fail
/// because the old one is rekeyed meanwhile.
#[test]
fn a_rekey_of_the_old_tunnel_does_not_keep_the_new_one_from_being_used() {
    let (mut world, mut peer) = connected(ONE, 1);
    let old = peer.side.connected_peers()[0];
    renew(&mut world, &mut peer, 2);
    let new = peer.side.children()[1].spi_in;
    peer.side.endpoint.rekey(world.now, old, false);
    peer.until(&mut world, |peer| peer.side.children().len() == 3);
    settle(&mut world, &mut peer);
    // The terminal deletes the old IKE SA after four seconds, and forgets it after four more.
    (0..2).for_each(|_| pass(&mut world, &mut peer, 5 * SECOND));
    assert_eq!(peer.side.connected_peers().len(), 1);
    assert_eq!(used_spi(&mut world), new, "by the new tunnel");
}

#[test]
fn a_rekey_of_the_new_tunnel_before_it_is_used_does_not_bring_back_the_old_one() {
    let (mut world, mut peer) = connected(ONE, 1);
    renew(&mut world, &mut peer, 2);
    assert_eq!(used_spi(&mut world), peer.side.children()[0].spi_in, "nothing has come by the new one");
    let new = *peer.side.connected_peers().last().unwrap();
    peer.side.endpoint.rekey(world.now, new, false);
    peer.until(&mut world, |peer| peer.side.children().len() == 3);
    // The terminal deletes what it has replaced.
    settle(&mut world, &mut peer);
    assert_eq!(used_spi(&mut world), peer.side.children()[2].spi_in);
}

/// OpenIKED, for one, can have several, and makes only one when it has started again.
#[test]
fn the_new_tunnel_takes_the_place_of_all_old_ones_for_the_same_traffic() {
    let (mut world, mut peer) = connected(&format!("{ONE}{ANOTHER}"), 2);
    peer.side.endpoint.reconfigure(world.now, vec![office(ONE)], vec![], Settings::default());
    renew(&mut world, &mut peer, 3);
    let spis: Vec<_> = peer.side.children().iter().map(|child| child.spi_in).collect();
    assert_eq!(used_spi(&mut world), spis[1], "the newest of the old ones");
    let up = peer.tunnel().seal(&datagram("10.98.0.7", "10.99.0.7", (1, 2), b"up"));
    world.send(OUTSIDE, &up);
    assert_eq!(world.take(INSIDE).len(), 1, "{:?}", world.all_drops());
    assert_eq!(used_spi(&mut world), spis[2], "the new one");
}

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

const SECOND: Duration = Duration::from_secs(1);

/// The gateway uses the new tunnel when a packet comes by it, or the old one ends. Neither may fail
/// because the old one is rekeyed meanwhile.
#[test]
fn a_rekey_of_the_old_tunnel_does_not_keep_the_new_one_from_being_used() {
    let mut config = config(vec![]);
    let net = "inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"10.98.0.0/16\"]";
    config.ike = for_terminals("10.97.0.0/24", net);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let text = r#"
[[connection]]
name = "office"
local = "192.0.2.1"
local_id = "one.test"
remote = "203.0.113.1"
remote_id = "gw.test"
auth = "psk"
psk_file = "$PSK"
inner_local = ["10.98.0.0/16"]
inner_remote = ["10.99.0.0/24"]
"#;
    let mut terminal = ike(text, "192.0.2.1");
    terminal.connections[0].protocol.lifetimes.authentication = Some(60 * SECOND);
    let mut peer = Peer::with(terminal, "192.0.2.1");
    peer.may_end = true;
    peer.connect(&mut world);
    let old = peer.side.connected_peers()[0];
    let later = |world: &mut World, peer: &mut Peer, time| {
        world.pass(time);
        peer.side.endpoint.handle_timeout(world.now);
        settle(world, peer);
    };
    later(&mut world, &mut peer, 30 * SECOND);
    peer.until(&mut world, |peer| peer.side.children().len() == 2);
    let new = peer.side.children()[1].spi_in;
    peer.side.endpoint.rekey(world.now, old, false);
    peer.until(&mut world, |peer| peer.side.children().len() == 3);
    settle(&mut world, &mut peer);
    // The terminal deletes the old IKE SA after four seconds, and forgets it after four more.
    (0..2).for_each(|_| later(&mut world, &mut peer, 5 * SECOND));
    assert_eq!(peer.side.connected_peers().len(), 1);
    world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.7", (2, 1), b"down"));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    let (_, esp) = esp_in(&out[0]).unwrap();
    assert_eq!(esp[..4], new.to_be_bytes(), "by the new tunnel");
}

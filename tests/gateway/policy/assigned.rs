//! Inner addresses that the gateway accepts as an initiator.

use wayfarer::sim::{
    fixtures::config,
    ike::{configured::ike, peer::Peer},
    world::World,
};
use wayfarer_mobility::ike::reason::Reason;

/// Connects to a remote gateway that has only this address to assign; returns that gateway, once it
/// has answered, and our own.
fn connect_to(address: &str) -> (Peer, World) {
    let mut config = config(vec![]);
    let both = "auth = \"psk\"\npsk_file = \"$PSK\"\nesp = [\"aes256gcm16\"]\n";
    config.ike = ike(
        &format!(
            r#"
[[connection]]
name = "office"
local = "203.0.113.1"
local_id = "cl.test"
remote = "192.0.2.9"
remote_id = "gw.test"
request_address = true
inner_remote = ["10.97.0.0/24"]
{both}
"#
        ),
        "203.0.113.1",
    );
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    let server = format!(
        r#"
[[pool]]
name = "one"
addresses = "{address}-{address}"
[[connection]]
name = "clients"
local = "192.0.2.9"
local_id = "gw.test"
remote_id = "cl.test"
inner_local = ["10.97.0.0/24"]
pool = "one"
{both}
"#
    );
    let mut gateway = Peer::new(&server, "192.0.2.9");
    gateway.may_end = true;
    gateway.until(&mut world, |peer| !peer.side.children().is_empty());
    (gateway, world)
}

#[test]
fn refuses_a_routers_address_as_inner_address() {
    let (_, world) = connect_to("10.98.0.7");
    assert_eq!(world.assembly.slow_path.tunnels().iter().count(), 1, "any other address is accepted");
    let (mut gateway, mut world) = connect_to("203.0.113.254");
    gateway.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    assert_eq!(
        gateway.side.end_reasons(),
        [Reason::Deleted],
        "the remote gateway is told that the tunnel was not taken"
    );
    assert_eq!(world.assembly.slow_path.tunnels().iter().count(), 0);
}

//! Policy when IKE gets a new configuration.

use super::{fate, to};
use wayfarer::{
    config::model::{Policy, PolicyAction},
    sim::{
        fixtures::{config, selector},
        ike::{
            configured::{for_terminals, ike},
            peer::Peer,
        },
        world::World,
    },
};
use wayfarer_dataplane::drop::DropReason;

const POOLED: &str = "esp = [\"aes256gcm16\"]\ninner_local = [\"10.99.0.0/16\"]\npool = \"terminals\"";

/// Makes a gateway that passes in clear whatever is not protected, with this pool for terminals.
fn gateway(pool: &str) -> World {
    let mut config = config(vec![]);
    config.ike = for_terminals(pool, POOLED);
    let everything = selector("0.0.0.0/0", "0.0.0.0/0");
    config.policies = vec![Policy { action: PolicyAction::Bypass, selector: everything }];
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Connects a terminal of this name from `address`.
fn connect(world: &mut World, name: &str, address: &str) -> Peer {
    let text = format!(
        "[[connection]]\nname = \"office\"\nlocal = \"{address}\"\nlocal_id = \"{name}\"\n\
         remote = \"203.0.113.1\"\nremote_id = \"gw.test\"\nauth = \"psk\"\npsk_file = \"$PSK\"\n\
         esp = [\"aes256gcm16\"]\nrequest_address = true\ninner_remote = [\"10.99.0.0/16\"]\n"
    );
    let mut peer = Peer::new(&text, address);
    peer.connect(world);
    peer
}

fn fate_to(world: &mut World, address: &str) -> Result<&'static str, DropReason> {
    fate(world, &to(address, 9))
}

#[test]
fn addresses_of_new_pools_are_guarded_and_those_of_peers_stay() {
    let mut world = gateway("10.98.0.0/24");
    let first = connect(&mut world, "a.test", "192.0.2.1").inner().to_string();
    assert_eq!(first, "10.98.0.1");
    for (address, expected) in [("10.98.0.200", Err(DropReason::Discard)), ("10.97.0.200", Ok("clear"))] {
        assert_eq!(fate_to(&mut world, address), expected, "{address}");
    }
    world.assembly.slow_path.reload_ike(world.now, &for_terminals("10.97.0.0/24", POOLED));
    for (address, expected) in [("10.98.0.200", Ok("clear")), ("10.97.0.200", Err(DropReason::Discard))] {
        assert_eq!(fate_to(&mut world, address), expected, "{address}");
    }
    assert_eq!(fate_to(&mut world, &first), Ok("sealed"));
    let second = connect(&mut world, "b.test", "192.0.2.2").inner().to_string();
    assert_eq!(second, "10.97.0.1");
    for address in [&first, &second] {
        assert_eq!(fate_to(&mut world, address), Ok("sealed"), "{address}");
    }
}

#[test]
fn new_connection_to_a_peer_is_made_and_guarded_at_once() {
    let mut world = gateway("10.98.0.0/24");
    assert_eq!(fate_to(&mut world, "10.95.0.9"), Ok("clear"));
    let office = "[[connection]]\nname = \"office\"\nlocal = \"203.0.113.1\"\nlocal_id = \"gw.test\"\n\
                  remote = \"192.0.2.9\"\nremote_id = \"office.test\"\nauth = \"psk\"\npsk_file = \"$PSK\"\n\
                  esp = [\"aes256gcm16\"]\ninner_local = [\"10.99.0.0/16\"]\ninner_remote = [\"10.95.0.0/16\"]\n";
    let at_office = "[[connection]]\nname = \"head\"\nlocal = \"192.0.2.9\"\nlocal_id = \"office.test\"\n\
                     remote_id = \"gw.test\"\nauth = \"psk\"\npsk_file = \"$PSK\"\nesp = [\"aes256gcm16\"]\n\
                     inner_local = [\"10.95.0.0/16\"]\ninner_remote = [\"10.99.0.0/16\"]\n";
    world.assembly.slow_path.reload_ike(world.now, &ike(office, "203.0.113.1"));
    assert_eq!(fate_to(&mut world, "10.95.0.9"), Err(DropReason::Discard));
    let mut peer = Peer::new(at_office, "192.0.2.9");
    peer.until(&mut world, |peer| !peer.side.children().is_empty());
    world.settle();
    assert_eq!(fate_to(&mut world, "10.95.0.9"), Ok("sealed"));
}

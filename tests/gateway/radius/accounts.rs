//! Accounts of peers.

use super::{Books, SECOND, accounted_by, gateway, send, terminal};
use std::{
    net::Ipv6Addr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use wayfarer::{
    log::{Format, recorded},
    sim::world::World,
};
use wayfarer_mobility::aaa::{
    grant::{Grant, Ip6Prefix},
    radius::question::{Realm, Server},
};

#[test]
fn a_peer_has_an_account_from_its_first_to_its_last_packet() {
    let mut books = Books::open();
    let class = vec![b"gold".to_vec()];
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), class, ..Grant::default() });
    books.pass(&mut world, SECOND);
    assert_eq!(books.kinds(), [7], "the gateway starts");
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let start = books.records.pop().unwrap();
    assert_eq!((start.number(40), start.text(1), start.text(25)), (1, "alice".into(), "gold".into()));
    assert_eq!((start.text(31), start.text(87)), ("192.0.2.1".into(), "terminals".into()));
    assert_eq!(start.number(8), u32::from_be_bytes([10, 97, 0, 1]));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(start.number(55).into()) <= 60, "when it happened");

    send(&mut world, &peer, 3);
    books.pass(&mut world, 60 * SECOND);
    let interim = books.records.pop().unwrap();
    assert_eq!((interim.number(40), interim.number(47), interim.text(44)), (3, 3, start.text(44)));
    assert!((60..70).contains(&interim.number(46)) && interim.number(42) > 60);

    // New keys do not begin at zero.
    let peers = peer.side.connected_peers();
    peer.side.endpoint.rekey(world.now, peers[0], false);
    peer.until(&mut world, |peer| peer.side.children().len() == 2);
    send(&mut world, &peer, 2);
    peer.side.endpoint.close(world.now, peers[0]);
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    books.pass(&mut world, SECOND);
    let stop = books.records.pop().unwrap();
    assert_eq!((stop.number(40), stop.number(47), stop.number(49)), (2, 5, 1), "closed by the user");
    assert_eq!((stop.text(44), stop.text(25)), (start.text(44), "gold".into()));
}

#[test]
fn an_address_of_a_granted_prefix_is_in_the_account() {
    let mut books = Books::open();
    let ip6_prefix = Ip6Prefix::new("2001:db8:50:7::".parse().unwrap(), 64);
    let mut world = gateway(&books, Grant { ip6_prefix, ..Grant::default() });
    terminal().connect(&mut world);
    books.pass(&mut world, SECOND);
    let start = books.records.last().unwrap();
    let (_, inner) = start.0.iter().find(|(kind, _)| *kind == 168).unwrap();
    assert_eq!(inner[..], "2001:db8:50:7::1".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn log_says_that_a_prefix_for_networks_is_ignored() {
    let books = Books::open();
    let ignored_prefix = Ip6Prefix::new("2001:db8:50::".parse().unwrap(), 56);
    let mut world = gateway(&books, Grant { ignored_prefix, ..Grant::default() });
    let log = recorded(Format::Text(false), || terminal().connect(&mut world));
    assert!(log.contains("granted a prefix shorter than /64, which is ignored"), "{log}");
    assert!(log.contains("2001:db8:50::/56"), "{log}");
}

#[test]
fn a_silent_server_stops_nobody_and_hears_everything_later() {
    let mut books = Books::open();
    books.is_up = false;
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), ..Grant::default() });
    let mut peer = terminal();
    peer.connect(&mut world);
    send(&mut world, &peer, 3);
    books.pass(&mut world, 10 * SECOND);
    assert!(books.records.is_empty());
    books.is_up = true;
    books.pass(&mut world, 10 * SECOND);
    assert_eq!(books.kinds(), [7, 1]);
    assert!(books.records[1].number(41) >= 10, "and when it was");
}

#[test]
fn a_reload_with_other_keys_for_the_same_server_ends_no_session_there() {
    let mut books = Books::open();
    let mut world = gateway(&books, Grant::default());
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    books.pass(&mut world, SECOND);
    let mut changed = accounted_by(&books, Grant::default());
    let accounting = changed.connections[0].accounting.as_mut().unwrap();
    let servers = accounting.realm.servers.iter().map(|server| Server { tries: 7, ..server.clone() });
    accounting.realm = Arc::new(Realm::new(servers.collect(), "gateway"));
    world.assembly.slow_path.reload_ike(world.now, &changed);
    books.pass(&mut world, SECOND);
    let peers = peer.side.connected_peers();
    peer.side.endpoint.close(world.now, peers[0]);
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    books.pass(&mut world, SECOND);
    assert_eq!(books.kinds(), [7, 1, 2]);
}

#[test]
fn after_a_reload_new_peers_are_in_the_new_books_and_others_stay_in_theirs() {
    let (mut old, mut new) = (Books::open(), Books::open());
    let mut world = gateway(&old, Grant::default());
    let mut first = terminal();
    first.may_end = true;
    first.connect(&mut world);
    world.assembly.slow_path.reload_ike(world.now, &accounted_by(&new, Grant::default()));
    old.serve();
    new.pass(&mut world, SECOND);
    let peers = first.side.connected_peers();
    first.side.endpoint.close(world.now, peers[0]);
    first.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    old.pass(&mut world, SECOND);
    assert_eq!(old.kinds(), [7, 1, 2]);
    terminal().connect(&mut world);
    new.pass(&mut world, SECOND);
    assert_eq!(new.kinds(), [7, 1]);
    world.assembly.slow_path.reload_ike(world.now, &accounted_by(&new, Grant::default()));
    new.pass(&mut world, SECOND);
    assert_eq!(new.kinds(), [7, 1], "the same books are not opened again");
}

#[test]
fn a_gateway_that_stops_closes_all_accounts() {
    let mut books = Books::open();
    let mut world = gateway(&books, Grant { user_name: b"alice".to_vec(), ..Grant::default() });
    let mut peer = terminal();
    peer.may_end = true;
    peer.connect(&mut world);
    let closes = |world: &mut World| world.assembly.slow_path.close_peers(world.now);
    assert!(!closes(&mut world));
    peer.until(&mut world, |peer| !peer.side.end_reasons().is_empty());
    world.settle();
    assert!(!closes(&mut world), "the server has not confirmed everything");
    books.pass(&mut world, SECOND);
    assert!(closes(&mut world));
    assert_eq!(books.kinds(), [7, 1, 2, 8]);
    assert_eq!(books.records[2].number(49), 11, "the gateway stops");
}

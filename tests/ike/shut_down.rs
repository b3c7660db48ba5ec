//! A gateway that stops says so to its peers.

use crate::{fleet::Fleet, pair::Pair};
use std::time::Duration;
use wayfarer::sim::ike::connections::{TERMINAL, gateway, identity, terminal};
use wayfarer_mobility::ike::{
    connection::{Connection, IdentityPattern},
    counter::Counter,
    reason::Reason,
    wire::Header,
};

/// Shuts the gateway down, at most `most` peers at a time.
fn shut_down(pair: &mut Pair, most: usize) -> bool {
    pair.gateway.endpoint.shut_down(pair.now, most)
}

#[test]
fn peers_are_told_and_new_ones_are_ignored() {
    let mut pair = Pair::connected(gateway(), terminal());
    assert!(!shut_down(&mut pair, 10), "the terminal has not answered");
    pair.settle();
    assert!(shut_down(&mut pair, 10));
    assert_eq!(pair.terminal.end_reasons(), [Reason::Deleted]);
    assert_eq!(pair.gateway.end_reasons(), [Reason::Closed]);
    // The terminal connects again, to nobody.
    pair.pass(Duration::from_secs(20));
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    assert!(pair.gateway.endpoint.count(Counter::Busy) > 0);
    assert!(shut_down(&mut pair, 10));
}

#[test]
fn side_that_connects_does_not_connect_again() {
    let mut pair = Pair::connected(gateway(), terminal());
    pair.terminal.endpoint.shut_down(pair.now, 10);
    pair.settle();
    assert!(pair.terminal.endpoint.shut_down(pair.now, 10));
    pair.pass(Duration::from_secs(300));
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    assert_eq!(pair.terminal.endpoint.poll_timeout(), None);
}

#[test]
fn half_open_and_connecting_peers_are_not_waited_for() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    assert!(pair.terminal.endpoint.shut_down(pair.now, 10));
    pair.deliver_up(&first[0]);
    drop(pair.down());
    assert!(shut_down(&mut pair, 10));
}

#[test]
fn messages_leave_in_portions() {
    let named = |n: u8| Connection { local_id: identity(&format!("{n}.test")), ..terminal() };
    let open = Connection { remote_id: IdentityPattern::Any, ..gateway() };
    let mut fleet = Fleet::new(vec![open]);
    for n in 1..6 {
        fleet.connect([192, 0, 2, n], named(n));
    }
    let messages = |fleet: &mut Fleet| {
        fleet.gateway.endpoint.shut_down(fleet.now, 2);
        let sent = fleet.gateway.work(fleet.now);
        sent.iter().filter(|(_, message)| !Header::parse(message).unwrap().is_response()).count()
    };
    let portions: Vec<usize> = (0..4).map(|_| messages(&mut fleet)).collect();
    assert_eq!(portions, [2, 2, 1, 0]);
}

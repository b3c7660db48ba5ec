//! Child SAs with many prefixes: all of them are agreed on, or none.

use crate::pair::Pair;
use wayfarer::sim::ike::{
    connections::{gateway, prefix, terminal},
    side::Side,
};
use wayfarer_mobility::ike::{
    connection::Connection,
    event::{Event, Reason},
    wire::{TrafficSelector, notify},
};

/// Returns this many networks of 256 addresses.
fn networks(first: u8, count: u32) -> Vec<TrafficSelector> {
    let network = |n: u32| {
        let [_, high, low, _] = (n << 8).to_be_bytes();
        prefix([first, high, low, 0], [first, high, low, 255])
    };
    (0..count).map(network).collect()
}

/// Connects two sites with these networks at the terminal and at the gateway.
fn sites(ours: Vec<TrafficSelector>, theirs: Vec<TrafficSelector>) -> Pair {
    let with = |mut connection: Connection, local: &[TrafficSelector], remote: &[TrafficSelector]| {
        connection.children[0].local = local.to_vec();
        connection.children[0].remote = remote.to_vec();
        Connection { pools: vec![], ask_address: false, ..connection }
    };
    Pair::connected(with(gateway(), &theirs, &ours), with(terminal(), &ours, &theirs))
}

fn sides(side: &Side) -> (Vec<TrafficSelector>, Vec<TrafficSelector>) {
    let sa = side.newest_child();
    (sa.local.clone(), sa.remote.clone())
}

#[test]
fn every_network_is_agreed_on_and_kept_by_rekeys() {
    for (here, there) in [(1, 20), (20, 1), (1, 100), (100, 1), (16, 16), (255, 1)] {
        let (ours, theirs) = (networks(10, here), networks(11, there));
        let mut pair = sites(ours.clone(), theirs.clone());
        pair.assert_one_each();
        for rekeys in 0..3 {
            assert_eq!(sides(&pair.terminal), (ours.clone(), theirs.clone()), "{here} {there} {rekeys}");
            assert_eq!(sides(&pair.gateway), (theirs.clone(), ours.clone()), "{here} {there} {rekeys}");
            let [us, them] = pair.connected_peers().map(|all| all[0]);
            match rekeys {
                0 => pair.terminal.endpoint.rekey(pair.now, us, false),
                _ => pair.gateway.endpoint.rekey(pair.now, them, false),
            }
            pair.settle();
        }
    }
}

#[test]
fn gateway_refuses_more_than_it_can_install_instead_of_cutting_it() {
    let (ours, theirs) = (networks(10, 20), networks(11, 20));
    let pair = sites(ours, theirs);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Refused(notify::TS_UNACCEPTABLE)]);
    let refused = |event: &Event| matches!(event, Event::SelectorsRefused { local: 20, remote: 20, .. });
    assert!(pair.gateway.events.iter().any(refused), "{:?}", pair.gateway.events);
    let is_up = |event: &Event| matches!(event, Event::ChildUp { .. });
    assert!(!pair.gateway.events.iter().any(is_up));
}

#[test]
fn terminal_hears_of_networks_that_the_gateway_leaves_out() {
    let (ours, theirs) = (networks(10, 1), networks(11, 40));
    let narrower = |mut connection: Connection, count: usize| {
        connection.children[0].local = theirs[..count].to_vec();
        connection.children[0].remote = ours.clone();
        Connection { pools: vec![], ..connection }
    };
    let mut asking = terminal();
    asking.children[0].local = ours.clone();
    asking.children[0].remote = theirs.clone();
    asking.ask_address = false;
    for (count, expected) in [(30, Some(10)), (40, None)] {
        let pair = Pair::connected(narrower(gateway(), count), asking.clone());
        pair.assert_one_each();
        assert_eq!(sides(&pair.terminal).1, theirs[..count]);
        let left_out = pair.terminal.events.iter().find_map(|event| match event {
            Event::ChildNarrowed { left_out, .. } => Some(*left_out),
            _ => None,
        });
        assert_eq!(left_out, expected);
    }
}

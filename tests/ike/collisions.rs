//! Exchanges that both sides start at the same time (RFC 7296 §2.25).

use crate::pair::Pair;
use std::time::Duration;
use wayfarer::sim::ike::connections::{gateway, terminal};
use wayfarer_mobility::ike::event::Reason;

const SECOND: Duration = Duration::from_secs(1);

/// Rekeys from both sides at the same time, of the IKE SA or a child SA each, and checks that one
/// of each remains.
fn collide(ours: bool, theirs: bool, terminal_first: bool) {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, ours);
    pair.gateway.endpoint.rekey(pair.now, there, theirs);
    let (requests_up, requests_down) = (pair.up(), pair.down());
    requests_up.iter().for_each(|message| pair.deliver_up(message));
    requests_down.iter().for_each(|message| pair.deliver_down(message));
    let (answers_up, answers_down) = (pair.up(), pair.down());
    if terminal_first {
        answers_down.iter().for_each(|message| pair.deliver_down(message));
        pair.settle();
        answers_up.iter().for_each(|message| pair.deliver_up(message));
    } else {
        answers_up.iter().for_each(|message| pair.deliver_up(message));
        pair.settle();
        answers_down.iter().for_each(|message| pair.deliver_down(message));
    }
    pair.settle();
    pair.pass(10 * SECOND);
    pair.assert_one_each();
    pair.pass(90 * SECOND);
    pair.assert_one_each();
    assert_eq!(pair.gateway.end_reasons(), []);
    let ike_sas = format!("{:?}", pair.gateway.endpoint).matches("IkeSa {").count();
    assert_eq!(ike_sas, 1, "one IKE SA remains at the gateway");
}

#[test]
fn collisions_leave_one_of_each() {
    // Often enough that each side has the lowest nonce.
    for _ in 0..8 {
        for (ours, theirs) in [(false, false), (true, true), (false, true), (true, false)] {
            collide(ours, theirs, true);
            collide(ours, theirs, false);
        }
    }
}

#[test]
fn close_during_a_rekey_ends_both_sides() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    let request = pair.down();
    pair.gateway.endpoint.close(pair.now, there);
    request.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Closed]);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Deleted]);
    assert_eq!(pair.gateway.children().len(), 1, "the new child SA is not installed after the close");
}

#[test]
fn both_sides_close_at_once() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.gateway.endpoint.close(pair.now, there);
    pair.settle();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Closed]);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Closed]);
}

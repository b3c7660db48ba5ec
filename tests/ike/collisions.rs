//! Both sides begin something at the same time (RFC 7296 §2.25).

use crate::{
    insider::{Answer, Insider},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::connections::{gateway, terminal};
use wayfarer_mobility::ike::{
    event::Reason,
    settings::Settings,
    wire::{Delete, ExchangeType, Payload},
};

const SECOND: Duration = Duration::from_secs(1);

/// `rekey` on both sides at the same time, in both orders of the answers, often enough that each
/// side has the lowest nonce.
fn collide(ours: bool, theirs: bool, terminal_first: bool) {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.ups().map(|all| all[0]);
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
    assert_eq!(pair.gateway.ends(), []);
    let ike_sas = format!("{:?}", pair.gateway.endpoint).matches("IkeSa {").count();
    assert_eq!(ike_sas, 1, "IKE SAs at the gateway");
}

#[test]
fn collisions_leave_one_of_each() {
    for _ in 0..8 {
        for (ours, theirs) in [(false, false), (true, true), (false, true), (true, false)] {
            collide(ours, theirs, true);
            collide(ours, theirs, false);
        }
    }
}

#[test]
fn who_is_closed_while_keys_change_is_told_and_keeps_nothing() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.ups().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    let request = pair.down();
    pair.gateway.endpoint.close(pair.now, there);
    request.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    assert_eq!(pair.gateway.ends(), [Reason::Closed]);
    assert_eq!(pair.terminal.ends(), [Reason::Deleted]);
    let ups = pair.gateway.children().len();
    assert_eq!(ups, 1, "what was asked for before is not installed after");
}

#[test]
fn both_close_at_once() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.ups().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.gateway.endpoint.close(pair.now, there);
    pair.settle();
    assert_eq!(pair.gateway.ends(), [Reason::Closed]);
    assert_eq!(pair.terminal.ends(), [Reason::Closed]);
}

#[test]
fn a_peer_that_deletes_both_of_its_ike_sas_while_we_change_keys_is_gone() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let peer = insider.pair.ups()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
    drop(insider.pair.down());
    assert!(matches!(insider.ike_sa(0x77), Answer::Taken(_)));
    let delete = || [Payload::Delete(Delete { protocol: 1, spis: vec![] })];
    let delete_old = insider.seal(ExchangeType::Informational, &delete());
    insider.switch();
    assert_eq!(insider.ask(ExchangeType::Informational, &delete()), Answer::Other);
    insider.send(&delete_old);
    assert_eq!(insider.pair.gateway.ends(), [Reason::Deleted]);
    assert_eq!(insider.children(), 0);
}

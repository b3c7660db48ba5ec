//! Exchanges that both sides start at the same time (RFC 7296 §2.25).

use crate::{
    insider::{Answer, Insider},
    pair::Pair,
};
use std::{collections::BTreeSet, time::Duration};
use wayfarer::sim::ike::{
    connections::{gateway, terminal},
    side::Message,
};
use wayfarer_mobility::ike::{
    counter::Counter,
    event::Event,
    reason::Reason,
    settings::Settings,
    wire::{Delete, ExchangeType, Header, Payload},
};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(10);

/// Rekeys from both sides at the same time, of the IKE SA or a child SA each, delivers one side's
/// answer first, and checks that one of each remains. Returns whether the terminal made the one
/// that remains.
fn collide(seed: u64, ours: bool, theirs: bool, terminal_first: bool) -> bool {
    let mut pair = Pair::seeded(seed, gateway(), terminal(), Settings::default());
    pair.connect();
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
    for side in [&pair.gateway, &pair.terminal] {
        assert_eq!(side.endpoint.peers().map(|peer| peer.ike_sas()).collect::<Vec<_>>(), [1]);
    }
    match ours {
        true => pair.is_ike_sa_by_terminal(),
        // The initiator of an exchange sends by its new child SA at once.
        false => pair.terminal.newest_child().send,
    }
}

#[test]
fn collisions_leave_one_of_each() {
    for terminal_first in [true, false] {
        for (ours, theirs) in [(false, true), (true, false)] {
            collide(0, ours, theirs, terminal_first);
        }
        // If both rekey the same SA, the nonces decide which new one remains.
        for ike_sa in [false, true] {
            let by_terminal: BTreeSet<bool> =
                (0..6).map(|seed| collide(seed, ike_sa, ike_sa, terminal_first)).collect();
            assert_eq!(by_terminal.len(), 2, "each side has the lowest nonce: {ike_sa} {terminal_first}");
        }
    }
}

/// Delivers the answer to a rekey after the peer has replaced and deleted the old pair.
#[test]
fn rekeyed_pair_still_receives() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    let old = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    let has_gone = |pair: &Pair| {
        let is_end = |event: &Event| matches!(event, Event::ChildDown { child } if *child == old);
        pair.gateway.events.iter().any(is_end)
    };
    pair.gateway.endpoint.rekey(pair.now, there, false);
    let late = pair.down();
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.settle();
    late.iter().for_each(|message| pair.deliver_down(message));
    let refusal = pair.up();
    assert_eq!((refusal.len(), pair.gateway.children().len()), (1, 2), "the terminal made the new pair");
    refusal.iter().for_each(|message| pair.deliver_up(message));
    pair.settle();
    pair.pass(Settings::default().linger - MOMENT);
    assert!(!has_gone(&pair), "packets may be on their way");
    pair.pass(2 * MOMENT);
    assert!(has_gone(&pair));
    pair.pass(10 * SECOND);
    pair.assert_one_each();
}

/// Lets rekeys of the IKE SA and of a child SA refuse each other several times.
#[test]
fn repeated_collisions_end() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    let made = |pair: &Pair| [&pair.terminal, &pair.gateway].map(|s| s.endpoint.count(Counter::Rekeyed));
    for _ in 0..5 {
        // Both sides try again, and both requests are on their way at once.
        let (mut up, mut down) = (vec![], vec![]);
        let deadline = pair.now + 10 * SECOND;
        while up.is_empty() || down.is_empty() {
            pair.now += MOMENT;
            assert!(pair.now < deadline, "a side does not try again");
            pair.terminal.endpoint.handle_timeout(pair.now);
            pair.gateway.endpoint.handle_timeout(pair.now);
            up.extend(pair.up());
            down.extend(pair.down());
        }
        let is_create = |(_, message): &Message| {
            Header::parse(message).unwrap().exchange == ExchangeType::CreateChildSa.number()
        };
        assert!(up.iter().chain(&down).all(is_create));
        up.iter().for_each(|message| pair.deliver_up(message));
        down.iter().for_each(|message| pair.deliver_down(message));
        pair.settle();
        assert_eq!(made(&pair), [0, 0], "both are refused");
    }
    pair.pass(30 * SECOND);
    assert_eq!(made(&pair), [2, 2], "one comes after the other");
    pair.assert_one_each();
    assert_eq!((pair.terminal.end_reasons(), pair.gateway.end_reasons()), (vec![], vec![]));
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

#[test]
fn peer_that_deletes_both_ike_sas_during_our_rekey_ends() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
    drop(insider.pair.down());
    assert!(matches!(insider.ike_sa(0x77), Answer::Accepted(_)));
    let delete = || [Payload::Delete(Delete { protocol: 1, spis: vec![] })];
    let delete_old = insider.seal(ExchangeType::Informational, &delete());
    insider.switch();
    assert_eq!(insider.ask(ExchangeType::Informational, &delete()), Answer::Other);
    insider.send(&delete_old);
    assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Deleted]);
    assert_eq!(insider.children(), 0);
}

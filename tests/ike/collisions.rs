//! Both sides begin something at the same time (RFC 7296 §2.25).

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
    event::{Event, Reason},
    settings::Settings,
    wire::{Delete, ExchangeType, Header, Payload},
};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(10);

/// `rekey` on both sides at the same time, the IKE SA's keys or those of the child SA, and one of
/// the two answers comes first. Returns whether what the terminal began is what stays.
fn collide(seed: u64, ours: bool, theirs: bool, terminal_first: bool) -> bool {
    let mut pair = Pair::seeded(seed, gateway(), terminal(), Settings::default());
    pair.connect();
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
    for side in [&pair.gateway, &pair.terminal] {
        assert_eq!(side.endpoint.peers().map(|peer| peer.ike_sas()).collect::<Vec<_>>(), [1]);
    }
    match ours {
        true => pair.is_the_terminals(),
        // Who begins an exchange sends by what it makes at once.
        false => pair.terminal.newest_child().send,
    }
}

#[test]
fn collisions_leave_one_of_each() {
    for terminal_first in [true, false] {
        for (ours, theirs) in [(false, true), (true, false)] {
            collide(0, ours, theirs, terminal_first);
        }
        // If both change the same keys, what stays depends on the nonces.
        for ike_sa in [false, true] {
            let stays: BTreeSet<bool> =
                (0..6).map(|seed| collide(seed, ike_sa, ike_sa, terminal_first)).collect();
            assert_eq!(stays.len(), 2, "each side has the lowest nonce: {ike_sa} {terminal_first}");
        }
    }
}

/// The answer to a rekey of a pair that the peer has replaced and deleted meanwhile.
#[test]
fn a_pair_that_the_peer_rekeyed_still_receives() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.ups().map(|all| all[0]);
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

/// Keys of the IKE SA and of the pair in it, each refused while the other is under way, several
/// times over.
#[test]
fn what_collides_again_and_again_ends() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.ups().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    let made = |pair: &Pair| [&pair.terminal, &pair.gateway].map(|s| s.endpoint.count(Counter::Rekeyed));
    for _ in 0..5 {
        // Each tries again on its own, and both requests are on their way at once.
        let (mut up, mut down) = (vec![], vec![]);
        while up.is_empty() || down.is_empty() {
            pair.now += MOMENT;
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
    assert_eq!((pair.terminal.ends(), pair.gateway.ends()), (vec![], vec![]));
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

//! States of IKE SAs, child SAs and outstanding requests, and what ends them.

use crate::{
    insider::{Answer, Insider},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, terminal},
    side::{reversed, to_gateway},
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::Event,
        reason::Reason,
        settings::Settings,
        sizes::StateSizes,
        wire::{self, Delete, ExchangeType, Header, Payload, notify},
    },
    path::Path,
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];

fn insider() -> Insider {
    Insider::new(Connection { liveness: None, ..gateway() }, terminal(), Settings::default())
}

fn delete_ike_sa() -> [Payload<'static>; 1] {
    [Payload::Delete(Delete { protocol: 1, spis: vec![] })]
}

/// Takes the exchange types of the gateway's messages.
fn exchanges(insider: &mut Insider) -> Vec<ExchangeType> {
    let exchange = |message: &[u8]| ExchangeType::from_number(Header::parse(message).unwrap().exchange);
    insider.pair.down().iter().map(|(_, message)| exchange(message).unwrap()).collect()
}

// Child SAs.

#[test]
fn replaced_child_sa_is_not_replaced_again() {
    let mut insider = insider();
    let first = insider.first_spi();
    assert!(matches!(insider.child(0x1000, Some(first), true, &[]), Answer::Accepted(_)));
    let again = insider.child(0x1001, Some(first), true, &[]);
    assert_eq!(again, Answer::Refused(notify::TEMPORARY_FAILURE), "RFC 7296 section 2.25.1");
}

#[test]
fn child_sa_that_the_peer_replaced_is_not_rekeyed_after_our_refused_attempt() {
    let mut insider = insider();
    let (first, peer) = (insider.first_spi(), insider.pair.connected_peers()[1][0]);
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    assert_eq!(exchanges(&mut insider), [ExchangeType::CreateChildSa]);
    assert!(matches!(insider.child(0x1000, Some(first), true, &[]), Answer::Accepted(_)));
    let refusal = Payload::notify(notify::TEMPORARY_FAILURE, &[]);
    insider.answer(ExchangeType::CreateChildSa, 0, TERMINAL, &[refusal]);
    insider.pair.now += 3 * SECOND;
    insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
    assert_eq!(exchanges(&mut insider), []);
}

#[test]
fn child_sa_of_the_peer_is_rekeyed_only_once_its_predecessor_is_deleted() {
    let mut insider = insider();
    let (first, peer) = (insider.first_spi(), insider.pair.connected_peers()[1][0]);
    assert!(matches!(insider.child(0x1000, Some(first), true, &[]), Answer::Accepted(_)));
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    assert_eq!(exchanges(&mut insider), []);
    insider.delete(first);
    insider.pair.now += 3 * SECOND;
    insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
    assert_eq!(exchanges(&mut insider), [ExchangeType::CreateChildSa]);
}

/// A peer that is slow to confirm the deletion of a child SA may have replaced its successor before.
#[test]
fn late_answer_to_a_deletion_does_not_bring_back_a_replaced_child_sa() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    let late = pair.up();
    assert_eq!(late.len(), 1, "the answer to the deletion");
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.settle();
    let newest = |event: &Event| match event {
        Event::ChildUp { child, .. } => Some(*child),
        _ => None,
    };
    let newest = pair.gateway.events.iter().rev().find_map(newest).unwrap();
    pair.gateway.endpoint.handle_child_used(pair.now, there, newest);
    pair.deliver_up(&late[0]);
    pair.settle();
    let used = |event: &Event| match event {
        Event::ChildUse { child } => Some(*child),
        _ => None,
    };
    let used: Vec<_> = pair.gateway.events.iter().filter_map(used).collect();
    assert_eq!(used.last(), Some(&newest), "{used:?}");
}

/// The data plane tells of a first packet only once.
#[test]
fn first_packet_by_a_child_sa_counts_while_that_is_rekeyed() {
    let mut pair = Pair::connected(gateway(), terminal());
    let there = pair.connected_peers()[1][0];
    let rekeyed = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    pair.gateway.endpoint.rekey(pair.now, there, false);
    assert_eq!(pair.down().len(), 1, "the request, which is lost");
    pair.gateway.endpoint.handle_child_used(pair.now, there, rekeyed);
    assert_eq!(pair.down(), []);
    let is_use = |event: &Event| matches!(event, Event::ChildUse { child } if *child == rekeyed);
    assert!(pair.gateway.events.iter().any(is_use));
}

// IKE SAs.

#[test]
fn replaced_ike_sa_makes_nothing_new() {
    let mut insider = insider();
    assert!(matches!(insider.ike_sa(0x77), Answer::Accepted(_)));
    let message = insider.seal(ExchangeType::CreateChildSa, &[Payload::Nonce(&[7; 32])]);
    let addresses = to_gateway(TERMINAL, 4500);
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, addresses, &message);
    assert_eq!(exchanges(&mut insider), []);
}

#[test]
fn ike_sa_that_the_peer_deleted_lingers_only_shortly() {
    // The peer replaces it, while we do not or while we do so too.
    for collides in [false, true] {
        let mut insider = insider();
        let peer = insider.pair.connected_peers()[1][0];
        if collides {
            insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
            assert_eq!(insider.pair.down().len(), 1);
        }
        assert!(matches!(insider.ike_sa(0x77), Answer::Accepted(_)));
        assert_eq!(insider.ask(ExchangeType::Informational, &delete_ike_sa()), Answer::Other);
        assert_eq!(insider.ike_sas(), 2);
        insider.pass(Settings::default().linger);
        assert_eq!((insider.ike_sas(), insider.pair.gateway.end_reasons()), (1, vec![]));
    }
}

#[test]
fn replaced_ike_sa_goes_if_its_deletion_is_not_answered() {
    let quiet = |connection| Connection { liveness: None, ..connection };
    let mut pair = Pair::connected(quiet(gateway()), quiet(terminal()));
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.down().iter().for_each(|message| pair.deliver_down(message));
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    assert_eq!(pair.down().len(), 1, "the deletion, which is lost");
    let until = pair.now + Settings::default().retransmission.total();
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at <= until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        drop(pair.down());
    }
    assert_eq!(pair.gateway.endpoint.peers().map(|peer| peer.ike_sas()).collect::<Vec<_>>(), [1]);
    assert_eq!(pair.gateway.end_reasons(), []);
}

#[test]
fn close_waits_for_the_outstanding_answer_even_if_the_peer_closes_too() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.handle_liveness(insider.pair.now, peer, false);
    assert_eq!(insider.pair.down().len(), 1);
    insider.pair.gateway.endpoint.close(insider.pair.now, peer);
    assert_eq!(insider.pair.down(), [], "the window is one request");
    assert_eq!(insider.ask(ExchangeType::Informational, &delete_ike_sa()), Answer::Other);
    insider.answer(ExchangeType::Informational, 0, TERMINAL, &[]);
    assert_eq!(exchanges(&mut insider), [ExchangeType::Informational]);
    insider.answer(ExchangeType::Informational, 1, TERMINAL, &[]);
    assert_eq!(insider.pair.gateway.endpoint.peers().count(), 0, "nothing is outstanding any more");
}

#[test]
fn copy_of_a_request_in_progress_is_not_answered() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, false);
    let request = pair.up();
    (0..2).for_each(|_| pair.deliver_up(&request[0]));
    assert_eq!((pair.down().len(), pair.gateway.children().len()), (1, 2));
}

// Outstanding requests.

#[test]
fn nothing_remains_of_a_peer_that_ends_with_an_outstanding_request() {
    for ike_sa in [false, true] {
        let mut insider = insider();
        let peer = insider.pair.connected_peers()[1][0];
        insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, ike_sa);
        assert_eq!(insider.pair.down().len(), 1);
        insider.pair.gateway.endpoint.close(insider.pair.now, peer);
        insider.pass(Settings::default().linger);
        assert_eq!(insider.pair.gateway.endpoint.state_sizes(), StateSizes::default());
    }
}

#[test]
fn answer_to_an_update_of_an_ended_peer_moves_nothing() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, ELSEWHERE.into(), None).unwrap();
    pair.up().iter().for_each(|message| pair.deliver_up(message));
    pair.terminal.endpoint.close(pair.now, here);
    pair.settle();
    let end = pair.terminal.events.iter().position(|event| matches!(event, Event::PeerDown { .. }));
    let later = &pair.terminal.events[end.unwrap()..];
    assert!(!later.iter().any(|event| matches!(event, Event::PeerMoved { .. })), "{later:#?}");
}

/// A COOKIE2 that comes back changed ends the IKE SA (RFC 4555 §3.7).
#[test]
fn wrong_cookie_confirms_no_move_and_ends_the_ike_sa() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    let path = Path { local: GATEWAY.into(), remote: ELSEWHERE.into(), udp: Some((4500, 4500)) };
    insider.pair.gateway.endpoint.handle_path(insider.pair.now, peer, path);
    assert_eq!(insider.pair.down().len(), 1);
    let payloads = [Payload::notify(notify::COOKIE2, &[0; 16])];
    insider.answer(ExchangeType::Informational, 0, ELSEWHERE, &payloads);
    drop(insider.pair.down());
    assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Protocol]);
    assert_eq!(insider.pair.gateway.endpoint.count(Counter::Unconfirmed), 1);
}

#[test]
fn answer_to_an_update_must_return_its_cookie() {
    let mut insider = insider();
    let here = insider.pair.connected_peers()[0][0];
    insider.pair.terminal.endpoint.handle_local(insider.pair.now, here, ELSEWHERE.into(), None).unwrap();
    let (addresses, _) = insider.pair.up().remove(0);
    let mut body = vec![];
    let cookie = [0; 16];
    let first = wire::emit(&[Payload::notify(notify::COOKIE2, &cookie)], &mut body);
    let flags = wire::flags::RESPONSE;
    let answer = insider.protect(ExchangeType::Informational, flags, 2, first, body);
    insider.pair.terminal.endpoint.handle_datagram(insider.pair.now, reversed(addresses), &answer);
    drop(insider.pair.up());
    assert_eq!(insider.pair.terminal.end_reasons(), [Reason::Protocol]);
}

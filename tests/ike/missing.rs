//! Child SAs that end or are refused: the side that connects asks for them again.

use crate::{
    insider::{Answer, Insider},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, offer, prefix, terminal},
    side::Side,
};
use wayfarer_mobility::{
    ike::{
        connection::{ChildPolicy, Connection},
        event::Event,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        wire::{Delete, ErrorNotify, ExchangeType, Payload, Proposal, Transform, notified, notify},
    },
    path::Addresses,
};

const SECOND: Duration = Duration::from_secs(1);

/// Has the gateway delete the terminal's newest child SA, and nothing else.
fn delete_child(insider: &mut Insider, message_id: u32) {
    let spi = insider.pair.terminal.newest_child().spi_out;
    delete(insider, message_id, spi);
}

/// Has the gateway delete the child SA with this SPI of its own, and nothing else.
fn delete(insider: &mut Insider, message_id: u32, spi: u32) {
    let delete = Payload::Delete(Delete { protocol: 3, spis: vec![spi] });
    ask_terminal(insider, ExchangeType::Informational, message_id, &[delete]);
}

/// Sends the terminal a request in the gateway's name.
fn ask_terminal(insider: &mut Insider, exchange: ExchangeType, message_id: u32, payloads: &[Payload<'_>]) {
    let message = insider.protect_payloads(exchange, 0, message_id, payloads);
    let to = Addresses { local: (TERMINAL, 4500).into(), remote: (GATEWAY, 4500).into() };
    insider.pair.terminal.endpoint.handle_datagram(insider.pair.now, to, &message);
}

/// Returns the waits before the side asked for a missing child SA.
fn waits(side: &Side) -> Vec<Duration> {
    let wait = |event: &Event| match event {
        Event::ChildMissing { wait, .. } => Some(*wait),
        _ => None,
    };
    side.events.iter().filter_map(wait).collect()
}

#[test]
fn deleted_child_sa_is_made_again() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    delete_child(&mut insider, 0);
    insider.pair.settle();
    assert_eq!(insider.pair.terminal.children().len(), 1, "not at once");
    insider.pair.pass(2 * SECOND);
    assert_eq!(insider.pair.terminal.children().len(), 2);
    assert_eq!(insider.pair.terminal.end_reasons(), []);
}

#[test]
fn wait_doubles_until_a_child_sa_lasts() {
    // All requests of the gateway are the test's own.
    let quiet = Connection { liveness: None, ..gateway() };
    let mut insider = Insider::new(quiet, terminal(), Settings::default());
    for message_id in 0..5 {
        delete_child(&mut insider, message_id);
        let children = insider.pair.terminal.children().len();
        while insider.pair.terminal.children().len() == children {
            insider.pair.pass(SECOND);
        }
    }
    let found = waits(&insider.pair.terminal);
    for (n, wait) in (0..).zip(&found) {
        let most = SECOND * (1 << n);
        assert!((most * 9 / 10..=most).contains(wait), "{found:?}");
    }
    insider.pair.pass(60 * SECOND);
    delete_child(&mut insider, 5);
    insider.pair.settle();
    let found = waits(&insider.pair.terminal);
    assert!(found.last().unwrap() <= &SECOND, "{found:?}");
}

#[test]
fn gateway_leaves_it_to_the_terminal() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let spi = insider.first_spi();
    insider.delete(spi);
    insider.pair.now += 10 * SECOND;
    insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
    assert_eq!(insider.pair.down(), []);
    assert_eq!((insider.children(), waits(&insider.pair.gateway)), (0, vec![]));
}

#[test]
fn refused_child_sa_is_asked_for_now_and_then() {
    let second = ChildPolicy {
        name: "other".into(),
        local: vec![],
        remote: vec![prefix([10, 50, 0, 0], [10, 50, 0, 255])],
        transport: false,
    };
    let children = vec![terminal().children.remove(0), second];
    let mut pair = Pair::connected(gateway(), Connection { children, ..terminal() });
    pair.pass(600 * SECOND);
    let refusals = pair.terminal.events.iter().filter(|event| {
        let expected = Some(notify::TS_UNACCEPTABLE);
        matches!(event, Event::CreateFailed { child: Some(name), refusal, .. } if name == "other" && *refusal == expected)
    });
    let count = refusals.count();
    assert!((10..=20).contains(&count), "{count} tries in ten minutes");
    assert_eq!(pair.terminal.end_reasons(), [], "the first child SA lives on");
}

#[test]
fn link_whose_rekeys_are_refused_is_made_again() {
    // The terminal demands a key exchange for each child SA, which this gateway does not know.
    let gateway = Connection { esp: vec![Offer { kex: vec![], ..offer() }], ..gateway() };
    let mut gateway = gateway;
    gateway.lifetimes.child = 24 * 3600 * SECOND;
    let mut pair = Pair::connected(gateway, terminal());
    pair.pass(3600 * SECOND);
    assert_eq!(pair.terminal.end_reasons(), []);
    pair.pass(302 * SECOND);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Expired]);
    assert_eq!(pair.gateway.end_reasons(), [Reason::Deleted]);
    pair.assert_one_each();
    let failed = pair.terminal.events.iter().filter(|event| matches!(event, Event::CreateFailed { .. }));
    let count = failed.count();
    assert!((5..=30).contains(&count), "{count} tries");
}

/// Another child SA with the same policy is no substitute if it carries less.
#[test]
fn child_sa_that_ends_beside_a_narrower_one_is_made_again() {
    // The narrower one is made before the other one ends, or after that.
    for (last, is_missing, is_later) in
        [(15, true, false), (255, false, false), (15, true, true), (255, false, true)]
    {
        // All requests of the gateway are the test's own.
        let quiet = Connection { liveness: None, ..gateway() };
        let mut insider = Insider::new(quiet, terminal(), Settings::default());
        let first = insider.pair.terminal.newest_child().spi_out;
        let transforms = [(1, 20, Some(256)), (4, 31, None), (5, 0, None)];
        let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits }).to_vec();
        let spi = 0x1000u32.to_be_bytes().to_vec();
        let request = [
            Payload::Sa(vec![Proposal { number: 1, protocol: 3, spi, transforms }]),
            Payload::Nonce(&[7; 32]),
            Payload::Ke { method: 31, data: &[9; 32] },
            Payload::TsI(vec![prefix([10, 99, 0, 0], [10, 99, 0, last])]),
            Payload::TsR(vec![prefix([0; 4], [255; 4])]),
        ];
        if is_later {
            delete(&mut insider, 0, first);
            drop(insider.pair.up());
        }
        ask_terminal(&mut insider, ExchangeType::CreateChildSa, u32::from(is_later), &request);
        drop(insider.pair.up());
        assert_eq!(insider.pair.terminal.children().len(), 2);
        if !is_later {
            delete(&mut insider, 1, first);
        }
        insider.pair.settle();
        let times = usize::from(is_missing || is_later);
        assert_eq!(waits(&insider.pair.terminal).len(), times, "{last}");
        insider.pair.pass(2 * SECOND);
        assert_eq!(insider.pair.terminal.children().len(), 2 + usize::from(is_missing), "{last}");
        assert_eq!(waits(&insider.pair.terminal).len(), times, "{last}");
    }
}

/// Takes the gateway's requests, and returns of each whether it replaces a child SA.
fn rekeys(insider: &mut Insider) -> Vec<bool> {
    let sent = insider.pair.down();
    let is_rekey = |message: &[u8]| insider.read(message, |all| notified(all, notify::REKEY_SA).is_some());
    sent.iter().map(|(_, message)| is_rekey(message)).collect()
}

/// A peer that has lost a child SA says so when we rekey it (RFC 7296 §2.25).
#[test]
fn lost_child_sa_is_made_again_beside_a_narrower_one() {
    for (last, is_missing) in [(15, true), (255, false)] {
        let mut insider = Insider::new(gateway(), terminal(), Settings::default());
        let peer = insider.pair.connected_peers()[1][0];
        let first = insider.pair.gateway.endpoint.peer(peer).unwrap().children().next().unwrap();
        let part = prefix([10, 99, 0, 0], [10, 99, 0, last]);
        assert!(matches!(insider.child(0x1000, None, true, &[part]), Answer::Accepted(_)));
        insider.pair.gateway.endpoint.handle_child_due(insider.pair.now, peer, first);
        assert_eq!(rekeys(&mut insider), [true]);
        let refusal = ErrorNotify::child_sa_not_found([0, 0, 0, 1]);
        insider.answer(ExchangeType::CreateChildSa, 0, TERMINAL, &[refusal.payload()]);
        assert_eq!(rekeys(&mut insider), [false][usize::from(!is_missing)..], "{last}");
    }
}

/// Reports that the terminal's child SA may carry nothing more.
fn expire_child(pair: &mut Pair) {
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    let child = pair.terminal.endpoint.peers().next().unwrap().children().next().unwrap();
    pair.terminal.endpoint.handle_child_expired(pair.now, here, child);
    pair.settle();
}

#[test]
fn child_sa_that_may_carry_nothing_more_is_rekeyed() {
    let mut pair = Pair::connected(gateway(), terminal());
    expire_child(&mut pair);
    pair.pass(10 * SECOND);
    assert_eq!((pair.terminal.end_reasons(), pair.terminal.children().len()), (vec![], 2));
    pair.assert_one_each();
}

#[test]
fn expired_child_sa_that_cannot_be_rekeyed_ends_the_link() {
    let gateway = Connection { esp: vec![Offer { kex: vec![], ..offer() }], ..gateway() };
    let mut pair = Pair::connected(gateway, terminal());
    expire_child(&mut pair);
    assert_eq!(
        (pair.terminal.end_reasons(), pair.gateway.end_reasons()),
        (vec![Reason::Expired], vec![Reason::Deleted])
    );
    pair.pass(2 * SECOND);
    pair.assert_one_each();
}

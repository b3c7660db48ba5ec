//! Unknown payloads: a critical one rejects its request in every exchange, any other is skipped (RFC
//! 7296 §2.5).

use crate::{
    insider::{Answer, Insider},
    malformed_handshake::{hybrid, states},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, terminal},
    side::to_gateway,
};
use wayfarer_mobility::ike::{
    protection::Plaintext,
    reason::Reason,
    settings::Settings,
    wire::{self, ErrorNotify, ExchangeType, Header, Payload, flags, kind, notify},
};

/// An unknown payload type.
const UNKNOWN: u8 = 200;
/// The flags of a critical payload.
const CRITICAL_FLAG: u8 = 0x80;
/// The header of a critical payload.
const CRITICAL: [u8; 4] = [0, CRITICAL_FLAG, 0, 4];

/// Returns the refusal in a response that consists of nothing else.
fn refusal(response: Option<Plaintext>) -> ErrorNotify {
    let Plaintext { first, body, .. } = response.expect("a response");
    let payloads = wire::parse(first, &body).unwrap();
    assert_eq!(payloads.len(), 1);
    ErrorNotify::find(&payloads).expect("a refusal")
}

fn unsupported() -> ErrorNotify {
    ErrorNotify { kind: notify::UNSUPPORTED_CRITICAL_PAYLOAD, esp_spi: None, data: vec![UNKNOWN] }
}

/// Makes the body of a request that deletes the IKE SA, with an unknown payload after that.
fn delete_and(unknown: [u8; 4]) -> (u8, Vec<u8>) {
    let mut body = vec![];
    let delete = Payload::Delete(wire::Delete { protocol: 1, spis: vec![] });
    let first = wire::emit(&[delete, Payload::Unknown(UNKNOWN)], &mut body);
    body.truncate(body.len() - 4);
    (first, [body, unknown.to_vec()].concat())
}

fn insider() -> Insider {
    Insider::new(gateway(), terminal(), Settings::default())
}

#[test]
fn first_message_with_a_critical_payload_is_refused_and_forgotten() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let (addresses, good) = pair.up().remove(0);
    // Its last payload, the vendor ID, is of an unknown type instead.
    let vendor = good.len() - 20;
    let before = (wire::HEADER..vendor).rev().find(|at| good[*at] == kind::VENDOR).unwrap();
    for (unknown, critical, is_refused) in
        [(UNKNOWN, CRITICAL_FLAG, true), (UNKNOWN, 0, false), (kind::VENDOR, CRITICAL_FLAG, false)]
    {
        let mut message = good.clone();
        (message[before], message[vendor + 1]) = (unknown, critical);
        // Each comes from another initiator.
        message[0] ^= unknown ^ critical;
        pair.deliver_up(&(addresses, message));
        let answer = pair.down().remove(0).1;
        let header = Header::parse(&answer).unwrap();
        let payloads = wire::parse(header.next, &answer[wire::HEADER..]).unwrap();
        let refused = is_refused.then(unsupported);
        assert_eq!(ErrorNotify::find(&payloads), refused, "{unknown} with flags {critical}");
    }
    assert_eq!(pair.gateway.endpoint.half_open(), 2);
}

#[test]
fn critical_payload_ends_a_handshake() {
    for (exchanges, exchange, [gateway, terminal]) in states() {
        let mut insider = Insider::after(exchanges, gateway, terminal);
        let message = insider.seal_body(exchange, UNKNOWN, CRITICAL.to_vec());
        let refusal = refusal(insider.response(&message));
        assert_eq!(refusal, unsupported(), "{exchange:?} after {exchanges}");
        assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Protocol]);
        assert_eq!(insider.pair.gateway.endpoint.half_open(), 0);
    }
}

#[test]
fn critical_payload_fails_only_its_request() {
    let mut insider = insider();
    for exchange in [
        ExchangeType::CreateChildSa,
        ExchangeType::FollowupKe,
        ExchangeType::Informational,
        ExchangeType::Auth,
        ExchangeType::Intermediate,
    ] {
        // Within one message, in fragments, and before the encrypted payload.
        let (first, body) = delete_and(CRITICAL);
        let inside = insider.seal_body(exchange, first, body);
        assert_eq!(refusal(insider.response(&inside)), unsupported(), "{exchange:?}");
        let (first, body) = delete_and(CRITICAL);
        let long = [vec![kind::VENDOR, 0, 1, 148], vec![0; 400], vec![first, 0, 0, 4], body].concat();
        let mut parts = insider.seal_fragments(exchange, kind::VENDOR, long);
        let last = parts.pop().unwrap();
        assert!(parts.len() > 1);
        for part in &parts {
            assert_eq!(insider.response(part), None);
        }
        assert_eq!(refusal(insider.response(&last)), unsupported(), "{exchange:?}");
        for number in [&[][..], &[0, 1, 0, 1]] {
            let before = insider.seal_behind(exchange, UNKNOWN, CRITICAL_FLAG, number);
            assert_eq!(refusal(insider.response(&before)), unsupported(), "{exchange:?} {number:?}");
        }
    }
    assert_eq!((insider.pair.gateway.end_reasons(), insider.children()), (vec![], 1));
    assert_eq!(insider.ask(ExchangeType::Informational, &[]), Answer::Other, "the IKE SA lives on");
}

#[test]
fn rejection_of_our_proof_with_a_critical_payload_is_not_acted_on() {
    let [gateway, terminal] = hybrid();
    let mut insider = Insider::after(2, gateway, terminal);
    let message = insider.seal_body(ExchangeType::Informational, UNKNOWN, CRITICAL.to_vec());
    assert_eq!(refusal(insider.response(&message)), unsupported());
    assert_eq!((insider.pair.gateway.end_reasons(), insider.pair.gateway.endpoint.half_open()), (vec![], 1));
}

#[test]
fn unknown_payloads_that_are_not_critical_are_skipped() {
    for (unknown, body) in [
        ([0, 0, 0, 4], delete_and([0, 0, 0, 4])),
        // The critical flag of a payload that we know means nothing.
        (CRITICAL, (kind::DELETE, vec![0, CRITICAL_FLAG, 0, 8, 1, 0, 0, 0])),
    ] {
        let mut insider = insider();
        let message = insider.seal_body(ExchangeType::Informational, body.0, body.1);
        assert_eq!(insider.send(&message), Answer::Other);
        assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Deleted], "{unknown:?}");
    }
    let mut insider = insider();
    for (kind, flags) in [(UNKNOWN, 0), (kind::VENDOR, CRITICAL_FLAG)] {
        let message = insider.seal_behind(ExchangeType::Informational, kind, flags, &[]);
        assert_eq!(insider.send(&message), Answer::Other, "{kind}");
    }
}

#[test]
fn response_with_a_critical_payload_fails_its_exchange() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
    assert_eq!(insider.pair.down().len(), 1);
    let flags = flags::INITIATOR | flags::RESPONSE;
    let answer = insider.protect(ExchangeType::CreateChildSa, flags, 0, UNKNOWN, CRITICAL.to_vec());
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, to_gateway(TERMINAL, 4500), &answer);
    insider.pass(Duration::from_millis(1));
    assert_eq!((insider.pair.gateway.end_reasons(), insider.ike_sas()), (vec![], 1));
}

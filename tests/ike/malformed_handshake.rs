//! Malformed messages of a handshake: they are refused, never taken for empty ones.

use crate::{
    doubles::{user, users},
    insider::{Answer, Insider},
    malformed::CUT,
    pair::Pair,
};
use std::net::SocketAddr;
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, offer, terminal},
    side::reversed,
};
use wayfarer_mobility::{
    crypto::Kex,
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        counter::Counter,
        proposal::Offer,
        reason::Reason,
        wire::{self, ExchangeType, Header, Payload, flags, kind, notify},
    },
    path::Addresses,
};

/// Makes connections of both sides with an additional key exchange.
pub(super) fn hybrid() -> [Connection; 2] {
    let ike = || vec![Offer { more_kex: vec![vec![Kex::MlKem768]], ..offer() }];
    [gateway(), terminal()].map(|connection| Connection { ike: ike(), ..connection })
}

/// Makes connections of both sides with EAP.
fn by_eap() -> [Connection; 2] {
    [
        Connection { remote_auth: RemoteAuth::Eap(users(&["cl"])), ..gateway() },
        Connection { local_auth: LocalAuth::Eap(user("cl")), ..terminal() },
    ]
}

/// Lists the states that wait for a message: completed exchanges, the awaited exchange, and the
/// connections.
pub(super) fn states() -> [(u32, ExchangeType, [Connection; 2]); 5] {
    [
        (1, ExchangeType::Intermediate, hybrid()),
        (2, ExchangeType::Auth, hybrid()),
        (1, ExchangeType::Auth, [gateway(), terminal()]),
        (2, ExchangeType::Auth, by_eap()),
        // MS-CHAPv2 has ended, and AUTH payloads by its key follow.
        (5, ExchangeType::Auth, by_eap()),
    ]
}

#[test]
fn malformed_requests_are_refused_and_end_the_handshake() {
    for (exchanges, exchange, [gateway, terminal]) in states() {
        let mut insider = Insider::after(exchanges, gateway, terminal);
        let message = insider.seal_body(exchange, kind::NOTIFY, CUT.to_vec());
        let refused = Answer::Refused(notify::INVALID_SYNTAX);
        assert_eq!(insider.send(&message), refused, "{exchange:?} after {exchanges}");
        assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Protocol]);
        assert_eq!(insider.pair.gateway.endpoint.half_open(), 0);
    }
}

#[test]
fn refuses_requests_without_required_payloads() {
    for (exchanges, exchange, [gateway, terminal]) in states() {
        let mut insider = Insider::after(exchanges, gateway, terminal);
        let answer = insider.ask(exchange, &[Payload::Vendor(b"nothing else")]);
        assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "{exchange:?} after {exchanges}");
        assert_eq!(insider.pair.gateway.end_reasons(), [Reason::Protocol]);
    }
}

#[test]
fn malformed_answers_end_the_handshake() {
    for (exchanges, exchange, [gateway, terminal]) in states() {
        let mut insider = Insider::after(exchanges, gateway, terminal);
        let message = insider.protect(exchange, flags::RESPONSE, exchanges, kind::NOTIFY, CUT.to_vec());
        let [local, remote] = [TERMINAL, GATEWAY].map(|address| SocketAddr::from((address, 4500)));
        let Pair { terminal, now, .. } = &mut insider.pair;
        terminal.endpoint.handle_datagram(*now, Addresses { local, remote }, &message);
        let sent = terminal.work(*now);
        assert_eq!(terminal.end_reasons(), [Reason::Protocol], "{exchange:?} after {exchanges}");
        // The gateway may believe that the IKE SA is established, and is told that it is not
        // (RFC 7296 §2.21.2).
        let farewells = usize::from(exchange == ExchangeType::Auth);
        assert_eq!(sent.len(), farewells, "{exchange:?} after {exchanges}");
    }
}

#[test]
fn refuses_configuration_attributes_of_a_wrong_length() {
    for (kind, length) in [(1u16, 3u8), (1, 5), (3, 16), (8, 4), (8, 16), (8, 18), (10, 17)] {
        let mut insider = Insider::after(1, gateway(), terminal());
        let [high, low] = kind.to_be_bytes();
        let body = [vec![0, 0, 0, 12 + length, 1, 0, 0, 0, high, low, 0, length], vec![7; length.into()]];
        let message = insider.seal_body(ExchangeType::Auth, kind::CP, body.concat());
        let answer = insider.send(&message);
        assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "attribute {kind} of {length} bytes");
    }
}

#[test]
fn refuses_no_nats_allowed_of_a_wrong_length() {
    for length in [0, 11, 13, 35] {
        let mut insider = Insider::after(1, gateway(), terminal());
        let path = [7; 35];
        let payloads =
            [Payload::IdI(terminal().local_id), Payload::notify(notify::NO_NATS_ALLOWED, &path[..length])];
        let answer = insider.ask(ExchangeType::Auth, &payloads);
        assert_eq!(answer, Answer::Refused(notify::INVALID_SYNTAX), "{length} bytes");
    }
}

#[test]
fn refuses_ike_sa_init_without_a_required_payload() {
    let header = |spi_i| Header {
        spi_i,
        spi_r: 0,
        next: 0,
        version: wire::VERSION,
        exchange: ExchangeType::SaInit.number(),
        flags: flags::INITIATOR,
        message_id: 0,
        length: 0,
    };
    let proposal = offer().ike(1, &[]);
    let all =
        [Payload::Sa(vec![proposal]), Payload::Ke { method: 31, data: &[9; 32] }, Payload::Nonce(&[7; 32])];
    let mut pair = Pair::new(gateway(), terminal());
    let [local, remote] = [GATEWAY, TERMINAL].map(|address| SocketAddr::from((address, 500)));
    for without in 0..all.len() {
        let mut some = all.to_vec();
        some.remove(without);
        let message = wire::emit_message(header(1 + without as u64), &some);
        pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local, remote }, &message);
        let answer = pair.down().remove(0).1;
        let payloads = wire::parse(answer[16], &answer[wire::HEADER..]).unwrap();
        assert!(matches!(payloads[..], [Payload::Notify(n)] if n.kind == notify::INVALID_SYNTAX));
    }
    let hashes = Payload::notify(notify::SIGNATURE_HASH_ALGORITHMS, &[0, 2, 0]);
    let message = wire::emit_message(header(9), &[all.to_vec(), vec![hashes]].concat());
    pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local, remote }, &message);
    drop(pair.down());
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 4);
    assert_eq!(pair.gateway.endpoint.half_open(), 0);
}

#[test]
fn ignores_malformed_answers_to_ike_sa_init() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let request = pair.up().remove(0);
    pair.deliver_up(&request);
    let (addresses, answer) = pair.down().remove(0);
    for length in wire::HEADER..answer.len() {
        let mut cut = answer[..length].to_vec();
        cut[24..28].copy_from_slice(&(length as u32).to_be_bytes());
        pair.terminal.endpoint.handle_datagram(pair.now, reversed(addresses), &cut);
        assert_eq!(pair.up(), []);
    }
    pair.deliver_down(&(addresses, answer));
    pair.settle();
    pair.assert_one_each();
}

//! Quick Crash Detection (RFC 6290): peers notice at once that the other side has lost their link.

use crate::{
    doubles::{user, users},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, terminal},
    keys::LoggedKeys,
    side::{Message, Side, to_gateway},
};
use wayfarer_mobility::ike::{
    connection::{Connection, LocalAuth, RemoteAuth, SharedKey},
    counter::Counter,
    protection::Fragments,
    reason::Reason,
    settings::Settings,
    wire::{HEADER, Header, Notify, Payload, emit, emit_message, flags, kind, notified, notify, parse},
};
use zeroize::Zeroizing;

/// The settings of a side whose secret consists of this byte.
fn secret(byte: u8) -> Settings {
    Settings { crash_secret: Some(SharedKey(Zeroizing::new(vec![byte; 32]))), ..Settings::default() }
}

fn new_gateway(seed: u64) -> Side {
    Side::new(vec![gateway()], secret(1), seed)
}

fn new_terminal(seed: u64) -> Side {
    Side::new(vec![terminal()], secret(2), seed)
}

/// Makes a pair in which both sides give tokens, and connects it.
fn connected() -> Pair {
    let mut pair = Pair::new(gateway(), terminal());
    (pair.gateway, pair.terminal) = (new_gateway(3), new_terminal(4));
    pair.connect();
    pair.assert_one_each();
    pair
}

/// Has one side check that the other is alive.
fn check(side: &mut Side, now: Duration) {
    let peer = side.connected_peers()[0];
    side.endpoint.handle_liveness(now, peer, false);
}

/// Returns the terminal's liveness check, which stays unanswered.
fn unanswered_check(pair: &mut Pair) -> Message {
    check(&mut pair.terminal, pair.now);
    let check = pair.up().remove(0);
    assert!(pair.up().is_empty());
    check
}

/// Returns the token in an unprotected answer.
fn token(message: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(message).unwrap();
    let payloads = parse(header.next, &message[HEADER..]).unwrap();
    notified(&payloads, notify::QCD_TOKEN).map(<[u8]>::to_vec)
}

/// Returns what a gateway that has lost everything answers to this message.
fn answer_of_new_gateway(pair: &mut Pair, message: &Message) -> Message {
    let alive = std::mem::replace(&mut pair.gateway, new_gateway(5));
    pair.deliver_up(message);
    let answer = pair.down().remove(0);
    pair.gateway = alive;
    answer
}

/// Returns what a terminal that has lost everything answers to this message.
fn answer_of_new_terminal(pair: &mut Pair, message: &Message) -> Message {
    let alive = std::mem::replace(&mut pair.terminal, new_terminal(5));
    pair.deliver_down(message);
    let answer = pair.up().remove(0);
    pair.terminal = alive;
    answer
}

/// Returns an unprotected answer with these notifies to a request with this header.
fn forged_answer(request: Header, notifies: &[Notify<'_>]) -> Vec<u8> {
    let payloads: Vec<_> = notifies.iter().copied().map(Payload::Notify).collect();
    emit_message(Header { flags: flags::RESPONSE, ..request }, &payloads)
}

const UNKNOWN: Notify<'static> = Notify { protocol: 0, spi: &[], kind: notify::INVALID_IKE_SPI, data: &[] };

fn token_notify(data: &[u8]) -> Notify<'_> {
    Notify { protocol: 1, ..Notify::new(notify::QCD_TOKEN, data) }
}

#[test]
fn terminal_notices_a_crash_of_the_gateway_and_connects_again() {
    let mut pair = connected();
    pair.gateway = new_gateway(5);
    check(&mut pair.terminal, pair.now);
    pair.settle();
    assert_eq!(pair.terminal.end_reasons(), [Reason::Lost]);
    assert_eq!(pair.terminal.endpoint.state_sizes().children, 0);
    pair.pass(Duration::from_secs(1));
    pair.assert_one_each();
}

#[test]
fn gateway_notices_a_crash_of_the_terminal() {
    let mut pair = connected();
    pair.terminal = new_terminal(5);
    check(&mut pair.gateway, pair.now);
    pair.settle();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Lost]);
}

/// Makes a pair in which both sides give tokens and the terminal proves by EAP who it is.
fn by_eap() -> Pair {
    let with_eap = Connection { remote_auth: RemoteAuth::Eap(users(&["cl"])), ..gateway() };
    let user = Connection { local_auth: LocalAuth::Eap(user("cl")), ..terminal() };
    let mut pair = Pair::new(gateway(), terminal());
    pair.gateway = Side::new(vec![with_eap], Settings { log_keys: true, ..secret(1) }, 3);
    pair.terminal = Side::new(vec![user], secret(2), 4);
    pair
}

/// Returns the payloads of the terminal's message after `change`, sealed.
fn changed(keys: &mut LoggedKeys, message: &[u8], change: impl FnOnce(&mut Vec<Payload<'_>>)) -> Vec<u8> {
    let header = Header::parse(message).unwrap();
    let opened = keys.protection(true).open(&header, message, &mut Fragments::default());
    let opened = opened.unwrap().unwrap();
    let mut payloads = parse(opened.first, &opened.body).unwrap();
    change(&mut payloads);
    let mut body = vec![];
    let first = emit(&payloads, &mut body);
    keys.seal(header, first, body, None).remove(0)
}

/// Connects the pair. `change` gets the payloads of each request after the first message, and its ID.
fn connect_with(pair: &mut Pair, mut change: impl FnMut(u32, &mut Vec<Payload<'_>>)) {
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let mut keys = None;
    loop {
        let sent = pair.up();
        if sent.is_empty() {
            return pair.assert_one_each();
        }
        for (addresses, message) in sent {
            let id = Header::parse(&message).unwrap().message_id;
            let message = match id {
                0 => message,
                _ => {
                    let keys = keys.get_or_insert_with(|| LoggedKeys::newest(&pair.gateway.events));
                    changed(keys, &message, |payloads| change(id, payloads))
                }
            };
            pair.deliver_up(&(addresses, message));
        }
        pair.down().iter().for_each(|message| pair.deliver_down(message));
    }
}

/// With EAP, the tokens go with the last request and its response (RFC 6290 §4.2).
/// Has the gateway or the terminal lose everything, has the other check it, and returns why links of
/// that one have ended.
fn crash(pair: &mut Pair, of_gateway: bool) -> Vec<Reason> {
    let now = pair.now;
    match of_gateway {
        true => {
            pair.gateway = new_gateway(5);
            check(&mut pair.terminal, now);
        }
        false => {
            pair.terminal = new_terminal(5);
            check(&mut pair.gateway, now);
        }
    }
    pair.settle();
    if of_gateway { pair.terminal.end_reasons() } else { pair.gateway.end_reasons() }
}

#[test]
fn crash_is_noticed_after_eap() {
    for crash_of_gateway in [true, false] {
        let mut pair = by_eap();
        let mut has_token = vec![];
        connect_with(&mut pair, |_, payloads| {
            has_token.push(notified(payloads, notify::QCD_TOKEN).is_some());
        });
        assert_eq!(has_token, [false, false, false, false, true]);
        assert_eq!(crash(&mut pair, crash_of_gateway), [Reason::Lost], "{crash_of_gateway}");
    }
}

#[test]
fn token_in_the_first_request_of_eap_is_taken_too() {
    let mut pair = by_eap();
    connect_with(&mut pair, |id, payloads| {
        payloads.retain(|p| !matches!(p, Payload::Notify(n) if n.kind == notify::QCD_TOKEN));
        payloads.extend((id == 1).then_some(Payload::Notify(token_notify(&[9; 32]))));
    });
    check(&mut pair.gateway, pair.now);
    let (addresses, request) = pair.down().remove(0);
    let flags = flags::RESPONSE | flags::INITIATOR;
    let header = Header { flags, ..Header::parse(&request).unwrap() };
    let answer = [UNKNOWN, token_notify(&[9; 32])].map(Payload::Notify);
    let answer = emit_message(header, &answer);
    pair.gateway.endpoint.handle_datagram(pair.now, addresses, &answer);
    assert_eq!(pair.down(), []);
    assert_eq!(pair.gateway.end_reasons(), [Reason::Lost]);
}

#[test]
fn crash_is_noticed_after_new_keys_of_either_side() {
    for by_terminal in [true, false] {
        for crash_of_gateway in [true, false] {
            let mut pair = connected();
            let [here, there] = pair.connected_peers().map(|all| all[0]);
            match by_terminal {
                true => pair.terminal.endpoint.rekey(pair.now, here, true),
                false => pair.gateway.endpoint.rekey(pair.now, there, true),
            }
            pair.settle();
            pair.assert_one_each();
            assert_eq!(
                crash(&mut pair, crash_of_gateway),
                [Reason::Lost],
                "{by_terminal} {crash_of_gateway}"
            );
        }
    }
}

#[test]
fn lost_predecessor_of_an_ike_sa_does_not_end_the_link() {
    let mut pair = connected();
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, true);
    // The request and its answer arrive; the deletion of the old IKE SA does not.
    let request = pair.up().remove(0);
    pair.deliver_up(&request);
    let answer = pair.down().remove(0);
    pair.deliver_down(&answer);
    let sent = pair.up();
    let is_of_old = |(_, message): &&Message| {
        Header::parse(message).unwrap().spi_i == Header::parse(&request.1).unwrap().spi_i
    };
    let deletion = sent.iter().find(is_of_old).unwrap().clone();
    let before = pair.terminal.endpoint.state_sizes().spis;
    let answer = answer_of_new_gateway(&mut pair, &deletion);
    pair.deliver_down(&answer);
    assert!(pair.up().is_empty());
    assert_eq!(pair.terminal.end_reasons(), []);
    assert_eq!(pair.terminal.endpoint.state_sizes().spis, before - 1);
    sent.iter().for_each(|message| pair.deliver_up(message));
    pair.settle();
    pair.assert_one_each();
}

#[test]
fn only_the_token_ends_a_link() {
    let mut pair = connected();
    let check = unanswered_check(&mut pair);
    let (_, proof) = answer_of_new_gateway(&mut pair, &check);
    let right = token(&proof).unwrap();
    let wrong = vec![9; right.len()];
    let request = Header::parse(&check.1).unwrap();
    let full = [UNKNOWN, token_notify(&right)];
    let fifth: Vec<_> =
        [UNKNOWN].into_iter().chain([token_notify(&wrong); 4]).chain([token_notify(&right)]).collect();
    let all = [
        forged_answer(request, &[UNKNOWN]),
        forged_answer(request, &[UNKNOWN, token_notify(&wrong)]),
        forged_answer(request, &[UNKNOWN, token_notify(&right[1..])]),
        forged_answer(request, &[token_notify(&right)]),
        forged_answer(request, &fifth),
        forged_answer(Header { message_id: request.message_id + 1, ..request }, &full),
        forged_answer(Header { spi_r: request.spi_r ^ 1, ..request }, &full),
    ];
    for (index, message) in all.iter().enumerate() {
        pair.terminal.endpoint.handle_datagram(pair.now, check.0, message);
        assert!(pair.up().is_empty());
        assert_eq!(pair.terminal.end_reasons(), [], "answer {index}");
    }
    let four: Vec<_> =
        [UNKNOWN].into_iter().chain([token_notify(&wrong); 3]).chain([token_notify(&right)]).collect();
    pair.terminal.endpoint.handle_datagram(pair.now, check.0, &forged_answer(request, &four));
    assert!(pair.up().is_empty());
    assert_eq!(pair.terminal.end_reasons(), [Reason::Lost]);
}

#[test]
fn nobody_is_told_the_token_of_a_living_ike_sa() {
    let mut pair = connected();
    let of_terminal = unanswered_check(&mut pair);
    check(&mut pair.gateway, pair.now);
    let of_gateway = pair.down().remove(0);
    let gateways = token(&answer_of_new_gateway(&mut pair, &of_terminal).1).unwrap();
    let terminals = token(&answer_of_new_terminal(&mut pair, &of_gateway).1).unwrap();
    assert_ne!(gateways, terminals);
    let header = Header::parse(&of_terminal.1).unwrap();
    // Nobody else can make it authentic.
    let mut body = of_terminal.1[HEADER..].to_vec();
    *body.last_mut().unwrap() ^= 1;
    let mut tokens = [0; 2];
    for flags in [0, flags::INITIATOR] {
        for [spi_i, spi_r] in [[header.spi_i, header.spi_r], [header.spi_r, header.spi_i]] {
            let mut forged = vec![];
            Header { spi_i, spi_r, flags, ..header }.emit(&mut forged);
            forged.extend(&body);
            for (at, side, addresses, own) in [
                (0, &mut pair.gateway, to_gateway([192, 0, 2, 66], 500), &gateways),
                (1, &mut pair.terminal, of_terminal.0, &terminals),
            ] {
                side.endpoint.handle_datagram(pair.now, addresses, &forged);
                for (_, answer) in side.work(pair.now) {
                    let told = token(&answer);
                    tokens[at] += usize::from(told.is_some());
                    assert_ne!(told.as_ref(), Some(own));
                }
            }
        }
    }
    assert_eq!(tokens, [2; 2], "those that name no SPI of ours are told one");
    pair.deliver_up(&of_terminal);
    pair.settle();
    pair.assert_one_each();
}

#[test]
fn side_that_shuts_down_does_not_wait_for_a_peer_that_has_lost_the_link() {
    let mut pair = connected();
    pair.terminal = new_terminal(5);
    assert!(!pair.gateway.endpoint.shut_down(pair.now, 10));
    let deletion = pair.down().remove(0);
    pair.deliver_down(&deletion);
    let answer = pair.up().remove(0);
    pair.deliver_up(&answer);
    assert!(pair.gateway.endpoint.shut_down(pair.now, 10));
    assert_eq!(pair.gateway.end_reasons(), [Reason::Closed]);
    pair.now += Duration::from_secs(60);
    pair.gateway.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.down(), [], "it is not asked again");
}

#[test]
fn side_without_a_secret_gives_no_token() {
    let mut pair = Pair::connected(gateway(), terminal());
    let check = unanswered_check(&mut pair);
    pair.gateway = Side::new(vec![gateway()], Settings::default(), 5);
    pair.deliver_up(&check);
    let answer = pair.down().remove(0);
    assert_eq!(token(&answer.1), None);
    pair.deliver_down(&answer);
    assert!(pair.up().is_empty());
    assert_eq!(pair.terminal.end_reasons(), []);
}

#[test]
fn another_secret_proves_nothing() {
    let mut pair = connected();
    pair.gateway = Side::new(vec![gateway()], secret(7), 5);
    check(&mut pair.terminal, pair.now);
    pair.settle();
    assert_eq!(pair.terminal.end_reasons(), []);
}

/// Returns how many of `count` copies of a message from network 198.51.`network`.0 the gateway
/// answers.
fn answered(pair: &mut Pair, network: u8, count: usize, message: &[u8]) -> usize {
    for n in 0..count {
        let from = to_gateway([198, 51, network, n as u8], 4500);
        pair.gateway.endpoint.handle_datagram(pair.now, from, message);
    }
    pair.down().len()
}

#[test]
fn tokens_are_limited_for_each_network_and_in_all() {
    let mut pair = connected();
    let (at, check) = unanswered_check(&mut pair);
    pair.gateway = new_gateway(5);
    assert_eq!(answered(&mut pair, 1, 1000, &check), 128);
    assert_eq!(pair.gateway.endpoint.count(Counter::TooOften), 1000 - 128);
    // Another network gets what it asks for, whatever the first one does.
    pair.deliver_up(&(at, check.clone()));
    let answer = pair.down().remove(0);
    assert!(token(&answer.1).is_some());
    pair.deliver_down(&answer);
    assert!(pair.up().is_empty());
    assert_eq!(pair.terminal.end_reasons(), [Reason::Lost]);
    let all: usize = (2..20).map(|network| answered(&mut pair, network, 1000, &check)).sum();
    assert_eq!(all, 1024 - 128 - 1);
    pair.now += Duration::from_secs(1);
    assert_eq!(answered(&mut pair, 1, 1000, &check), 128);
}

/// After a crash all peers ask within two periods of liveness checks, and repeat what is not answered.
#[test]
fn ten_thousand_peers_get_their_tokens_while_one_network_floods() {
    let mut pair = connected();
    let (_, check) = unanswered_check(&mut pair);
    pair.gateway = new_gateway(5);
    for _ in 0..3000 {
        pair.now += Duration::from_millis(1);
        answered(&mut pair, 0, 10, &check);
        // 333 in a second, all behind one NAT.
        if pair.now.as_millis().is_multiple_of(3) {
            assert_eq!(answered(&mut pair, 7, 1, &check), 1);
        }
    }
}

#[test]
fn only_protected_requests_are_answered_by_a_token() {
    let mut pair = connected();
    let (_, check) = unanswered_check(&mut pair);
    pair.gateway = new_gateway(5);
    let header = Header::parse(&check).unwrap();
    let bare = emit_message(Header { next: 0, ..header }, &[]);
    let clear = emit_message(header, &[Payload::notify(notify::COOKIE2, &[0; 64])]);
    let short = [&bare[..16], &[kind::SK], &bare[17..27], &[32, 0, 0, 0, 4]].concat();
    for message in [bare, clear, short] {
        let from = to_gateway([198, 51, 100, 1], 4500);
        pair.gateway.endpoint.handle_datagram(pair.now, from, &message);
        let (_, answer) = pair.down().remove(0);
        assert_eq!(token(&answer), None);
    }
    // Those use up nothing of what others need.
    assert_eq!(answered(&mut pair, 1, 1, &check), 1);
}

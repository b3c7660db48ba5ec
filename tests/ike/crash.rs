//! Quick Crash Detection (RFC 6290): peers notice at once that the other side has lost their link.

use crate::pair::Pair;
use std::time::Duration;
use wayfarer::sim::ike::{
    connections::{gateway, terminal},
    side::{Message, Side, to_gateway},
};
use wayfarer_mobility::ike::{
    connection::SharedKey,
    counter::Counter,
    event::Reason,
    settings::Settings,
    wire::{HEADER, Header, Notify, Payload, emit_message, flags, notified, notify, parse},
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
            match crash_of_gateway {
                true => pair.gateway = new_gateway(5),
                false => pair.terminal = new_terminal(5),
            }
            let now = pair.now;
            let alive = if crash_of_gateway { &mut pair.terminal } else { &mut pair.gateway };
            check(alive, now);
            pair.settle();
            let alive = if crash_of_gateway { &pair.terminal } else { &pair.gateway };
            assert_eq!(alive.end_reasons(), [Reason::Lost], "{by_terminal} {crash_of_gateway}");
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
    let check = unanswered_check(&mut pair);
    let right = token(&answer_of_new_gateway(&mut pair, &check).1).unwrap();
    let header = Header::parse(&check.1).unwrap();
    let mut answers = 0;
    for flags in [0, flags::INITIATOR] {
        for [spi_i, spi_r] in [[header.spi_i, header.spi_r], [header.spi_r, header.spi_i]] {
            let forged = emit_message(Header { spi_i, spi_r, flags, ..header }, &[]);
            for (side, addresses) in
                [(&mut pair.gateway, to_gateway([192, 0, 2, 66], 500)), (&mut pair.terminal, check.0)]
            {
                side.endpoint.handle_datagram(pair.now, addresses, &forged);
                for (_, answer) in side.work(pair.now) {
                    answers += 1;
                    assert_ne!(token(&answer), Some(right.clone()));
                }
            }
        }
    }
    assert!(answers > 0, "those that name no SPI of ours are answered");
    pair.deliver_up(&check);
    pair.settle();
    pair.assert_one_each();
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

#[test]
fn answers_with_tokens_are_limited() {
    let mut pair = connected();
    let check = unanswered_check(&mut pair);
    pair.gateway = new_gateway(5);
    (0..1000).for_each(|_| pair.deliver_up(&check));
    let answers = pair.down().len();
    assert!((1..=100).contains(&answers), "{answers}");
    assert_eq!(pair.gateway.endpoint.count(Counter::TooOften), 1000 - answers as u64);
}

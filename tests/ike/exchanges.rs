//! Exchanges one by one: a line for each message, and what must have come of it.

use crate::pair::Pair;
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, terminal};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::{Event, Reason},
        settings::Settings,
        view::State,
        wire::{self, ExchangeType, Header, Notify, Payload, flags, notify},
    },
    path::Addresses,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_have_the_same_keys_and_selectors() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.connect();
    let (ours, theirs) = (pair.gateway.children(), pair.terminal.children());
    let ([ours], [theirs]) = (&ours[..], &theirs[..]) else {
        panic!("{:#?} {:#?}", pair.gateway.events, pair.terminal.events)
    };
    assert_eq!((ours.spi_in, ours.spi_out), (theirs.spi_out, theirs.spi_in));
    assert_eq!((&ours.key_in, &ours.key_out), (&theirs.key_out, &theirs.key_in));
    assert_ne!(ours.key_in, ours.key_out);
    assert_eq!((&ours.local, &ours.remote), (&theirs.remote, &theirs.local));
    assert_eq!(ours.path.udp, None, "there is no NAT");
}

#[test]
fn keys_change_and_nothing_is_left_behind() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.connect();
    pair.pass(Duration::from_secs(12 * 3600));
    let ups = pair.gateway.children().len();
    let downs = pair.gateway.events.iter().filter(|e| matches!(e, Event::ChildDown { .. })).count();
    assert!((12..=30).contains(&ups), "{ups}");
    assert!(
        !pair.gateway.events.iter().any(|e| matches!(e, Event::PeerDown { .. })),
        "{:#?}",
        pair.gateway.events
    );
    assert!(ups - downs <= 2, "{ups} {downs}");
}

// Repetition and order (RFC 7296 §2.1 to §2.3).

#[test]
fn what_is_asked_again_is_answered_with_the_same_bytes() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for exchange in ["init", "auth"] {
        let request = pair.up();
        pair.deliver_up(&request[0]);
        let answer = pair.down();
        pair.deliver_up(&request[0]);
        assert_eq!(pair.down(), answer, "{exchange}");
        pair.deliver_down(&answer[0]);
    }
    pair.settle();
    for ike_sa in [false, true] {
        let [here, _] = pair.ups().map(|all| all[0]);
        pair.terminal.endpoint.rekey(pair.now, here, ike_sa);
        let request = pair.up();
        pair.deliver_up(&request[0]);
        let answer = pair.down();
        assert_eq!(answer.len(), 1);
        pair.pass(Duration::from_millis(501));
        pair.deliver_up(&request[0]);
        pair.deliver_down(&answer[0]);
        pair.settle();
        pair.pass(10 * SECOND);
        pair.assert_one_each();
    }
    assert!(pair.gateway.endpoint.count(Counter::Repeated) >= 4);
}

#[test]
fn rekeys_of_ike_and_child_sas_are_counted_and_first_sas_are_not() {
    let mut pair = Pair::connected(gateway(), terminal());
    let counts =
        |pair: &Pair| [&pair.terminal, &pair.gateway].map(|end| end.endpoint.count(Counter::Rekeyed));
    assert_eq!(counts(&pair), [0, 0]);
    let [here, _] = pair.ups().map(|all| all[0]);
    for (rekeys, ike_sa) in [(1, false), (2, true)] {
        pair.terminal.endpoint.rekey(pair.now, here, ike_sa);
        pair.settle();
        assert_eq!(counts(&pair), [rekeys, rekeys]);
    }
}

#[test]
fn a_repeated_request_is_not_resealed() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.ups().map(|all| all[0]);
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    let request = pair.up();
    pair.deliver_up(&request[0]);
    let answer = pair.down();
    (0..3).for_each(|_| {
        pair.deliver_up(&request[0]);
        assert_eq!(pair.down(), answer);
    });
}

// Cookies (RFC 7296 §2.6).

#[test]
fn a_cookie_is_asked_for_and_one_of_another_is_not_taken() {
    let settings = Settings { cookie_threshold: 0, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let asked = pair.down();
    assert_eq!((asked.len(), pair.gateway.endpoint.peers().count()), (1, 0), "nothing is kept");
    pair.deliver_down(&asked[0]);
    let second = pair.up();
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 500));
    pair.deliver_up(&(Addresses { local: elsewhere, ..second[0].0 }, second[0].1.clone()));
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "from another address");
    pair.down();
    pair.now += 200 * SECOND;
    pair.deliver_up(&second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "too old");
    let again = pair.down();
    pair.deliver_down(&again[0]);
    pair.settle();
    assert_eq!(pair.gateway.endpoint.count(Counter::Cookie), 3);
}

#[test]
fn a_cookie_is_good_after_its_secret_turned_over_once() {
    let settings = Settings { cookie_threshold: 0, half_open: 300 * SECOND, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let asked = pair.down();
    pair.deliver_down(&asked[0]);
    let second = pair.up();
    pair.now += 61 * SECOND;
    pair.deliver_up(&second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 1);
}

// What is not for us.

fn header(exchange: ExchangeType, spi_r: u64) -> Header {
    Header {
        spi_i: 0x1111,
        spi_r,
        next: 0,
        version: wire::VERSION,
        exchange: exchange.number(),
        flags: flags::INITIATOR,
        message_id: 0,
        length: 0,
    }
}

/// What the gateway answers to a message in clear.
fn told(pair: &mut Pair, message: &[u8]) -> Option<u16> {
    let from =
        Addresses { local: SocketAddr::from((TERMINAL, 500)), remote: SocketAddr::from((GATEWAY, 500)) };
    pair.deliver_up(&(from, message.to_vec()));
    let answers = pair.down();
    let (_, answer) = answers.first()?;
    let header = Header::parse(answer).unwrap();
    assert!(header.is_response());
    wire::parse(header.next, &answer[wire::HEADER..]).unwrap().iter().find_map(|p| match p {
        Payload::Notify(Notify { kind, .. }) => Some(*kind),
        _ => None,
    })
}

#[test]
fn versions_payloads_and_spis_that_are_unknown() {
    let mut pair = Pair::new(gateway(), terminal());
    let mut future = wire::emit_message(header(ExchangeType::SaInit, 0), &[]);
    future[17] = 0x30;
    assert_eq!(told(&mut pair, &future), Some(notify::INVALID_MAJOR_VERSION));
    let mut critical = wire::emit_message(header(ExchangeType::SaInit, 0), &[Payload::Vendor(b"x")]);
    critical[16] = 200;
    critical[29] = 0x80;
    assert_eq!(told(&mut pair, &critical), Some(notify::UNSUPPORTED_CRITICAL_PAYLOAD));
    let stranger = wire::emit_message(header(ExchangeType::Informational, 0x2222), &[]);
    let hints = (0..150).filter(|_| told(&mut pair, &stranger) == Some(notify::INVALID_IKE_SPI)).count();
    assert_eq!(hints, 99, "with the answer about the version a hundred in one second");
    assert_eq!(pair.gateway.endpoint.peers().count(), 0);
}

// Life and death.

#[test]
fn who_is_silent_ends_and_esp_counts_as_life() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.ups().map(|all| all[0]);
    for _ in 0..40 {
        pair.now += 10 * SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        drop(pair.down());
        pair.gateway.endpoint.handle_liveness(pair.now, there, true);
    }
    assert_eq!(pair.gateway.ends(), []);
    pair.gateway.endpoint.handle_liveness(pair.now, there, false);
    let until = pair.now + Settings::default().retransmission.total() + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        drop(pair.down());
    }
    assert_eq!(pair.gateway.ends(), [Reason::Timeout]);
}

#[test]
fn a_second_connection_takes_the_place_and_the_address_of_the_first() {
    let mut pair = Pair::connected(gateway(), terminal());
    let inner = |pair: &Pair| {
        let up = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap();
        up.inner().collect::<Vec<_>>()
    };
    let had = inner(&pair);
    pair.replace_terminal(terminal());
    pair.connect();
    assert_eq!(pair.gateway.ends(), [Reason::Replaced]);
    assert_eq!(inner(&pair), had);
}

#[test]
fn an_empty_pool_leaves_the_ike_sa_and_says_why() {
    let mut pair = Pair::new(Connection { pools: vec![9], ..gateway() }, terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for _ in 0..2 {
        let request = pair.up();
        pair.deliver_up(&request[0]);
        let answer = pair.down();
        pair.deliver_down(&answer[0]);
    }
    assert_eq!(pair.ups()[1].len(), 1, "the IKE SA is up");
    assert!(pair.gateway.children().is_empty());
    pair.settle();
    let why = Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE);
    assert_eq!(pair.terminal.ends(), [why]);
}

#[test]
fn keys_that_cannot_be_changed_end_in_time() {
    let mut pair = Pair::connected(gateway(), Connection { liveness: None, ..terminal() });
    let lifetimes = gateway().lifetimes;
    let until = pair.now + lifetimes.ike_sa + lifetimes.grace + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        let [_, there] = pair.ups();
        drop(pair.down());
        there.into_iter().for_each(|peer| pair.gateway.endpoint.handle_liveness(at, peer, true));
    }
    assert_eq!(pair.gateway.ends(), [Reason::Timeout]);
}

// Floods.

#[test]
fn a_flood_from_one_place_stops_nobody_and_takes_little_memory() {
    let settings = Settings { cookie_threshold: usize::MAX, half_open_limit: 64, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let answer = pair.down();
    for n in 0..500u16 {
        let mut flood = first[0].1.clone();
        flood[..2].copy_from_slice(&n.to_be_bytes());
        // As large as a first message with many proposals.
        flood.extend([0, 0, 1, 0xf4]);
        flood.extend([7; 496]);
        let last_vendor = first[0].1.len() - 20;
        flood[last_vendor] = wire::kind::VENDOR;
        let length = flood.len() as u32;
        flood[24..28].copy_from_slice(&length.to_be_bytes());
        let from = SocketAddr::from(([198, 51, 100, 66], 1024 + n));
        pair.deliver_up(&(Addresses { local: from, ..first[0].0 }, flood));
        drop(pair.down());
    }
    assert_eq!(pair.gateway.endpoint.half_open(), 64);
    let most = pair.gateway.endpoint.peers().map(|peer| peer.half_open_memory()).max().unwrap();
    assert!(most <= 2700, "{most} bytes for a first message of {}", first[0].1.len() + 500);
    pair.deliver_down(&answer[0]);
    pair.settle();
    pair.assert_one_each();
}

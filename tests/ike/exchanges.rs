//! Exchanges one by one, message by message.

use crate::pair::Pair;
use std::{net::SocketAddr, time::Duration};
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, terminal},
    side::Message,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        counter::Counter,
        event::Event,
        reason::Reason,
        settings::Settings,
        view::State,
        wire::{self, ExchangeType, Header, Notify, Payload, flags, notify},
    },
    path::{Addresses, Path},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn both_sides_have_the_same_keys_and_selectors() {
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
fn rekeys_leave_no_old_sas() {
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

// Repetition and order of messages (RFC 7296 §2.1 to §2.3).

/// The requests among some messages, with their destinations.
fn requests(messages: Vec<Message>) -> Vec<(SocketAddr, Header)> {
    let headers = messages.iter().map(|(to, message)| (to.remote, Header::parse(message).unwrap()));
    headers.filter(|(_, header)| !header.is_response()).collect()
}

#[test]
fn requests_that_a_replaced_ike_sa_leaves_unanswered_come_again() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 4500));
    // The gateway checks that the terminal is alive, or probes it at another address.
    for probed in [None, Some(elsewhere)] {
        let mut pair = Pair::connected(gateway(), terminal());
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        match probed {
            None => pair.gateway.endpoint.handle_liveness(pair.now, there, false),
            Some(end) => {
                let path = Path { local: GATEWAY.into(), remote: end.ip(), udp: Some((4500, end.port())) };
                pair.gateway.endpoint.handle_path(pair.now, there, path);
            }
        }
        let lost = requests(pair.down());
        pair.terminal.endpoint.rekey(pair.now, here, true);
        pair.up().iter().for_each(|message| pair.deliver_up(message));
        pair.down().iter().for_each(|message| pair.deliver_down(message));
        pair.up().iter().for_each(|message| pair.deliver_up(message));
        let (again, spis) = (requests(pair.down()), pair.gateway.endpoint.peers().next().unwrap().spis());
        assert_eq!((lost.len(), again.len()), (1, 1));
        assert_eq!(again[0].0, probed.unwrap_or((TERMINAL, 4500).into()));
        assert_eq!(Some([again[0].1.spi_i, again[0].1.spi_r]), spis);
        assert_ne!(again[0].1.spi_i, lost[0].1.spi_i);
    }
    // The terminal announces another address.
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, elsewhere.ip(), None).unwrap();
    assert_eq!(pair.up().len(), 1);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.settle();
    assert_eq!(pair.gateway.endpoint.peers().next().unwrap().addresses().remote, elsewhere);
}

#[test]
fn answers_repeated_requests_with_the_same_bytes() {
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
        let [here, _] = pair.connected_peers().map(|all| all[0]);
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
fn counts_rekeys_but_not_first_sas() {
    let mut pair = Pair::connected(gateway(), terminal());
    let counts =
        |pair: &Pair| [&pair.terminal, &pair.gateway].map(|end| end.endpoint.count(Counter::Rekeyed));
    assert_eq!(counts(&pair), [0, 0]);
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    for (rekeys, ike_sa) in [(1, false), (2, true)] {
        pair.terminal.endpoint.rekey(pair.now, here, ike_sa);
        pair.settle();
        assert_eq!(counts(&pair), [rekeys, rekeys]);
    }
}

#[test]
fn repeated_request_gets_the_stored_answer() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
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
fn refuses_cookies_of_other_addresses_and_old_ones() {
    let settings = Settings { cookie_threshold: 0, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let cookie_request = pair.down();
    assert_eq!((cookie_request.len(), pair.gateway.endpoint.peers().count()), (1, 0), "no state is kept");
    pair.deliver_down(&cookie_request[0]);
    let second = pair.up();
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 500));
    pair.deliver_up(&(Addresses { local: elsewhere, ..second[0].0 }, second[0].1.clone()));
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "the cookie is another address's");
    pair.down();
    pair.now += 200 * SECOND;
    pair.deliver_up(&second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "the cookie is too old");
    let again = pair.down();
    pair.deliver_down(&again[0]);
    pair.settle();
    assert_eq!(pair.gateway.endpoint.count(Counter::Cookie), 3);
}

#[test]
fn cookie_stays_valid_after_one_change_of_secret() {
    let settings = Settings { cookie_threshold: 0, half_open: 300 * SECOND, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let cookie_request = pair.down();
    pair.deliver_down(&cookie_request[0]);
    let second = pair.up();
    pair.now += 61 * SECOND;
    pair.deliver_up(&second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 1);
}

// Invalid and unknown messages.

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

/// Sends a message in clear, and returns the type of the first notify payload of the gateway's
/// answer.
fn answer_to(pair: &mut Pair, message: &[u8]) -> Option<u16> {
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
fn refuses_unknown_versions_payloads_and_spis() {
    let mut pair = Pair::new(gateway(), terminal());
    let mut future = wire::emit_message(header(ExchangeType::SaInit, 0), &[]);
    future[17] = 0x30;
    assert_eq!(answer_to(&mut pair, &future), Some(notify::INVALID_MAJOR_VERSION));
    let mut critical = wire::emit_message(header(ExchangeType::SaInit, 0), &[Payload::Vendor(b"x")]);
    critical[16] = 200;
    critical[29] = 0x80;
    assert_eq!(answer_to(&mut pair, &critical), Some(notify::UNSUPPORTED_CRITICAL_PAYLOAD));
    let unknown_spi = wire::emit_message(header(ExchangeType::Informational, 0x2222), &[]);
    let hints =
        (0..150).filter(|_| answer_to(&mut pair, &unknown_spi) == Some(notify::INVALID_IKE_SPI)).count();
    assert_eq!(hints, 99, "with the answer about the version, a hundred in one second");
    assert_eq!(pair.gateway.endpoint.peers().count(), 0);
}

/// Anybody on the way can write a hint that a side has forgotten its SAs. So hints are no way back
/// after a crash, and a connection ends only if nothing authentic answers.
#[test]
fn unprotected_hints_end_nothing_and_answer_nothing() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    let [spi_i, spi_r] = pair.gateway.endpoint.peers().next().unwrap().spis().unwrap();
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    pair.gateway.endpoint.handle_liveness(pair.now, there, false);
    let (checks_up, checks_down) = (pair.up(), pair.down());
    for kind in [notify::INVALID_IKE_SPI, notify::INVALID_SPI, notify::INVALID_SYNTAX] {
        for (is_response, message_id) in [(true, 0), (true, 2), (false, 0), (false, 2)] {
            let hint = |sender: u8| {
                let flags = sender | if is_response { flags::RESPONSE } else { 0 };
                let blank = header(ExchangeType::Informational, spi_r);
                let header = Header { spi_i, flags, message_id, ..blank };
                wire::emit_message(header, &[Payload::notify(kind, &[])])
            };
            pair.deliver_up(&(checks_up[0].0, hint(flags::INITIATOR)));
            pair.deliver_down(&(checks_down[0].0, hint(0)));
        }
    }
    assert_eq!((pair.up(), pair.down()), (vec![], vec![]));
    checks_up.iter().for_each(|message| pair.deliver_up(message));
    checks_down.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    pair.assert_one_each();
    assert_eq!(
        [&pair.terminal, &pair.gateway].map(|side| side.endpoint.count(Counter::Malformed) > 0),
        [true; 2]
    );
}

// Liveness and lifetimes.

#[test]
fn silent_peer_ends_and_esp_counts_as_liveness() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    for _ in 0..40 {
        pair.now += 10 * SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        drop(pair.down());
        pair.gateway.endpoint.handle_liveness(pair.now, there, true);
    }
    assert_eq!(pair.gateway.end_reasons(), []);
    pair.gateway.endpoint.handle_liveness(pair.now, there, false);
    let until = pair.now + Settings::default().retransmission.total() + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        drop(pair.down());
    }
    assert_eq!(pair.gateway.end_reasons(), [Reason::Timeout]);
}

#[test]
fn second_connection_replaces_the_first_and_keeps_its_address() {
    let mut pair = Pair::connected(gateway(), terminal());
    let inner = |pair: &Pair| {
        let up = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap();
        up.inner().collect::<Vec<_>>()
    };
    let before = inner(&pair);
    pair.replace_terminal(terminal());
    pair.connect();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Replaced]);
    assert_eq!(inner(&pair), before);
}

#[test]
fn empty_pool_refuses_only_the_child_sa() {
    let mut pair = Pair::new(Connection { pools: vec![9], ..gateway() }, terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for _ in 0..2 {
        let request = pair.up();
        pair.deliver_up(&request[0]);
        let answer = pair.down();
        pair.deliver_down(&answer[0]);
    }
    assert_eq!(pair.connected_peers()[1].len(), 1, "the IKE SA is up");
    assert!(pair.gateway.children().is_empty());
    pair.settle();
    let why = Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE);
    assert_eq!(pair.terminal.end_reasons(), [why]);
}

#[test]
fn keys_that_cannot_be_rekeyed_end_after_their_lifetime() {
    let mut pair = Pair::connected(gateway(), Connection { liveness: None, ..terminal() });
    let lifetimes = gateway().lifetimes;
    let until = pair.now + lifetimes.ike_sa + lifetimes.grace + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        let [_, there] = pair.connected_peers();
        drop(pair.down());
        there.into_iter().for_each(|peer| pair.gateway.endpoint.handle_liveness(at, peer, true));
    }
    assert_eq!(pair.gateway.end_reasons(), [Reason::Timeout]);
}

// Floods.

#[test]
fn flood_from_one_address_stops_nobody_and_takes_little_memory() {
    let settings = Settings { cookie_threshold: usize::MAX, half_open_limit: 64, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let answer = pair.down();
    for n in 0..500u16 {
        let mut flood = first[0].1.clone();
        flood[..2].copy_from_slice(&n.to_be_bytes());
        // As large as an IKE_SA_INIT request with many proposals.
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
    assert!(most <= 2792, "{most} bytes for a first message of {}", first[0].1.len() + 500);
    pair.deliver_down(&answer[0]);
    pair.settle();
    pair.assert_one_each();
}

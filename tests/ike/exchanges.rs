//! Exchanges one by one: a line for each message, and what must have come of it.

use crate::{
    children,
    pair::{GATEWAY, Pair, TERMINAL, gateway, prefix, terminal},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use wayfarer::primitives::Primitives;
use wayfarer_mobility::ike::{
    address::{Addresses, Path},
    connection::{ChildPolicy, Connection, IdentityPattern, LocalAuth, Ppk, RemoteAuth, SharedKey},
    eap::mschapv2::{Mschapv2Client, Mschapv2Server, NtHash},
    endpoint::{Counter, Settings},
    event::{Event, PeerId, Reason},
    identity::Identity,
    proposal::Offer,
    suite::{Encr, Kex},
    view::State,
    wire::{self, ExchangeType, Header, Notify, Payload, flags, notify},
};
use zeroize::Zeroizing;

type Message = (Addresses, Vec<u8>);

const SECOND: Duration = Duration::from_secs(1);

/// Who is up, of the terminal's peers and the gateway's.
fn ups(pair: &Pair) -> [Vec<PeerId>; 2] {
    [&pair.terminal, &pair.gateway].map(|side| {
        side.endpoint.peers().filter(|peer| peer.state() == State::Up).map(|peer| peer.id()).collect()
    })
}

fn ends(events: &[Event]) -> Vec<Reason> {
    let reason = |event: &Event| match event {
        Event::PeerDown { reason, .. } => Some(*reason),
        _ => None,
    };
    events.iter().filter_map(reason).collect()
}

/// Both are up, with one child each, which are the same.
fn assert_one_each(pair: &Pair) {
    let [ours, theirs] = ups(pair);
    assert_eq!((ours.len(), theirs.len()), (1, 1));
    let of = |side: &crate::pair::Side| {
        let view = side.endpoint.peers().find(|peer| peer.state() == State::Up).unwrap();
        let [child] = view.children().collect::<Vec<_>>()[..] else { panic!("{:#?}", side.events) };
        let up = side.events.iter().find_map(|event| match event {
            Event::ChildUp { child: id, sa, .. } if *id == child => Some(sa),
            _ => None,
        });
        let sa = up.unwrap();
        (view.spis(), [sa.spi_in, sa.spi_out], [sa.key_in.to_vec(), sa.key_out.to_vec()])
    };
    let (ours, theirs) = (of(&pair.terminal), of(&pair.gateway));
    assert_eq!(ours.0, theirs.0);
    assert_eq!((ours.1[0], ours.1[1]), (theirs.1[1], theirs.1[0]));
    assert_eq!((&ours.2[0], &ours.2[1]), (&theirs.2[1], &theirs.2[0]));
}

fn connected(gateway: Connection, terminal: Connection) -> Pair {
    let mut pair = Pair::new(gateway, terminal);
    pair.connect();
    pair
}

fn up(pair: &mut Pair) -> Vec<Message> {
    pair.terminal.work(pair.now)
}

fn down(pair: &mut Pair) -> Vec<Message> {
    pair.gateway.work(pair.now)
}

fn to_gateway(pair: &mut Pair, (Addresses { local, remote }, message): &Message) {
    let addresses = Addresses { local: *remote, remote: *local };
    pair.gateway.endpoint.handle_datagram(pair.now, addresses, message);
}

fn to_terminal(pair: &mut Pair, (Addresses { local, remote }, message): &Message) {
    let addresses = Addresses { local: *remote, remote: *local };
    pair.terminal.endpoint.handle_datagram(pair.now, addresses, message);
}

// Collisions (RFC 7296 §2.25).

/// `rekey` on both sides at the same time, in both orders of the answers, often enough that each side has the lowest nonce.
fn collide(ours: bool, theirs: bool, terminal_first: bool) {
    let mut pair = connected(gateway(), terminal());
    let [here, there] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, ours);
    pair.gateway.endpoint.rekey(pair.now, there, theirs);
    let (requests_up, requests_down) = (up(&mut pair), down(&mut pair));
    requests_up.iter().for_each(|message| to_gateway(&mut pair, message));
    requests_down.iter().for_each(|message| to_terminal(&mut pair, message));
    let (answers_up, answers_down) = (up(&mut pair), down(&mut pair));
    if terminal_first {
        answers_down.iter().for_each(|message| to_terminal(&mut pair, message));
        pair.settle();
        answers_up.iter().for_each(|message| to_gateway(&mut pair, message));
    } else {
        answers_up.iter().for_each(|message| to_gateway(&mut pair, message));
        pair.settle();
        answers_down.iter().for_each(|message| to_terminal(&mut pair, message));
    }
    pair.settle();
    pair.pass(10 * SECOND);
    assert_one_each(&pair);
    pair.pass(90 * SECOND);
    assert_one_each(&pair);
    assert_eq!(ends(&pair.gateway.events), []);
    let sessions = format!("{:?}", pair.gateway.endpoint).matches("Session {").count();
    assert_eq!(sessions, 1, "IKE SAs at the gateway");
}

#[test]
fn collisions_leave_one_of_each() {
    for _ in 0..8 {
        for (ours, theirs) in [(false, false), (true, true), (false, true), (true, false)] {
            collide(ours, theirs, true);
            collide(ours, theirs, false);
        }
    }
}

#[test]
fn who_is_closed_while_keys_change_is_told_and_keeps_nothing() {
    let mut pair = connected(gateway(), terminal());
    let [_, there] = ups(&pair).map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    let request = down(&mut pair);
    pair.gateway.endpoint.close(pair.now, there);
    request.iter().for_each(|message| to_terminal(&mut pair, message));
    pair.settle();
    assert_eq!(ends(&pair.gateway.events), [Reason::Closed]);
    assert_eq!(ends(&pair.terminal.events), [Reason::Deleted]);
    let ups = children(&pair.gateway.events).len();
    assert_eq!(ups, 1, "what was asked for before is not installed after");
}

#[test]
fn both_close_at_once() {
    let mut pair = connected(gateway(), terminal());
    let [here, there] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.gateway.endpoint.close(pair.now, there);
    pair.settle();
    assert_eq!(ends(&pair.gateway.events), [Reason::Closed]);
    assert_eq!(ends(&pair.terminal.events), [Reason::Closed]);
}

// Repetition and order (RFC 7296 §2.1 to §2.3).

#[test]
fn what_is_asked_again_is_answered_with_the_same_bytes() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for exchange in ["init", "auth"] {
        let request = up(&mut pair);
        to_gateway(&mut pair, &request[0]);
        let answer = down(&mut pair);
        to_gateway(&mut pair, &request[0]);
        assert_eq!(down(&mut pair), answer, "{exchange}");
        to_terminal(&mut pair, &answer[0]);
    }
    pair.settle();
    for session in [false, true] {
        let [here, _] = ups(&pair).map(|all| all[0]);
        pair.terminal.endpoint.rekey(pair.now, here, session);
        let request = up(&mut pair);
        to_gateway(&mut pair, &request[0]);
        let answer = down(&mut pair);
        assert_eq!(answer.len(), 1);
        pair.pass(Duration::from_millis(501));
        to_gateway(&mut pair, &request[0]);
        to_terminal(&mut pair, &answer[0]);
        pair.settle();
        pair.pass(10 * SECOND);
        assert_one_each(&pair);
    }
    assert!(pair.gateway.endpoint.count(Counter::Repeated) >= 4);
}

#[test]
fn a_repeated_request_is_not_resealed() {
    let mut pair = connected(gateway(), terminal());
    let [here, _] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    let request = up(&mut pair);
    to_gateway(&mut pair, &request[0]);
    let answer = down(&mut pair);
    (0..3).for_each(|_| {
        to_gateway(&mut pair, &request[0]);
        assert_eq!(down(&mut pair), answer);
    });
}

// Cookies (RFC 7296 §2.6).

#[test]
fn a_cookie_is_asked_for_and_one_of_another_is_not_taken() {
    let settings = Settings { cookie_threshold: 0, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = up(&mut pair);
    to_gateway(&mut pair, &first[0]);
    let asked = down(&mut pair);
    assert_eq!((asked.len(), pair.gateway.endpoint.peers().count()), (1, 0), "nothing is kept");
    to_terminal(&mut pair, &asked[0]);
    let second = up(&mut pair);
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 500));
    to_gateway(&mut pair, &(Addresses { local: elsewhere, ..second[0].0 }, second[0].1.clone()));
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "from another address");
    down(&mut pair);
    pair.now += 200 * SECOND;
    to_gateway(&mut pair, &second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 0, "too old");
    let again = down(&mut pair);
    to_terminal(&mut pair, &again[0]);
    pair.settle();
    assert_eq!(pair.gateway.endpoint.count(Counter::Cookie), 3);
}

#[test]
fn a_cookie_is_good_after_its_secret_turned_over_once() {
    let settings = Settings { cookie_threshold: 0, half_open: 300 * SECOND, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = up(&mut pair);
    to_gateway(&mut pair, &first[0]);
    let asked = down(&mut pair);
    to_terminal(&mut pair, &asked[0]);
    let second = up(&mut pair);
    pair.now += 61 * SECOND;
    to_gateway(&mut pair, &second[0]);
    assert_eq!(pair.gateway.endpoint.peers().count(), 1);
}

// What is agreed on.

#[test]
fn another_group_is_asked_for_and_given() {
    let ecp = || vec![Offer { kex: vec![Kex::Ecp256], ..crate::pair::offer() }];
    let mut pair = connected(Connection { ike: ecp(), esp: ecp(), ..gateway() }, terminal());
    assert_one_each(&pair);
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 1);
    let [here, _] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.settle();
    pair.pass(10 * SECOND);
    assert_one_each(&pair);
    assert_eq!(children(&pair.gateway.events).len(), 2);
}

#[test]
fn nothing_in_common_is_refused() {
    let cbc = Offer { encr: vec![Encr::AesGcm(128)], ..crate::pair::offer() };
    let pair = connected(Connection { ike: vec![cbc], ..gateway() }, terminal());
    assert_eq!((ups(&pair), pair.gateway.endpoint.half_open()), ([vec![], vec![]], 0));
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 1);
}

#[test]
fn ml_kem_goes_on_top_in_fragments() {
    for kem in [Kex::MlKem768, Kex::MlKem1024] {
        let hybrid = || vec![Offer { more_kex: vec![vec![kem]], ..crate::pair::offer() }];
        let with = |connection| Connection { ike: hybrid(), fragment: Some(600), ..connection };
        let pair = connected(with(gateway()), with(terminal()));
        assert_one_each(&pair);
        let suite = pair.gateway.endpoint.peers().next().unwrap().suite().cloned().unwrap();
        assert_eq!(suite.more_kex, [kem]);
    }
}

#[test]
fn fragments_come_in_any_order_and_number() {
    let hybrid = || vec![Offer { more_kex: vec![vec![Kex::MlKem768]], ..crate::pair::offer() }];
    let with = |connection| Connection { ike: hybrid(), fragment: Some(600), ..connection };
    let mut pair = Pair::new(with(gateway()), with(terminal()));
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = up(&mut pair);
    to_gateway(&mut pair, &first[0]);
    let answer = down(&mut pair);
    to_terminal(&mut pair, &answer[0]);
    let parts = up(&mut pair);
    assert!(parts.len() > 2 && parts.iter().all(|(_, part)| part.len() + 28 <= 600), "{}", parts.len());
    parts.iter().rev().skip(1).for_each(|part| {
        to_gateway(&mut pair, part);
        to_gateway(&mut pair, part);
    });
    assert_eq!(down(&mut pair), [], "one is missing");
    to_gateway(&mut pair, parts.last().unwrap());
    let answers = down(&mut pair);
    assert!(answers.len() > 1);
    to_gateway(&mut pair, &parts[1]);
    assert_eq!(down(&mut pair), [], "only the first fragment is answered again");
    to_gateway(&mut pair, &parts[0]);
    assert_eq!(down(&mut pair), answers);
    answers.iter().rev().for_each(|part| to_terminal(&mut pair, part));
    pair.settle();
    assert_one_each(&pair);
}

fn with_ppk(connection: Connection, id: &str, secret: &str, required: bool) -> Connection {
    let secret = SharedKey(Zeroizing::new(secret.into()));
    Connection { ppk: Some(Ppk { id: id.into(), secret, required }), ..connection }
}

#[test]
fn a_post_quantum_key_is_mixed_in_or_missed() {
    let gate = |required| with_ppk(gateway(), "\u{2}k", "quantum", required);
    let good = connected(gate(true), with_ppk(terminal(), "\u{2}k", "quantum", true));
    assert_one_each(&good);
    for bad in [
        with_ppk(terminal(), "\u{2}k", "other", true),
        with_ppk(terminal(), "\u{2}x", "quantum", true),
        terminal(),
    ] {
        let pair = connected(gate(true), bad);
        assert_eq!(ups(&pair), [vec![], vec![]]);
        assert_eq!(ends(&pair.gateway.events), [Reason::Authentication]);
    }
    assert_one_each(&connected(gate(false), terminal()));
}

#[test]
fn a_wrong_secret_is_refused_on_both_sides() {
    let bad = wayfarer_mobility::ike::connection::LocalAuth::Psk(SharedKey(Zeroizing::new("bad".into())));
    let pair = connected(gateway(), Connection { local_auth: bad.clone(), ..terminal() });
    assert_eq!(ends(&pair.gateway.events), [Reason::Authentication]);
    assert_eq!(ends(&pair.terminal.events), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
    let pair = connected(Connection { local_auth: bad, ..gateway() }, terminal());
    assert_eq!(ends(&pair.terminal.events), [Reason::Authentication]);
    assert_eq!(ends(&pair.gateway.events), [Reason::Deleted], "and it is told");
}

#[test]
fn who_is_not_meant_is_refused() {
    let only = IdentityPattern::Suffix(b".other".to_vec());
    let pair = connected(Connection { remote_id: only, ..gateway() }, terminal());
    assert_eq!(ends(&pair.gateway.events), [Reason::NoConnection]);
}

#[test]
fn transport_mode_is_between_the_two_addresses() {
    let transport = |connection: Connection| {
        let child = ChildPolicy { name: "t".into(), local: vec![], remote: vec![], transport: true };
        Connection { children: vec![child], pools: vec![], ask_address: false, ..connection }
    };
    let pair = connected(transport(gateway()), transport(terminal()));
    assert_one_each(&pair);
    let sa = children(&pair.gateway.events)[0];
    assert!(sa.transport);
    assert_eq!(
        (&sa.local[..], &sa.remote[..]),
        (&[prefix(GATEWAY, GATEWAY)][..], &[prefix(TERMINAL, TERMINAL)][..])
    );
}

#[test]
fn selectors_are_narrowed() {
    let mut gate = gateway();
    gate.children[0].local = vec![prefix([10, 99, 0, 16], [10, 99, 0, 31])];
    let pair = connected(gate, terminal());
    assert_one_each(&pair);
    assert_eq!(children(&pair.terminal.events)[0].remote, [prefix([10, 99, 0, 16], [10, 99, 0, 31])]);
}

#[test]
fn several_children_are_made_and_rekeyed() {
    let both = |mut connection: Connection, is_gateway: bool| {
        let net = vec![prefix([10, 97, 0, 0], [10, 97, 0, 255])];
        let (local, remote) = if is_gateway { (net, vec![]) } else { (vec![], net) };
        connection.children.push(ChildPolicy { name: "second".into(), local, remote, transport: false });
        connection
    };
    let mut pair = connected(both(gateway(), true), both(terminal(), false));
    let names = |events: &[Event]| children(events).iter().map(|sa| sa.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&pair.terminal.events), ["net", "second"]);
    assert_eq!(names(&pair.gateway.events), ["net", "second"]);
    let [_, there] = ups(&pair).map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.settle();
    pair.pass(10 * SECOND);
    assert_eq!(pair.gateway.endpoint.peers().next().unwrap().children().count(), 2);
    assert_eq!(pair.terminal.endpoint.peers().next().unwrap().children().count(), 2);
}

// Addresses (RFC 4555).

const NAT: [u8; 4] = [198, 51, 100, 9];

#[test]
fn a_nat_is_seen_and_where_none_is_allowed_refused() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.nat = Some(SocketAddr::from((NAT, 31_000)));
    pair.connect();
    assert_one_each(&pair);
    assert_eq!(children(&pair.gateway.events)[0].path.udp, Some((4500, 31_000)));
    let strict = |connection| Connection { no_nats: true, ..connection };
    assert_one_each(&connected(strict(gateway()), strict(terminal())));
    let mut pair = Pair::new(gateway(), strict(terminal()));
    pair.nat = Some(SocketAddr::from((NAT, 31_000)));
    pair.connect();
    assert_eq!(ends(&pair.terminal.events), [Reason::Nat]);
}

#[test]
fn a_terminal_moves_even_after_the_gateway_changed_keys() {
    let mut pair = connected(gateway(), terminal());
    let [here, there] = ups(&pair).map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, true);
    pair.settle();
    pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), None);
    pair.settle();
    let at = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap().addresses();
    assert_eq!(at.remote, SocketAddr::from(([192, 0, 2, 8], 4500)));
    assert!(pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
}

#[test]
fn an_update_to_nowhere_is_unacceptable() {
    let mut pair = connected(gateway(), terminal());
    let [here, _] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, [127, 0, 0, 1].into(), None);
    pair.settle();
    // Somebody may have changed a packet: one is not the end.
    assert_eq!((ends(&pair.terminal.events), ends(&pair.gateway.events)), (vec![], vec![]));
    pair.pass(Settings::default().retransmission.total());
    let why = Reason::Refused(notify::UNACCEPTABLE_ADDRESSES);
    assert_eq!(ends(&pair.terminal.events).first(), Some(&why));
    assert_eq!(ends(&pair.gateway.events).first(), Some(&Reason::Deleted));
}

#[test]
fn which_of_our_addresses_a_peer_uses_is_the_operators_choice() {
    let other = [203, 0, 113, 2];
    let both = Connection { local: vec![GATEWAY.into(), other.into()], ..gateway() };
    for (connection, moves) in [(both, true), (gateway(), false)] {
        let mut pair = connected(connection, terminal());
        let [here, _] = ups(&pair).map(|all| all[0]);
        let child = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
        let path = Path { local: other.into(), remote: TERMINAL.into(), udp: None };
        pair.gateway.endpoint.handle_path(pair.now, child, path);
        let local = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().local.ip();
        assert_eq!(local(&pair) == std::net::IpAddr::from(other), moves, "a path");
        let mut pair = connected(if moves { continue } else { gateway() }, terminal());
        pair.terminal.endpoint.handle_local(pair.now, here, [192, 0, 2, 8].into(), Some(other.into()));
        pair.settle();
        assert_eq!(local(&pair), std::net::IpAddr::from(GATEWAY), "an update");
    }
}

#[test]
fn a_probe_from_elsewhere_is_answered_there_and_moves_nothing() {
    let mut pair = connected(gateway(), terminal());
    let [here, _] = ups(&pair).map(|all| all[0]);
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    let probe = up(&mut pair);
    let elsewhere = SocketAddr::from(([192, 0, 2, 99], 4500));
    to_gateway(&mut pair, &(Addresses { local: elsewhere, ..probe[0].0 }, probe[0].1.clone()));
    let answer = down(&mut pair);
    assert_eq!(answer[0].0.remote, elsewhere);
    let at = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
    assert_eq!(at, SocketAddr::from((TERMINAL, 4500)));
}

#[test]
fn who_is_not_where_it_was_seen_is_back_where_it_was() {
    let mut pair = connected(gateway(), terminal());
    let [_, there] = ups(&pair).map(|all| all[0]);
    let child = pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    let path = Path { local: GATEWAY.into(), remote: [192, 0, 2, 99].into(), udp: None };
    let place = |pair: &Pair| pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    assert_eq!(place(&pair), path.remote);
    // The question goes to where nobody is.
    drop(down(&mut pair));
    let unconfirmed = |e: &Event| matches!(e, Event::PeerMoved { confirmed: false, .. });
    assert!(pair.gateway.events.iter().any(unconfirmed));
    pair.gateway.endpoint.handle_unconfirmed(pair.now, there);
    assert_eq!(place(&pair), std::net::IpAddr::from(TERMINAL), "enough was sent");
    pair.gateway.endpoint.handle_path(pair.now, child, path);
    drop(down(&mut pair));
    for _ in 0..12 {
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let sent = down(&mut pair);
        sent.iter().filter(|(to, _)| to.remote.ip() != path.remote).for_each(|m| to_terminal(&mut pair, m));
    }
    assert_eq!(place(&pair), std::net::IpAddr::from(TERMINAL), "no answer");
    assert!(!pair.gateway.events.iter().any(|e| matches!(e, Event::PathConfirmed { .. })));
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
    to_gateway(pair, &(from, message.to_vec()));
    let answers = down(pair);
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
    let mut pair = connected(gateway(), terminal());
    let [_, there] = ups(&pair).map(|all| all[0]);
    for _ in 0..40 {
        pair.now += 10 * SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        drop(down(&mut pair));
        pair.gateway.endpoint.handle_liveness(pair.now, there, true);
    }
    assert_eq!(ends(&pair.gateway.events), []);
    pair.gateway.endpoint.handle_liveness(pair.now, there, false);
    let until = pair.now + Settings::default().retransmission.total() + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        drop(down(&mut pair));
    }
    assert_eq!(ends(&pair.gateway.events), [Reason::Silent]);
}

#[test]
fn a_second_connection_takes_the_place_and_the_address_of_the_first() {
    let mut pair = connected(gateway(), terminal());
    let inner = |pair: &Pair| {
        let up = pair.gateway.endpoint.peers().find(|p| p.state() == State::Up).unwrap();
        up.inner().collect::<Vec<_>>()
    };
    let had = inner(&pair);
    pair.terminal = Pair::new(gateway(), terminal()).terminal;
    pair.connect();
    assert_eq!(ends(&pair.gateway.events), [Reason::Replaced]);
    assert_eq!(inner(&pair), had);
}

#[test]
fn an_empty_pool_leaves_the_ike_sa_and_says_why() {
    let mut pair = Pair::new(Connection { pools: vec![9], ..gateway() }, terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for _ in 0..2 {
        let request = up(&mut pair);
        to_gateway(&mut pair, &request[0]);
        let answer = down(&mut pair);
        to_terminal(&mut pair, &answer[0]);
    }
    assert_eq!(ups(&pair)[1].len(), 1, "the IKE SA is up");
    assert!(children(&pair.gateway.events).is_empty());
    pair.settle();
    let why = Reason::Refused(notify::INTERNAL_ADDRESS_FAILURE);
    assert_eq!(ends(&pair.terminal.events), [why]);
}

// Floods.

#[test]
fn a_flood_from_one_place_stops_nobody_and_takes_little_memory() {
    let settings = Settings { cookie_threshold: usize::MAX, half_open_limit: 64, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = up(&mut pair);
    to_gateway(&mut pair, &first[0]);
    let answer = down(&mut pair);
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
        to_gateway(&mut pair, &(Addresses { local: from, ..first[0].0 }, flood));
        drop(down(&mut pair));
    }
    assert_eq!(pair.gateway.endpoint.half_open(), 64);
    let most = pair.gateway.endpoint.peers().map(|peer| peer.half_open_memory()).max().unwrap();
    assert!(most <= 2700, "{most} bytes for a first message of {}", first[0].1.len() + 500);
    to_terminal(&mut pair, &answer[0]);
    pair.settle();
    assert_one_each(&pair);
}

#[test]
fn keys_that_cannot_be_changed_end_in_time() {
    let mut pair = connected(gateway(), Connection { liveness: None, ..terminal() });
    let lifetimes = gateway().lifetimes;
    let until = pair.now + lifetimes.session + lifetimes.grace + SECOND;
    while let Some(at) = pair.gateway.endpoint.poll_timeout().filter(|at| *at < until) {
        pair.now = at;
        pair.gateway.endpoint.handle_timeout(at);
        let [_, there] = ups(&pair);
        drop(down(&mut pair));
        there.into_iter().for_each(|peer| pair.gateway.endpoint.handle_liveness(at, peer, true));
    }
    assert_eq!(ends(&pair.gateway.events), [Reason::Silent]);
}

/// A gateway that asks for EAP of `remote_id`, and a terminal that says it is alice and has the password of `user`.
fn by_eap(user: &str, remote_id: IdentityPattern) -> Pair {
    let users = ["alice", "bob"].map(|name| (name.as_bytes().to_vec(), NtHash::of(name)));
    let server = Mschapv2Server::new(Arc::new(Primitives), b"gateway", users);
    let client = Mschapv2Client::new(Arc::new(Primitives), user.as_bytes(), NtHash::of(user));
    let gateway = Connection { remote_id, remote_auth: RemoteAuth::Eap(Arc::new(server)), ..gateway() };
    let terminal = Connection {
        local_id: Identity::from_text("alice").unwrap(),
        local_auth: LocalAuth::Eap(Arc::new(client)),
        ..terminal()
    };
    let mut pair = Pair::new(gateway, terminal);
    pair.connect();
    pair
}

#[test]
fn who_eap_proves_is_who_may_connect() {
    let alice = || IdentityPattern::Of(vec![Identity::from_text("alice").unwrap()]);
    let up = |pair: &Pair| pair.gateway.endpoint.peers().filter(|p| p.state() == State::Up).count();
    assert_eq!(up(&by_eap("alice", alice())), 1);
    assert_eq!(up(&by_eap("bob", IdentityPattern::Any)), 1);
    assert_eq!(up(&by_eap("bob", alice())), 0, "the name in the ID payload proves nothing");
}

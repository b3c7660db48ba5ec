//! What a peer, however well authenticated, can make a gateway keep, send and do: each bound that
//! SECURITY.md promises.

use crate::{
    doubles::{Names, Says, user, users},
    fleet::Fleet,
    insider::{Answer, Insider},
    pair::Pair,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, offer, prefix, terminal};
use wayfarer::sim::ike::{
    keys::LoggedKeys,
    side::{Side, to_gateway},
};
use wayfarer::sim::nat::Nat;
use wayfarer_mobility::{
    crypto::{Prf, Verifier},
    identity::Identity,
    ike::{
        bounds,
        connection::{Connection, LocalAuth, RemoteAuth, SharedKey},
        counter::Counter,
        event::{Event, Reason},
        pool::Pool,
        proposal::Offer,
        protection::Fragments,
        settings::Settings,
        wire::{self, ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// Without key exchanges of child SAs' own.
fn without_kex() -> Vec<Offer> {
    vec![Offer { kex: vec![], ..offer() }]
}

fn insider(settings: Settings) -> Insider {
    let with = |connection| Connection { esp: without_kex(), liveness: None, ..connection };
    Insider::new(with(gateway()), with(terminal()), settings)
}

// What it keeps.

#[test]
fn a_chain_of_rekeys_is_bounded() {
    let mut insider = insider(Settings::default());
    let mut last = insider.first_spi();
    let mut taken = vec![last];
    for spi in 0x1000..0x1400 {
        match insider.child(spi, Some(last), false, &[]) {
            Answer::Taken(_) => {
                taken.push(spi);
                last = spi;
            }
            answer => assert_eq!(answer, Answer::Refused(notify::TEMPORARY_FAILURE)),
        }
        assert!(insider.children() <= 2 * bounds::CHILDREN);
    }
    assert_eq!(taken.len(), 2 * bounds::CHILDREN);
    assert!(insider.pair.gateway.endpoint.count(Counter::NoRoom) > 0);
    // Who deletes what was replaced has room again.
    for spi in &taken[..taken.len() - 1] {
        insider.delete(*spi);
    }
    insider.pass(10 * SECOND);
    assert_eq!(insider.children(), 1);
    assert!(matches!(insider.child(0x2000, Some(last), false, &[]), Answer::Taken(_)));
}

#[test]
fn more_child_sas_are_refused() {
    let mut one = insider(Settings::default());
    let answers: Vec<_> = (0x1000..0x10ff).map(|spi| one.child(spi, None, false, &[])).collect();
    let taken = answers.iter().filter(|answer| matches!(answer, Answer::Taken(_))).count();
    assert_eq!(taken, bounds::CHILDREN - 1, "and the first");
    assert_eq!(answers.last(), Some(&Answer::Refused(notify::NO_ADDITIONAL_SAS)));
    let mut all = insider(Settings { child_limit: 2, ..Settings::default() });
    assert!(matches!(all.child(0x1000, None, false, &[]), Answer::Taken(_)));
    assert_eq!(
        all.child(0x1001, None, false, &[]),
        Answer::Refused(notify::NO_ADDITIONAL_SAS),
        "of all peers"
    );
    assert!(matches!(all.child(0x1002, Some(0x1000), false, &[]), Answer::Taken(_)), "new keys have room");
}

#[test]
fn selectors_are_bounded_by_what_they_cost() {
    let mut insider = insider(Settings::default());
    // Each is four prefixes.
    let odd: Vec<_> = (0..16).map(|n| prefix([10, 99, 0, 8 * n + 1], [10, 99, 0, 8 * n + 6])).collect();
    let answers: Vec<_> = (0x1000..0x1010).map(|spi| insider.child(spi, None, false, &odd)).collect();
    let taken = answers.iter().filter(|answer| matches!(answer, Answer::Taken(_))).count();
    assert_eq!(taken, (bounds::RULES - 1) / 64);
    assert_eq!(answers.last(), Some(&Answer::Refused(notify::NO_ADDITIONAL_SAS)));
}

#[test]
fn ike_sas_are_bounded_and_so_are_those_that_collide_with_ours() {
    let mut rekeying = insider(Settings::default());
    for spi in 0x1000..0x1040 {
        match rekeying.ike_sa(spi) {
            Answer::Taken(_) => rekeying.switch(),
            answer => assert_eq!(answer, Answer::Refused(notify::TEMPORARY_FAILURE)),
        }
        assert!(rekeying.ike_sas() <= bounds::IKE_SAS);
    }
    assert_eq!(rekeying.ike_sas(), bounds::IKE_SAS);
    (0..90).for_each(|_| rekeying.pass(SECOND));
    assert_eq!(rekeying.ike_sas(), 1, "what was replaced goes by itself");
    assert!(matches!(rekeying.ike_sa(0x2000), Answer::Taken(_)));

    let mut colliding = insider(Settings::default());
    let peer = colliding.pair.gateway.endpoint.peers().next().unwrap().id();
    colliding.pair.gateway.endpoint.rekey(colliding.pair.now, peer, true);
    drop(colliding.pair.gateway.work(colliding.pair.now));
    assert!(matches!(colliding.ike_sa(0x1000), Answer::Taken(_)));
    for spi in 0x1001..0x1040 {
        assert_eq!(colliding.ike_sa(spi), Answer::Refused(notify::TEMPORARY_FAILURE));
    }
    assert_eq!(colliding.ike_sas(), 2);
}

/// A new terminal of this name, which connects without INITIAL_CONTACT.
fn connect(pair: &mut Pair, name: &str, address: [u8; 4]) {
    let local_id = Identity::from_text(name).unwrap();
    pair.replace_terminal(Connection { local_id, ..terminal() });
    pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from(address));
    for (Addresses { remote, local }, message) in pair.terminal.work(pair.now) {
        pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &message);
    }
    for (Addresses { remote, local }, message) in pair.gateway.work(pair.now) {
        pair.terminal.endpoint.handle_datagram(
            pair.now,
            Addresses { local: remote, remote: local },
            &message,
        );
    }
    for (Addresses { remote, local }, message) in pair.terminal.work(pair.now) {
        let message = without_initial_contact(pair, &message);
        pair.gateway.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &message);
    }
    drop(pair.gateway.work(pair.now));
}

fn without_initial_contact(pair: &Pair, message: &[u8]) -> Vec<u8> {
    let mut keys = LoggedKeys::newest(&pair.gateway.events);
    let header = Header::parse(message).unwrap();
    let opened = keys.protection(true).open(&header, message, &mut Fragments::default()).unwrap().unwrap();
    let mut payloads = wire::parse(opened.first, &opened.body).unwrap();
    payloads.retain(|p| !matches!(p, Payload::Notify(n) if n.kind == notify::INITIAL_CONTACT));
    let mut body = vec![];
    let first = wire::emit(&payloads, &mut body);
    keys.seal(header, first, body, None).remove(0)
}

#[test]
fn one_identity_has_so_many_devices_and_all_so_many_peers() {
    let log_keys = Settings { log_keys: true, ..Settings::default() };
    let shared = || Connection { unique: false, ..gateway() };
    let mut pair = Pair::with(shared(), terminal(), log_keys.clone());
    let most = log_keys.device_limit;
    for n in 0..most as u8 + 4 {
        connect(&mut pair, "cl.test", [192, 0, 2, n + 1]);
        assert_eq!(pair.gateway.ups().len(), most.min(usize::from(n) + 1));
    }
    assert_eq!(pair.gateway.ends(), [Reason::Replaced; 4], "the oldest make room");
    let mut pair = Pair::with(shared(), terminal(), Settings { peer_limit: 2, ..log_keys });
    for (n, name) in (1..).zip(["a.test", "b.test", "c.test", "d.test"]) {
        connect(&mut pair, name, [192, 0, 2, n]);
    }
    assert_eq!((pair.gateway.ups().len(), pair.gateway.ends()), (2, vec![Reason::Overload; 2]));
    assert_eq!(pair.gateway.endpoint.count(Counter::NoRoom), 2);
}

#[test]
fn those_without_a_name_leave_places_to_others() {
    let eap = || Arc::new(Says(None));
    let guests = Connection { remote_auth: RemoteAuth::Eap(eap()), ..gateway() };
    let guest = || Connection { local_auth: LocalAuth::Eap(eap()), ..terminal() };
    let settings = Settings { peer_limit: 16, ..Settings::default() };
    let mut fleet = Fleet::with(vec![guests, gateway()], settings);
    for n in 1..=20 {
        fleet.connect([192, 0, 2, n], guest());
    }
    assert_eq!((fleet.ups().len(), fleet.gateway.ends()), (2, vec![Reason::Replaced; 18]));
    assert!([19, 20].into_iter().all(|n| fleet.peer_at([192, 0, 2, n]).is_some()), "the oldest make room");
    for n in 1..=14 {
        let local_id = Identity::from_text(&format!("t{n}.test")).unwrap();
        fleet.connect([192, 0, 2, 100 + n], Connection { local_id, ..terminal() });
    }
    assert_eq!((fleet.ups().len(), fleet.gateway.ends().len()), (16, 18));
}

#[test]
fn who_ended_lingers_but_not_in_any_number() {
    let settings = Settings { half_open_limit: 4, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    for n in 0..20 {
        let local_auth = LocalAuth::Psk(SharedKey(Zeroizing::new(b"a wrong secret".to_vec())));
        pair.replace_terminal(Connection { local_auth, ..terminal() });
        pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from([192, 0, 2, n]));
        pair.settle();
        assert!(pair.gateway.endpoint.peers().count() <= 4);
    }
    assert_eq!(pair.gateway.ends(), [Reason::Authentication; 20]);
    pair.now += 10 * SECOND;
    pair.gateway.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.gateway.endpoint.peers().count(), 0);
}

// Whose turn it is.

/// A first message, as if it came from there with an SPI of its own.
fn first_messages(pair: &mut Pair) -> impl Fn(u16, [u8; 4]) -> (Addresses, Vec<u8>) + use<> {
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.terminal.work(pair.now).remove(0).1;
    move |n, address| {
        let mut message = first.clone();
        message[..2].copy_from_slice(&n.to_be_bytes());
        (to_gateway(address, 500), message)
    }
}

#[test]
fn a_flood_from_one_address_delays_only_itself() {
    let settings = Settings { cookie_threshold: usize::MAX, task_limit: 16, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    let first = first_messages(&mut pair);
    for n in 0..200 {
        let (addresses, message) = first(n, [198, 51, 100, 66]);
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
    }
    assert_eq!(pair.gateway.endpoint.count(Counter::Busy), 200 - 16, "refused without a trace");
    for (n, address) in [(1000, [198, 51, 100, 7]), (1001, TERMINAL)] {
        let (addresses, message) = first(n, address);
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
    }
    assert_eq!(pair.gateway.endpoint.count(Counter::Busy), 200 - 16);
    let turns: Vec<_> = std::iter::from_fn(|| pair.gateway.endpoint.poll_task()).collect();
    assert_eq!(turns.len(), 16);
    let place = |address: [u8; 4]| turns.iter().position(|(_, from, _)| *from == IpAddr::from(address));
    assert!(place(TERMINAL).unwrap() < 2, "another network");
    assert!(place([198, 51, 100, 7]).unwrap() < 4, "another address of the same network");
}

// What it answers.

#[test]
fn repetitions_are_answered_within_a_rate() {
    let mut pair = Pair::new(gateway(), terminal());
    let (addresses, first) = first_messages(&mut pair)(1, TERMINAL);
    let answers = |pair: &mut Pair, times: usize| -> usize {
        (0..times)
            .map(|_| {
                pair.gateway.endpoint.handle_datagram(pair.now, addresses, &first);
                pair.gateway.work(pair.now).len()
            })
            .sum()
    };
    assert_eq!(answers(&mut pair, 100), 1 + 8);
    pair.now += SECOND;
    assert_eq!(answers(&mut pair, 100), 4);

    let mut insider = insider(Settings::default());
    let request = insider.seal(ExchangeType::Informational, &[]);
    let mut copies = |address: [u8; 4], port| -> usize {
        let pair = &mut insider.pair;
        (0..100)
            .map(|_| {
                pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(address, port), &request);
                pair.gateway.work(pair.now).len()
            })
            .sum()
    };
    assert_eq!(copies([198, 51, 100, 66], 4500), 1 + 8, "somebody else's copies");
    assert_eq!(copies(TERMINAL, 4500), 8, "do not keep the peer from its answer");
}

#[test]
fn who_has_not_proved_who_it_is_draws_few_repetitions_to_elsewhere() {
    let wrong = LocalAuth::Psk(SharedKey(Zeroizing::new(b"a wrong key".to_vec())));
    let mut pair = Pair::new(gateway(), Connection { local_auth: wrong, ..terminal() });
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.terminal.work(pair.now).remove(0).1;
    pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(TERMINAL, 500), &first);
    let (Addresses { local, remote }, answer) = pair.gateway.work(pair.now).remove(0);
    pair.terminal.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &answer);
    let auth = pair.terminal.work(pair.now).remove(0).1;
    let mut copies = |address: [u8; 4]| -> usize {
        (0..100)
            .map(|_| {
                pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(address, 4500), &auth);
                pair.gateway.work(pair.now).len()
            })
            .sum()
    };
    assert_eq!(copies([198, 51, 100, 66]), 2, "where its request came from");
    assert_eq!(copies([198, 51, 100, 67]), 0, "all others together");
    assert_eq!(copies(TERMINAL), 8, "where it has shown that it is");
}

#[test]
fn a_stranger_draws_few_answers_to_elsewhere_by_new_requests_too() {
    for nat in Nat::all([198, 51, 100, 66].into()) {
        let mut pair = Pair::new(
            Connection { remote_auth: RemoteAuth::Eap(users(&["alice"])), ..gateway() },
            Connection { local_auth: LocalAuth::Eap(user("alice")), ..terminal() },
        );
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        let first = pair.terminal.work(pair.now).remove(0).1;
        pair.gateway.endpoint.handle_datagram(pair.now, to_gateway(TERMINAL, 500), &first);
        let (Addresses { local, remote }, answer) = pair.gateway.work(pair.now).remove(0);
        pair.terminal.endpoint.handle_datagram(pair.now, Addresses { local: remote, remote: local }, &answer);
        // Its NAT has several addresses, or it has written somebody else's on its packets.
        pair.nat = Some(nat.clone());
        pair.settle();
        assert_eq!(
            (pair.gateway.endpoint.count(Counter::TooOften), pair.gateway.ups().len()),
            (1, 0),
            "the third of five, {nat}"
        );
        // Who means it asks again.
        pair.pass(20 * SECOND);
        assert_eq!(pair.gateway.ups().len(), 1, "{nat}");
    }
}

#[test]
fn many_who_are_refused_must_show_where_they_are() {
    let mut pair = Pair::new(gateway(), terminal());
    let other = Offer { prf: vec![Prf::HmacSha512], ..offer() };
    let bad = Connection { ike: vec![other], ..terminal() };
    let mut misfit = Pair::new(gateway(), bad);
    let misfits = first_messages(&mut misfit);
    let told = |pair: &mut Pair, (addresses, message): (Addresses, Vec<u8>)| {
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
        let answer = pair.gateway.work(pair.now).remove(0).1;
        let header = Header::parse(&answer).unwrap();
        let payloads = wire::parse(header.next, &answer[wire::HEADER..]).unwrap();
        match payloads[0] {
            Payload::Notify(n) => n.kind,
            _ => 0,
        }
    };
    let kinds: Vec<_> = (0..1000).map(|n| told(&mut pair, misfits(n, [198, 51, 100, n as u8]))).collect();
    assert!(kinds[..256].iter().all(|kind| *kind == notify::NO_PROPOSAL_CHOSEN));
    assert!(kinds[256..].iter().all(|kind| *kind == notify::COOKIE));
    pair.connect();
    assert_eq!(pair.gateway.ups().len(), 1, "who shows where it is connects");
}

// What it agrees to.

#[test]
fn reserved_spis_are_not_taken() {
    let mut insider = insider(Settings::default());
    for spi in [0, 1, 255] {
        assert_eq!(insider.child(spi, None, false, &[]), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
    }
    assert!(matches!(insider.child(256, None, false, &[]), Answer::Taken(_)));
    assert_eq!(insider.ike_sa(0), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
}

#[test]
fn a_rekey_without_the_key_exchange_that_is_demanded_is_refused() {
    let mut strict = Insider::new(gateway(), terminal(), Settings::default());
    let first = strict.first_spi();
    assert_eq!(strict.child(0x1000, Some(first), false, &[]), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
    assert!(matches!(strict.child(0x1001, Some(first), true, &[]), Answer::Taken(_)));
    let both = || [vec![offer()], without_kex()].concat();
    let mut lenient = Insider::new(Connection { esp: both(), ..gateway() }, terminal(), Settings::default());
    let first = lenient.first_spi();
    assert!(matches!(lenient.child(0x1000, Some(first), false, &[]), Answer::Taken(_)));
    // As who begins, it offers both and takes what is chosen.
    let mut pair =
        Pair::new(Connection { esp: without_kex(), ..gateway() }, Connection { esp: both(), ..terminal() });
    pair.connect();
    let peer = pair.terminal.endpoint.peers().next().unwrap().id();
    pair.terminal.endpoint.rekey(pair.now, peer, false);
    pair.settle();
    let made: Vec<usize> = pair.terminal.children().iter().map(|sa| sa.suite.kex.len()).collect();
    assert_eq!(made, [0, 0]);
}

#[test]
fn requests_for_child_sas_have_a_rate() {
    let mut insider = insider(Settings::default());
    // Each costs the gateway little, for its SPI is reserved; what is counted is that it was asked.
    let mut asked = |pair_passes: Duration| {
        insider.pair.now += pair_passes;
        (0..300)
            .take_while(|_| insider.child(7, None, false, &[]) == Answer::Refused(notify::NO_PROPOSAL_CHOSEN))
            .count()
    };
    assert_eq!(asked(Duration::ZERO), 255, "and the first child SA");
    assert_eq!(asked(SECOND), 4);
    assert_eq!(insider.child(7, None, false, &[]), Answer::Refused(notify::TEMPORARY_FAILURE));
}

#[test]
fn who_connects_anew_has_no_more_requests_for_it() {
    let authority: Arc<dyn Verifier> = Arc::new(Names(vec![]));
    let by_key = (gateway(), terminal());
    let by_certificate = (
        Connection { remote_auth: RemoteAuth::Key(authority), ..gateway() },
        Connection { local_auth: LocalAuth::Key(Arc::new(Names(b"cl.test".into()))), ..terminal() },
    );
    for (gateway, terminal) in [by_key, by_certificate] {
        let mut insider = Insider::new(gateway, terminal.clone(), Settings::default());
        while insider.child(7, None, true, &[]) == Answer::Refused(notify::NO_PROPOSAL_CHOSEN) {}
        insider.connect_anew(terminal.clone());
        let refused = Reason::Refused(notify::TEMPORARY_FAILURE);
        assert_eq!(insider.pair.terminal.ends(), [refused], "the first child SA");
        insider.pair.now += SECOND;
        insider.connect_anew(terminal);
        let answers = [(); 4].map(|()| insider.child(7, None, true, &[]));
        let [taken, empty] = [notify::NO_PROPOSAL_CHOSEN, notify::TEMPORARY_FAILURE].map(Answer::Refused);
        assert_eq!(answers.each_ref(), [&taken, &taken, &taken, &empty]);
    }
}

#[test]
fn an_inner_address_that_none_can_be_is_not_taken() {
    let outer = |address: [u8; 4]| IpAddr::from(address);
    for bad in [
        outer(GATEWAY),
        outer(TERMINAL),
        outer([127, 0, 0, 1]),
        outer([169, 254, 1, 1]),
        outer([224, 0, 0, 5]),
        outer([0, 0, 0, 7]),
        outer([255, 255, 255, 255]),
        "fe80::1".parse().unwrap(),
        "::1".parse().unwrap(),
        "ff02::1".parse().unwrap(),
        "::ffff:10.0.0.1".parse().unwrap(),
    ] {
        let mut pair = Pair::new(gateway(), terminal());
        let pools = vec![Pool::new(bad, bad)];
        pair.gateway = Side::with_pools(vec![gateway()], pools, Settings::default(), 1);
        pair.connect();
        assert_eq!(pair.terminal.ends(), [Reason::InnerAddress(bad)]);
        assert!(!pair.terminal.events.iter().any(|e| matches!(e, Event::Configured { .. })), "{bad}");
        assert_eq!(pair.gateway.ups().len(), 0, "the gateway hears of it");
    }
}

#[test]
fn a_message_longer_than_any_is_not_opened() {
    let mut insider = insider(Settings::default());
    let vendor = vec![7; bounds::MESSAGE];
    assert_eq!(insider.ask(ExchangeType::Informational, &[Payload::Vendor(&vendor)]), Answer::Other);
    assert_eq!(insider.pair.gateway.endpoint.count(Counter::Malformed), 1);
}

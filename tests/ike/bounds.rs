//! Bounds of the state, traffic and work that a peer, even an authenticated one, can cause: those
//! that SECURITY.md promises.

use crate::{
    doubles::{FakeCertificate, user, users},
    insider::{Answer, Insider},
    pair::Pair,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer::primitives::Primitives;
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, offer, prefix, terminal},
    side::{Side, to_gateway},
};
use wayfarer::sim::nat::Nat;
use wayfarer_mobility::{
    crypto::{Prf, Verifier},
    ike::{
        bounds,
        connection::{Connection, LocalAuth, RemoteAuth, SharedKey},
        counter::Counter,
        event::Event,
        pool::Pool,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        wire::{self, ExchangeType, Header, Payload, TrafficSelector, notify},
    },
    path::Addresses,
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// Returns offers for child SAs without a key exchange of their own.
fn without_kex() -> Vec<Offer> {
    vec![Offer { kex: vec![], ..offer() }]
}

fn insider(settings: Settings) -> Insider {
    let with = |connection| Connection { esp: without_kex(), liveness: None, ..connection };
    Insider::new(with(gateway()), with(terminal()), settings)
}

// Bounds of state.

#[test]
fn bounds_a_chain_of_rekeys() {
    let mut insider = insider(Settings::default());
    let mut last = insider.first_spi();
    let mut taken = vec![last];
    for spi in 0x1000..0x1400 {
        match insider.child(spi, Some(last), false, &[]) {
            Answer::Accepted(_) => {
                taken.push(spi);
                last = spi;
            }
            answer => assert_eq!(answer, Answer::Refused(notify::TEMPORARY_FAILURE)),
        }
        assert!(insider.children() <= 2 * bounds::CHILDREN);
    }
    assert_eq!(taken.len(), 2 * bounds::CHILDREN);
    assert!(insider.pair.gateway.endpoint.count(Counter::NoRoom) > 0);
    // Deleting the replaced SAs makes room again.
    for spi in &taken[..taken.len() - 1] {
        insider.delete(*spi);
    }
    insider.pass(10 * SECOND);
    assert_eq!(insider.children(), 1);
    assert!(matches!(insider.child(0x2000, Some(last), false, &[]), Answer::Accepted(_)));
}

#[test]
fn refuses_child_sas_beyond_the_limit() {
    let mut one = insider(Settings::default());
    let answers: Vec<_> = (0x1000..0x10ff).map(|spi| one.child(spi, None, false, &[])).collect();
    let taken = answers.iter().filter(|answer| matches!(answer, Answer::Accepted(_))).count();
    assert_eq!(taken, bounds::CHILDREN - 1, "with the first child SA, the limit");
    assert_eq!(answers.last(), Some(&Answer::Refused(notify::NO_ADDITIONAL_SAS)));
    let mut all = insider(Settings { child_limit: 2, ..Settings::default() });
    assert!(matches!(all.child(0x1000, None, false, &[]), Answer::Accepted(_)));
    assert_eq!(
        all.child(0x1001, None, false, &[]),
        Answer::Refused(notify::NO_ADDITIONAL_SAS),
        "limit of all peers together"
    );
    assert!(matches!(all.child(0x1002, Some(0x1000), false, &[]), Answer::Accepted(_)), "a rekey is allowed");
}

#[test]
fn bounds_selectors_by_their_number_of_prefixes() {
    let mut insider = insider(Settings::default());
    // Each of these ranges takes four prefixes.
    let odd: Vec<_> = (0..16).map(|n| prefix([10, 99, 0, 8 * n + 1], [10, 99, 0, 8 * n + 6])).collect();
    let answers: Vec<_> = (0x1000..0x1010).map(|spi| insider.child(spi, None, false, &odd)).collect();
    let taken = answers.iter().filter(|answer| matches!(answer, Answer::Accepted(_))).count();
    assert_eq!(taken, (bounds::RULES - 1) / 64);
    assert_eq!(answers.last(), Some(&Answer::Refused(notify::NO_ADDITIONAL_SAS)));
}

#[test]
fn bounds_selectors_that_no_packet_fits() {
    let mut insider = insider(Settings::default());
    let host = |last| TrafficSelector::host([10, 99, 0, last].into());
    // The data plane cannot check types of ICMP.
    let echo = |last| TrafficSelector { protocol: 1, start_port: 0x800, end_port: 0x8ff, ..host(last) };
    let all: Vec<_> = (0..199).map(echo).chain([host(200)]).collect();
    let answers = [0x1000, 0x1001, 0x1002].map(|spi| insider.child(spi, None, false, &all));
    assert_eq!((insider.children(), &answers[2]), (3, &Answer::Refused(notify::NO_ADDITIONAL_SAS)));
}

#[test]
fn bounds_ike_sas_and_those_of_collisions() {
    let mut rekeying = insider(Settings::default());
    for spi in 0x1000..0x1040 {
        match rekeying.ike_sa(spi) {
            Answer::Accepted(_) => rekeying.switch(),
            answer => assert_eq!(answer, Answer::Refused(notify::TEMPORARY_FAILURE)),
        }
        assert!(rekeying.ike_sas() <= bounds::IKE_SAS);
    }
    assert_eq!(rekeying.ike_sas(), bounds::IKE_SAS);
    (0..90).for_each(|_| rekeying.pass(SECOND));
    assert_eq!(rekeying.ike_sas(), 1, "replaced IKE SAs expire");
    assert!(matches!(rekeying.ike_sa(0x2000), Answer::Accepted(_)));

    let mut hasty = insider(Settings::default());
    for spi in 0x1000..0x1040 {
        assert!(matches!(hasty.ike_sa(spi), Answer::Accepted(_)), "the peer deletes what it replaced");
        hasty.delete_ike_sa();
        hasty.switch();
        assert!(hasty.ike_sas() <= bounds::IKE_SAS);
    }

    let mut colliding = insider(Settings::default());
    let peer = colliding.pair.gateway.endpoint.peers().next().unwrap().id();
    colliding.pair.gateway.endpoint.rekey(colliding.pair.now, peer, true);
    drop(colliding.pair.gateway.work(colliding.pair.now));
    assert!(matches!(colliding.ike_sa(0x1000), Answer::Accepted(_)));
    for spi in 0x1001..0x1040 {
        assert_eq!(colliding.ike_sa(spi), Answer::Refused(notify::TEMPORARY_FAILURE));
    }
    assert_eq!(colliding.ike_sas(), 2);
}

/// Makes a function that returns IKE_SA_INIT requests, given an SPI and a source address.
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
fn flood_from_one_address_delays_only_that_address() {
    let settings = Settings { cookie_threshold: usize::MAX, task_limit: 16, ..Settings::default() };
    let mut pair = Pair::with(gateway(), terminal(), settings);
    let first = first_messages(&mut pair);
    for n in 0..200 {
        let (addresses, message) = first(n, [198, 51, 100, 66]);
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
    }
    assert_eq!(pair.gateway.endpoint.count(Counter::Busy), 200 - 16, "refused without keeping state");
    for (n, address) in [(1000, [198, 51, 100, 7]), (1001, TERMINAL)] {
        let (addresses, message) = first(n, address);
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
    }
    assert_eq!(pair.gateway.endpoint.count(Counter::Busy), 200 - 16);
    let tasks: Vec<_> = std::iter::from_fn(|| pair.gateway.endpoint.poll_task()).collect();
    assert_eq!(tasks.len(), 16);
    let position = |address: [u8; 4]| tasks.iter().position(|(_, from, _)| *from == IpAddr::from(address));
    assert!(position(TERMINAL).unwrap() < 2, "another network");
    assert!(position([198, 51, 100, 7]).unwrap() < 4, "another address of the same network");
}

/// Whoever runs tasks can drop this one, whatever it waits for.
#[test]
fn task_of_a_peer_that_has_ended_is_not_needed() {
    let mut pair = Pair::new(gateway(), terminal());
    let (addresses, first) = first_messages(&mut pair)(1, TERMINAL);
    let (mut now, endpoint) = (pair.now, &mut pair.gateway.endpoint);
    endpoint.handle_datagram(now, addresses, &first);
    let (id, _, task) = endpoint.poll_task().unwrap();
    now += 29 * SECOND;
    endpoint.handle_timeout(now);
    assert!(endpoint.needs(id));
    now += 2 * SECOND;
    endpoint.handle_timeout(now);
    assert_eq!((endpoint.needs(id), endpoint.state_sizes().tasks), (false, 0));
    endpoint.handle_outcome(now, id, task.run(&Primitives));
    assert!(endpoint.poll_transmit().is_none(), "a late outcome changes nothing");
}

// Bounds of answers.

#[test]
fn limits_answers_to_repeated_requests() {
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
    assert_eq!(copies([198, 51, 100, 66], 4500), 1 + 8, "copies from another address");
    assert_eq!(copies(TERMINAL, 4500), 8, "the copies do not keep the peer from its answers");
}

#[test]
fn unauthenticated_peer_draws_few_repetitions_to_other_addresses() {
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
    assert_eq!(copies([198, 51, 100, 66]), 2, "the address that its request came from");
    assert_eq!(copies([198, 51, 100, 67]), 0, "all other addresses together");
    assert_eq!(copies(TERMINAL), 8, "the address that it has proved");
}

#[test]
fn unauthenticated_peer_draws_few_answers_of_new_requests_to_other_addresses() {
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
        // Its NAT has several addresses, or it forges its source.
        pair.nat = Some(nat.clone());
        pair.settle();
        assert_eq!(
            (pair.gateway.endpoint.count(Counter::TooOften), pair.gateway.connected_peers().len()),
            (1, 0),
            "the third of five requests is dropped, {nat}"
        );
        // A genuine peer sends its request again.
        pair.pass(20 * SECOND);
        assert_eq!(pair.gateway.connected_peers().len(), 1, "{nat}");
    }
}

#[test]
fn asks_for_cookies_after_many_refusals() {
    let mut pair = Pair::new(gateway(), terminal());
    let other = Offer { prf: vec![Prf::HmacSha512], ..offer() };
    let bad = Connection { ike: vec![other], ..terminal() };
    let mut refused_pair = Pair::new(gateway(), bad);
    let refused_messages = first_messages(&mut refused_pair);
    let answer_to = |pair: &mut Pair, (addresses, message): (Addresses, Vec<u8>)| {
        pair.gateway.endpoint.handle_datagram(pair.now, addresses, &message);
        let answer = pair.gateway.work(pair.now).remove(0).1;
        let header = Header::parse(&answer).unwrap();
        let payloads = wire::parse(header.next, &answer[wire::HEADER..]).unwrap();
        match payloads[0] {
            Payload::Notify(n) => n.kind,
            _ => 0,
        }
    };
    let kinds: Vec<_> =
        (0..1000).map(|n| answer_to(&mut pair, refused_messages(n, [198, 51, 100, n as u8]))).collect();
    assert!(kinds[..256].iter().all(|kind| *kind == notify::NO_PROPOSAL_CHOSEN));
    assert!(kinds[256..].iter().all(|kind| *kind == notify::COOKIE));
    pair.connect();
    assert_eq!(pair.gateway.connected_peers().len(), 1, "a terminal that returns the cookie connects");
}

// Requests that are refused.

#[test]
fn refuses_reserved_spis() {
    let mut insider = insider(Settings::default());
    for spi in [0, 1, 255] {
        assert_eq!(insider.child(spi, None, false, &[]), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
    }
    assert!(matches!(insider.child(256, None, false, &[]), Answer::Accepted(_)));
    assert_eq!(insider.ike_sa(0), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
}

#[test]
fn refuses_a_rekey_without_a_required_key_exchange() {
    let mut strict = Insider::new(gateway(), terminal(), Settings::default());
    let first = strict.first_spi();
    assert_eq!(strict.child(0x1000, Some(first), false, &[]), Answer::Refused(notify::NO_PROPOSAL_CHOSEN));
    assert!(matches!(strict.child(0x1001, Some(first), true, &[]), Answer::Accepted(_)));
    let both = || [vec![offer()], without_kex()].concat();
    let mut lenient = Insider::new(Connection { esp: both(), ..gateway() }, terminal(), Settings::default());
    let first = lenient.first_spi();
    assert!(matches!(lenient.child(0x1000, Some(first), false, &[]), Answer::Accepted(_)));
    // An initiator offers both and accepts the responder's choice.
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
fn limits_the_rate_of_child_sa_requests() {
    let mut insider = insider(Settings::default());
    // The requests are refused early, for their SPI is reserved, but they still count.
    let mut requests_after = |elapsed: Duration| {
        insider.pair.now += elapsed;
        (0..300)
            .take_while(|_| insider.child(7, None, false, &[]) == Answer::Refused(notify::NO_PROPOSAL_CHOSEN))
            .count()
    };
    assert_eq!(requests_after(Duration::ZERO), 255, "with the first child SA, the limit");
    assert_eq!(requests_after(SECOND), 4);
    assert_eq!(insider.child(7, None, false, &[]), Answer::Refused(notify::TEMPORARY_FAILURE));
}

#[test]
fn reconnecting_does_not_raise_the_request_limit() {
    let authority: Arc<dyn Verifier> = Arc::new(FakeCertificate::default());
    let by_key = (gateway(), terminal());
    let by_certificate = (
        Connection { remote_auth: RemoteAuth::Key(authority), ..gateway() },
        Connection { local_auth: LocalAuth::Key(Arc::new(FakeCertificate::of("cl.test"))), ..terminal() },
    );
    for (gateway, terminal) in [by_key, by_certificate] {
        let mut insider = Insider::new(gateway, terminal.clone(), Settings::default());
        while insider.child(7, None, true, &[]) == Answer::Refused(notify::NO_PROPOSAL_CHOSEN) {}
        insider.connect_anew(terminal.clone());
        let refused = Reason::Refused(notify::TEMPORARY_FAILURE);
        assert_eq!(insider.pair.terminal.end_reasons(), [refused], "the first child SA");
        insider.pair.now += SECOND;
        insider.connect_anew(terminal);
        let answers = [(); 4].map(|()| insider.child(7, None, true, &[]));
        let [accepted, exhausted] =
            [notify::NO_PROPOSAL_CHOSEN, notify::TEMPORARY_FAILURE].map(Answer::Refused);
        assert_eq!(answers.each_ref(), [&accepted, &accepted, &accepted, &exhausted]);
    }
}

#[test]
fn refuses_impossible_inner_addresses() {
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
        assert_eq!(pair.terminal.end_reasons(), [Reason::InnerAddress(bad)]);
        assert!(!pair.terminal.events.iter().any(|e| matches!(e, Event::Configured { .. })), "{bad}");
        assert_eq!(pair.gateway.connected_peers().len(), 0, "the gateway is told");
    }
}

#[test]
fn drops_too_long_messages_unopened() {
    let mut insider = insider(Settings::default());
    let vendor = vec![7; bounds::MESSAGE];
    assert_eq!(insider.ask(ExchangeType::Informational, &[Payload::Vendor(&vendor)]), Answer::None);
    assert_eq!(insider.pair.gateway.endpoint.count(Counter::Malformed), 1);
}

#[test]
fn refuses_messages_of_more_than_128_fragments() {
    let mut insider = insider(Settings::default());
    // Each fragment has room for 87 bytes of payloads.
    let mut answers = |fragments: usize| {
        let (vendor, mut body) = (vec![7; 87 * fragments - 4], vec![]);
        let first = wire::emit(&[Payload::Vendor(&vendor)], &mut body);
        let parts = insider.seal_fragments(ExchangeType::Informational, first, body);
        assert_eq!(parts.len(), fragments);
        parts.iter().filter(|part| insider.send(part) != Answer::None).count()
    };
    assert_eq!((answers(128), answers(129)), (1, 0));
}

//! Rekeys with peers that have other habits: no key exchange for child SAs, an order of proposals of
//! their own, or algorithms that they no longer allow.

use crate::{
    insider::{Answer, Insider},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::connections::{TERMINAL, gateway, offer, prefix, terminal};
use wayfarer::sim::ike::side::to_gateway;
use wayfarer_mobility::{
    crypto::{Encr, Kex, Prf},
    ike::{
        connection::{Connection, Lifetimes},
        counter::Counter,
        event::Event,
        proposal::Offer,
        settings::Settings,
        suite::{EspSuite, IkeSuite},
        wire::{ErrorNotify, ExchangeType, Payload, Proposal, flags, notify},
    },
};

const HOUR: Duration = Duration::from_secs(3600);
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

fn strong() -> Offer {
    offer()
}

fn weak() -> Offer {
    Offer { encr: vec![Encr::AesGcm(128)], prf: vec![Prf::HmacSha256], ..offer() }
}

fn without_kex(offer: Offer) -> Offer {
    Offer { kex: vec![], ..offer }
}

/// Returns the connection with lifetimes that never end, so that only the other side rekeys.
fn patient(connection: Connection) -> Connection {
    Connection {
        lifetimes: Lifetimes { ike_sa: NEVER, child: NEVER, grace: NEVER, authentication: None },
        ..connection
    }
}

/// Returns the suites of the IKE SA and of the newest child SA.
fn suites(pair: &Pair) -> (IkeSuite, EspSuite) {
    let peer = pair.gateway.connected_peers()[0];
    let view = pair.gateway.endpoint.peers().find(|view| view.id() == peer).unwrap();
    (view.suite().unwrap().clone(), pair.gateway.newest_child().suite.clone())
}

#[test]
fn tunnel_lives_on_with_a_peer_without_key_exchanges_for_child_sas() {
    let both = vec![strong(), weak(), without_kex(strong()), without_kex(weak())];
    let [ours, theirs] = [both, vec![without_kex(strong())]];
    for [at_gateway, at_terminal] in [[&ours, &theirs], [&theirs, &ours]] {
        for by_gateway in [true, false] {
            let gateway = Connection { esp: at_gateway.clone(), ..gateway() };
            let terminal = Connection { esp: at_terminal.clone(), ..terminal() };
            let mut pair = match by_gateway {
                true => Pair::connected(gateway, patient(terminal)),
                false => Pair::connected(patient(gateway), terminal),
            };
            pair.pass(20 * HOUR);
            let count = pair.gateway.children().len();
            assert!((18..=24).contains(&count), "{count} child SAs in 20 hours");
            assert_eq!((pair.gateway.end_reasons(), pair.terminal.end_reasons()), (vec![], vec![]));
            assert!(suites(&pair).1.kex.is_empty());
            pair.assert_one_each();
        }
    }
}

#[test]
fn demanded_key_exchange_is_not_left_out() {
    let gateway = Connection { esp: vec![strong()], ..gateway() };
    let mut pair = Pair::connected(gateway, patient(Connection { esp: vec![strong()], ..terminal() }));
    pair.pass(2 * HOUR);
    assert_eq!(suites(&pair).1.kex, [Kex::X25519]);
}

#[test]
fn rekey_keeps_the_suite_whatever_order_the_peer_prefers() {
    let orders = [vec![strong(), weak()], vec![weak(), strong()]];
    for (at_gateway, at_terminal) in [(0, 1), (1, 0)] {
        for by_gateway in [true, false] {
            let [gateway, terminal] = [(gateway(), at_gateway), (terminal(), at_terminal)]
                .map(|(c, order)| Connection { ike: orders[order].clone(), esp: orders[order].clone(), ..c });
            let mut pair = Pair::connected(gateway, terminal);
            let before = suites(&pair);
            for ike_sa in [true, false, true] {
                let [here, there] = pair.connected_peers().map(|all| all[0]);
                match by_gateway {
                    true => pair.gateway.endpoint.rekey(pair.now, there, ike_sa),
                    false => pair.terminal.endpoint.rekey(pair.now, here, ike_sa),
                }
                pair.settle();
                pair.pass(Duration::from_secs(10));
                pair.assert_one_each();
            }
            let after = suites(&pair);
            assert_eq!((&before.0, before.1.encr), (&after.0, after.1.encr));
            assert_eq!(pair.gateway.children().len(), 2);
        }
    }
}

/// Makes a gateway with both suites in use order, and an insider in place of its terminal.
fn insider() -> Insider {
    let both = vec![strong(), weak(), without_kex(strong())];
    let gateway = Connection { ike: both[..2].to_vec(), esp: both.clone(), ..gateway() };
    let terminal = Connection { ike: vec![weak()], esp: vec![weak()], ..terminal() };
    Insider::new(gateway, terminal, Settings::default())
}

/// Takes the gateway's only request and returns the ciphers of each of its proposals.
fn offered(insider: &mut Insider) -> Vec<Vec<u16>> {
    let requests = insider.pair.down();
    let [(_, request)] = &requests[..] else { panic!("{} requests", requests.len()) };
    insider.read(request, |payloads| {
        let ciphers = |proposal: &Proposal| {
            let all = proposal.transforms.iter().filter(|t| t.kind == 1);
            all.map(|t| t.key_bits.unwrap_or(0)).collect()
        };
        let sa = payloads.iter().find_map(|payload| match payload {
            Payload::Sa(proposals) => Some(proposals.iter().map(ciphers).collect()),
            _ => None,
        });
        sa.unwrap_or_default()
    })
}

/// Sends the terminal's answer to the gateway's request with this message ID.
fn answer(insider: &mut Insider, message_id: u32, payloads: &[Payload<'_>]) {
    let flags = flags::INITIATOR | flags::RESPONSE;
    let answer = insider.protect_payloads(ExchangeType::CreateChildSa, flags, message_id, payloads);
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, to_gateway(TERMINAL, 4500), &answer);
}

#[test]
fn all_algorithms_are_offered_once_those_in_use_are_refused() {
    for (ike_sa, all) in [(true, vec![vec![256], vec![128]]), (false, vec![vec![256], vec![128], vec![256]])]
    {
        let mut insider = insider();
        let peer = insider.pair.connected_peers()[1][0];
        insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, ike_sa);
        assert_eq!(offered(&mut insider), [[128]], "only what is in use");
        let refusal: ErrorNotify = notify::NO_PROPOSAL_CHOSEN.into();
        answer(&mut insider, 0, &[refusal.payload()]);
        assert_eq!(offered(&mut insider), all);
        answer(&mut insider, 1, &[refusal.payload()]);
        assert!(insider.pair.down().is_empty(), "not at once");
    }
}

#[test]
fn peers_that_offer_more_keep_the_prf_of_the_ike_sa() {
    let mut insider = insider();
    assert!(matches!(insider.ike_sa_by(1, &[(256, 6), (128, 5)]), Answer::Accepted(_)));
    insider.switch();
    assert_eq!(suites(&insider.pair).0.prf, Prf::HmacSha256);
    assert!(matches!(insider.ike_sa_by(2, &[(256, 6)]), Answer::Accepted(_)), "the only one that is offered");
}

#[test]
fn another_key_exchange_is_offered_if_the_peer_wants_it() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
    assert_eq!(offered(&mut insider), [[128]]);
    let refusal = ErrorNotify::invalid_ke_payload(Kex::Ecp256.transform());
    answer(&mut insider, 0, &[refusal.payload()]);
    assert_eq!(offered(&mut insider), [[256], [128]]);
}

/// libreswan takes no other, and answers INVALID_SYNTAX if the public value is of another.
#[test]
fn key_exchange_of_the_ike_sa_is_the_first_that_a_child_sa_is_offered() {
    let gateway = Connection { ike: vec![weak()], esp: vec![strong()], ..gateway() };
    let only = Offer { kex: vec![Kex::Ecp256], ..weak() };
    let terminal = Connection { ike: vec![only], esp: vec![without_kex(strong())], ..terminal() };
    let mut insider = Insider::new(gateway, terminal, Settings::default());
    assert_eq!(suites(&insider.pair).0.kex, Kex::Ecp256);
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    let requests = insider.pair.down();
    let group = insider.read(&requests[0].1, |payloads| {
        payloads.iter().find_map(|payload| match payload {
            Payload::Ke { method, .. } => Some(*method),
            _ => None,
        })
    });
    assert_eq!(group, Some(Kex::Ecp256.transform()));
}

#[test]
fn child_sa_is_used_again_if_the_peer_deletes_its_successor() {
    let mut insider = insider();
    let first = insider.first_spi();
    assert!(matches!(insider.child(0x1000, Some(first), true, &[]), Answer::Accepted(_)));
    insider.delete(0x1000);
    let used = insider.pair.gateway.events.iter().rev().find_map(|event| match event {
        Event::ChildUse { child } => Some(*child),
        _ => None,
    });
    let left = insider.pair.gateway.endpoint.peers().next().unwrap().children().next();
    assert_eq!(used, left, "traffic goes back to it");
    assert!(matches!(insider.child(0x1001, Some(first), true, &[]), Answer::Accepted(_)));
}

#[test]
fn child_sa_that_is_not_taken_is_deleted() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    let (_, request) = insider.pair.down().remove(0);
    let ours = insider.read(&request, |payloads| {
        payloads.iter().find_map(|payload| match payload {
            Payload::Sa(proposals) => Some(proposals[0].spi.clone()),
            _ => None,
        })
    });
    // A cipher that was not offered.
    let proposal = EspSuite { encr: Encr::AesGcm(256), integ: None, kex: vec![], esn: false };
    let everything = vec![prefix([0; 4], [255; 4])];
    let payloads = [
        Payload::Sa(vec![proposal.proposal(1, 0x1000)]),
        Payload::Nonce(&[7; 32]),
        Payload::TsI(everything.clone()),
        Payload::TsR(everything),
    ];
    answer(&mut insider, 0, &payloads);
    let requests = insider.pair.down();
    let [(_, request)] = &requests[..] else { panic!("{} requests", requests.len()) };
    let deleted = insider.read(request, |payloads| match payloads {
        [Payload::Delete(delete)] => Some(delete.spis.clone()),
        _ => None,
    });
    let ours = u32::from_be_bytes(ours.unwrap().try_into().unwrap());
    assert_eq!(deleted, Some(vec![ours]), "the peer does not keep an SA that nobody uses");
    assert!(!insider.pair.gateway.events.iter().any(|event| matches!(event, Event::ChildDown { .. })));
}

#[test]
fn answer_with_more_than_one_proposal_is_refused() {
    for (ike_sa, count, taken) in [(true, 1, true), (true, 2, false), (false, 1, true), (false, 2, false)] {
        let mut insider = insider();
        let peer = insider.pair.connected_peers()[1][0];
        insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, ike_sa);
        drop(insider.pair.down());
        let (ike, esp) = suites(&insider.pair);
        let proposal = |number| match ike_sa {
            true => ike.proposal(number, &[1; 8]),
            false => EspSuite { kex: vec![Kex::X25519], ..esp.clone() }.proposal(number, 0x1000),
        };
        let mut payloads = vec![
            Payload::Sa((1..=count).map(proposal).collect()),
            Payload::Nonce(&[7; 32]),
            Payload::Ke { method: Kex::X25519.transform(), data: &[9; 32] },
        ];
        let child = insider.pair.gateway.newest_child();
        if !ike_sa {
            payloads.extend([Payload::TsI(child.local.clone()), Payload::TsR(child.remote.clone())]);
        }
        answer(&mut insider, 0, &payloads);
        drop(insider.pair.down());
        let rekeyed = insider.pair.gateway.endpoint.count(Counter::Rekeyed);
        assert_eq!(rekeyed, u64::from(taken), "{count} proposals, IKE: {ike_sa}");
    }
}

#[test]
fn unknown_child_sa_is_named_in_the_refusal() {
    let mut insider = insider();
    let refusal = ErrorNotify::child_sa_not_found([0, 0, 0x77, 0x77]);
    assert_eq!(insider.child(0x1000, Some(0x7777), true, &[]), Answer::Refused(refusal.kind));
    let Payload::Notify(named) = refusal.payload() else { panic!("not a notify") };
    assert_eq!((named.protocol, named.spi, named.data), (3, &[0, 0, 0x77, 0x77][..], &[][..]));
    assert_eq!(ErrorNotify::find(&[refusal.payload()]), Some(refusal));
}

#[test]
fn rekey_of_the_ike_sa_is_retried_whatever_the_refusal() {
    let mut insider = insider();
    let peer = insider.pair.connected_peers()[1][0];
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, true);
    drop(insider.pair.down());
    answer(&mut insider, 0, &[ErrorNotify::child_sa_not_found([0, 0, 1, 0]).payload()]);
    drop(insider.pair.down());
    insider.pair.now += Duration::from_secs(60);
    insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
    assert_eq!(offered(&mut insider), [[128]]);
}

#[test]
fn successor_of_the_peer_saves_a_link_whose_own_rekey_is_refused_at_the_limit() {
    let mut insider = insider();
    let first = insider.first_spi();
    let peer = insider.pair.connected_peers()[1][0];
    let old = insider.pair.gateway.endpoint.peers().next().unwrap().children().next().unwrap();
    insider.pair.gateway.endpoint.rekey(insider.pair.now, peer, false);
    drop(insider.pair.down());
    assert!(matches!(insider.child(0x1000, Some(first), true, &[]), Answer::Accepted(_)));
    insider.pair.gateway.endpoint.handle_child_expired(insider.pair.now, peer, old);
    let refusal: ErrorNotify = notify::NO_ADDITIONAL_SAS.into();
    answer(&mut insider, 0, &[refusal.payload()]);
    drop(insider.pair.down());
    assert_eq!((insider.pair.gateway.end_reasons(), insider.children()), (vec![], 2));
}

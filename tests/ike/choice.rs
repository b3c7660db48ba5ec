//! The connection for a peer is chosen by its addresses, proposals and identity together.

use crate::{
    doubles::{FakeCertificate, user, users},
    fleet::Fleet,
    insider::Insider,
    pair::Pair,
};
use std::{slice, sync::Arc, time::Duration};
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, identity, offer, terminal},
    side::Side,
};
use wayfarer_mobility::{
    crypto::{Encr, Kex, Prf, VerifyErrorKind},
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, Remote, RemoteAuth},
        counter::Counter,
        event::Event,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
        suite::IkeSuite,
        wire::{self, ErrorNotify, ExchangeType, Header, Payload, notify},
    },
};

fn strong() -> Offer {
    offer()
}

fn weak() -> Offer {
    Offer { encr: vec![Encr::AesGcm(128)], ..offer() }
}

fn hybrid() -> Offer {
    Offer { more_kex: vec![vec![Kex::MlKem768]], ..offer() }
}

/// Makes a connection for `remote_id` with these algorithms.
fn connection(name: &str, remote_id: IdentityPattern, ike: &[Offer]) -> Connection {
    Connection { name: name.into(), remote_id, ike: ike.to_vec(), ..gateway() }
}

fn only(name: &str) -> IdentityPattern {
    IdentityPattern::of(vec![identity(name)])
}

fn suffix(end: &str) -> IdentityPattern {
    IdentityPattern::Suffix(end.into())
}

/// Connects a terminal that is called `name`, and offers `ike` in this order. Returns the name of its
/// connection and its algorithms, or why it gets none and for which connection it would be.
fn outcome(
    connections: &[Connection],
    name: &str,
    ike: &[Offer],
) -> Result<(String, Encr), (Reason, Option<String>)> {
    let mut fleet = Fleet::new(connections.to_vec());
    fleet.connect(TERMINAL, Connection { local_id: identity(name), ike: ike.to_vec(), ..terminal() });
    let name_of = |index: usize| fleet.gateway.endpoint.connection(index).unwrap().name.clone();
    if let [peer] = fleet.connected_peers()[..] {
        return Ok((name_of(peer.connection().unwrap()), peer.suite().unwrap().encr));
    }
    let down = fleet.gateway.events.iter().find_map(|event| match event {
        Event::PeerDown { connection, reason, .. } => Some((reason.clone(), connection.map(name_of))),
        _ => None,
    });
    Err(down.unwrap())
}

fn chosen(connection: &str, bits: u16) -> Result<(String, Encr), (Reason, Option<String>)> {
    Ok((connection.into(), Encr::AesGcm(bits)))
}

fn refused_by(connection: &str) -> Result<(String, Encr), (Reason, Option<String>)> {
    Err((Reason::OtherAlgorithms, Some(connection.into())))
}

#[test]
fn every_peer_gets_in_and_then_the_best_algorithms_of_its_connection() {
    let old = || connection("old", only("old.test"), &[weak()]);
    let new = || connection("new", only("new.test"), &[strong(), weak()]);
    for all in [[old(), new()], [new(), old()]] {
        for offered in [[weak(), strong()], [strong(), weak()]] {
            assert_eq!(outcome(&all, "new.test", &offered), chosen("new", 256));
            assert_eq!(outcome(&all, "old.test", &offered), chosen("old", 128));
        }
        assert_eq!(outcome(&all, "old.test", &[weak()]), chosen("old", 128));
        assert_eq!(outcome(&all, "new.test", &[strong()]), chosen("new", 256));
    }
}

/// Connects a terminal that is called `name` and offers `ike`. Returns the algorithms that its IKE SAs
/// have, one after the other.
fn suites(connections: &[Connection], name: &str, ike: &[Offer]) -> Vec<IkeSuite> {
    let terminal = Connection { local_id: identity(name), ike: ike.to_vec(), ..terminal() };
    let mut pair = among(connections, terminal);
    pair.connect();
    pair.pass(Duration::from_secs(10));
    pair.assert_one_each();
    let suite = |event: &Event| match event {
        Event::IkeSaKeys { suite, .. } => Some(suite.clone()),
        _ => None,
    };
    let mut suites: Vec<_> = pair.gateway.events.iter().filter_map(suite).collect();
    // IKE_INTERMEDIATE gives new keys to the same IKE SA.
    suites.dedup();
    assert_eq!(pair.gateway.children().len(), suites.len(), "child SAs have keys of the newest IKE SA");
    assert_eq!(pair.gateway.endpoint.count(Counter::Rekeyed), 2 * (suites.len() as u64 - 1));
    suites
}

/// Makes a gateway with these connections, which logs its keys, and this terminal.
fn among(connections: &[Connection], terminal: Connection) -> Pair {
    let mut pair = Pair::new(gateway(), terminal);
    let settings = Settings { log_keys: true, ..Settings::default() };
    pair.gateway = Side::new(connections.to_vec(), settings, 1);
    pair
}

#[test]
fn another_connection_takes_ml_kem_from_no_peer_for_long() {
    let all = [
        connection("a", only("a.test"), &[hybrid(), strong()]),
        connection("b", only("b.test"), &[strong()]),
    ];
    let more = |name: &str, ike: &[Offer]| {
        suites(&all, name, ike).into_iter().map(|suite| suite.more_kex).collect::<Vec<_>>()
    };
    let both = [hybrid(), strong()];
    assert_eq!(more("a.test", &both), [vec![], vec![Kex::MlKem768]]);
    assert_eq!(more("a.test", &both[..1]), [vec![Kex::MlKem768]]);
    assert_eq!(more("a.test", &both[1..]), [vec![]]);
    assert_eq!(more("b.test", &both), [vec![]]);
}

#[test]
fn better_algorithms_keep_the_prf() {
    let [long, short] = [Prf::HmacSha384, Prf::HmacSha256];
    let wide = Offer { encr: [strong().encr, weak().encr].concat(), prf: vec![long, short], ..offer() };
    let all = |narrow: Offer| {
        [connection("a", only("a.test"), slice::from_ref(&wide)), connection("b", only("b.test"), &[narrow])]
    };
    let of = |narrow: Offer| {
        let suites = suites(&all(narrow), "a.test", slice::from_ref(&wide)).into_iter();
        suites.map(|suite| (suite.encr, suite.prf)).collect::<Vec<_>>()
    };
    let [good, poor] = [Encr::AesGcm(256), Encr::AesGcm(128)];
    assert_eq!(of(Offer { prf: vec![short], ..weak() }), [(poor, short), (good, short)]);
    assert_eq!(of(Offer { prf: vec![short], ..strong() }), [(good, short)]);
    let all = [
        connection("a", only("a.test"), &[hybrid(), Offer { prf: vec![short], ..weak() }]),
        connection("b", only("b.test"), &[Offer { prf: vec![short], ..weak() }]),
    ];
    assert_eq!(suites(&all, "a.test", &all[0].ike).len(), 1, "strongSwan would lose the IKE SA");
}

#[test]
fn peer_that_refuses_better_algorithms_stays_and_is_asked_once() {
    let all = [
        connection("a", only("a.test"), &[hybrid(), strong()]),
        connection("b", only("b.test"), &[strong()]),
    ];
    let ike = vec![hybrid(), strong()];
    let terminal = Connection { local_id: identity("a.test"), ike, ..terminal() };
    for (refusal, asked_again) in [(notify::NO_PROPOSAL_CHOSEN, false), (notify::TEMPORARY_FAILURE, true)] {
        let mut insider = Insider::after_in(2, among(&all, terminal.clone()));
        let refusal: ErrorNotify = refusal.into();
        insider.answer(ExchangeType::CreateChildSa, 0, TERMINAL, &[refusal.payload()]);
        assert_eq!(insider.pair.down(), []);
        insider.pair.now += Duration::from_secs(3);
        insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
        assert_eq!(insider.pair.down().len(), usize::from(asked_again));
        assert_eq!(insider.pair.gateway.end_reasons(), []);
        let failed = |event: &&Event| matches!(event, Event::CreateFailed { .. });
        let failed = insider.pair.gateway.events.iter().filter(failed).count();
        assert_eq!(failed, usize::from(!asked_again), "the log says so");
    }
}

#[test]
fn most_connections_count_and_not_most_lists() {
    let other = || Offer { encr: vec![Encr::ChaCha20Poly1305], ..offer() };
    let many = (0..20).map(|n| connection("many", only(&format!("{n}.test")), &[strong()]));
    let few =
        [connection("few", only("a.test"), &[weak()]), connection("few", only("b.test"), &[weak(), other()])];
    let all: Vec<_> = few.into_iter().chain(many).collect();
    assert_eq!(outcome(&all, "7.test", &[weak(), strong()]), chosen("many", 256));
    assert_eq!(outcome(&all, "a.test", &[weak()]), chosen("few", 128));
}

#[test]
fn certificates_authority_decides_between_connections_for_the_same_names() {
    let by = |name: &str, issuer| Connection {
        remote_auth: RemoteAuth::Key(Arc::new(FakeCertificate::trusting(issuer))),
        ..connection(name, suffix(".example.org"), &[strong()])
    };
    let all = [by("old", "ca1.test"), by("new", "ca2.test")];
    for (issuer, expected) in [("ca1.test", Some("old")), ("ca2.test", Some("new")), ("ca3.test", None)] {
        let certificate = FakeCertificate::of(&format!("cl.example.org {issuer}"));
        let mut fleet = Fleet::new(all.to_vec());
        let local_auth = LocalAuth::Key(Arc::new(certificate));
        fleet
            .connect(TERMINAL, Connection { local_id: identity("cl.example.org"), local_auth, ..terminal() });
        let connected = fleet.connected_peers().first().map(|peer| peer.connection().unwrap());
        assert_eq!(connected.map(|index| &all[index].name[..]), expected);
        let refused = expected.is_none().then(|| Reason::Verification(VerifyErrorKind::Issuer.into()));
        assert_eq!(fleet.gateway.end_reasons(), Vec::from_iter(refused));
    }
}

#[test]
fn operators_order_decides_between_connections_without_common_algorithms() {
    let a = || connection("a", only("a.test"), &[strong()]);
    let b = || connection("b", only("b.test"), &[weak()]);
    let both = [strong(), weak()];
    assert_eq!(outcome(&[a(), b()], "a.test", &both), chosen("a", 256));
    assert_eq!(outcome(&[a(), b()], "b.test", &both), refused_by("b"));
    assert_eq!(outcome(&[b(), a()], "b.test", &both), chosen("b", 128));
    assert_eq!(outcome(&[b(), a()], "a.test", &both), refused_by("a"));
}

#[test]
fn connection_that_has_the_peers_address_chooses_the_algorithms() {
    let remote = |address: &str| vec![Remote::At(format!("{address}:500").parse().unwrap())];
    let site =
        |address| Connection { remote: remote(address), ..connection("site", only("site.test"), &[weak()]) };
    let people = || connection("people", IdentityPattern::Any, &[strong(), weak()]);
    let both = [strong(), weak()];
    assert_eq!(outcome(&[people(), site("192.0.2.7")], "site.test", &both), chosen("people", 256));
    assert_eq!(outcome(&[site("192.0.2.7"), people()], "site.test", &both), chosen("site", 128));
    assert_eq!(outcome(&[site("192.0.2.8"), people()], "site.test", &both), chosen("people", 256));
    // Another peer at that address is not shut out.
    assert_eq!(outcome(&[site("192.0.2.7"), people()], "alice.test", &[strong()]), chosen("people", 256));
}

#[test]
fn later_connection_with_other_algorithms_is_for_the_same_peer_if_it_names_it_as_closely() {
    let strict = |remote_id| connection("strict", remote_id, &[strong()]);
    let old = |remote_id| connection("old", remote_id, &[weak()]);
    let of = |first: IdentityPattern, second: IdentityPattern| {
        outcome(&[strict(first), old(second)], "cl.test", &[weak()])
    };
    let any = || IdentityPattern::Any;
    for (first, second) in [
        (only("cl.test"), only("CL.test")),
        (suffix(".test"), only("cl.test")),
        (suffix(".test"), suffix(".test")),
        (any(), only("cl.test")),
        (any(), any()),
    ] {
        assert_eq!(of(first.clone(), second.clone()), chosen("old", 128), "{first:?} {second:?}");
    }
    for (first, second) in
        [(only("cl.test"), suffix(".test")), (only("cl.test"), any()), (suffix(".test"), any())]
    {
        assert_eq!(of(first.clone(), second.clone()), refused_by("strict"), "{first:?} {second:?}");
    }
    // Another strict one in between, which names it less closely, changes nothing.
    let all = [strict(only("cl.test")), strict(any()), old(any())];
    assert_eq!(outcome(&all, "cl.test", &[weak()]), refused_by("strict"));
}

#[test]
fn method_without_a_fitting_connection_is_refused_for_its_algorithms() {
    let of_users = |ike: &[Offer]| Connection {
        remote_auth: RemoteAuth::Eap(users(&["cl"])),
        ..connection("users", IdentityPattern::Any, ike)
    };
    let keys = connection("keys", only("a.test"), &[strong()]);
    let mut fleet = Fleet::new(vec![keys, of_users(&[weak()])]);
    let local_auth = LocalAuth::Eap(user("cl"));
    fleet.connect(TERMINAL, Connection { local_auth, ike: vec![strong(), weak()], ..terminal() });
    assert_eq!(fleet.gateway.end_reasons(), [Reason::OtherAlgorithms]);
}

#[test]
fn method_is_that_of_a_connection_with_the_chosen_algorithms() {
    let of = |name, user, ike| Connection {
        remote_auth: RemoteAuth::Eap(users(&[user])),
        ..connection(name, IdentityPattern::Any, &[ike])
    };
    let mut fleet = Fleet::new(vec![of("strict", "other", strong()), of("old", "cl", weak())]);
    fleet.connect(
        TERMINAL,
        Connection { local_auth: LocalAuth::Eap(user("cl")), ike: vec![weak()], ..terminal() },
    );
    assert_eq!(fleet.connected_peers().len(), 1, "{:?}", fleet.gateway.end_reasons());
}

#[test]
fn peer_without_intermediate_exchanges_gets_a_proposal_without_them() {
    let gateway = Connection { ike: vec![hybrid(), strong()], ..gateway() };
    let mut pair = Pair::new(gateway, Connection { ike: vec![hybrid(), strong()], ..terminal() });
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let (addresses, message) = pair.up().remove(0);
    let header = Header::parse(&message).unwrap();
    let mut payloads = wire::parse(header.next, &message[wire::HEADER..]).unwrap();
    payloads.retain(
        |payload| !matches!(payload, Payload::Notify(n) if n.kind == notify::INTERMEDIATE_EXCHANGE_SUPPORTED),
    );
    let request = wire::emit_message(header, &payloads);
    pair.deliver_up(&(addresses, request));
    let answer = pair.down().remove(0).1;
    let header = Header::parse(&answer).unwrap();
    let payloads = wire::parse(header.next, &answer[wire::HEADER..]).unwrap();
    let taken = payloads.iter().find_map(|payload| match payload {
        Payload::Sa(proposals) => Some(proposals[0].number),
        _ => None,
    });
    assert_eq!(taken, Some(2), "the proposal without ML-KEM");
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 0);
}

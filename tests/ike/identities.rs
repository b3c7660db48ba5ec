//! A peer's proved identity, not a name that it chooses, decides its connection (RFC 7296 §2.16).

use crate::{
    doubles::{FakeCertificate, user, users},
    fleet::Fleet,
    pair::Pair,
};
use std::{net::IpAddr, sync::Arc};
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, offer, prefix, terminal},
    eap::FakeEap,
};
use wayfarer_mobility::{
    aaa::eap::Authenticator,
    crypto::{Encr, Kex, Verifier},
    identity::{Identity, kind},
    ike::{
        bounds,
        connection::{ChildPolicy, Connection, IdentityPattern, LocalAuth, Ppk, RemoteAuth, SharedKey},
        event::Event,
        proposal::Offer,
        reason::Reason,
        wire::{self, Header, Payload, TrafficSelector, notify},
    },
};
use zeroize::Zeroizing;

fn id(text: &str) -> Identity {
    Identity::from_text(text).unwrap()
}

fn only(text: &str) -> IdentityPattern {
    IdentityPattern::of(vec![id(text)])
}

/// Makes a connection by EAP for users that match `remote_id`, with the pool of this index.
fn by_eap(name: &str, eap: &Arc<dyn Authenticator>, remote_id: IdentityPattern, pool: usize) -> Connection {
    let remote_auth = RemoteAuth::Eap(eap.clone());
    Connection { name: name.into(), remote_id, remote_auth, pools: vec![pool], ..gateway() }
}

/// Makes the connection of a terminal that claims to be `claimed` and has the password of user
/// `name`.
fn person(claimed: &str, name: &str) -> Connection {
    Connection { local_id: id(claimed), local_auth: LocalAuth::Eap(user(name)), ..terminal() }
}

/// Makes the connections "contractors", which is only for bob and one server, and "people" for
/// everybody.
fn contractors_and_people() -> Vec<Connection> {
    let eap = users(&["alice", "bob"]);
    let mut contractors = by_eap("contractors", &eap, only("bob"), 1);
    contractors.children = vec![ChildPolicy {
        local: vec![TrafficSelector::host([10, 99, 0, 9].into())],
        ..contractors.children.remove(0)
    }];
    vec![contractors, by_eap("people", &eap, IdentityPattern::Any, 0)]
}

/// Returns the connection, inner addresses and displayed name of the only peer.
fn shown(fleet: &Fleet) -> (usize, Vec<IpAddr>, String) {
    let peers = fleet.connected_peers();
    let [peer] = &peers[..] else { panic!("{peers:?} {:#?}", fleet.gateway.events) };
    (peer.connection().unwrap(), peer.inner().collect(), peer.identity().unwrap().to_string())
}

#[test]
fn identity_proved_by_eap_decides_the_connection() {
    // Names as Windows and Android send them, the name of another user, and names of nobody.
    for claimed in ["192.168.7.5", "bob", "BOB", "alice", "nobody.test", "@#00ff"] {
        let mut fleet = Fleet::new(contractors_and_people());
        fleet.connect(TERMINAL, person(claimed, "bob"));
        assert_eq!(shown(&fleet), (0, vec![[10, 98, 1, 1].into()], "bob".into()), "{claimed}");
        let child = fleet.gateway.children()[0];
        assert_eq!(child.local, [prefix([10, 99, 0, 9], [10, 99, 0, 9])], "{claimed}");
        let up = fleet.gateway.events.iter().find_map(|event| match event {
            Event::PeerUp { connection, identity, claimed, .. } => Some((*connection, identity, claimed)),
            _ => None,
        });
        let (connection, identity, logged_claim) = up.unwrap();
        assert_eq!((connection, identity), (0, &id("bob")), "the log names the proved identity");
        assert_eq!(logged_claim.as_ref(), Some(&id(claimed)).filter(|claim| **claim != id("bob")));
        let mut fleet = Fleet::new(contractors_and_people());
        fleet.connect(TERMINAL, person(claimed, "alice"));
        assert_eq!(shown(&fleet), (1, vec![[10, 98, 0, 1].into()], "alice".into()), "{claimed}");
    }
}

/// Makes a terminal that asks the gateway to be `name`.
fn asking(name: &str, terminal: Connection) -> Connection {
    Connection { remote_id: only(name), ..terminal }
}

#[test]
fn gateway_is_called_by_any_of_its_names() {
    let names = ["vpn.test", "203.0.113.1", "CN=gw.test, O=Lab"];
    let named = |gateway: Connection| Connection { other_local_ids: names.map(id).to_vec(), ..gateway };
    let all = || vec![named(by_eap("people", &users(&["alice"]), IdentityPattern::Any, 0)), named(gateway())];
    for asked in names.into_iter().chain(["GW.test", "VPN.test", "cn=GW.test, o=lab"]) {
        for terminal in [terminal(), person("192.168.7.5", "alice")] {
            let mut fleet = Fleet::new(all());
            fleet.connect(TERMINAL, asking(asked, terminal));
            assert_eq!(fleet.gateway.end_reasons(), [], "{asked}");
            assert_eq!(fleet.connected_peers().len(), 1, "{asked}");
        }
    }
    for asked in ["other.test", "203.0.113.2", "CN=gw.test, O=Laboratory"] {
        let mut fleet = Fleet::new(all());
        fleet.connect(TERMINAL, asking(asked, terminal()));
        assert_eq!(fleet.gateway.end_reasons(), [Reason::NoConnection], "{asked}");
    }
}

#[test]
fn gateway_has_one_identity_for_a_peer_even_if_eap_changes_the_connection() {
    let eap = users(&["alice"]);
    let narrow = by_eap("narrow", &eap, only("alice"), 1);
    let wide =
        Connection { other_local_ids: vec![id("vpn.test")], ..by_eap("wide", &eap, IdentityPattern::Any, 0) };
    for (asked, chosen) in [("vpn.test", 1), ("gw.test", 0)] {
        let mut fleet = Fleet::new(vec![narrow.clone(), wide.clone()]);
        fleet.connect(TERMINAL, asking(asked, person("192.168.7.5", "alice")));
        assert_eq!(shown(&fleet).0, chosen, "{asked}");
        assert_eq!(fleet.gateway.end_reasons(), [], "{asked}");
    }
}

#[test]
fn long_identities_are_refused_before_they_are_compared() {
    let long = |length: usize| Identity { kind: kind::FQDN, data: vec![b'a'; length] };
    let claims = |length| Connection { local_id: long(length), ..terminal() };
    let asks = |length| Connection { remote_id: IdentityPattern::of(vec![long(length)]), ..terminal() };
    for (terminal, reason) in [
        (claims(512), Reason::NoConnection),
        (claims(513), Reason::Protocol),
        (asks(512), Reason::NoConnection),
        (asks(513), Reason::Protocol),
    ] {
        let mut fleet = Fleet::new(vec![Connection { remote_id: only("*"), ..gateway() }]);
        fleet.connect(TERMINAL, terminal);
        assert_eq!(fleet.gateway.end_reasons(), [reason]);
    }
}

#[test]
fn distinguished_names_match_however_they_are_written() {
    let named = |text: &str| Connection { remote_id: only(text), ..gateway() };
    let certified = Connection { local_id: id("CN=cl.test, O=Some Company"), ..terminal() };
    for (written, is_it) in [
        ("cn=CL.test,o=some  company", true),
        ("O=Some Company, CN=cl.test", true),
        ("CN=cl.test", false),
        ("CN=cl.test, O=Some Company, C=DE", false),
    ] {
        let mut fleet = Fleet::new(vec![named(written)]);
        fleet.connect(TERMINAL, certified.clone());
        assert_eq!(
            fleet.gateway.end_reasons(),
            if is_it { vec![] } else { vec![Reason::NoConnection] },
            "{written}"
        );
    }
}

#[test]
fn proved_user_matches_a_connection_under_any_claimed_name() {
    let eap = users(&["alice"]);
    let mut fleet = Fleet::new(vec![by_eap("alice", &eap, only("Alice"), 1)]);
    fleet.connect(TERMINAL, person("192.168.7.5", "alice"));
    assert_eq!(shown(&fleet).0, 0);
}

#[test]
fn user_replaces_only_its_own_peer_under_any_claimed_name() {
    let mut fleet = Fleet::new(contractors_and_people());
    fleet.connect(TERMINAL, person("192.168.7.5", "alice"));
    fleet.connect([192, 0, 2, 8], person("alice", "alice"));
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Replaced]);
    assert_eq!(shown(&fleet).1, [IpAddr::from([10, 98, 0, 1])], "the address is kept");
    let mut fleet = Fleet::new(contractors_and_people());
    fleet.connect(TERMINAL, person("alice", "alice"));
    fleet.connect([192, 0, 2, 8], person("alice", "bob"));
    assert_eq!(fleet.gateway.end_reasons(), [], "bob does not replace alice by claiming her name");
}

#[test]
fn connections_with_other_users_or_local_identity_are_not_chosen() {
    let [inside, outside] = [users(&["alice", "bob"]), users(&["alice"])];
    let others_name = Connection { local_id: id("other.test"), ..by_eap("other", &inside, only("alice"), 1) };
    let others_users = by_eap("outside", &outside, only("alice"), 1);
    let people = by_eap("people", &inside, IdentityPattern::Any, 0);
    for first in [others_name, others_users] {
        for user in ["alice", "bob"] {
            let mut fleet = Fleet::new(vec![first.clone(), people.clone()]);
            // We prove our identity and choose the EAP method before the user is known.
            fleet.connect(TERMINAL, person("192.168.7.5", user));
            assert_eq!(shown(&fleet).0, 1, "{user}");
        }
    }
}

#[test]
fn claiming_another_name_does_not_avoid_a_connections_demands() {
    let secret = SharedKey(Zeroizing::new(b"quantum".to_vec()));
    let mut all = contractors_and_people();
    all[0].ppk = Some(Ppk { id: vec![2, b'k'], secret, required: true });
    for claimed in ["bob", "192.168.7.5"] {
        let mut fleet = Fleet::new(all.clone());
        fleet.connect(TERMINAL, person(claimed, "bob"));
        assert_eq!(fleet.gateway.end_reasons(), [Reason::Authentication], "{claimed}");
        let mut fleet = Fleet::new(all.clone());
        fleet.connect(TERMINAL, person(claimed, "alice"));
        assert_eq!(shown(&fleet).0, 1, "{claimed}");
    }
}

#[test]
fn unnamed_peer_matches_only_open_connections_and_replaces_nobody() {
    let client =
        || Connection { local_auth: LocalAuth::Eap(Arc::new(FakeEap::new(None))), ..person("bob", "bob") };
    for (name, ends_by) in [(Some("bob"), None), (None, Some(Reason::Unnamed))] {
        let eap: Arc<dyn Authenticator> = Arc::new(FakeEap::new(name));
        let mut fleet = Fleet::new(vec![by_eap("bob", &eap, only("bob"), 1)]);
        fleet.connect(TERMINAL, client());
        assert_eq!(fleet.gateway.end_reasons(), ends_by.into_iter().collect::<Vec<_>>(), "{name:?}");
    }
    let eap: Arc<dyn Authenticator> = Arc::new(FakeEap::new(None));
    let all = vec![by_eap("bob", &eap, only("bob"), 1), by_eap("people", &eap, IdentityPattern::Any, 0)];
    let mut fleet = Fleet::new(all);
    fleet.connect(TERMINAL, client());
    assert_eq!(shown(&fleet), (1, vec![[10, 98, 0, 1].into()], "unnamed".into()));
    // Both stay although they claim the same name and `unique` is set.
    fleet.connect([192, 0, 2, 8], client());
    assert_eq!((fleet.connected_peers().len(), fleet.gateway.end_reasons()), (2, vec![]));
    let inner: Vec<IpAddr> = fleet.connected_peers().iter().flat_map(|peer| peer.inner()).collect();
    assert_eq!(inner, [[10, 98, 0, 1], [10, 98, 0, 2]].map(IpAddr::from));
}

/// Offers a shorter key than the gateway's first connection accepts.
fn weaker() -> Vec<Offer> {
    vec![Offer { encr: vec![Encr::AesGcm(128)], ..offer() }]
}

#[test]
fn weaker_algorithms_do_not_skip_a_connection_that_names_the_peer() {
    let mut all = contractors_and_people();
    all[1].ike.extend(weaker());
    let mut fleet = Fleet::new(all.clone());
    fleet.connect(TERMINAL, Connection { ike: weaker(), ..person("192.168.7.5", "bob") });
    assert_eq!(fleet.gateway.end_reasons(), [Reason::OtherAlgorithms]);
    let mut fleet = Fleet::new(all);
    fleet.connect(TERMINAL, Connection { ike: weaker(), ..person("192.168.7.5", "alice") });
    assert_eq!(shown(&fleet).0, 1);

    // The same holds with shared keys.
    let named = Connection { remote_id: only("cl.test"), ..gateway() };
    let any = Connection { ike: [vec![offer()], weaker()].concat(), ..gateway() };
    let weak = |name: &str| Connection { ike: weaker(), local_id: id(name), ..terminal() };
    let mut fleet = Fleet::new(vec![named.clone(), any.clone()]);
    let at = fleet.connect(TERMINAL, weak("CL.test"));
    assert_eq!(fleet.gateway.end_reasons(), [Reason::OtherAlgorithms]);
    assert_eq!(fleet.terminals[at].end_reasons(), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
    let mut fleet = Fleet::new(vec![named, any.clone()]);
    fleet.connect(TERMINAL, weak("other.test"));
    assert_eq!(shown(&fleet).0, 1);
    // Among connections for anybody, the offer may decide.
    let mut fleet = Fleet::new(vec![gateway(), any]);
    fleet.connect(TERMINAL, weak("other.test"));
    assert_eq!(shown(&fleet).0, 1);
}

#[test]
fn letter_case_does_not_distinguish_names() {
    let named = Connection { remote_id: only("cl.test"), pools: vec![1], ..gateway() };
    let mut fleet = Fleet::new(vec![named, gateway()]);
    for (at, name) in (1..).zip(["cl.test", "CL.TEST", "Cl.Test"]) {
        fleet.connect([192, 0, 2, at], Connection { local_id: id(name), ..terminal() });
        let (connection, inner, _) = shown(&fleet);
        assert_eq!((connection, inner), (0, vec![[10, 98, 1, 1].into()]), "{name}");
    }
}

#[test]
fn answer_is_short_however_many_authorities_are_trusted() {
    for count in [1, 40, 50, 144, 255] {
        let hashes: Vec<u8> = (0..count).flat_map(|n| [n; 20]).collect();
        let remote_auth = RemoteAuth::Key(Arc::new(FakeCertificate::among(hashes.clone())));
        let mut pair = Pair::new(Connection { remote_auth, ..gateway() }, terminal());
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        let first = pair.up();
        pair.deliver_up(&first[0]);
        let answer = &pair.down()[0].1;
        assert!(answer.len() + 40 + 8 + 4 <= 1280, "{count}: {}", answer.len());
        let header = Header::parse(answer).unwrap();
        let payloads = wire::parse(header.next, &answer[wire::HEADER..]).unwrap();
        let asked = payloads.iter().find_map(|payload| match payload {
            Payload::CertReq { authorities, .. } => Some(*authorities),
            _ => None,
        });
        let asked = asked.unwrap();
        assert!(hashes.starts_with(asked) && asked.len() % 20 == 0);
        let room = bounds::authorities(Kex::X25519).min(usize::from(count));
        assert!(asked.len() / 20 >= room && room >= 30.min(count.into()), "{count}: {}", asked.len());
    }
}

/// A stranger's first message costs no more than the answer has room for.
#[test]
fn authorities_for_which_an_answer_has_no_room_are_not_compared() {
    let bundle = |first: u8| -> Vec<u8> { (first..first + 80).flat_map(|n| [n; 20]).collect() };
    let bundles = [0, 80, 160].map(|first| Arc::new(FakeCertificate::among(bundle(first))));
    let trusting = |bundle: &Arc<FakeCertificate>| {
        let remote_auth = RemoteAuth::Key(bundle.clone());
        Connection { remote_auth, ..gateway() }
    };
    let mut fleet = Fleet::new(bundles.iter().map(trusting).collect());
    let first = fleet.dial(TERMINAL, terminal()).work(fleet.now).remove(0);
    fleet.deliver(&first);
    assert_eq!(fleet.gateway.work(fleet.now).len(), 1);
    assert_eq!(bundles.each_ref().map(|bundle| bundle.asked()), [1, 0, 0]);
}

#[test]
fn all_names_of_a_certificate_count() {
    let authority: Arc<dyn Verifier> = Arc::new(FakeCertificate::default());
    let by_certificate = |name: &str, remote_id: IdentityPattern, pool: usize| {
        let remote_auth = RemoteAuth::Key(authority.clone());
        Connection { name: name.into(), remote_id, remote_auth, pools: vec![pool], ..gateway() }
    };
    let terminal_of = |name: &str, certificate: &str| {
        let local_auth = LocalAuth::Key(Arc::new(FakeCertificate::of(certificate)));
        Connection { local_id: id(name), local_auth, ..terminal() }
    };
    let all = || {
        let contractors = by_certificate("contractors", only("bob@example.org"), 1);
        vec![contractors, by_certificate("people", IdentityPattern::Any, 0)]
    };
    let bob = "laptop.test bob@example.org 192.0.2.7";
    let mut fleet = Fleet::new(all());
    for (at, name) in (1..).zip(["bob@example.org", "laptop.test", "192.0.2.7"]) {
        fleet.connect([192, 0, 2, at], terminal_of(name, bob));
        let (connection, inner, identity) = shown(&fleet);
        assert_eq!((connection, inner), (0, vec![[10, 98, 1, 1].into()]), "{name}");
        assert_eq!(identity, name);
    }
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Replaced, Reason::Replaced], "all are one peer");
    let mut fleet = Fleet::new(all());
    fleet.connect(TERMINAL, terminal_of("alice@example.org", "alice@example.org"));
    assert_eq!(shown(&fleet).0, 1);
}

/// Returns method, claimed and proved identity of the only peer that connected to the gateway or
/// failed to.
fn method_and_names(fleet: &Fleet) -> (Option<String>, Option<String>, Option<String>) {
    let text = |id: &Option<Identity>| id.as_ref().map(ToString::to_string);
    let shown = |event: &Event| match event {
        Event::PeerUp { identity, claimed, method, .. } => {
            Some((*method, text(claimed).or(Some(identity.to_string())), Some(identity.to_string())))
        }
        Event::PeerDown { claimed, proved, method, .. } => Some((*method, text(claimed), text(proved))),
        _ => None,
    };
    let mut all = fleet.gateway.events.iter().filter_map(shown);
    let (method, claimed, proved) = all.next().unwrap();
    assert_eq!(all.next(), None);
    (method.map(|method| method.to_string()), claimed, proved)
}

#[test]
fn events_name_how_a_peer_authenticates_and_what_it_proves() {
    let authority: Arc<dyn Verifier> = Arc::new(FakeCertificate::default());
    let by_certificate = || Connection { remote_auth: RemoteAuth::Key(authority.clone()), ..gateway() };
    let certified = |names: &str| Connection {
        local_auth: LocalAuth::Key(Arc::new(FakeCertificate::of(names))),
        ..terminal()
    };
    let people = || by_eap("people", &users(&["alice"]), IdentityPattern::Any, 0);
    let nobody = || by_eap("nobody", &users(&["bob"]), IdentityPattern::Any, 0);
    let only_bob = || by_eap("bob", &users(&["alice"]), only("bob"), 0);
    let ppk = Ppk { id: b"\x02k".into(), secret: SharedKey(Zeroizing::new(vec![7; 32])), required: true };
    let refused_last = || Connection { ppk: Some(ppk.clone()), ..people() };
    for (gateway, terminal, method, claimed, proved) in [
        (gateway(), terminal(), "psk", "cl.test", Some("cl.test")),
        (by_certificate(), certified("cl.test"), "certificate/fake", "cl.test", Some("cl.test")),
        (by_certificate(), certified("other.test"), "certificate/fake", "cl.test", None),
        (by_certificate(), terminal(), "psk", "cl.test", None),
        (people(), person("192.168.7.5", "alice"), "eap-mschapv2", "192.168.7.5", Some("alice")),
        (nobody(), person("192.168.7.5", "alice"), "eap-mschapv2", "192.168.7.5", None),
        // The key of EAP proves that nobody relays it, so that its name does not count before that.
        (only_bob(), person("192.168.7.5", "alice"), "eap-mschapv2", "alice", None),
        (refused_last(), person("192.168.7.5", "alice"), "eap-mschapv2", "alice", None),
    ] {
        let mut fleet = Fleet::new(vec![gateway]);
        fleet.connect(TERMINAL, terminal);
        let expected = (Some(method.into()), Some(claimed.into()), proved.map(String::from));
        assert_eq!(method_and_names(&fleet), expected);
    }
}

#[test]
fn refused_first_message_is_an_event_with_its_reason() {
    let elsewhere = Connection { local: vec![[203, 0, 113, 9].into()], ..gateway() };
    for (gateway, terminal, expected) in [
        (gateway(), Connection { ike: weaker(), ..terminal() }, Some(Reason::NoProposal)),
        (elsewhere, terminal(), Some(Reason::Addresses)),
        (gateway(), terminal(), None),
    ] {
        let mut fleet = Fleet::new(vec![gateway]);
        fleet.connect(TERMINAL, terminal);
        let refused = fleet.gateway.events.iter().find_map(|event| match event {
            Event::InitRefused { remote, reason } => Some((remote.ip(), reason.clone())),
            _ => None,
        });
        assert_eq!(refused, expected.map(|reason| (TERMINAL.into(), reason)));
    }
}

#[test]
fn a_peer_has_one_principal_under_all_names_that_it_could_choose() {
    let authority: Arc<dyn Verifier> = Arc::new(FakeCertificate::default());
    let by_certificate = || Connection { remote_auth: RemoteAuth::Key(authority.clone()), ..gateway() };
    let named = |name: &str| Connection { local_id: id(name), ..terminal() };
    let certified = |name: &str| {
        let local_auth = LocalAuth::Key(Arc::new(FakeCertificate::of("laptop.test bob@example.org")));
        Connection { local_auth, ..named(name) }
    };
    let people = || by_eap("people", &users(&["alice", "bob"]), IdentityPattern::Any, 0);
    for (gateway, terminals, are_one) in [
        (gateway(), ["n1.test", "n2.test"].map(named), true),
        (by_certificate(), ["laptop.test", "bob@example.org"].map(certified), true),
        (people(), ["alice", "bob"].map(|name| person("192.168.7.5", name)), false),
    ] {
        let [one, other] = terminals.map(|terminal| {
            let mut fleet = Fleet::new(vec![gateway.clone()]);
            fleet.connect(TERMINAL, terminal);
            let principal = fleet.gateway.events.iter().find_map(|event| match event {
                Event::PeerUp { principal, .. } => Some(principal.clone()),
                _ => None,
            });
            principal.unwrap()
        });
        assert_eq!(one == other, are_one, "{one} {other}");
    }
}

//! Who a peer is, and what holds for it: nothing that it may choose by itself decides that (RFC
//! 7296 §2.16).

use crate::{
    doubles::{Names, Says, user, users},
    fleet::Fleet,
};
use std::{net::IpAddr, sync::Arc};
use wayfarer::sim::ike::connections::{TERMINAL, gateway, offer, prefix, terminal};
use wayfarer_mobility::{
    aaa::eap::Authenticator,
    crypto::{Encr, Verifier},
    identity::Identity,
    ike::{
        connection::{ChildPolicy, Connection, IdentityPattern, LocalAuth, Ppk, RemoteAuth, SharedKey},
        event::{Event, Reason},
        proposal::Offer,
        wire::{TrafficSelector, notify},
    },
};
use zeroize::Zeroizing;

fn id(text: &str) -> Identity {
    Identity::from_text(text).unwrap()
}

fn only(text: &str) -> IdentityPattern {
    IdentityPattern::Of(vec![id(text)])
}

/// A connection by EAP for whom `remote_id` names, by the pool of this number.
fn by_eap(name: &str, eap: &Arc<dyn Authenticator>, remote_id: IdentityPattern, pool: usize) -> Connection {
    let remote_auth = RemoteAuth::Eap(eap.clone());
    Connection { name: name.into(), remote_id, remote_auth, pools: vec![pool], ..gateway() }
}

/// A terminal that calls itself `claimed` and has the password of user `name`.
fn person(claimed: &str, name: &str) -> Connection {
    Connection { local_id: id(claimed), local_auth: LocalAuth::Eap(user(name)), ..terminal() }
}

/// "contractors", which names bob and lets him reach one server, and "people" for everybody.
fn held_and_free() -> Vec<Connection> {
    let eap = users(&["alice", "bob"]);
    let mut contractors = by_eap("contractors", &eap, only("bob"), 1);
    contractors.children = vec![ChildPolicy {
        local: vec![TrafficSelector::host([10, 99, 0, 9].into())],
        ..contractors.children.remove(0)
    }];
    vec![contractors, by_eap("people", &eap, IdentityPattern::Any, 0)]
}

/// The connection, inner addresses and shown name of the only peer.
fn shown(fleet: &Fleet) -> (usize, Vec<IpAddr>, String) {
    let ups = fleet.ups();
    let [peer] = &ups[..] else { panic!("{ups:?} {:#?}", fleet.gateway.events) };
    (peer.connection().unwrap(), peer.inner().collect(), peer.identity().unwrap().to_string())
}

#[test]
fn who_eap_proves_decides_the_connection_whatever_the_peer_calls_itself() {
    // As Windows, as Android, as another user, and as nobody at all.
    for claimed in ["192.168.7.5", "bob", "BOB", "alice", "nobody.test", "@#00ff"] {
        let mut fleet = Fleet::new(held_and_free());
        fleet.connect(TERMINAL, person(claimed, "bob"));
        assert_eq!(shown(&fleet), (0, vec![[10, 98, 1, 1].into()], "bob".into()), "{claimed}");
        let child = fleet.gateway.children()[0];
        assert_eq!(child.local, [prefix([10, 99, 0, 9], [10, 99, 0, 9])], "{claimed}");
        let told = fleet.gateway.events.iter().find_map(|event| match event {
            Event::PeerUp { connection, identity, claimed, .. } => Some((*connection, identity, claimed)),
            _ => None,
        });
        let (connection, identity, said) = told.unwrap();
        assert_eq!((connection, identity), (0, &id("bob")), "the log's line");
        assert_eq!(said.as_ref(), Some(&id(claimed)).filter(|said| **said != id("bob")));
        let mut fleet = Fleet::new(held_and_free());
        fleet.connect(TERMINAL, person(claimed, "alice"));
        assert_eq!(shown(&fleet), (1, vec![[10, 98, 0, 1].into()], "alice".into()), "{claimed}");
    }
}

#[test]
fn a_person_whom_a_connection_names_needs_no_name_of_the_device() {
    let eap = users(&["alice"]);
    let mut fleet = Fleet::new(vec![by_eap("alice", &eap, only("Alice"), 1)]);
    fleet.connect(TERMINAL, person("192.168.7.5", "alice"));
    assert_eq!(shown(&fleet).0, 0);
}

#[test]
fn the_same_person_takes_its_own_place_whatever_it_calls_itself() {
    let mut fleet = Fleet::new(held_and_free());
    fleet.connect(TERMINAL, person("192.168.7.5", "alice"));
    fleet.connect([192, 0, 2, 8], person("alice", "alice"));
    assert_eq!(fleet.gateway.ends(), [Reason::Replaced]);
    assert_eq!(shown(&fleet).1, [IpAddr::from([10, 98, 0, 1])], "and its address");
    let mut fleet = Fleet::new(held_and_free());
    fleet.connect(TERMINAL, person("alice", "alice"));
    fleet.connect([192, 0, 2, 8], person("alice", "bob"));
    assert_eq!(fleet.gateway.ends(), [], "bob does not throw out alice by her name");
}

#[test]
fn another_users_file_or_another_proof_of_ours_is_another_door() {
    let [inside, outside] = [users(&["alice", "bob"]), users(&["alice"])];
    let others_name = Connection { local_id: id("other.test"), ..by_eap("other", &inside, only("alice"), 1) };
    let others_users = by_eap("outside", &outside, only("alice"), 1);
    let people = by_eap("people", &inside, IdentityPattern::Any, 0);
    for first in [others_name, others_users] {
        for user in ["alice", "bob"] {
            let mut fleet = Fleet::new(vec![first.clone(), people.clone()]);
            // Our proof is given, and the method chosen, before anybody knows who it is.
            fleet.connect(TERMINAL, person("192.168.7.5", user));
            assert_eq!(shown(&fleet).0, 1, "{user}");
        }
    }
}

#[test]
fn what_a_connection_demands_is_not_got_round_by_calling_oneself_otherwise() {
    let secret = SharedKey(Zeroizing::new(b"quantum".to_vec()));
    let mut all = held_and_free();
    all[0].ppk = Some(Ppk { id: vec![2, b'k'], secret, required: true });
    for claimed in ["bob", "192.168.7.5"] {
        let mut fleet = Fleet::new(all.clone());
        fleet.connect(TERMINAL, person(claimed, "bob"));
        assert_eq!(fleet.gateway.ends(), [Reason::Authentication], "{claimed}");
        let mut fleet = Fleet::new(all.clone());
        fleet.connect(TERMINAL, person(claimed, "alice"));
        assert_eq!(shown(&fleet).0, 1, "{claimed}");
    }
}

#[test]
fn whom_nobody_names_is_for_connections_that_name_nobody_and_is_nobodys_other_device() {
    let client = || Connection { local_auth: LocalAuth::Eap(Arc::new(Says(None))), ..person("bob", "bob") };
    for (said, ends_by) in [(Some("bob"), None), (None, Some(Reason::Unnamed))] {
        let eap: Arc<dyn Authenticator> = Arc::new(Says(said));
        let mut fleet = Fleet::new(vec![by_eap("bob", &eap, only("bob"), 1)]);
        fleet.connect(TERMINAL, client());
        assert_eq!(fleet.gateway.ends(), ends_by.into_iter().collect::<Vec<_>>(), "{said:?}");
    }
    let eap: Arc<dyn Authenticator> = Arc::new(Says(None));
    let all = vec![by_eap("bob", &eap, only("bob"), 1), by_eap("people", &eap, IdentityPattern::Any, 0)];
    let mut fleet = Fleet::new(all);
    fleet.connect(TERMINAL, client());
    assert_eq!(shown(&fleet), (1, vec![[10, 98, 0, 1].into()], "unnamed".into()));
    // Though both call themselves the same, and `unique` is set.
    fleet.connect([192, 0, 2, 8], client());
    assert_eq!((fleet.ups().len(), fleet.gateway.ends()), (2, vec![]));
    let inner: Vec<IpAddr> = fleet.ups().iter().flat_map(|peer| peer.inner()).collect();
    assert_eq!(inner, [[10, 98, 0, 1], [10, 98, 0, 2]].map(IpAddr::from));
}

/// Offers of another key length than the gateway's first connection takes.
fn weaker() -> Vec<Offer> {
    vec![Offer { encr: vec![Encr::AesGcm(128)], ..offer() }]
}

#[test]
fn weaker_algorithms_lead_past_no_connection_that_names_the_peer() {
    let mut all = held_and_free();
    all[1].ike.extend(weaker());
    let mut fleet = Fleet::new(all.clone());
    fleet.connect(TERMINAL, Connection { ike: weaker(), ..person("192.168.7.5", "bob") });
    assert_eq!(fleet.gateway.ends(), [Reason::NoProposal]);
    let mut fleet = Fleet::new(all);
    fleet.connect(TERMINAL, Connection { ike: weaker(), ..person("192.168.7.5", "alice") });
    assert_eq!(shown(&fleet).0, 1);

    // The same by shared key.
    let named = Connection { remote_id: only("cl.test"), ..gateway() };
    let any = Connection { ike: [vec![offer()], weaker()].concat(), ..gateway() };
    let weak = |name: &str| Connection { ike: weaker(), local_id: id(name), ..terminal() };
    let mut fleet = Fleet::new(vec![named.clone(), any.clone()]);
    let at = fleet.connect(TERMINAL, weak("CL.test"));
    assert_eq!(fleet.gateway.ends(), [Reason::NoProposal]);
    assert_eq!(fleet.terminals[at].ends(), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
    let mut fleet = Fleet::new(vec![named, any.clone()]);
    fleet.connect(TERMINAL, weak("other.test"));
    assert_eq!(shown(&fleet).0, 1);
    // Connections for anybody are for what anybody offers.
    let mut fleet = Fleet::new(vec![gateway(), any]);
    fleet.connect(TERMINAL, weak("other.test"));
    assert_eq!(shown(&fleet).0, 1);
}

#[test]
fn another_spelling_of_a_name_is_the_same_peer() {
    let named = Connection { remote_id: only("cl.test"), pools: vec![1], ..gateway() };
    let mut fleet = Fleet::new(vec![named, gateway()]);
    for (at, name) in (1..).zip(["cl.test", "CL.TEST", "Cl.Test"]) {
        fleet.connect([192, 0, 2, at], Connection { local_id: id(name), ..terminal() });
        let (connection, inner, _) = shown(&fleet);
        assert_eq!((connection, inner), (0, vec![[10, 98, 1, 1].into()]), "{name}");
    }
}

#[test]
fn all_names_of_a_certificate_count_whichever_the_peer_comes_by() {
    let authority: Arc<dyn Verifier> = Arc::new(Names(vec![]));
    let by_certificate = |name: &str, remote_id: IdentityPattern, pool: usize| {
        let remote_auth = RemoteAuth::Key(authority.clone());
        Connection { name: name.into(), remote_id, remote_auth, pools: vec![pool], ..gateway() }
    };
    let of = |name: &str, certificate: &str| {
        let local_auth = LocalAuth::Key(Arc::new(Names(certificate.into())));
        Connection { local_id: id(name), local_auth, ..terminal() }
    };
    let all = || {
        let held = by_certificate("contractors", only("bob@example.org"), 1);
        vec![held, by_certificate("people", IdentityPattern::Any, 0)]
    };
    let bob = "laptop.test bob@example.org 192.0.2.7";
    let mut fleet = Fleet::new(all());
    for (at, name) in (1..).zip(["bob@example.org", "laptop.test", "192.0.2.7"]) {
        fleet.connect([192, 0, 2, at], of(name, bob));
        let (connection, inner, called) = shown(&fleet);
        assert_eq!((connection, inner), (0, vec![[10, 98, 1, 1].into()]), "{name}");
        assert_eq!(called, name);
    }
    assert_eq!(fleet.gateway.ends(), [Reason::Replaced, Reason::Replaced], "it is one peer");
    let mut fleet = Fleet::new(all());
    fleet.connect(TERMINAL, of("alice@example.org", "alice@example.org"));
    assert_eq!(shown(&fleet).0, 1);
}

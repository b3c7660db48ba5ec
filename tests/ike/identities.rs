//! Who a peer is, and what holds for it: nothing that it may choose by itself decides that (RFC
//! 7296 §2.16).

use crate::fleet::Fleet;
use std::{net::IpAddr, slice, sync::Arc};
use wayfarer::primitives::OsRandom;
use wayfarer::sim::ike::connections::{TERMINAL, gateway, offer, prefix, terminal};
use wayfarer_mobility::{
    aaa::eap::{
        Authenticator, Conversation, Step,
        mschapv2::{Mschapv2Client, Mschapv2Server, NtHash},
        packet::Packet,
    },
    crypto::{Encr, Refused, SignatureHashes, Signer, Verifier, VerifyError},
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

/// A server that knows these users; each one's password is its name.
fn users(names: &[&str]) -> Arc<dyn Authenticator> {
    let users = names.iter().map(|name| (name.as_bytes().to_vec(), NtHash::of(name)));
    Arc::new(Mschapv2Server::new(Arc::new(OsRandom), b"gateway", users))
}

/// A connection by EAP for whom `remote_id` names, by the pool of this number.
fn by_eap(name: &str, eap: &Arc<dyn Authenticator>, remote_id: IdentityPattern, pool: usize) -> Connection {
    let remote_auth = RemoteAuth::Eap(eap.clone());
    Connection { name: name.into(), remote_id, remote_auth, pools: vec![pool], ..gateway() }
}

/// A terminal that calls itself `claimed` and has the password of `user`.
fn person(claimed: &str, user: &str) -> Connection {
    let client = Mschapv2Client::new(Arc::new(OsRandom), user.as_bytes(), NtHash::of(user));
    Connection { local_id: id(claimed), local_auth: LocalAuth::Eap(Arc::new(client)), ..terminal() }
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

/// EAP by one packet, whose end on the gateway names this user or nobody. Both sides have the same
/// key.
#[derive(Debug)]
pub(super) struct Says(pub(super) Option<&'static str>);

impl Authenticator for Says {
    fn begin(&self, _: &[u8]) -> Box<dyn Conversation> {
        Box::new(Says(self.0))
    }
}

impl Conversation for Says {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let key = Some(Zeroizing::new(vec![7; 64]));
        match Packet::parse(packet) {
            None => Step::Send(Packet::identity_request(0).emit()),
            Some(Packet::Request(request)) => Step::Send(Packet::Response(request).emit()),
            Some(Packet::Response(_)) => Step::Success(Packet::Success(0).emit(), key),
            Some(Packet::Success(_)) => Step::Success(vec![], key),
            Some(Packet::Failure(_)) => Step::Failure(vec![]),
        }
    }

    fn identity(&self) -> Option<&[u8]> {
        self.0.map(str::as_bytes)
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
    assert_eq!(fleet.terminals[at].1.ends(), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
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

/// A certificate that is nothing but its owner's names, and an authority that vouches for all such.
#[derive(Debug)]
pub(super) struct Names(pub(super) Vec<u8>);

impl Signer for Names {
    fn certificates(&self) -> &[Vec<u8>] {
        slice::from_ref(&self.0)
    }

    fn sign(&self, octets: &[u8], _: SignatureHashes) -> Result<(u8, Vec<u8>), Refused> {
        Ok((14, octets.to_vec()))
    }
}

impl Verifier for Names {
    fn authorities(&self) -> &[u8] {
        &[]
    }

    fn verify(
        &self,
        identity: &Identity,
        certificates: &[Vec<u8>],
        _: u8,
        data: &[u8],
        octets: &[u8],
    ) -> Result<(), VerifyError> {
        match data == octets && self.names(&certificates[0]).contains(identity) {
            true => Ok(()),
            false => Err(VerifyError::Identity),
        }
    }

    fn names(&self, certificate: &[u8]) -> Vec<Identity> {
        std::str::from_utf8(certificate).unwrap().split(' ').map(id).collect()
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

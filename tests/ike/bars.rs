//! Identities that the operator bars for a time.

use crate::{
    doubles::{FakeCertificate, user, users},
    fleet::Fleet,
    pair::Pair,
};
use std::{sync::Arc, time::Duration};
use wayfarer::sim::ike::{
    connections::{GATEWAY, TERMINAL, gateway, identity, terminal},
    eap::FakeEap,
    side::Side,
};
use wayfarer_mobility::{
    aaa::eap::Authenticator,
    ike::{
        bars::BarError,
        connection::{Connection, IdentityPattern, LocalAuth, Remote, RemoteAuth},
        pool::Pool,
        reason::Reason,
        settings::Settings,
        wire::notify,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the barred identities of a side.
fn barred(side: &Side, now: Duration) -> Vec<String> {
    side.endpoint.bars(now).map(|(identity, _)| identity.to_string()).collect()
}

#[test]
fn barred_peer_is_refused_until_its_time_is_over() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.bar(pair.now, there, HOUR).unwrap();
    pair.settle();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Barred]);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Deleted], "the peer is told");
    let left: Vec<_> = pair.gateway.endpoint.bars(pair.now).map(|(_, left)| left).collect();
    assert_eq!((barred(&pair.gateway, pair.now), left), (vec!["cl.test".to_owned()], vec![HOUR]));
    pair.pass(HOUR - Duration::from_secs(1));
    assert!(pair.gateway.end_reasons().iter().all(|why| *why == Reason::Barred));
    assert_eq!(
        pair.terminal.end_reasons().last(),
        Some(&Reason::Refused(notify::AUTHENTICATION_FAILED)),
        "it tried again"
    );
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    pair.pass(Duration::from_secs(100));
    pair.assert_one_each();
    assert_eq!(barred(&pair.gateway, pair.now), [""; 0]);
}

#[test]
fn bar_outlives_a_reload_and_ends_early_on_request() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.bar(pair.now, there, HOUR).unwrap();
    pair.settle();
    let pools = vec![Pool::new([10, 98, 0, 1].into(), [10, 98, 0, 254].into())];
    pair.gateway.endpoint.reconfigure(pair.now, vec![gateway()], pools, Settings::default());
    pair.pass(HOUR / 2);
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    let now = pair.now;
    assert_eq!(pair.gateway.endpoint.unbar(now, |name| *name == identity("other.test")), []);
    assert_eq!(pair.gateway.endpoint.unbar(now, |name| *name == identity("cl.test")), [identity("cl.test")]);
    pair.pass(Duration::from_secs(100));
    pair.assert_one_each();
}

#[test]
fn bar_is_for_one_identity_and_all_its_devices() {
    let several = || Connection { unique: false, ..gateway() };
    let called = |name: &str| Connection { local_id: identity(name), ..terminal() };
    let mut fleet = Fleet::new(vec![several()]);
    for (host, name) in [(7, "alice.test"), (8, "ALICE.test"), (9, "bob.test")] {
        fleet.connect([192, 0, 2, host], called(name));
    }
    assert_eq!(fleet.connected_peers().len(), 3);
    let alice = fleet.peer_at([192, 0, 2, 7]).unwrap();
    fleet.gateway.endpoint.bar(fleet.now, alice, HOUR).unwrap();
    fleet.settle();
    let left: Vec<_> = fleet.connected_peers().iter().map(|peer| peer.identity().unwrap().clone()).collect();
    assert_eq!(left, [identity("bob.test")]);
    fleet.pass(Duration::from_secs(300));
    assert_eq!(fleet.connected_peers().len(), 1);
    fleet.connect([192, 0, 2, 10], called("carol.test"));
    assert_eq!(fleet.connected_peers().len(), 2);
}

#[test]
fn barred_user_is_refused_under_any_claimed_name() {
    let by_eap = Connection { remote_auth: RemoteAuth::Eap(users(&["alice", "bob"])), ..gateway() };
    let person = |claimed: &str, name: &str| Connection {
        local_id: identity(claimed),
        local_auth: LocalAuth::Eap(user(name)),
        ..terminal()
    };
    let mut fleet = Fleet::new(vec![by_eap]);
    fleet.connect(TERMINAL, person("alice", "alice"));
    let alice = fleet.peer_at(TERMINAL).unwrap();
    fleet.gateway.endpoint.bar(fleet.now, alice, HOUR).unwrap();
    fleet.settle();
    for (host, claimed) in (8..).zip(["alice", "bob", "192.168.7.5"]) {
        let before = fleet.gateway.end_reasons().len();
        fleet.connect([192, 0, 2, host], person(claimed, "alice"));
        assert_eq!(fleet.gateway.end_reasons()[before], Reason::Barred, "{claimed}");
        assert_eq!(fleet.connected_peers().len(), 0, "{claimed}");
    }
    fleet.connect([192, 0, 2, 20], person("alice", "bob"));
    assert_eq!(fleet.connected_peers().len(), 1, "bob is not barred by alice's name");
}

/// A gateway that knows peers by their certificates.
fn by_certificate() -> Connection {
    Connection { remote_auth: RemoteAuth::Key(Arc::new(FakeCertificate::default())), ..gateway() }
}

/// Returns a terminal that claims `name`, and has a certificate with these names.
fn of(name: &str, certificate: &str) -> Connection {
    let local_auth = LocalAuth::Key(Arc::new(FakeCertificate::of(certificate)));
    Connection { local_id: identity(name), local_auth, ..terminal() }
}

#[test]
fn barred_certificate_is_refused_under_each_of_its_names() {
    let mut fleet = Fleet::new(vec![Connection { unique: false, ..by_certificate() }]);
    let bob = "laptop.test bob@example.org";
    fleet.connect(TERMINAL, of("laptop.test", bob));
    fleet.connect([192, 0, 2, 30], of("bob@example.org", bob));
    let there = fleet.peer_at(TERMINAL).unwrap();
    fleet.gateway.endpoint.bar(fleet.now, there, HOUR).unwrap();
    fleet.settle();
    assert_eq!(fleet.gateway.end_reasons(), [Reason::Barred, Reason::Barred], "both devices");
    for (host, (name, certificate)) in (8..).zip([
        ("bob@example.org", bob),
        ("laptop.test", bob),
        ("new.test", "new.test laptop.test"),
        ("laptop.test", "laptop.test"),
    ]) {
        let before = fleet.gateway.end_reasons().len();
        fleet.connect([192, 0, 2, host], of(name, certificate));
        assert_eq!(fleet.gateway.end_reasons()[before], Reason::Barred, "{name} {certificate}");
    }
    fleet.connect([192, 0, 2, 20], of("alice.test", "alice.test"));
    assert_eq!(fleet.connected_peers().len(), 1);
}

#[test]
fn which_of_its_names_a_peer_claims_does_not_decide_how_far_a_bar_reaches() {
    let (one, other) = ("alice.test dev1.test", "alice.test dev2.test");
    let mut fleet = Fleet::new(vec![by_certificate()]);
    for (host, (name, certificate)) in
        (7..).zip([("dev1.test", one), ("dev2.test", other), ("bob.test", "bob.test dev3.test")])
    {
        fleet.connect([192, 0, 2, host], of(name, certificate));
    }
    assert_eq!(fleet.connected_peers().len(), 3);
    let there = fleet.peer_at([192, 0, 2, 7]).unwrap();
    fleet.gateway.endpoint.bar(fleet.now, there, HOUR).unwrap();
    fleet.settle();
    let left: Vec<_> = fleet.connected_peers().iter().map(|peer| peer.identity().unwrap().clone()).collect();
    assert_eq!(left, [identity("bob.test")], "the other device has a name in common");
    for (host, (name, certificate)) in
        (10..).zip([("dev2.test", other), ("alice.test", other), ("alice.test", "alice.test")])
    {
        let before = fleet.gateway.end_reasons().len();
        fleet.connect([192, 0, 2, host], of(name, certificate));
        assert_eq!(fleet.gateway.end_reasons()[before], Reason::Barred, "{name} {certificate}");
    }
    fleet.connect([192, 0, 2, 20], of("dev2.test", "dev2.test"));
    assert_eq!(fleet.connected_peers().len(), 2, "that name was not the barred peer's");
}

#[test]
fn a_certificate_with_very_many_names_is_barred_under_the_one_that_was_claimed() {
    let names: Vec<String> = (0..200).map(|n| format!("n{n}.test")).collect();
    let many = names.join(" ");
    for name in &names[..8] {
        let mut fleet = Fleet::new(vec![by_certificate()]);
        fleet.connect(TERMINAL, of(name, &many));
        let there = fleet.peer_at(TERMINAL).unwrap();
        fleet.gateway.endpoint.bar(fleet.now, there, HOUR).unwrap();
        for (host, (claimed, certificate)) in
            (8..).zip([(&names[100], &many), (&names[199], &many), (name, name)])
        {
            fleet.connect([192, 0, 2, host], of(claimed, certificate));
        }
        assert_eq!(fleet.gateway.end_reasons(), [const { Reason::Barred }; 4], "{name}");
    }
}

#[test]
fn barred_gateway_is_not_connected_to_under_another_name() {
    let names = "gw.test gw2.test";
    let serving = |name: &str| {
        let local_auth = LocalAuth::Key(Arc::new(FakeCertificate::of(names)));
        Connection { local_id: identity(name), local_auth, ..gateway() }
    };
    let calling = || Connection {
        remote_auth: RemoteAuth::Key(Arc::new(FakeCertificate::default())),
        remote_id: IdentityPattern::Any,
        // Ends of one connection may be different gateways, so only the names count.
        remote: vec![Remote::At("203.0.113.1:500".parse().unwrap()), Remote::Named("gw.test".into(), 500)],
        ..terminal()
    };
    let mut pair = Pair::connected(serving("gw.test"), calling());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.bar(pair.now, here, HOUR).unwrap();
    pair.settle();
    let pools = vec![Pool::new([10, 98, 0, 1].into(), [10, 98, 0, 254].into())];
    pair.gateway.endpoint.reconfigure(pair.now, vec![serving("gw2.test")], pools, Settings::default());
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    let reasons = pair.terminal.end_reasons();
    assert!(reasons.len() > 1 && reasons.iter().all(|why| *why == Reason::Barred), "{reasons:?}");
}

#[test]
fn connection_to_a_barred_gateway_waits() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.bar(pair.now, here, HOUR).unwrap();
    pair.settle();
    pair.pass(HOUR / 2);
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Barred], "it did not even try");
    let lifted = pair.terminal.endpoint.unbar(pair.now, |_| true);
    assert_eq!(lifted, [identity("gw.test")]);
    pair.pass(Duration::from_secs(1));
    pair.assert_one_each();
}

#[test]
fn barred_gateway_is_refused_at_each_address_and_another_one_is_not() {
    let at = |address: [u8; 4]| Remote::At((address, 500).into());
    let gateway = |name| Connection { local_id: identity(name), local: vec![], ..gateway() };
    let both = Connection {
        remote: vec![at(GATEWAY), at([198, 51, 100, 1])],
        remote_id: IdentityPattern::of(vec![identity("gw.test"), identity("other.test")]),
        ..terminal()
    };
    let mut pair = Pair::connected(gateway("gw.test"), both);
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.bar(pair.now, here, HOUR).unwrap();
    pair.settle();
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.connected_peers()[0], []);
    let reasons = pair.terminal.end_reasons();
    assert!(reasons.len() > 2 && reasons.iter().all(|why| *why == Reason::Barred), "{reasons:?}");
    pair.gateway = Side::new(vec![gateway("other.test")], Settings::default(), 3);
    pair.pass(Duration::from_secs(100));
    pair.assert_one_each();
}

#[test]
fn only_a_proved_name_can_be_barred() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    pair.down();
    let half_open = pair.gateway.endpoint.peers().next().unwrap().id();
    assert_eq!(pair.gateway.endpoint.bar(pair.now, half_open, HOUR), Err(BarError::Unproved));

    let eap: Arc<dyn Authenticator> = Arc::new(FakeEap::new(None));
    let mut fleet = Fleet::new(vec![Connection { remote_auth: RemoteAuth::Eap(eap), ..gateway() }]);
    fleet.connect(
        TERMINAL,
        Connection { local_auth: LocalAuth::Eap(Arc::new(FakeEap::new(None))), ..terminal() },
    );
    let unnamed = fleet.peer_at(TERMINAL).unwrap();
    assert_eq!(fleet.gateway.endpoint.bar(fleet.now, unnamed, HOUR), Err(BarError::Unnamed));
    assert_eq!(fleet.connected_peers().len(), 1);
}

//! New configurations for a running endpoint.

use crate::{
    doubles::{FakeCertificate, user, users},
    fleet::Fleet,
    pair::Pair,
};
use std::{net::IpAddr, ops::Range, sync::Arc, time::Duration};
use wayfarer::sim::ike::{
    connections::{TERMINAL, gateway, identity, offer, terminal},
    side::Side,
};
use wayfarer_mobility::{
    crypto::Encr,
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, Remote, RemoteAuth, SharedKey},
        event::Event,
        pool::Pool,
        proposal::Offer,
        reason::Reason,
        settings::Settings,
    },
};
use zeroize::Zeroizing;

/// The time at which pairs and fleets start.
const NOW: Duration = Duration::from_secs(1000);

fn pool(net: u8) -> Pool {
    Pool::new([10, 98, net, 1].into(), [10, 98, net, 254].into()).named("first")
}

/// Gives a side these connections, and the pool that it has.
fn reload(side: &mut Side, connections: Vec<Connection>) -> Range<usize> {
    side.endpoint.reconfigure(NOW, connections, vec![pool(0)], Settings::default())
}

/// The gateway's connection for all peers.
fn any() -> Connection {
    Connection { name: "any".into(), ..gateway() }
}

/// The gateway's connection for peers of this name.
fn named(name: &str) -> Connection {
    let remote_id = IdentityPattern::of(vec![identity(name)]);
    Connection { name: name.into(), remote_id, ..gateway() }
}

/// A terminal of this name.
fn terminal_of(name: &str) -> Connection {
    Connection { local_id: identity(name), ..terminal() }
}

fn with_key(connection: Connection, key: &str) -> Connection {
    let key = || SharedKey(Zeroizing::new(key.into()));
    Connection { local_auth: LocalAuth::Psk(key()), remote_auth: RemoteAuth::Psk(key()), ..connection }
}

/// Returns the inner addresses that the gateway assigned so far.
fn assigned(side: &Side) -> Vec<IpAddr> {
    let addresses = |event: &Event| match event {
        Event::Configured { addresses, .. } => addresses.clone(),
        _ => vec![],
    };
    side.events.iter().flat_map(addresses).collect()
}

#[test]
fn connected_peers_stay_and_change_keys() {
    let mut pair = Pair::connected(gateway(), terminal());
    for connection in [gateway(), with_key(gateway(), "another key")] {
        reload(&mut pair.gateway, vec![connection]);
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        for ike_sa in [false, true] {
            pair.terminal.endpoint.rekey(pair.now, here, ike_sa);
            pair.settle();
            pair.gateway.endpoint.rekey(pair.now, there, ike_sa);
            pair.settle();
            pair.pass(Duration::from_secs(10));
            pair.assert_one_each();
        }
    }
    assert_eq!((pair.gateway.end_reasons(), pair.terminal.end_reasons()), (vec![], vec![]));
}

#[test]
fn peers_that_connect_anew_get_the_new_connections() {
    let mut pair = Pair::connected(named("cl.test"), terminal());
    reload(&mut pair.gateway, vec![named("other.test")]);
    pair.replace_terminal(terminal_of("other.test"));
    pair.connect();
    let [here, there] = pair.connected_peers();
    assert_eq!((here.len(), there.len()), (1, 2), "the first one stays");
    pair.replace_terminal(terminal());
    pair.connect();
    assert_eq!(pair.connected_peers()[0].len(), 0);
    assert_eq!(pair.gateway.end_reasons(), [Reason::NoConnection]);
}

#[test]
fn order_of_the_new_configuration_counts() {
    let mut fleet = Fleet::new(vec![any(), named("a.test")]);
    let connections = |fleet: &Fleet| {
        let all = fleet.gateway.endpoint.peers();
        let name = |index: usize| fleet.gateway.endpoint.connection(index).unwrap().name.clone();
        all.filter_map(|peer| peer.connection()).map(name).collect::<Vec<_>>()
    };
    fleet.connect([192, 0, 2, 1], terminal_of("a.test"));
    reload(&mut fleet.gateway, vec![named("a.test"), any()]);
    fleet.connect([192, 0, 2, 2], terminal_of("a.test"));
    fleet.connect([192, 0, 2, 3], terminal_of("b.test"));
    assert_eq!(connections(&fleet), ["any", "a.test", "any"]);
}

#[test]
fn user_that_connects_anew_keeps_the_address_and_replaces_the_older_link() {
    let mut pair = Pair::connected(gateway(), terminal());
    let first = assigned(&pair.terminal);
    reload(&mut pair.gateway, vec![Connection { dns: vec![], ..gateway() }]);
    pair.replace_terminal(terminal());
    pair.connect();
    assert_eq!(assigned(&pair.terminal), first);
    pair.assert_one_each();
    assert_eq!(pair.gateway.end_reasons(), [Reason::Replaced]);
}

#[test]
fn address_outside_of_the_new_pools_stays_with_its_peer() {
    let mut pair = Pair::connected(gateway(), terminal());
    pair.gateway.endpoint.reconfigure(pair.now, vec![gateway()], vec![pool(7)], Settings::default());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.pass(Duration::from_secs(10));
    pair.assert_one_each();
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.settle();
    pair.pass(Duration::from_secs(2));
    pair.assert_one_each();
    assert_eq!(assigned(&pair.terminal), [[10, 98, 0, 1], [10, 98, 7, 1]].map(IpAddr::from));
}

#[test]
fn peer_that_has_not_proved_itself_needs_the_new_credentials() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    for (count, key) in [(1, "another key"), (0, "a secret of both")] {
        let first = pair.up();
        pair.deliver_up(&first[0]);
        let answer = pair.down();
        reload(&mut pair.gateway, vec![with_key(gateway(), key)]);
        pair.deliver_down(&answer[0]);
        pair.settle();
        assert_eq!(pair.gateway.end_reasons().len(), 1);
        assert_eq!(pair.connected_peers()[1].len(), 1 - count);
        pair.terminal.endpoint.handle_timeout(pair.now + Duration::from_secs(1));
        pair.now += Duration::from_secs(1);
    }
}

#[test]
fn removed_connection_is_not_made_again() {
    let mut pair = Pair::connected(gateway(), terminal());
    reload(&mut pair.terminal, vec![]);
    pair.pass(Duration::from_secs(60));
    pair.assert_one_each();
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.pass(Duration::from_secs(600));
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    assert_eq!(pair.terminal.endpoint.poll_timeout(), None);
}

#[test]
fn removed_connection_that_is_being_made_is_given_up() {
    let mut pair = Pair::new(gateway(), terminal());
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    reload(&mut pair.terminal, vec![]);
    pair.deliver_up(&first[0]);
    pair.settle();
    assert_eq!(pair.terminal.end_reasons(), [Reason::Reconfigured]);
    pair.pass(Duration::from_secs(600));
    assert_eq!(pair.connected_peers(), [vec![], vec![]]);
    assert_eq!(pair.terminal.endpoint.poll_timeout(), None);
}

#[test]
fn changed_connection_is_made_again_as_it_is_now() {
    let mut pair = Pair::connected(gateway(), terminal());
    let remote = "203.0.113.1:4500".parse().unwrap();
    let indices =
        reload(&mut pair.terminal, vec![Connection { remote: vec![Remote::At(remote)], ..terminal() }]);
    assert!(pair.terminal.endpoint.is_dialled(indices.start));
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.settle();
    pair.now += Duration::from_secs(1);
    pair.terminal.endpoint.handle_timeout(pair.now);
    assert_eq!(pair.up()[0].0.remote, remote);
}

#[test]
fn many_reloads_leave_nothing_behind() {
    let mut pair = Pair::connected(gateway(), terminal());
    for _ in 0..100 {
        reload(&mut pair.gateway, vec![gateway(), named("other.test")]);
        reload(&mut pair.terminal, vec![terminal()]);
    }
    let earlier = |side: &Side| side.endpoint.state_sizes().earlier_connections;
    assert_eq!((earlier(&pair.gateway), earlier(&pair.terminal)), (1, 1), "the peer's own");
    reload(&mut pair.gateway, vec![]);
    pair.pass(Duration::from_secs(60));
    pair.assert_one_each();
    assert_eq!(earlier(&pair.gateway), 1);
}

#[test]
fn credentials_go_with_the_last_peer_of_their_connection() {
    let with_users = |users| Connection { remote_auth: RemoteAuth::Eap(users), ..gateway() };
    let client = || Connection { local_auth: LocalAuth::Eap(user("alice")), ..terminal() };
    let (first, second) = (users(&["alice"]), users(&["alice", "bob"]));
    let [in_use, unused] = [&first, &second].map(Arc::downgrade);
    let mut pair = Pair::connected(with_users(first), client());
    reload(&mut pair.gateway, vec![with_users(second)]);
    reload(&mut pair.gateway, vec![gateway()]);
    assert_eq!((in_use.strong_count(), unused.strong_count()), (1, 0));
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.close(pair.now, here);
    pair.pass(Duration::from_secs(60));
    assert_eq!(in_use.strong_count(), 0);
}

/// Connects a terminal called a.test while the gateway's connections change, between IKE_SA_INIT
/// and IKE_AUTH. Returns the name of the connection that it gets, or why it gets none.
fn half_open_during(before: Vec<Connection>, after: Vec<Connection>) -> Result<String, Reason> {
    let mut pair = Pair::new(gateway(), terminal_of("a.test"));
    reload(&mut pair.gateway, before);
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let answer = pair.down();
    reload(&mut pair.gateway, after);
    pair.deliver_down(&answer[0]);
    pair.settle();
    let gateway = &pair.gateway;
    let up = gateway.events.iter().find_map(|event| match event {
        Event::PeerUp { connection, .. } => Some(gateway.endpoint.connection(*connection)?.name.clone()),
        _ => None,
    });
    up.ok_or_else(|| gateway.end_reasons().remove(0))
}

#[test]
fn half_open_peer_gets_the_connection_that_the_new_configuration_has_for_it() {
    let a = || named("a.test");
    let called = |name: &str| Connection { name: name.into(), ..a() };
    for (before, after, name) in [
        (vec![any()], vec![a(), any()], "a.test"),
        (vec![any(), a()], vec![a(), any()], "a.test"),
        (vec![a(), any()], vec![any(), a()], "any"),
        (vec![a()], vec![called("renamed")], "renamed"),
    ] {
        assert_eq!(half_open_during(before, after), Ok(name.into()));
    }
    let elsewhere = Connection { remote: vec![Remote::At("192.0.2.99:500".parse().unwrap())], ..a() };
    let inside = Connection { local: vec![[203, 0, 113, 2].into()], ..a() };
    let others = vec![Offer { encr: vec![Encr::AesGcm(128)], ..offer() }];
    let stronger = Connection { ike: others, ..a() };
    for (after, reason) in [
        (vec![elsewhere], Reason::NoConnection),
        (vec![inside], Reason::NoConnection),
        (vec![stronger, any()], Reason::OtherAlgorithms),
    ] {
        assert_eq!(half_open_during(vec![a()], after), Err(reason));
    }
}

#[test]
fn peer_that_proves_itself_during_a_reload_is_refused_and_comes_again() {
    let by_certificate = |name: &str| FakeCertificate::of(name);
    let at_gateway = || {
        let eap = Connection { remote_auth: RemoteAuth::Eap(users(&["alice"])), ..gateway() };
        let authority = RemoteAuth::Key(Arc::new(by_certificate("")));
        let own = LocalAuth::Key(Arc::new(by_certificate("gw.test")));
        [eap, Connection { local_auth: own, remote_auth: authority, ..gateway() }]
    };
    let authority = RemoteAuth::Key(Arc::new(by_certificate("")));
    let own = LocalAuth::Key(Arc::new(by_certificate("cl.test")));
    let clients = [
        Connection { local_auth: LocalAuth::Eap(user("alice")), ..terminal() },
        Connection { local_auth: own, remote_auth: authority, ..terminal() },
    ];
    for (method, client) in clients.into_iter().enumerate() {
        let mut refused = 0;
        // The reload comes after so many messages of the terminal, and before or after the last
        // answer.
        for (messages, is_answered) in (1..).flat_map(|count| [(count, false), (count, true)]) {
            let mut pair = Pair::new(at_gateway()[method].clone(), client.clone());
            pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
            let mut answers = vec![];
            for message in 0..messages {
                answers.iter().for_each(|answer| pair.deliver_down(answer));
                pair.up().iter().for_each(|request| pair.deliver_up(request));
                answers = if message + 1 < messages || is_answered { pair.down() } else { vec![] };
            }
            if pair.connected_peers()[1].len() == 1 {
                break;
            }
            reload(&mut pair.gateway, vec![at_gateway()[method].clone()]);
            answers.iter().for_each(|answer| pair.deliver_down(answer));
            pair.settle();
            let reasons = pair.gateway.end_reasons();
            let expected = if messages == 1 { vec![] } else { vec![Reason::Reconfigured] };
            assert_eq!(reasons, expected, "{method} {messages} {is_answered}");
            refused += reasons.len();
            pair.pass(Duration::from_secs(5));
            pair.assert_one_each();
        }
        assert!(refused > 0);
    }
}

#[test]
fn handshake_of_ours_begins_anew_with_the_new_credentials() {
    let mut pair = Pair::new(gateway(), with_key(terminal(), "another key"));
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let answer = pair.down();
    reload(&mut pair.terminal, vec![terminal()]);
    pair.deliver_down(&answer[0]);
    assert_eq!(pair.terminal.endpoint.poll_timeout(), Some(pair.now));
    pair.pass(Duration::from_secs(5));
    pair.assert_one_each();
    assert_eq!(pair.terminal.end_reasons(), [Reason::Reconfigured]);
}

#[test]
fn failed_connection_is_made_at_once_after_a_reload() {
    let mut pair = Pair::new(gateway(), with_key(terminal(), "another key"));
    pair.connect();
    pair.pass(Duration::from_secs(100));
    assert_eq!(pair.connected_peers()[0].len(), 0);
    pair.terminal.endpoint.reconfigure(pair.now, vec![terminal()], vec![], Settings::default());
    assert_eq!(pair.terminal.endpoint.poll_timeout(), Some(pair.now));
    pair.pass(Duration::from_secs(1));
    pair.assert_one_each();
}

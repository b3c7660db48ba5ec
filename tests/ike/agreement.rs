//! Negotiation of algorithms, selectors and modes, and authentication.

use crate::{
    doubles::{user, users},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::ike::connections::{GATEWAY, TERMINAL, gateway, offer, prefix, terminal};
use wayfarer::sim::ike::side::Side;
use wayfarer_mobility::{
    crypto::{Encr, Kex},
    identity::Identity,
    ike::{
        connection::{ChildPolicy, Connection, IdentityPattern, LocalAuth, RemoteAuth, SharedKey},
        counter::Counter,
        proposal::Offer,
        reason::Reason,
        view::State,
        wire::notify,
    },
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn responder_asks_for_another_group() {
    let ecp = || vec![Offer { kex: vec![Kex::Ecp256], ..offer() }];
    let mut pair = Pair::connected(Connection { ike: ecp(), esp: ecp(), ..gateway() }, terminal());
    pair.assert_one_each();
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 1);
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.rekey(pair.now, here, false);
    pair.settle();
    pair.pass(10 * SECOND);
    pair.assert_one_each();
    assert_eq!(pair.gateway.children().len(), 2);
}

#[test]
fn refuses_proposals_without_common_algorithms() {
    let cbc = Offer { encr: vec![Encr::AesGcm(128)], ..offer() };
    let pair = Pair::connected(Connection { ike: vec![cbc], ..gateway() }, terminal());
    assert_eq!((pair.connected_peers(), pair.gateway.endpoint.half_open()), ([vec![], vec![]], 0));
    assert_eq!(pair.gateway.endpoint.count(Counter::InitRefused), 1);
}

#[test]
fn ml_kem_is_added_in_fragmented_messages() {
    for kem in [Kex::MlKem768, Kex::MlKem1024] {
        let hybrid = || vec![Offer { more_kex: vec![vec![kem]], ..offer() }];
        let with = |connection| Connection { ike: hybrid(), fragment: Some(600), ..connection };
        let pair = Pair::connected(with(gateway()), with(terminal()));
        pair.assert_one_each();
        let suite = pair.gateway.endpoint.peers().next().unwrap().suite().cloned().unwrap();
        assert_eq!(suite.more_kex, [kem]);
    }
}

#[test]
fn accepts_fragments_in_any_order_and_repeated() {
    let hybrid = || vec![Offer { more_kex: vec![vec![Kex::MlKem768]], ..offer() }];
    let with = |connection| Connection { ike: hybrid(), fragment: Some(600), ..connection };
    let mut pair = Pair::new(with(gateway()), with(terminal()));
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let first = pair.up();
    pair.deliver_up(&first[0]);
    let answer = pair.down();
    pair.deliver_down(&answer[0]);
    let parts = pair.up();
    assert!(parts.len() > 2 && parts.iter().all(|(_, part)| part.len() + 28 <= 600), "{}", parts.len());
    parts.iter().rev().skip(1).for_each(|part| {
        pair.deliver_up(part);
        pair.deliver_up(part);
    });
    assert_eq!(pair.down(), [], "one fragment is missing");
    pair.deliver_up(parts.last().unwrap());
    let answers = pair.down();
    assert!(answers.len() > 1);
    pair.deliver_up(&parts[1]);
    assert_eq!(pair.down(), [], "only the first fragment is answered again");
    pair.deliver_up(&parts[0]);
    assert_eq!(pair.down(), answers);
    answers.iter().rev().for_each(|part| pair.deliver_down(part));
    pair.settle();
    pair.assert_one_each();
}

#[test]
fn both_sides_refuse_a_wrong_secret() {
    let bad = LocalAuth::Psk(SharedKey(Zeroizing::new("bad".into())));
    let pair = Pair::connected(gateway(), Connection { local_auth: bad.clone(), ..terminal() });
    assert_eq!(pair.gateway.end_reasons(), [Reason::Authentication]);
    assert_eq!(pair.terminal.end_reasons(), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
    let pair = Pair::connected(Connection { local_auth: bad, ..gateway() }, terminal());
    assert_eq!(pair.terminal.end_reasons(), [Reason::Authentication]);
    let told = [Reason::Refused(notify::AUTHENTICATION_FAILED)];
    assert_eq!(pair.gateway.end_reasons(), told, "the gateway is told");
}

#[test]
fn refuses_an_identity_without_a_connection() {
    let only = IdentityPattern::Suffix(b".other".to_vec());
    let pair = Pair::connected(Connection { remote_id: only, ..gateway() }, terminal());
    assert_eq!(pair.gateway.end_reasons(), [Reason::NoConnection]);
}

#[test]
fn transport_mode_selects_the_two_addresses() {
    let transport = |connection: Connection| {
        let child = ChildPolicy { name: "t".into(), local: vec![], remote: vec![], transport: true };
        Connection { children: vec![child], pools: vec![], ask_address: false, ..connection }
    };
    let pair = Pair::connected(transport(gateway()), transport(terminal()));
    pair.assert_one_each();
    let sa = pair.gateway.children()[0];
    assert!(sa.transport);
    assert_eq!(
        (&sa.local[..], &sa.remote[..]),
        (&[prefix(GATEWAY, GATEWAY)][..], &[prefix(TERMINAL, TERMINAL)][..])
    );
}

#[test]
fn responder_narrows_selectors() {
    let mut gate = gateway();
    gate.children[0].local = vec![prefix([10, 99, 0, 16], [10, 99, 0, 31])];
    let pair = Pair::connected(gate, terminal());
    pair.assert_one_each();
    assert_eq!(pair.terminal.children()[0].remote, [prefix([10, 99, 0, 16], [10, 99, 0, 31])]);
}

#[test]
fn creates_and_rekeys_several_child_sas() {
    let both = |mut connection: Connection, is_gateway: bool| {
        let net = vec![prefix([10, 97, 0, 0], [10, 97, 0, 255])];
        let (local, remote) = if is_gateway { (net, vec![]) } else { (vec![], net) };
        connection.children.push(ChildPolicy { name: "second".into(), local, remote, transport: false });
        connection
    };
    let mut pair = Pair::connected(both(gateway(), true), both(terminal(), false));
    let names = |side: &Side| side.children().iter().map(|sa| sa.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&pair.terminal), ["net", "second"]);
    assert_eq!(names(&pair.gateway), ["net", "second"]);
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.settle();
    pair.pass(10 * SECOND);
    assert_eq!(pair.gateway.endpoint.peers().next().unwrap().children().count(), 2);
    assert_eq!(pair.terminal.endpoint.peers().next().unwrap().children().count(), 2);
}

/// Connects a terminal that claims to be alice and has the password of user `name` to a gateway
/// that wants EAP and accepts `remote_id`.
fn by_eap(name: &str, remote_id: IdentityPattern) -> Pair {
    let remote_auth = RemoteAuth::Eap(users(&["alice", "bob"]));
    let gateway = Connection { remote_id, remote_auth, ..gateway() };
    let terminal = Connection {
        local_id: Identity::from_text("alice").unwrap(),
        local_auth: LocalAuth::Eap(user(name)),
        ..terminal()
    };
    let mut pair = Pair::new(gateway, terminal);
    pair.connect();
    pair
}

#[test]
fn identity_proved_by_eap_decides_who_may_connect() {
    let alice = || IdentityPattern::of(vec![Identity::from_text("alice").unwrap()]);
    let up = |pair: &Pair| pair.gateway.endpoint.peers().filter(|p| p.state() == State::Up).count();
    assert_eq!(up(&by_eap("alice", alice())), 1);
    assert_eq!(up(&by_eap("bob", IdentityPattern::Any)), 1);
    assert_eq!(up(&by_eap("bob", alice())), 0, "the name in the ID payload proves nothing");
}

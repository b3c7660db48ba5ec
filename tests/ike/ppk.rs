//! Post-quantum pre-shared keys (RFC 8784), with every kind of proof.

use crate::{
    doubles::{FakeCertificate, user, users},
    fleet::Fleet,
    pair::Pair,
};
use std::sync::Arc;
use wayfarer::{
    primitives::Primitives,
    sim::ike::connections::{TERMINAL, gateway, identity, terminal},
};
use wayfarer_mobility::{
    crypto::{Crypto, Prf, Secret, Signer},
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, Ppk, RemoteAuth, SharedKey},
        reason::Reason,
        schedule::IkeSaKeys,
        wire::notify,
    },
};
use zeroize::Zeroizing;

/// Makes connections of a gateway and its terminal with each kind of proof.
fn proofs() -> [[Connection; 2]; 3] {
    let certificate = |names: &str| Arc::new(FakeCertificate::of(names));
    let by_certificate = |connection, names| Connection {
        local_auth: LocalAuth::Key(certificate(names) as Arc<dyn Signer>),
        remote_auth: RemoteAuth::Key(certificate("")),
        ..connection
    };
    [
        [gateway(), terminal()],
        [by_certificate(gateway(), "gw.test"), by_certificate(terminal(), "cl.test")],
        [
            Connection { remote_auth: RemoteAuth::Eap(users(&["cl"])), ..gateway() },
            Connection { local_auth: LocalAuth::Eap(user("cl")), ..terminal() },
        ],
    ]
}

/// Adds a key with this identity. It is required if `id` is in upper case.
fn with(id: &str, secret: &str, connection: &Connection) -> Connection {
    let (required, id) = (id == id.to_uppercase(), format!("\u{2}{}", id.to_lowercase()).into());
    let secret = SharedKey(Zeroizing::new(secret.into()));
    Connection { ppk: Some(Ppk { id, secret, required }), ..connection.clone() }
}

/// Returns the connection for peers that prove this name.
fn named(connection: &Connection, name: &str) -> Connection {
    Connection { remote_id: IdentityPattern::of(vec![identity(name)]), ..connection.clone() }
}

/// Asserts that both sides are connected and have the same keys, also after rekeys.
#[track_caller]
fn assert_connected(mut pair: Pair) {
    pair.assert_one_each();
    for ike_sa in [true, false] {
        let here = pair.connected_peers()[0][0];
        pair.terminal.endpoint.rekey(pair.now, here, ike_sa);
        pair.settle();
        pair.pass(std::time::Duration::from_secs(10));
        pair.assert_one_each();
    }
}

#[test]
fn key_is_mixed_into_what_later_keys_and_proofs_derive_from() {
    let key = |byte: u8| Zeroizing::new(vec![byte; 32]);
    let before =
        IkeSaKeys { d: key(1), ai: key(2), ar: key(3), ei: key(4), er: key(5), pi: key(6), pr: key(7) };
    let mixed = before.with_ppk(&Primitives, Prf::HmacSha256, b"quantum");
    // RFC 8784 §3: prf+ of the key and the one before, of which one block is enough here.
    let expected = |old: &Secret| Primitives.prf(Prf::HmacSha256, b"quantum", &[old, &[1]]);
    for (old, new) in [(&before.d, &mixed.d), (&before.pi, &mixed.pi), (&before.pr, &mixed.pr)] {
        assert_eq!(*new, expected(old));
    }
    let [unchanged, others] = [&before, &mixed].map(|keys| [&keys.ai, &keys.ar, &keys.ei, &keys.er]);
    assert_eq!(unchanged, others);
}

#[test]
fn both_sides_mix_in_the_same_key() {
    for [gateway, terminal] in proofs() {
        for [theirs, ours] in [["k", "k"], ["K", "k"], ["k", "K"], ["K", "K"]] {
            let (gateway, terminal) = (with(theirs, "quantum", &gateway), with(ours, "quantum", &terminal));
            assert_connected(Pair::connected(gateway, terminal));
        }
    }
}

#[test]
fn a_wrong_key_is_no_missing_key() {
    for [gateway, terminal] in proofs() {
        for [theirs, ours] in [["k", "k"], ["K", "K"]] {
            let (gateway, terminal) = (with(theirs, "quantum", &gateway), with(ours, "other", &terminal));
            let pair = Pair::connected(gateway, terminal);
            assert_eq!(pair.connected_peers(), [vec![], vec![]]);
            let reasons = pair.gateway.end_reasons();
            let is_proof = matches!(reasons[..], [Reason::Authentication | Reason::Verification(_)]);
            assert!(is_proof, "{reasons:?}");
        }
    }
}

#[test]
fn both_sides_go_on_without_a_key_that_neither_requires() {
    for [gateway, terminal] in proofs() {
        let [known, other] = ["k", "x"].map(|id| with(id, "quantum", &terminal));
        // The gateway has another key, and the terminal's NO_PPK_AUTH counts.
        assert_connected(Pair::connected(with("k", "quantum", &gateway), other));
        // One side has none, so that they do not agree on USE_PPK.
        assert_connected(Pair::connected(gateway.clone(), known));
        assert_connected(Pair::connected(with("k", "quantum", &gateway), terminal));
    }
}

#[test]
fn neither_side_goes_on_without_a_key_that_it_requires() {
    for [gateway, terminal] in proofs() {
        for bad in [with("x", "quantum", &terminal), with("X", "quantum", &terminal), terminal.clone()] {
            let pair = Pair::connected(with("K", "quantum", &gateway), bad);
            assert_eq!(pair.connected_peers(), [vec![], vec![]]);
            assert_eq!(pair.gateway.end_reasons(), [Reason::Authentication]);
        }
        let pair = Pair::connected(with("k", "quantum", &gateway), with("X", "quantum", &terminal));
        assert_eq!(pair.gateway.end_reasons(), [Reason::Authentication]);
        assert_eq!(pair.terminal.end_reasons(), [Reason::Refused(notify::AUTHENTICATION_FAILED)]);
        let pair = Pair::connected(gateway, with("K", "quantum", &terminal));
        assert_eq!(pair.terminal.end_reasons(), [Reason::Authentication], "without USE_PPK of the gateway");
    }
}

#[test]
fn the_connection_for_the_proved_name_decides_about_the_key() {
    for (at, [gateway, terminal]) in proofs().into_iter().enumerate() {
        let proved = if at == 2 { "cl" } else { "cl.test" };
        let other = with("K", "quantum", &named(&gateway, "other.test"));
        // The gateway answers USE_PPK for the sake of the other connection.
        for (own, terminal, connects) in [
            (named(&gateway, proved), with("k", "quantum", &terminal), true),
            // With certificates, the key counts although it is another connection's.
            (named(&gateway, proved), with("K", "quantum", &terminal), at == 1),
            (with("K", "own", &named(&gateway, proved)), with("k", "own", &terminal), true),
            (with("K", "own", &named(&gateway, proved)), with("k", "quantum", &terminal), false),
        ] {
            // With EAP the claimed name may be that of the other connection.
            for claimed in ["cl.test", "other.test"].into_iter().take(if at == 2 { 2 } else { 1 }) {
                let mut fleet = Fleet::new(vec![other.clone(), own.clone()]);
                let terminal = Connection { local_id: identity(claimed), ..terminal.clone() };
                fleet.connect(TERMINAL, terminal);
                assert_eq!(fleet.connected_peers().len(), usize::from(connects), "proof {at}, {claimed}");
            }
        }
    }
}

/// The first connection is for one of the certificate's names, and the other for the one that the peer
/// claims.
#[test]
fn a_certificate_for_two_connections_needs_the_key_of_the_first() {
    let [_, [gateway, terminal], _] = proofs();
    let named =
        |name: &str| Connection { remote_id: IdentityPattern::of(vec![identity(name)]), ..gateway.clone() };
    let certificate = Arc::new(FakeCertificate::of("cl.test other.test"));
    let terminal = Connection { local_auth: LocalAuth::Key(certificate), ..terminal };
    let (other, own) = (with("K", "quantum", &named("other.test")), named("cl.test"));
    for (own, terminal, connects) in [
        (own.clone(), terminal.clone(), false),
        (own.clone(), with("k", "quantum", &terminal), true),
        (with("k", "own", &own), with("k", "own", &terminal), false),
        (with("k", "quantum", &own), terminal.clone(), false),
        (with("k", "quantum", &own), with("k", "quantum", &terminal), true),
    ] {
        let mut fleet = Fleet::new(vec![other.clone(), own.clone()]);
        fleet.connect(TERMINAL, terminal.clone());
        assert_eq!(fleet.connected_peers().len(), usize::from(connects), "{:?} {:?}", own.ppk, terminal.ppk);
    }
}

/// The name that a peer claims is not that of its connection, but another one of its certificate.
#[test]
fn key_is_found_before_a_certificate_tells_the_connection() {
    let [_, [gateway, _], _] = proofs();
    let [own, other] = ["cl.test", "alias.test"].map(|name| named(&gateway, name));
    let terminal = || Connection {
        local_auth: LocalAuth::Key(Arc::new(FakeCertificate::of("cl.test alias.test"))),
        remote_auth: gateway.remote_auth.clone(),
        ..terminal()
    };
    let of_other = with("K", "quantum", &other);
    for (own, other, terminal, connects) in [
        (&own, &of_other, terminal(), true),
        (&with("B", "own", &own), &other, with("B", "own", &terminal()), true),
        (&with("B", "own", &own), &other, with("b", "own", &terminal()), true),
        (&with("b", "own", &own), &of_other, with("B", "own", &terminal()), true),
        (&with("B", "own", &own), &other, terminal(), false),
        (&with("B", "own", &own), &other, with("b", "wrong", &terminal()), false),
        (&with("B", "own", &own), &of_other, with("k", "quantum", &terminal()), false),
        (&own, &other, with("B", "own", &terminal()), false),
    ] {
        for claimed in ["cl.test", "alias.test"] {
            let mut fleet = Fleet::new(vec![own.clone(), other.clone()]);
            fleet.connect(TERMINAL, Connection { local_id: identity(claimed), ..terminal.clone() });
            let connected = fleet.connected_peers().first().map(|peer| peer.connection());
            assert_eq!(connected, connects.then_some(Some(0)), "{:?} {claimed}", terminal.ppk);
        }
    }
}

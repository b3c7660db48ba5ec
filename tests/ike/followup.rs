//! SAs by several key exchanges (RFC 9370 §2.2.4): IKE_FOLLOWUP_KE after CREATE_CHILD_SA, in both
//! roles, with lost and repeated messages, and with peers of other policies.

use crate::pair::Pair;
use std::time::Duration;
use wayfarer::{
    primitives::Primitives,
    sim::ike::{
        connections::{gateway, offer, terminal},
        side::Message,
    },
};
use wayfarer_mobility::{
    crypto::{Crypto, Encr, Kex, Prf, Secret},
    ike::{
        connection::{ChildPolicy, Connection},
        counter::Counter,
        event::Event,
        proposal::{Offer, choose_esp},
        schedule::{IkeSaKeys, Seed, prf_plus},
        suite::{EspSuite, IkeSuite},
        wire::{ExchangeType, Header, Transform},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Makes an offer with these additional key exchanges.
pub(super) fn with_more(more_kex: &[Kex]) -> Offer {
    Offer { more_kex: more_kex.iter().map(|kex| vec![*kex]).collect(), ..offer() }
}

/// Makes an offer of X25519 and ML-KEM.
pub(super) fn hybrid() -> Offer {
    with_more(&[Kex::MlKem768])
}

/// Makes a pair with these offers for IKE and ESP, and connects it.
pub(super) fn connected(gateway_offers: &[Offer], terminal_offers: &[Offer]) -> Pair {
    let with = |connection, offers: &[Offer]| Connection {
        ike: offers.to_vec(),
        esp: offers.to_vec(),
        ..connection
    };
    Pair::connected(with(gateway(), gateway_offers), with(terminal(), terminal_offers))
}

/// Lets one side begin to rekey the IKE SA or the child SA.
pub(super) fn begin_rekey(pair: &mut Pair, by_gateway: bool, ike_sa: bool) {
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    match by_gateway {
        true => pair.gateway.endpoint.rekey(pair.now, there, ike_sa),
        false => pair.terminal.endpoint.rekey(pair.now, here, ike_sa),
    }
}

/// Returns the suites of the IKE SA and of the newest child SA.
pub(super) fn suites(pair: &Pair) -> (IkeSuite, EspSuite) {
    let view = pair.gateway.endpoint.peers().next().unwrap();
    (view.suite().unwrap().clone(), pair.gateway.newest_child().suite.clone())
}

/// Asserts that one IKE SA and one child SA remain, and nothing that was reserved for others.
#[track_caller]
pub(super) fn assert_only_one_each(pair: &Pair) {
    pair.assert_one_each();
    for side in [&pair.gateway, &pair.terminal] {
        let sizes = side.endpoint.state_sizes();
        assert_eq!((sizes.spis, sizes.child_spis, sizes.children, sizes.tasks), (1, 1, 1, 0), "{sizes:?}");
    }
    assert_eq!((pair.gateway.end_reasons(), pair.terminal.end_reasons()), (vec![], vec![]));
}

/// Carries messages until there are none, and returns their number. Each is delivered as often as
/// `copies` says of its place in their order and its exchange.
fn carry(pair: &mut Pair, mut copies: impl FnMut(usize, ExchangeType) -> usize) -> usize {
    let mut number = 0;
    loop {
        let (up, down) = (pair.up(), pair.down());
        if up.is_empty() && down.is_empty() {
            return number;
        }
        let mut times = |(_, message): &Message| {
            let exchange = ExchangeType::from_number(Header::parse(message).unwrap().exchange).unwrap();
            number += 1;
            copies(number - 1, exchange)
        };
        for message in &up {
            (0..times(message)).for_each(|_| pair.deliver_up(message));
        }
        for message in &down {
            (0..times(message)).for_each(|_| pair.deliver_down(message));
        }
    }
}

#[test]
fn each_side_rekeys_by_all_key_exchanges() {
    for more in [&[Kex::MlKem768][..], &[Kex::MlKem1024, Kex::Ecp384, Kex::Modp2048]] {
        for by_gateway in [true, false] {
            let mut pair = connected(&[with_more(more)], &[with_more(more)]);
            for (ike_sa, exchanges) in [(false, more.len()), (true, more.len()), (false, more.len())] {
                begin_rekey(&mut pair, by_gateway, ike_sa);
                let mut followups = 0;
                carry(&mut pair, |_, exchange| {
                    followups += usize::from(exchange == ExchangeType::FollowupKe);
                    1
                });
                assert!(followups >= 2 * exchanges, "{followups} messages");
                pair.pass(10 * SECOND);
                assert_only_one_each(&pair);
            }
            let (ike, esp) = suites(&pair);
            assert_eq!((&ike.more_kex[..], &esp.kex[..]), (more, &[&[Kex::X25519][..], more].concat()[..]));
        }
    }
}

#[test]
fn further_child_sa_is_created_by_all_key_exchanges() {
    let two = |connection: Connection| {
        let net = &connection.children[0];
        let children = ["net", "second"].map(|name| ChildPolicy { name: name.into(), ..net.clone() });
        Connection { esp: vec![hybrid()], children: children.into(), ..connection }
    };
    let pair = Pair::connected(two(gateway()), two(terminal()));
    let [ours, theirs] = [&pair.terminal, &pair.gateway].map(|side| side.children().remove(1));
    assert_eq!(ours.suite.kex, [Kex::X25519, Kex::MlKem768]);
    assert_eq!((&ours.key_in, &ours.key_out), (&theirs.key_out, &theirs.key_in));
}

#[test]
fn messages_are_fragmented() {
    let with = |connection| Connection {
        ike: vec![hybrid()],
        esp: vec![hybrid()],
        fragment: Some(600),
        ..connection
    };
    let mut pair = Pair::connected(with(gateway()), with(terminal()));
    for (by_gateway, ike_sa) in [(true, true), (false, true), (true, false), (false, false)] {
        begin_rekey(&mut pair, by_gateway, ike_sa);
        let mut fragments = 0;
        carry(&mut pair, |_, exchange| {
            fragments += usize::from(exchange == ExchangeType::FollowupKe);
            1
        });
        assert!(fragments >= 6, "{fragments} fragments of a request and its response");
        pair.pass(10 * SECOND);
        assert_only_one_each(&pair);
    }
}

#[test]
fn lost_and_repeated_messages_change_nothing() {
    for (by_gateway, ike_sa) in [(true, true), (false, true), (true, false), (false, false)] {
        let connected = || connected(&[hybrid()], &[hybrid()]);
        let mut pair = connected();
        begin_rekey(&mut pair, by_gateway, ike_sa);
        let messages = carry(&mut pair, |_, _| 1);
        for (lost, copies) in (0..messages).flat_map(|lost| [(lost, 0), (lost, 2)]) {
            let mut pair = connected();
            begin_rekey(&mut pair, by_gateway, ike_sa);
            carry(&mut pair, |number, _| if number == lost { copies } else { 1 });
            pair.pass(10 * SECOND);
            assert_only_one_each(&pair);
            let rekeyed = [&pair.gateway, &pair.terminal].map(|s| s.endpoint.count(Counter::Rekeyed));
            assert_eq!(rekeyed, [1, 1]);
        }
    }
}

#[test]
fn rekeys_go_on_with_all_key_exchanges_for_days() {
    let mut pair = connected(&[hybrid()], &[hybrid()]);
    pair.pass(48 * HOUR);
    assert_only_one_each(&pair);
    let (ike, esp) = suites(&pair);
    assert_eq!((&ike.more_kex[..], &esp.kex[..]), (&[Kex::MlKem768][..], &[Kex::X25519, Kex::MlKem768][..]));
}

/// A peer without additional key exchanges gets none, unless the policy demands them.
#[test]
fn policy_decides_about_additional_key_exchanges() {
    let both = [hybrid(), offer()];
    for (at_gateway, at_terminal, more) in [
        (&both[..], &both[..], true),
        (&both, &both[..1], true),
        (&both[..1], &both, true),
        (&both, &both[1..], false),
        (&both[1..], &both, false),
    ] {
        for by_gateway in [true, false] {
            let mut pair = connected(at_gateway, at_terminal);
            for ike_sa in [true, false, true, false] {
                begin_rekey(&mut pair, by_gateway, ike_sa);
                pair.settle();
                pair.pass(10 * SECOND);
                assert_only_one_each(&pair);
            }
            let (ike, esp) = suites(&pair);
            assert_eq!((!ike.more_kex.is_empty(), esp.kex.len() > 1), (more, more));
        }
    }
}

#[test]
fn demanded_key_exchanges_are_not_left_out() {
    let with = |connection, esp| Connection { esp, ..connection };
    let mut pair = Pair::connected(with(gateway(), vec![hybrid()]), with(terminal(), vec![offer()]));
    let first = pair.gateway.newest_child().spi_in;
    for by_gateway in [true, false] {
        begin_rekey(&mut pair, by_gateway, false);
        pair.settle();
        assert_only_one_each(&pair);
        assert_eq!(pair.gateway.newest_child().spi_in, first);
        let side = if by_gateway { &pair.gateway } else { &pair.terminal };
        let failed = |event: &Event| matches!(event, Event::CreateFailed { refusal: Some(14), .. });
        assert!(side.events.iter().any(failed), "NO_PROPOSAL_CHOSEN");
    }
}

#[test]
fn optional_key_exchanges_are_done_if_the_policy_has_them() {
    let mut optional = hybrid().esp(1, 0x1000, true);
    optional.transforms.push(Transform { kind: 6, id: 0, key_bits: None });
    for (ours, kex) in [(offer(), &[Kex::X25519][..]), (hybrid(), &[Kex::X25519, Kex::MlKem768])] {
        let chosen = choose_esp(&[ours], std::slice::from_ref(&optional), true).unwrap();
        assert_eq!(chosen.suite.kex, kex);
    }
}

#[test]
fn keys_derive_from_all_secrets_in_their_order() {
    let secret = |byte| Secret::new(vec![byte; 32]);
    let shared = [secret(1), secret(2), secret(3)];
    let suite = IkeSuite {
        encr: Encr::AesGcm(256),
        integ: None,
        prf: Prf::HmacSha384,
        kex: Kex::X25519,
        more_kex: vec![Kex::MlKem768, Kex::Ecp384],
    };
    let seed = Seed { nonce_i: &[4; 32], nonce_r: &[5; 32], spi_i: 6, spi_r: 7 };
    let old = IkeSaKeys::first(&Primitives, &suite, &[8; 32], seed);
    // SK(0) | Ni | Nr | SK(1) | SK(2)
    let mix = [[1; 32], [4; 32], [5; 32], [2; 32], [3; 32]].concat();
    let skeyseed = Primitives.prf(suite.prf, &old.d, &[&mix]);
    let seeds = [&[4; 32][..], &[5; 32], &6u64.to_be_bytes(), &7u64.to_be_bytes()].concat();
    let d = prf_plus(&Primitives, suite.prf, &skeyseed, &[&seeds], 48);
    assert_eq!(old.rekeyed(&Primitives, suite.prf, &suite, &shared, seed).d, d);
    let esp = EspSuite { encr: Encr::AesGcm(256), integ: None, kex: vec![Kex::X25519], esn: false };
    let keymat = prf_plus(&Primitives, suite.prf, &old.d, &[&mix], 2 * esp.key_len());
    let child = old.child(&Primitives, suite.prf, &esp, &shared, [&[4; 32], &[5; 32]]);
    assert_eq!([&child.from_initiator[..], &child.to_initiator].concat(), &keymat[..]);
}

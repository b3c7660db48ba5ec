//! Collisions of exchanges that several key exchanges complete (RFC 9370 §2.2.4).

use crate::{
    followup::{assert_only_one_each, begin_rekey, hybrid, with_more},
    pair::Pair,
};
use std::{collections::BTreeSet, time::Duration};
use wayfarer::sim::{
    ike::{
        connections::{gateway, offer, terminal},
        side::Message,
    },
    random::Random,
};
use wayfarer_mobility::{
    crypto::Kex,
    ike::{connection::Connection, proposal::Offer, settings::Settings},
};

const SECOND: Duration = Duration::from_secs(1);

/// Connects a pair whose nonces depend on `seed`.
fn pair(seed: u64, at_gateway: &[Offer], at_terminal: &[Offer]) -> Pair {
    let with =
        |connection, offers: &[Offer]| Connection { ike: vec![hybrid()], esp: offers.to_vec(), ..connection };
    let mut pair =
        Pair::seeded(seed, with(gateway(), at_gateway), with(terminal(), at_terminal), Settings::default());
    pair.connect();
    pair
}

/// Lets both sides rekey the same SA at once, delivers one side's answer first, and returns whether
/// the terminal made the new one.
fn collide(seed: u64, ike_sa: bool, terminal_first: bool) -> bool {
    let mut pair = pair(seed, &[hybrid()], &[hybrid()]);
    begin_rekey(&mut pair, true, ike_sa);
    begin_rekey(&mut pair, false, ike_sa);
    let (up, down) = (pair.up(), pair.down());
    up.iter().for_each(|message| pair.deliver_up(message));
    down.iter().for_each(|message| pair.deliver_down(message));
    let (up, down) = (pair.up(), pair.down());
    let deliver_down = |pair: &mut Pair| down.iter().for_each(|message| pair.deliver_down(message));
    if terminal_first {
        deliver_down(&mut pair);
        pair.settle();
    }
    up.iter().for_each(|message| pair.deliver_up(message));
    pair.settle();
    if !terminal_first {
        deliver_down(&mut pair);
        pair.settle();
    }
    pair.pass(100 * SECOND);
    assert_only_one_each(&pair);
    // The exchange that lost created nothing.
    assert_eq!(pair.gateway.children().len(), if ike_sa { 1 } else { 2 });
    match ike_sa {
        true => pair.is_ike_sa_by_terminal(),
        false => pair.terminal.newest_child().send,
    }
}

#[test]
fn nonces_decide_before_the_further_key_exchanges() {
    for (ike_sa, terminal_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let by_terminal: BTreeSet<bool> = (0..8).map(|seed| collide(seed, ike_sa, terminal_first)).collect();
        assert_eq!(by_terminal.len(), 2, "each side wins: {ike_sa} {terminal_first}");
    }
}

/// Delivers a request to rekey an SA which its receiver is already rekeying, as the sender knows.
#[test]
fn request_during_further_key_exchanges_is_refused() {
    for ike_sa in [false, true] {
        let mut pair = pair(1, &[hybrid()], &[hybrid()]);
        begin_rekey(&mut pair, true, ike_sa);
        begin_rekey(&mut pair, false, ike_sa);
        let (late, down) = (pair.up(), pair.down());
        down.iter().for_each(|message| pair.deliver_down(message));
        let answer = pair.up();
        answer.iter().for_each(|message| pair.deliver_up(message));
        let followup = pair.down();
        late.iter().for_each(|message| pair.deliver_up(message));
        let refusal = pair.down();
        assert_eq!(refusal.len(), 1, "TEMPORARY_FAILURE");
        refusal.iter().for_each(|message| pair.deliver_down(message));
        assert!(pair.up().is_empty(), "the terminal waits");
        followup.iter().for_each(|message| pair.deliver_down(message));
        pair.settle();
        pair.pass(100 * SECOND);
        assert_only_one_each(&pair);
        assert_eq!(pair.gateway.endpoint.peers().next().unwrap().rekeys(), 1);
    }
}

/// Carries messages in any order for a while; some are lost, others come twice.
fn disorder(pair: &mut Pair, random: &mut Random) {
    let mut under_way: Vec<(bool, Message)> = vec![];
    for _ in 0..200 {
        under_way.extend(pair.up().into_iter().map(|message| (true, message)));
        under_way.extend(pair.down().into_iter().map(|message| (false, message)));
        if under_way.is_empty() || random.percent(10) {
            pair.now += Duration::from_millis(random.below(400));
            pair.terminal.endpoint.handle_timeout(pair.now);
            pair.gateway.endpoint.handle_timeout(pair.now);
            continue;
        }
        let at = random.index(under_way.len());
        let (is_up, message) = match random.percent(10) {
            true => under_way[at].clone(),
            false => under_way.swap_remove(at),
        };
        match is_up {
            _ if random.percent(10) => {}
            true => pair.deliver_up(&message),
            false => pair.deliver_down(&message),
        }
    }
}

/// Lets both sides rekey anything at once while messages are lost, repeated and out of order.
fn rekey_in_disorder(seed: u64, at_gateway: &[Offer], at_terminal: &[Offer]) {
    let mut random = Random(seed);
    let mut pair = pair(seed, at_gateway, at_terminal);
    for _ in 0..3 {
        for by_gateway in [true, false] {
            begin_rekey(&mut pair, by_gateway, random.percent(50));
            if random.percent(30) {
                begin_rekey(&mut pair, by_gateway, random.percent(50));
            }
        }
        disorder(&mut pair, &mut random);
    }
    pair.pass(200 * SECOND);
    assert_only_one_each(&pair);
}

#[test]
fn one_of_each_remains_whatever_is_lost() {
    for seed in 0..150 {
        rekey_in_disorder(seed, &[hybrid()], &[hybrid()]);
    }
}

#[test]
fn one_of_each_remains_after_several_additional_key_exchanges() {
    let several = [with_more(&[Kex::Ecp384, Kex::MlKem768, Kex::Modp2048])];
    for seed in 0..40 {
        rekey_in_disorder(seed, &several, &several);
    }
}

/// The exchanges of one side have additional key exchanges, those of the other may have none.
#[test]
fn one_of_each_remains_if_only_one_side_wants_further_key_exchanges() {
    let [first, last] = [[hybrid(), offer()], [offer(), hybrid()]];
    for seed in 0..100 {
        rekey_in_disorder(seed, &first, &last);
        rekey_in_disorder(seed, &last, &first);
    }
}

#[test]
fn nothing_remains_after_a_close_in_disorder() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut pair = pair(seed, &[hybrid()], &[hybrid()]);
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        begin_rekey(&mut pair, true, random.percent(50));
        begin_rekey(&mut pair, false, random.percent(50));
        for _ in 0..random.below(6) {
            let (up, down) = (pair.up(), pair.down());
            up.iter().for_each(|message| pair.deliver_up(message));
            down.iter().for_each(|message| pair.deliver_down(message));
        }
        match random.percent(50) {
            true => pair.gateway.endpoint.close(pair.now, there),
            false => pair.terminal.endpoint.close(pair.now, here),
        }
        pair.settle();
        // Otherwise it would connect again.
        pair.replace_terminal(terminal());
        // A terminal that closes before it learns of its new IKE SA does not delete that one.
        for peer in pair.gateway.connected_peers() {
            pair.gateway.endpoint.handle_liveness(pair.now, peer, false);
        }
        pair.pass(100 * SECOND);
        let sizes = pair.gateway.endpoint.state_sizes();
        assert_eq!((sizes.spis, sizes.child_spis, sizes.children, sizes.tasks), (0, 0, 0, 0), "{seed}");
    }
}

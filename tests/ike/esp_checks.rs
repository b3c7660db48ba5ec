//! Moves of a terminal behind a NAT, to a gateway whose packets come or do not. `mappings` has NATs that
//! forget the terminal.

use crate::{
    habits::{connected_by, move_behind, nat},
    pair::Pair,
};
use std::time::Duration;
use wayfarer::sim::{ike::connections::TERMINAL, nat::Kind};
use wayfarer_mobility::ike::event::Event;

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];

/// Counts the terminal's events that `is_it` accepts.
fn count(pair: &Pair, is_it: impl Fn(&Event) -> bool) -> usize {
    pair.terminal.events.iter().filter(|event| is_it(event)).count()
}

fn questions(pair: &Pair) -> usize {
    count(pair, |event| matches!(event, Event::TrafficDue { .. }))
}

/// Counts how often the terminal has authenticated, and how often it says that nothing comes.
fn starts_and_silences(pair: &Pair) -> (usize, usize) {
    let starts = count(pair, |event| matches!(event, Event::PeerUp { .. }));
    (starts, count(pair, |event| matches!(event, Event::EspSilent { .. })))
}

/// Lets ten seconds pass. In each of them, the terminal's data plane sends and receives this many packets.
fn exchange(pair: &mut Pair, [sent, received]: [u64; 2]) {
    let here = pair.connected_peers()[0][0];
    for second in 1..=10 {
        let asked = questions(pair);
        pair.pass(SECOND);
        if questions(pair) > asked {
            pair.terminal.endpoint.handle_traffic(pair.now, here, second * sent, second * received);
            pair.settle();
        }
    }
}

#[test]
fn terminal_authenticates_again_if_it_sends_and_nothing_comes() {
    for kind in Kind::ALL {
        for (packets, is_silent) in [([5, 0], true), ([5, 1], false), ([0, 1], false), ([0, 0], false)] {
            let mut pair = connected_by(None, false);
            assert_eq!(move_behind(&mut pair, Some(nat(kind)), ELSEWHERE), [true; 2]);
            assert_eq!(questions(&pair), 0, "packets to the old address may still come");
            exchange(&mut pair, packets);
            pair.pass(10 * SECOND);
            let times = usize::from(is_silent);
            assert_eq!(starts_and_silences(&pair), (1 + times, times), "{packets:?}");
            pair.assert_one_each();
            let view = pair.terminal.endpoint.peers().last().unwrap();
            assert!(view.nat().local);
            assert_eq!(pair.terminal.newest_child().path.udp.is_some(), is_silent, "{packets:?}");
            // It waits as long as it sends nothing, and what has come once shows that more can come.
            exchange(&mut pair, [5, 0]);
            pair.pass(10 * SECOND);
            let times = usize::from(packets[1] == 0);
            assert_eq!(starts_and_silences(&pair), (1 + times, times), "{packets:?}");
        }
    }
}

#[test]
fn packet_without_an_answer_shows_nothing() {
    let mut pair = connected_by(None, false);
    move_behind(&mut pair, Some(nat(Kind::ALL[0])), ELSEWHERE);
    let here = pair.connected_peers()[0][0];
    for second in 0..60 {
        let asked = questions(&pair);
        pair.pass(SECOND);
        if questions(&pair) > asked {
            pair.terminal.endpoint.handle_traffic(pair.now, here, u64::from(second > 10), 0);
            pair.settle();
        }
    }
    assert_eq!(starts_and_silences(&pair), (1, 0));
}

#[test]
fn terminal_does_not_authenticate_again_without_a_reason() {
    let behind = || Some(nat(Kind::ALL[0]));
    // The gateway is Wayfarer, or its packets came in UDP before and may be late, or there is no NAT.
    for (first, knows, then) in
        [(None, true, behind()), (behind(), false, behind()), (behind(), false, None), (None, false, None)]
    {
        let mut pair = connected_by(first, knows);
        let is_asked = then.is_some();
        move_behind(&mut pair, then, ELSEWHERE);
        exchange(&mut pair, [5, 0]);
        pair.pass(10 * SECOND);
        assert_eq!(starts_and_silences(&pair), (1, 0));
        assert_eq!(questions(&pair) > 0, is_asked, "without a NAT, nothing is to be found");
    }
}

/// Its packets came in UDP before. Programs may be silent for some time, too.
#[test]
fn terminal_authenticates_again_after_long_silence_if_packets_have_come_before() {
    for has_received in [true, false] {
        let behind = || Some(nat(Kind::ALL[0]));
        let mut pair = connected_by(behind(), false);
        move_behind(&mut pair, behind(), ELSEWHERE);
        let here = pair.connected_peers()[0][0];
        let mut silent_after = None;
        for second in 1..=60 {
            let asked = questions(&pair);
            pair.pass(SECOND);
            if questions(&pair) > asked {
                let received = 3 * u64::from(has_received);
                pair.terminal.endpoint.handle_traffic(pair.now, here, 5 * second, received);
                pair.settle();
            }
            if starts_and_silences(&pair).1 > 0 {
                silent_after.get_or_insert(second);
            }
        }
        assert_eq!(silent_after.is_some_and(|after| (20..=26).contains(&after)), has_received);
        assert_eq!(starts_and_silences(&pair).1, usize::from(has_received), "{silent_after:?}");
    }
}

#[test]
fn terminal_that_leaves_the_nat_asks_nothing_more() {
    let behind = || Some(nat(Kind::ALL[0]));
    let mut pair = connected_by(None, false);
    move_behind(&mut pair, behind(), ELSEWHERE);
    pair.pass(3 * SECOND);
    assert_eq!(questions(&pair), 1);
    move_behind(&mut pair, None, TERMINAL);
    pair.pass(10 * SECOND);
    assert_eq!(questions(&pair), 1);
}

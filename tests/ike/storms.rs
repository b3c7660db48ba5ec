//! Many terminals in bad weather. A seed that found something stays as a test of its own.

use crate::world::{FAIR, FOUL, World};
use std::{net::SocketAddr, panic, time::Duration};
use wayfarer_mobility::ike::counter::Counter;

const SECOND: Duration = Duration::from_secs(1);
/// Longest silence before a side asks, retransmission until it gives up, a half-open peer's time, and the longest wait
/// before it is dialled again.
const RECOVERY: Duration = Duration::from_secs(30 + 56 + 30 + 60 + 30);

/// Runs a test of a seed, and says which it was where it fails.
fn with_seed(seed: u64, test: impl FnOnce(u64) + panic::UnwindSafe) {
    if let Err(why) = panic::catch_unwind(move || test(seed)) {
        eprintln!("seed {seed:#x}");
        panic::resume_unwind(why);
    }
}

/// Keys change from both sides at once in a network that reorders, and no packet is lost.
fn rekey_in_fair_weather(seed: u64) {
    let mut world = World::new(seed, 20, FAIR);
    world.pass(10 * SECOND);
    world.assert_connected();
    world.pace = Duration::from_millis(20);
    for round in 0..40 {
        for terminal in 0..world.terminals() {
            let mut side = || match world.random.below(4) {
                0 => None,
                1 => Some(true),
                _ => Some(false),
            };
            let (here, there) = (side(), side());
            world.rekey(terminal, here, there);
        }
        let pause = Duration::from_millis(world.random.below(if round % 2 == 0 { 100 } else { 3000 }));
        world.pass(pause);
    }
    // What the other side had no time for is tried again every two seconds, and what is replaced lingers.
    world.pass(30 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert!(world.delivered() > 20_000);
}

/// Terminals move between networks in fair weather, and no packet is lost but those on their way to where a terminal is no more.
fn roam_in_fair_weather(seed: u64) {
    let mut world = World::new(seed, 40, FAIR);
    world.pass(10 * SECOND);
    world.pace = Duration::from_millis(50);
    for _ in 0..200 {
        let terminal = world.random.below(40) as usize;
        match world.random.below(8) {
            0 => {
                let nat = world.random.next();
                world.rebind(nat);
            }
            1 => world.rekey(terminal, Some(false), None),
            2 => world.rekey(terminal, None, Some(true)),
            _ => world.roam(terminal),
        }
        let pause = Duration::from_millis(world.random.below(400));
        world.pass(pause);
    }
    world.pass(20 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert_eq!(world.nodes[0].ends(), [""; 0]);
}

/// All that can happen, in foul weather; then it ends.
fn storm(seed: u64, terminals: usize, steps: u64) {
    let mut world = World::new(seed, terminals, FOUL);
    world.pass(20 * SECOND);
    for step in 0..steps {
        let terminal = world.random.below(terminals as u64) as usize;
        match world.random.below(20) {
            0 => {
                let nat = world.random.next();
                world.rebind(nat);
            }
            1 | 2 => world.rekey(terminal, Some(false), Some(false)),
            3 | 4 => world.rekey(terminal, Some(true), Some(true)),
            5 => world.rekey(terminal, Some(true), Some(false)),
            6 => world.rekey(terminal, Some(false), Some(true)),
            7 => world.rekey(terminal, Some(false), None),
            8 => world.rekey(terminal, None, Some(true)),
            9 => world.hole(terminal, true),
            10 => world.hole(terminal, false),
            11 => world.close(terminal, true),
            12 => world.close(terminal, false),
            13 => world.restart(terminal),
            14 => {
                world.rekey(terminal, Some(false), Some(true));
                world.close(terminal, false);
            }
            15 if step == steps / 2 => world.restart_gateway(),
            _ => world.roam(terminal),
        }
        let pause = Duration::from_millis(world.random.below(500));
        world.pass(pause);
    }
    (0..terminals).for_each(|terminal| world.hole(terminal, false));
    world.weather = FAIR;
    world.pass(RECOVERY);
    world.assert_connected();
    let strays = world.strays();
    world.pass(10 * SECOND);
    assert_eq!(world.strays(), strays, "all is quiet");
    let (datagrams, elapsed) = (world.datagrams, world.now.as_secs() - 1000);
    assert!(datagrams < elapsed * terminals as u64 * 6, "{datagrams} datagrams in {elapsed} s");

    world.silence();
    for terminal in 0..terminals {
        world.close(terminal, true);
    }
    world.pass(120 * SECOND);
    world.nodes[0].assert_empty();
}

#[test]
fn no_packet_is_lost_when_keys_change() {
    (1..=6).for_each(|seed| with_seed(seed, rekey_in_fair_weather));
}

#[test]
fn no_packet_is_lost_when_terminals_move() {
    (1..=6).for_each(|seed| with_seed(seed, roam_in_fair_weather));
}

#[test]
fn all_come_back_after_a_storm() {
    (1..=3).for_each(|seed| with_seed(seed, |seed| storm(seed, 50, 400)));
}

#[test]
fn two_hundred_terminals_come_back_after_a_storm() {
    with_seed(7, |seed| storm(seed, 220, 800));
}

/// All NATs restart at once, and who was behind them is followed after a packet, a question and its answer, with the longest
/// delay of each.
#[test]
fn a_crowd_behind_nats_that_restart_is_followed_within_a_round_trip() {
    with_seed(23, |seed| {
        let mut world = World::new(seed, 200, FAIR);
        world.pass(10 * SECOND);
        world.pace = Duration::from_millis(50);
        world.pass(2 * SECOND);
        let places = |world: &World| -> Vec<SocketAddr> {
            world.nodes[0].endpoint.peers().map(|view| view.addresses().remote).collect()
        };
        let before = places(&world);
        (0..4).for_each(|nat| world.rebind(nat));
        world.pass(world.pace + 3 * Duration::from_millis(FAIR.delay));
        let after = places(&world);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(moved > 64, "{moved} moved");
        world.pass(30 * SECOND);
        assert_eq!(places(&world), after, "nobody came later");
        assert_eq!(world.nodes[0].endpoint.count(Counter::Unconfirmed), 0);
        world.assert_connected();
    });
}

/// The answer to a rekey of a pair that the peer has deleted meanwhile.
#[test]
fn a_pair_that_the_peer_rekeyed_still_receives() {
    with_seed(0x68, rekey_in_fair_weather);
}

/// Keys of the IKE SA and of the pair in it, each refused while the other is under way, several times over.
#[test]
fn what_collides_again_and_again_ends() {
    with_seed(0x8a, rekey_in_fair_weather);
}

/// Where a gateway forgets all, terminals notice and come back.
#[test]
fn all_come_back_to_a_gateway_that_began_anew() {
    with_seed(11, |seed| {
        let mut world = World::new(seed, 50, FOUL);
        world.pass(20 * SECOND);
        world.restart_gateway();
        world.weather = FAIR;
        world.pass(RECOVERY);
        world.assert_connected();
    });
}

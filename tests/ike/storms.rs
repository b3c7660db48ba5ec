//! Many terminals in bad weather. A seed that found something stays as a test of its own.

use crate::world::{NATS, World};
use std::{net::SocketAddr, panic, time::Duration};
use wayfarer::sim::{
    cable::Cable,
    disturbance::{Disturbance, Keys},
    nat::{Behavior, Kind},
};
use wayfarer_mobility::ike::counter::Counter;

const SECOND: Duration = Duration::from_secs(1);
/// Longest silence before a side asks, retransmission until it gives up, a half-open peer's time,
/// and the longest wait before it is dialled again.
const RECOVERY: Duration = Duration::from_secs(30 + 56 + 30 + 60 + 30);

/// The one kind that tests of a seed alone have.
const USUAL: Kind =
    Kind { mapping: Behavior::EndpointIndependent, filtering: Behavior::AddressAndPortDependent };

/// Runs a test of a seed over NATs of a kind, and says which they were if it fails.
fn with_seed(seed: u64, kind: Kind, test: impl FnOnce(u64, Kind) + panic::UnwindSafe) {
    if let Err(why) = panic::catch_unwind(move || test(seed, kind)) {
        eprintln!("seed {seed:#x}, NATs with {kind}");
        panic::resume_unwind(why);
    }
}

/// Runs a test over each kind of NAT, each with a seed of its own from `first` on. The gateway has
/// one address, and terminals speak first and keep their mappings alive, so no kind may make a
/// difference.
fn with_each_kind(first: u64, test: impl Fn(u64, Kind) + Copy + panic::UnwindSafe) {
    (first..).zip(Kind::ALL).for_each(|(seed, kind)| with_seed(seed, kind, test));
}

/// Keys change from both sides at once in a network that reorders, and no packet is lost.
fn rekey_in_fair_weather(seed: u64, kind: Kind) {
    let mut world = World::new(seed, kind, 20, Cable::FAIR);
    world.pass(10 * SECOND);
    world.assert_connected();
    world.pace = Duration::from_millis(20);
    for round in 0..40 {
        for terminal in 0..world.terminals() {
            let mut side = || match world.random.below(4) {
                0 => None,
                1 => Some(Keys::IkeSa),
                _ => Some(Keys::Child),
            };
            let (by_terminal, by_gateway) = (side(), side());
            world.disturb(Disturbance::Rekey { terminal, by_terminal, by_gateway });
        }
        let pause = Duration::from_millis(world.random.below(if round % 2 == 0 { 100 } else { 3000 }));
        world.pass(pause);
    }
    // What the other side had no time for is tried again every two seconds, and what is replaced
    // lingers.
    world.pass(30 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert!(world.delivered() > 20_000);
}

/// Terminals move between networks in fair weather, and no packet is lost but those on their way to
/// where a terminal is no more.
fn roam_in_fair_weather(seed: u64, kind: Kind) {
    let mut world = World::new(seed, kind, 40, Cable::FAIR);
    world.pass(10 * SECOND);
    world.pace = Duration::from_millis(50);
    for _ in 0..200 {
        let terminal = world.random.index(40);
        let disturbance = match world.random.below(8) {
            0 => Disturbance::NatRestart { nat: world.random.index(NATS) },
            1 => rekey(terminal, Some(Keys::Child), None),
            2 => rekey(terminal, None, Some(Keys::IkeSa)),
            _ => Disturbance::Move { terminal, to: world.new_place() },
        };
        world.disturb(disturbance);
        let pause = Duration::from_millis(world.random.below(400));
        world.pass(pause);
    }
    world.pass(20 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert_eq!(world.nodes[0].ends(), [""; 0]);
}

fn rekey(terminal: usize, by_terminal: Option<Keys>, by_gateway: Option<Keys>) -> Disturbance {
    Disturbance::Rekey { terminal, by_terminal, by_gateway }
}

/// All that can happen, in foul weather; then it ends.
fn storm(seed: u64, kind: Kind, terminals: usize, steps: u64) {
    let mut world = World::new(seed, kind, terminals, Cable::FOUL);
    world.pass(20 * SECOND);
    for step in 0..steps {
        let terminal = world.random.index(terminals);
        let (ike_sa, child) = (Some(Keys::IkeSa), Some(Keys::Child));
        let close = |by_gateway| Disturbance::Close { terminal, by_gateway };
        let disturbance = match world.random.below(20) {
            0 => Disturbance::NatRestart { nat: world.random.index(NATS) },
            1 | 2 => rekey(terminal, child, child),
            3 | 4 => rekey(terminal, ike_sa, ike_sa),
            5 => rekey(terminal, ike_sa, child),
            6 => rekey(terminal, child, ike_sa),
            7 => rekey(terminal, child, None),
            8 => rekey(terminal, None, ike_sa),
            9 => Disturbance::BlackHole { terminal },
            10 => Disturbance::Repair { terminal },
            11 => close(true),
            12 => close(false),
            13 => Disturbance::TerminalRestart { terminal },
            14 => {
                world.disturb(rekey(terminal, child, ike_sa));
                close(false)
            }
            15 if step == steps / 2 => Disturbance::GatewayRestart,
            _ => Disturbance::Move { terminal, to: world.new_place() },
        };
        world.disturb(disturbance);
        let pause = Duration::from_millis(world.random.below(500));
        world.pass(pause);
    }
    (0..terminals).for_each(|terminal| world.disturb(Disturbance::Repair { terminal }));
    world.disturb(Disturbance::Cable(Cable::FAIR));
    world.pass(RECOVERY);
    world.assert_connected();
    let strays = world.strays();
    world.pass(10 * SECOND);
    assert_eq!(world.strays(), strays, "all is quiet");
    let (datagrams, elapsed) = (world.datagrams, world.now.as_secs() - 1000);
    assert!(datagrams < elapsed * terminals as u64 * 6, "{datagrams} datagrams in {elapsed} s");

    world.silence();
    for terminal in 0..terminals {
        world.disturb(Disturbance::Close { terminal, by_gateway: true });
    }
    world.pass(120 * SECOND);
    world.nodes[0].assert_empty();
}

#[test]
fn no_packet_is_lost_when_keys_change() {
    with_each_kind(1, rekey_in_fair_weather);
}

#[test]
fn no_packet_is_lost_when_terminals_move() {
    with_each_kind(1, roam_in_fair_weather);
}

#[test]
fn all_come_back_after_a_storm() {
    with_each_kind(1, |seed, kind| storm(seed, kind, 50, 400));
}

#[test]
fn two_hundred_terminals_come_back_after_a_storm() {
    with_seed(7, USUAL, |seed, kind| storm(seed, kind, 220, 800));
}

/// All NATs restart at once, and who was behind them is followed after a packet, a question and its
/// answer, with the longest delay of each.
#[test]
fn a_crowd_behind_nats_that_restart_is_followed_within_a_round_trip() {
    with_each_kind(23, |seed, kind| {
        let mut world = World::new(seed, kind, 200, Cable::FAIR);
        world.pass(10 * SECOND);
        world.pace = Duration::from_millis(50);
        world.pass(2 * SECOND);
        let places = |world: &World| -> Vec<SocketAddr> {
            world.nodes[0].endpoint.peers().map(|view| view.addresses().remote).collect()
        };
        let before = places(&world);
        (0..NATS).for_each(|nat| world.disturb(Disturbance::NatRestart { nat }));
        world.pass(world.pace + 3 * Duration::from_millis(Cable::FAIR.delay));
        let after = places(&world);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(moved > 64, "{moved} moved");
        world.pace = SECOND;
        world.pass(30 * SECOND);
        assert_eq!(places(&world), after, "nobody came later");
        assert_eq!(world.nodes[0].endpoint.count(Counter::Unconfirmed), 0);
        world.assert_connected();
    });
}

/// The answer to a rekey of a pair that the peer has deleted meanwhile.
#[test]
fn a_pair_that_the_peer_rekeyed_still_receives() {
    with_seed(0x68, USUAL, rekey_in_fair_weather);
}

/// Keys of the IKE SA and of the pair in it, each refused while the other is under way, several
/// times over.
#[test]
fn what_collides_again_and_again_ends() {
    with_seed(0x8a, USUAL, rekey_in_fair_weather);
}

/// Where a gateway forgets all, terminals notice and come back.
#[test]
fn all_come_back_to_a_gateway_that_began_anew() {
    with_each_kind(11, |seed, kind| {
        let mut world = World::new(seed, kind, 50, Cable::FOUL);
        world.pass(20 * SECOND);
        world.disturb(Disturbance::GatewayRestart);
        world.disturb(Disturbance::Cable(Cable::FAIR));
        world.pass(RECOVERY);
        world.assert_connected();
    });
}

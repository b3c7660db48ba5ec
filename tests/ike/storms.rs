//! Many terminals under many disturbances. A seed that found a fault stays as a test of its own.

use crate::{
    followup::hybrid,
    node::Habits,
    world::{NATS, World},
};
use std::{panic, time::Duration};
use wayfarer::sim::{
    cable::Cable,
    disturbance::{By, Disturbance, Keys},
    nat::Kind,
};
use wayfarer_mobility::ike::counter::Counter;

const SECOND: Duration = Duration::from_secs(1);
/// Habits of nodes that give crash tokens.
const GIVES_TOKENS: Habits = Habits { crash_tokens: true, ..NONE };
/// No habit.
const NONE: Habits = Habits {
    libreswan_answers: false,
    sends_at_once: false,
    crash_tokens: false,
    without_pfs: false,
    own_order: false,
    without_nat_traversal: false,
    without_fragments: false,
    is_slow: false,
    rekeys_at_once: false,
    closes_during_rekeys: false,
    deletes_during_rekeys: false,
    limits_authentication: false,
    probes_paths: false,
    stays_without_udp: false,
    follows_only_updates: false,
    without_mobike: false,
};
/// Habits of nodes that look for the MTU of their paths.
const PROBES: Habits = Habits { probes_paths: true, ..NONE };
/// The longest recovery: silence until a liveness check, retransmission until it is given up, the
/// lifetime of a half-open peer, and the longest wait before dialling again.
const RECOVERY: Duration = Duration::from_secs(30 + 56 + 30 + 60 + 30);

/// Runs a test with a seed and each kind of NAT, prints both if it fails, and checks that all kinds
/// send and open the same number of packets. No kind may make a difference, because the gateway has
/// one address, and terminals send first and keep their mappings alive.
fn with_each_kind(seed: u64, test: impl Fn(u64, Kind) -> World + Copy + panic::UnwindSafe) {
    let traffic = Kind::ALL.map(|kind| {
        let world = panic::catch_unwind(move || test(seed, kind)).unwrap_or_else(|why| {
            eprintln!("seed {seed:#x}, NATs with {kind}");
            panic::resume_unwind(why)
        });
        world.traffic()
    });
    assert_eq!(traffic, [traffic[0]; Kind::ALL.len()], "seed {seed:#x}");
}

/// Rekeys from both sides at once in a network that reorders, and checks that no packet is lost.
fn rekey_without_loss(mut world: World) -> World {
    world.pass(20 * SECOND);
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
    // Rekeys that the other side postponed are tried again every two seconds, and replaced SAs
    // linger.
    world.pass(30 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert!(world.delivered() > 20_000);
    world
}

/// Moves the terminals of `world`, 40 of them, without loss, and checks that only packets on their way to a
/// left address are lost.
fn roam_without_loss(mut world: World) -> World {
    // Otherwise a restart could give a port to another terminal, which cannot open packets that are
    // on their way to the last one.
    world.networks.nats.iter_mut().for_each(|nat| nat.preserves_ports = false);
    world.pass(10 * SECOND);
    world.pace = Duration::from_millis(50);
    for _ in 0..200 {
        let terminal = world.random.index(40);
        let disturbance = match world.random.below(8) {
            0 => Disturbance::NatRestart { nat: world.random.index(NATS) },
            1 => rekey(terminal, Some(Keys::Child), None),
            2 => rekey(terminal, None, Some(Keys::IkeSa)),
            _ => Disturbance::Move { terminal, to: world.new_attachment() },
        };
        world.disturb(disturbance);
        let pause = Duration::from_millis(world.random.below(400));
        world.pass(pause);
    }
    world.pass(20 * SECOND);
    world.assert_connected();
    assert_eq!(world.strays(), 0);
    assert_eq!(world.nodes[0].logs_of_ended_peers(), [""; 0]);
    world
}

fn rekey(terminal: usize, by_terminal: Option<Keys>, by_gateway: Option<Keys>) -> Disturbance {
    Disturbance::Rekey { terminal, by_terminal, by_gateway }
}

/// Applies all disturbances at random in a network that loses packets, and checks that all
/// terminals recover.
fn storm(mut world: World, steps: u64) -> World {
    let terminals = world.terminals();
    world.pass(20 * SECOND);
    for step in 0..steps {
        let terminal = world.random.index(terminals);
        let (ike_sa, child) = (Some(Keys::IkeSa), Some(Keys::Child));
        let close = |by| Disturbance::Close { terminal, by };
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
            11 => close(By::Gateway),
            12 => close(By::Terminal),
            13 => Disturbance::TerminalRestart { terminal },
            14 => {
                world.disturb(rekey(terminal, child, ike_sa));
                close(By::Terminal)
            }
            15 if step == steps / 2 => Disturbance::GatewayRestart,
            _ => Disturbance::Move { terminal, to: world.new_attachment() },
        };
        world.disturb(disturbance);
        let pause = Duration::from_millis(world.random.below(500));
        world.pass(pause);
    }
    (0..terminals).for_each(|terminal| world.disturb(Disturbance::Repair { terminal }));
    world.cable = Cable::LOSSLESS;
    world.pass(RECOVERY);
    world.assert_connected();
    let strays = world.strays();
    world.pass(10 * SECOND);
    assert_eq!(world.strays(), strays, "no SA is missing any more");
    let (datagrams, elapsed) = (world.datagrams, world.now.as_secs() - 1000);
    assert!(datagrams < elapsed * terminals as u64 * 6, "{datagrams} datagrams in {elapsed} s");

    world.silence();
    for terminal in 0..terminals {
        world.disturb(Disturbance::Close { terminal, by: By::Gateway });
    }
    world.pass(120 * SECOND);
    world.nodes[0].assert_empty();
    world
}

#[test]
fn loses_no_packet_during_rekeys() {
    with_each_kind(1, |seed, kind| rekey_without_loss(World::new(seed, kind, 20, Cable::LOSSLESS)));
}

/// libreswan sends by a new SA at once, so its packets overtake the answer that the SA comes with.
#[test]
fn loses_no_packet_of_terminals_that_send_by_new_sas_at_once() {
    let habits = Habits { sends_at_once: true, ..Habits::default() };
    with_each_kind(1, |seed, kind| {
        let mut world = World::with_habits(habits, seed, kind, 20, Cable::LOSSLESS);
        world.pass(10 * SECOND);
        world.pace = Duration::from_millis(20);
        for _ in 0..20 {
            (0..20).for_each(|terminal| world.disturb(rekey(terminal, None, Some(Keys::Child))));
            let pause = Duration::from_millis(world.random.below(2000));
            world.pass(pause);
        }
        world.pass(10 * SECOND);
        world.assert_connected();
        assert_eq!(world.strays(), 0);
        assert!(world.nodes[0].early > 0, "some packets came before their SA");
        world
    });
}

#[test]
fn loses_no_packet_during_rekeys_with_terminals_of_other_habits() {
    let habits = [
        Habits { without_pfs: true, ..NONE },
        Habits { own_order: true, ..NONE },
        Habits { without_nat_traversal: true, ..NONE },
        Habits { without_fragments: true, ..NONE },
        Habits { is_slow: true, ..NONE },
        Habits { rekeys_at_once: true, ..NONE },
        Habits { without_pfs: true, own_order: true, is_slow: true, rekeys_at_once: true, ..NONE },
    ];
    for (seed, habits) in (1..).zip(habits) {
        eprintln!("{habits:?}");
        with_each_kind(seed, |seed, kind| {
            rekey_without_loss(World::with_habits(habits, seed, kind, 20, Cable::LOSSLESS))
        });
    }
}

#[test]
fn loses_no_packet_during_rekeys_by_several_key_exchanges() {
    with_each_kind(1, |seed, kind| {
        rekey_without_loss(World::with_offer(hybrid(), seed, kind, 20, Cable::LOSSLESS))
    });
}

#[test]
fn loses_no_packet_during_moves() {
    with_each_kind(1, |seed, kind| roam_without_loss(World::new(seed, kind, 40, Cable::LOSSLESS)));
}

/// libreswan returns COOKIE2 only beside NAT_DETECTION. Its moves must be as good as those of others.
#[test]
fn loses_no_packet_during_moves_of_terminals_that_answer_probes_as_libreswan_does() {
    with_each_kind(1, |seed, kind| {
        let others = roam_without_loss(World::new(seed, kind, 40, Cable::LOSSLESS));
        let habits = Habits { libreswan_answers: true, ..Habits::default() };
        let world = roam_without_loss(World::with_habits(habits, seed, kind, 40, Cable::LOSSLESS));
        assert_eq!(world.traffic(), others.traffic());
        world
    });
}

#[test]
fn all_terminals_recover_from_a_storm() {
    with_each_kind(1, |seed, kind| storm(World::new(seed, kind, 50, Cable::LOSSY), 400));
}

#[test]
fn all_terminals_recover_from_a_storm_with_several_key_exchanges() {
    with_each_kind(1, |seed, kind| storm(World::with_offer(hybrid(), seed, kind, 30, Cable::LOSSY), 400));
}

#[test]
fn all_terminals_recover_from_a_storm_with_crash_tokens() {
    with_each_kind(1, |seed, kind| {
        storm(World::with_habits(GIVES_TOKENS, seed, kind, 50, Cable::LOSSY), 400)
    });
}

#[test]
fn terminals_of_other_habits_recover_from_a_storm() {
    let habits = Habits {
        without_pfs: true,
        own_order: true,
        without_fragments: true,
        is_slow: true,
        rekeys_at_once: true,
        closes_during_rekeys: true,
        deletes_during_rekeys: true,
        ..NONE
    };
    with_each_kind(1, |seed, kind| storm(World::with_habits(habits, seed, kind, 50, Cable::LOSSY), 400));
}

/// Moves all terminals at once.
fn move_all(world: &mut World) {
    for terminal in 0..world.terminals() {
        let to = world.new_attachment();
        world.disturb(Disturbance::Move { terminal, to });
    }
}

#[test]
fn terminals_without_mobike_connect_anew_from_each_new_address() {
    let habits = Habits { without_nat_traversal: true, ..NONE };
    with_each_kind(3, |seed, kind| {
        let mut world = World::with_habits(habits, seed, kind, 20, Cable::LOSSLESS);
        world.pass(10 * SECOND);
        for _ in 0..5 {
            move_all(&mut world);
            // They wait for a second.
            world.pass(5 * SECOND);
            world.assert_connected();
        }
        world
    });
}

/// libreswan's gateway stays without UDP if a terminal that connected so moves behind a NAT. Then nothing
/// arrives, although IKE goes on.
#[test]
fn terminals_behind_nats_come_to_terms_with_a_gateway_that_stays_without_udp() {
    let habits = Habits { stays_without_udp: true, ..NONE };
    with_each_kind(5, |seed, kind| {
        let mut world = World::with_habits(habits, seed, kind, 40, Cable::LOSSLESS);
        world.pass(10 * SECOND);
        let delivered = |world: &World| world.nodes.iter().map(|node| node.delivered).collect::<Vec<_>>();
        for _ in 0..3 {
            move_all(&mut world);
            world.pass(15 * SECOND);
            let before = delivered(&world);
            world.pass(10 * SECOND);
            let after = delivered(&world);
            let least = before.iter().zip(&after).map(|(before, after)| after - before).min();
            assert!(least >= Some(8), "{before:?} {after:?}");
        }
        world.pass(30 * SECOND);
        world.assert_connected();
        assert!(world.nodes[0].endpoint.count(Counter::Established) > 40, "nobody had to authenticate again");
        world
    });
}

/// Checks that probes disturb nothing else, and find what the networks take.
#[test]
fn terminals_that_look_for_the_mtu_of_their_paths_rekey_roam_and_recover() {
    with_each_kind(1, |seed, kind| {
        let world = rekey_without_loss(World::with_habits(PROBES, seed, kind, 20, Cable::LOSSLESS));
        let mtus: Vec<_> = world.nodes.iter().flat_map(|node| node.path_mtus()).collect();
        assert!(mtus.len() == 40 && mtus.iter().all(|mtu| matches!(mtu, Some(1380 | 1400))), "{mtus:?}");
        world
    });
    with_each_kind(1, |seed, kind| {
        let world = roam_without_loss(World::with_habits(PROBES, seed, kind, 40, Cable::LOSSLESS));
        let unconfirmed = world.nodes[0].endpoint.count(Counter::Unconfirmed);
        assert!(unconfirmed <= 4, "no more than without probes: {unconfirmed}");
        world
    });
    with_each_kind(1, |seed, kind| storm(World::with_habits(PROBES, seed, kind, 50, Cable::LOSSY), 400));
}

#[test]
fn two_hundred_terminals_recover_from_a_storm() {
    with_each_kind(7, |seed, kind| storm(World::new(seed, kind, 220, Cable::LOSSY), 800));
}

/// Checks that after a restart of all NATs, every terminal behind them is followed within a packet,
/// a probe and its answer, at the longest delay of each.
#[test]
fn all_terminals_behind_restarted_nats_are_followed_within_a_round_trip() {
    with_each_kind(23, |seed, kind| {
        let mut world = World::new(seed, kind, 200, Cable::LOSSLESS);
        world.pass(10 * SECOND);
        world.pace = Duration::from_millis(50);
        world.pass(2 * SECOND);
        let before = world.remotes();
        (0..NATS).for_each(|nat| world.disturb(Disturbance::NatRestart { nat }));
        world.pass(world.pace + 3 * Duration::from_millis(Cable::LOSSLESS.delay));
        let after = world.remotes();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(moved > 64, "{moved} moved");
        world.pace = SECOND;
        world.pass(30 * SECOND);
        assert_eq!(world.remotes(), after, "all moves were followed in time");
        assert_eq!(world.nodes[0].endpoint.count(Counter::Unconfirmed), 0);
        world.assert_connected();
        world
    });
}

/// Lets time pass, and returns the longest time in which each terminal opened no packet.
fn darkness(world: &mut World, time: Duration) -> Vec<Duration> {
    let mut last: Vec<_> = world.nodes.iter().map(|node| (node.delivered, world.now)).collect();
    let mut longest = vec![Duration::ZERO; last.len()];
    let until = world.now + time;
    while world.now < until {
        world.pass(SECOND / 4);
        for ((node, last), longest) in world.nodes.iter().zip(&mut last).zip(&mut longest) {
            if node.delivered != last.0 {
                *last = (node.delivered, world.now);
            }
            *longest = world.now.saturating_sub(last.1).max(*longest);
        }
    }
    longest
}

/// libreswan's gateway follows neither ESP nor IKE from elsewhere, and does not say that it hears a terminal
/// there. Terminals have to find by silence that the NAT in front of them has given them another port, and
/// announce that (RFC 4555 §3.8), and nothing else.
#[test]
fn terminals_behind_restarted_nats_tell_a_gateway_that_follows_only_updates() {
    for probes_paths in [false, true] {
        let habits = Habits { follows_only_updates: true, probes_paths, ..NONE };
        with_each_kind(23, |seed, kind| {
            let mut world = World::with_habits(habits, seed, kind, 40, Cable::LOSSLESS);
            world.pass(15 * SECOND);
            // New keys of IKE SAs change what the gateway answers, but no mapping.
            (0..40).for_each(|terminal| world.disturb(rekey(terminal, Some(Keys::IkeSa), None)));
            assert!(darkness(&mut world, 60 * SECOND).iter().all(|dark| *dark <= SECOND * 5 / 4));
            assert_eq!(world.updates(), 0);
            let before = world.remotes();
            (0..NATS).for_each(|nat| world.disturb(Disturbance::NatRestart { nat }));
            let dark = darkness(&mut world, 60 * SECOND);
            assert!(dark.iter().all(|dark| *dark <= 8 * SECOND), "{dark:?}");
            let after = world.remotes();
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            assert!(moved > 10, "{moved} moved");
            assert_eq!(world.updates(), moved as u64);
            assert_eq!(world.nodes[0].endpoint.count(Counter::Unconfirmed), 0);
            world.assert_connected();
            world
        });
    }
}

/// Without MOBIKE nothing can be announced, so they authenticate again.
#[test]
fn terminals_without_mobike_behind_restarted_nats_authenticate_again() {
    let habits = Habits { follows_only_updates: true, without_mobike: true, ..NONE };
    with_each_kind(23, |seed, kind| {
        let mut world = World::with_habits(habits, seed, kind, 40, Cable::LOSSLESS);
        world.pass(15 * SECOND);
        (0..40).for_each(|terminal| world.disturb(rekey(terminal, Some(Keys::IkeSa), None)));
        assert!(darkness(&mut world, 60 * SECOND).iter().all(|dark| *dark <= SECOND * 5 / 4));
        let peers = |world: &World| (0..40).map(|terminal| world.peers(terminal).1).collect::<Vec<_>>();
        let (before, starts) = (peers(&world), world.nodes[0].endpoint.count(Counter::Established));
        (0..NATS).for_each(|nat| world.disturb(Disturbance::NatRestart { nat }));
        let dark = darkness(&mut world, 60 * SECOND);
        assert!(dark.iter().all(|dark| *dark <= 12 * SECOND), "{dark:?}");
        // The old IKE SAs are given up, because the gateway has forgotten them.
        world.pass(60 * SECOND);
        let after = peers(&world);
        let renewed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(renewed > 10, "{renewed} renewed");
        let more = world.nodes[0].endpoint.count(Counter::Established) - starts;
        assert_eq!(more, renewed as u64, "each once");
        world.assert_connected();
        world
    });
}

#[test]
fn all_terminals_return_to_a_restarted_gateway() {
    with_each_kind(11, |seed, kind| {
        let mut world = World::new(seed, kind, 50, Cable::LOSSY);
        world.pass(20 * SECOND);
        world.disturb(Disturbance::GatewayRestart);
        world.cable = Cable::LOSSLESS;
        world.pass(RECOVERY);
        world.assert_connected();
        world
    });
}

/// Checks that terminals with a token notice a restart of the gateway by their first liveness check.
#[test]
fn all_terminals_return_to_a_restarted_gateway_at_once() {
    with_each_kind(11, |seed, kind| {
        let mut world = World::with_habits(GIVES_TOKENS, seed, kind, 50, Cable::LOSSLESS);
        world.pass(20 * SECOND);
        world.disturb(Disturbance::GatewayRestart);
        // Until a liveness check finds that nothing came since the one before, and the first dial.
        world.pass((2 * 30 + 3) * SECOND);
        world.assert_connected();
        world
    });
}

/// Checks that keepalives alone are enough, even for NATs whose mappings expire soon.
#[test]
fn keepalives_preserve_nat_mappings_of_quiet_terminals() {
    with_each_kind(31, |seed, kind| {
        let mut world = World::new(seed, kind, 40, Cable::LOSSLESS);
        world.pass(10 * SECOND);
        world.pace = Duration::from_secs(3600);
        world.pass(2 * SECOND);
        let before = world.remotes();
        world.pass(600 * SECOND);
        assert_eq!(world.remotes(), before);
        world.assert_connected();
        world
    });
}

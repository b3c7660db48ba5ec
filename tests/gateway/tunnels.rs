//! Tunnels that are added to and removed from a running gateway.

use wayfarer::config::model::{Policy, PolicyAction};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::drop::DropReason;

const OUTER: &str = "192.0.2.1";

/// Sends a packet in each direction through tunnel `n`; returns how many arrived.
fn through(world: &mut World, terminal: &mut Terminal, n: u32) -> usize {
    let inner = format!("10.98.0.{n}");
    let up = terminal.seal(&datagram(&inner, "10.99.0.7", (1, 2), b"up"));
    world.send(OUTSIDE, &up);
    world.send(INSIDE, &datagram("10.99.0.7", &inner, (2, 1), b"down"));
    world.take(OUTSIDE).len() + world.take(INSIDE).len()
}

#[test]
fn removed_tunnel_carries_nothing_and_others_go_on() {
    let suite = suite("aes128gcm16");
    let mut world = World::new(vec![tunnel(1, suite), tunnel(2, suite)]);
    world.meet_neighbours();
    let [mut one, mut two] = [1, 2].map(|n| Terminal::new(n, suite, OUTER));
    assert_eq!((through(&mut world, &mut one, 1), through(&mut world, &mut two, 2)), (2, 2));

    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    assert!(!world.assembly.slow_path.remove_tunnel("t1"), "it was removed already");
    assert_eq!((through(&mut world, &mut one, 1), through(&mut world, &mut two, 2)), (0, 2));
    assert_eq!((world.drops(DropReason::UnknownSpi), world.drops(DropReason::NoPolicy)), (1, 1));

    // The new tunnel starts with its own sequence numbers and window.
    world.assembly.slow_path.install_tunnel(&tunnel(1, suite)).unwrap();
    let mut again = Terminal::new(1, suite, OUTER);
    assert_eq!((through(&mut world, &mut again, 1), through(&mut world, &mut two, 2)), (2, 2));
}

#[test]
fn removal_keeps_another_tunnel_of_the_same_prefix() {
    let suite = suite("aes128gcm16");
    let mut second = tunnel(2, suite);
    second.selectors = tunnel(1, suite).selectors;
    let mut world = World::new(vec![tunnel(1, suite), second]);
    world.meet_neighbours();
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    let mut terminal = Terminal::new(2, suite, OUTER);
    assert_eq!(through(&mut world, &mut terminal, 1), 2);
}

#[test]
fn later_tunnel_goes_before_a_policy_of_the_same_prefix() {
    let suite = suite("aes128gcm16");
    let mut config = config(vec![tunnel(1, suite)]);
    let selector = config.tunnels[0].selectors[0].clone();
    config.policies.push(Policy { selector, action: PolicyAction::Bypass });
    let mut world = World::with(config, 64);
    world.meet_neighbours();
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    world.assembly.slow_path.install_tunnel(&tunnel(1, suite)).unwrap();
    let mut terminal = Terminal::new(1, suite, OUTER);
    assert_eq!(through(&mut world, &mut terminal, 1), 2);
    assert_eq!(world.counters().sealed.value(), 1);
}

#[test]
fn timers_of_a_removed_tunnel_do_not_fire() {
    let suite = suite("aes128gcm16");
    let mut short = tunnel(1, suite);
    short.hard_time = Some(std::time::Duration::from_secs(5));
    let mut world = World::new(vec![short]);
    world.meet_neighbours();
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    world.assembly.slow_path.install_tunnel(&tunnel(1, suite)).unwrap();
    world.pass(std::time::Duration::from_secs(6));
    let mut terminal = Terminal::new(1, suite, OUTER);
    assert_eq!(through(&mut world, &mut terminal, 1), 2);
}

//! Tunnels that are added to and removed from a gateway at work.

use wayfarer::config::model::{Policy, PolicyAction};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::drop::DropReason;

const OUTER: &str = "192.0.2.1";

/// Sends a packet each way through tunnel `n`; answers how many came through.
fn through(world: &mut World, terminal: &mut Terminal, n: u32) -> usize {
    let inner = format!("10.98.0.{n}");
    let up = terminal.seal(&datagram(&inner, "10.99.0.7", (1, 2), b"up"));
    world.send(OUTSIDE, &up);
    world.send(INSIDE, &datagram("10.99.0.7", &inner, (2, 1), b"down"));
    world.take(OUTSIDE).len() + world.take(INSIDE).len()
}

#[test]
fn a_removed_tunnel_carries_nothing_and_the_others_go_on() {
    let suite = suite("aes128gcm16");
    let mut world = World::new(vec![tunnel(1, suite), tunnel(2, suite)]);
    world.meet_neighbours();
    let [mut one, mut two] = [1, 2].map(|n| Terminal::new(n, suite, OUTER));
    assert_eq!((through(&mut world, &mut one, 1), through(&mut world, &mut two, 2)), (2, 2));

    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    assert!(!world.assembly.slow_path.remove_tunnel("t1"), "it is gone");
    assert_eq!((through(&mut world, &mut one, 1), through(&mut world, &mut two, 2)), (0, 2));
    assert_eq!((world.drops(DropReason::UnknownSpi), world.drops(DropReason::NoPolicy)), (1, 1));

    // With a key of its own life: numbers begin again.
    world.assembly.slow_path.install_tunnel(&tunnel(1, suite)).unwrap();
    let mut again = Terminal::new(1, suite, OUTER);
    assert_eq!((through(&mut world, &mut again, 1), through(&mut world, &mut two, 2)), (2, 2));
}

#[test]
fn tunnels_of_one_prefix_are_told_apart() {
    let suite = suite("aes128gcm16");
    let mut second = tunnel(2, suite);
    second.selectors = tunnel(1, suite).selectors;
    let mut world = World::new(vec![tunnel(1, suite), second]);
    world.meet_neighbours();
    assert!(world.assembly.slow_path.remove_tunnel("t1"));
    let mut terminal = Terminal::new(2, suite, OUTER);
    assert_eq!(through(&mut world, &mut terminal, 1), 2);
}

/// A policy of the same prefix must not uncover what a tunnel that comes later protects.
#[test]
fn a_tunnel_added_at_work_goes_before_a_policy() {
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
fn a_removed_tunnel_leaves_no_timer_that_acts() {
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

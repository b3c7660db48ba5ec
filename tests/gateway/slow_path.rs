//! The slow path's counters, which add up as those of workers do. [`World`] checks the sum, and that workers
//! and the slow path count the same frames between them, whenever it settles.

use std::{collections::BTreeMap, time::Duration};
use wayfarer::{
    control::protocol::{Answer, Command, Outcome, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::drop::DropReason::*;

const SUITE: &str = "aes128gcm16";

/// Asks for the slow path's counters.
pub(crate) const SHOW: Command = Command::Show { what: View::SlowPath };

/// Returns the slow path's counters, which must add up, from the answer to [`SHOW`].
pub(crate) fn counters_in(answer: Answer) -> BTreeMap<String, u64> {
    let Outcome::Result(Reply::SlowPath(all)) = answer.outcome else { panic!("{answer:?}") };
    let counters: BTreeMap<_, _> = all.into_iter().map(|counter| (counter.name, counter.count)).collect();
    let sum = |names: &[&str]| names.iter().map(|name| counters[*name]).sum::<u64>();
    let came = sum(&["punted", "received", "made"]);
    assert_eq!(came, sum(&["injected", "sent", "consumed", "dropped", "waiting"]), "{counters:?}");
    counters
}

/// A gateway, a terminal that has sent a packet to it, and the slow path's counters.
struct Counted {
    world: World,
    terminal: Terminal,
    before: BTreeMap<String, u64>,
}

impl Counted {
    fn new() -> Self {
        let mut world = World::new(vec![tunnel(1, suite(SUITE))]);
        world.meet_neighbours();
        let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
        world.send(OUTSIDE, &terminal.seal(&to_station("10.99.0.7")));
        assert_eq!(world.take(INSIDE).len(), 1);
        let before = counters_in(world.ask(SHOW));
        Self { world, terminal, before }
    }

    /// Returns the counters that have changed since the last call, by name.
    fn changes(&mut self) -> Vec<String> {
        let now = counters_in(self.world.ask(SHOW));
        let changed = now.iter().map(|(name, count)| (name, *count as i64 - self.before[name] as i64));
        let changed = changed.filter(|(_, change)| *change != 0);
        let changed = changed.map(|(name, change)| format!("{name} {change:+}")).collect();
        self.before = now;
        changed
    }
}

fn to_station(address: &str) -> Vec<u8> {
    datagram("10.98.0.1", address, (1, 2), b"up")
}

#[test]
fn question_is_consumed_and_its_answer_is_made() {
    let mut counted = Counted::new();
    // A station on each wire asks for the gateway's MAC address.
    counted.world.meet_neighbours();
    assert_eq!(counted.changes(), ["consumed +2", "injected +2", "made +2", "punted +2"]);
}

#[test]
fn copy_of_a_dropped_packet_is_consumed_and_the_answer_to_its_sender_is_made() {
    let mut counted = Counted::new();
    counted.world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), &[7; 1472]));
    assert_eq!((counted.world.drops(TooBig), counted.world.take(INSIDE).len()), (1, 1));
    assert_eq!(counted.changes(), ["consumed +1", "injected +1", "made +1", "punted +1"]);
}

#[test]
fn message_without_key_exchange_is_dropped() {
    let mut counted = Counted::new();
    counted.world.send(OUTSIDE, &datagram("192.0.2.9", "203.0.113.1", (500, 500), &[0x29; 100]));
    assert_eq!(counted.world.slow_drops(NoKeyExchange), 1);
    assert_eq!(counted.changes(), ["dropped +1", "punted +1"]);
}

#[test]
fn packet_waits_for_its_next_hop_until_that_answers_or_is_given_up() {
    let mut counted = Counted::new();
    let packets =
        [counted.terminal.seal(&to_station("10.99.0.9")), counted.terminal.seal(&to_station("10.99.0.9"))];
    counted.world.answer_neighbours = false;
    counted.world.send(OUTSIDE, &packets[0]);
    // The question is made.
    assert_eq!(counted.changes(), ["injected +1", "made +1", "punted +1", "waiting +1"]);
    counted.world.pass(Duration::from_secs(4));
    assert_eq!(counted.world.slow_drops(NeighbourFailed), 1);
    // Two more questions, and an ICMP error to the sender.
    assert_eq!(counted.changes(), ["dropped +1", "injected +3", "made +3", "waiting -1"]);
    counted.world.answer_neighbours = true;
    counted.world.out = Default::default();
    counted.world.send(OUTSIDE, &packets[1]);
    assert_eq!(counted.world.take(INSIDE), [forwarded(&to_station("10.99.0.9"))]);
    // The station's answer is consumed, and the packet goes back to the worker.
    assert_eq!(counted.changes(), ["consumed +1", "injected +2", "made +1", "punted +2"]);
}

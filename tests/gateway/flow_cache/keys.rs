//! Keys of removed SAs are wiped at the next quiescent point, although flows through them are remembered.

use super::{
    gateway::{Spec, TestGateway, inner, path, server},
    known::Known,
};
use std::sync::{Arc, Weak};
use wayfarer::sim::{
    fixtures::*,
    frames::{datagram, udp_packet},
    terminal::Terminal,
    world::World,
};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Encap, InboundSa, OutboundSa},
};

/// Both SAs of a tunnel, which this does not keep alive.
struct Ghost {
    outbound: Weak<OutboundSa>,
    inbound: Weak<InboundSa>,
}

/// The holders of the SAs of a tunnel in use: the test's pair; for each of two prefixes, the table's rules
/// and the test's own; the table of SPIs.
const IN_USE: (usize, usize) = (1 + 2 * 2, 1 + 1);

impl Ghost {
    fn new(outbound: &Arc<OutboundSa>, inbound: &Arc<InboundSa>) -> Self {
        Self { outbound: Arc::downgrade(outbound), inbound: Arc::downgrade(inbound) }
    }

    /// Returns how often the outbound and the inbound SA are held.
    fn holders(&self) -> (usize, usize) {
        (self.outbound.strong_count(), self.inbound.strong_count())
    }
}

/// Makes the tests' own handle of the SAs of terminal `n` one that keeps nothing alive.
fn forget(gateway: &mut TestGateway, n: u32) -> Ghost {
    let pair = gateway.pairs.remove(&n).expect("a tunnel");
    Ghost::new(&pair.outbound, &pair.inbound)
}

#[test]
fn sas_of_remembered_flows_are_freed_at_the_next_quiescent_point() {
    let mut known = Known::new();
    known.gateway.end(1);
    let ghost = forget(&mut known.gateway, 1);
    assert!(known.gateway.worker.writer.collect() > 0, "the worker may still read them");
    assert_ne!(ghost.holders(), (0, 0));
    // A turn without packets.
    assert!(!known.gateway.worker.turn());
    assert_eq!(known.gateway.worker.writer.collect(), 0);
    assert_eq!(ghost.holders(), (0, 0), "a key is still in memory");
    // What is remembered of them is not looked at any more.
    assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (0, 0));
    assert_eq!(known.gateway.drops(), [(DropReason::UnknownSpi, 1), (DropReason::NoPolicy, 1)]);
}

#[test]
fn sas_are_freed_after_a_turn_in_which_their_flows_were_still_used() {
    let mut known = Known::new();
    for _ in 0..3 {
        // On their wires when the tunnel ends.
        known.gateway.put(INSIDE, &Known::down(64));
        let sealed = known.terminal.seal(&Known::up(64));
        known.gateway.put(OUTSIDE, &sealed);
        known.gateway.end(1);
        let ghost = forget(&mut known.gateway, 1);
        assert!(known.gateway.worker.turn());
        assert_eq!((known.gateway.worker.writer.collect(), ghost.holders()), (0, (0, 0)));
        let spec = Spec::new(1);
        known.gateway.install(&spec);
        known.terminal = spec.terminal();
        known.assert_known();
    }
    // Each turn began after the end of the tunnel.
    assert_eq!(known.gateway.drops(), [(DropReason::UnknownSpi, 3), (DropReason::NoPolicy, 3)]);
}

#[test]
fn no_key_of_many_generations_is_left() {
    let mut known = Known::new();
    let mut ghosts = vec![];
    for generation in 1..=100 {
        known.gateway.end(1);
        ghosts.push(forget(&mut known.gateway, 1));
        let spec = Spec { generation, ..Spec::new(1) };
        known.gateway.install(&spec);
        known.terminal = spec.terminal();
        // Flows of the old SAs that are decided anew, and others that are not.
        known.gateway.move_to(1, path(1, generation, Encap::None), 1500);
        for _ in 0..generation % 4 {
            assert_eq!((known.send_down(64).len(), known.send_up(64).len()), (1, 1), "{generation}");
        }
        known.gateway.settle();
        assert!(ghosts.iter().all(|ghost| ghost.holders() == (0, 0)), "generation {generation}");
    }
    let pair = &known.gateway.pairs[&1];
    assert_eq!(Ghost::new(&pair.outbound, &pair.inbound).holders(), IN_USE);
}

#[test]
fn flows_that_are_remembered_hold_no_sa() {
    let specs: Vec<_> = (0..40).map(Spec::new).collect();
    let mut gateway = TestGateway::new(1 << 14, false, &specs);
    let mut terminals: Vec<_> = specs.iter().map(Spec::terminal).collect();
    for round in 0..3 {
        for (spec, terminal) in specs.iter().zip(&mut terminals) {
            let down: Vec<_> =
                (0..8).map(|port| udp_packet(server(0), inner(spec.n), (53, port), &[7; 64])).collect();
            assert_eq!(gateway.exchange(INSIDE, &down, OUTSIDE).len(), 8, "{round}");
            let up = terminal.seal(&udp_packet(inner(spec.n), server(0), (1, 53), b"up"));
            assert_eq!(gateway.exchange(OUTSIDE, &[up], INSIDE).len(), 1, "{round}");
        }
    }
    let hits = gateway.worker.counters.flow_hits.value();
    assert!(hits > 600, "only {hits} packets were of remembered flows");
    for n in 0..40 {
        let pair = &gateway.pairs[&n];
        let ghost = Ghost::new(&pair.outbound, &pair.inbound);
        assert_eq!(ghost.holders(), IN_USE, "terminal {n}");
    }
}

#[test]
fn slow_path_that_removes_a_tunnel_has_its_keys_wiped() {
    let suite = suite("aes128gcm16");
    let mut world = World::new(vec![tunnel(1, suite)]);
    world.meet_neighbours();
    for _ in 0..5 {
        let mut terminal = Terminal::new(1, suite, "192.0.2.1");
        for _ in 0..4 {
            world.send(OUTSIDE, &terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up")));
            world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
            assert_eq!(
                (world.take(INSIDE).len(), world.take(OUTSIDE).len()),
                (1, 1),
                "{:?}",
                world.all_drops()
            );
        }
        let tunnels = world.assembly.slow_path.tunnels();
        let pair = tunnels.get(tunnels.named("t1").unwrap()).unwrap();
        let ghost = Ghost::new(&pair.outbound, &pair.inbound);
        assert!(world.assembly.slow_path.remove_tunnel("t1"));
        world.settle();
        assert_eq!(ghost.holders(), (0, 0), "a key is still in memory");
        world.assembly.slow_path.install_tunnel(&tunnel(1, suite)).unwrap();
    }
}

//! Floods to and from the kernel's side of a port: rate limits, rings, and no frame lost to the
//! pool.

use super::kernel::*;
use std::time::Instant;
use wayfarer::sim::{fixtures::*, frames::*, world::World};
use wayfarer_dataplane::{drop::DropReason::*, wire::ip::protocol};

#[test]
fn flood_reaches_the_kernel_at_its_rate_and_disturbs_no_traffic() {
    const FLOOD: u64 = 100_000;
    const RATE: f64 = 5000.0;
    let began = Instant::now();
    let (mut world, kernel) = gateway(RATE as u32, 4096, |_| {});
    let down = to_gateway(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
    let hello = inside_out(&packet("203.0.113.1", "192.0.2.9", protocol::ICMP, &[0; 8]));
    let kinds =
        [lldp(), ospf("203.0.113.254"), outside(&datagram("192.0.2.9", "203.0.113.1", (9, 22), b"?"))];
    let (mut admitted, mut sealed, mut answers) = (0, 0, 0);
    for sent in (0..FLOOD).step_by(64) {
        for n in (sent..FLOOD).take(64) {
            assert!(world.wires[OUTSIDE].send(&kinds[n as usize % kinds.len()]));
        }
        assert!(world.wires[INSIDE].send(&down) && kernel.send(&hello));
        // One turn per burst, so that the worker is never idle.
        world.assembly.workers[0].0.turn();
        for out in received(&world.wires[OUTSIDE]) {
            if out == hello { answers += 1 } else { sealed += 1 }
        }
        admitted += received(&kernel).len() as u64;
        if sent % 6400 == 0 {
            world.assembly.slow_path.turn(world.now);
        }
    }
    let bursts = FLOOD.div_ceil(64);
    assert!(answers + 32 > bursts, "a busy worker also serves the kernel's side: {answers}");
    world.settle();
    // Neighbour traffic and traffic to the host have a limit each.
    let possible = 2.0 * (2.0 * RATE / 10.0 + RATE * began.elapsed().as_secs_f64());
    admitted += received(&kernel).len() as u64;
    answers += world.out[OUTSIDE].iter().filter(|frame| **frame == hello).count() as u64;
    assert_eq!(admitted + world.drops(ExceptionLimit), FLOOD);
    assert_eq!(world.all_drops(), [(ExceptionLimit, FLOOD - admitted)]);
    assert!((RATE as u64 / 10..=possible as u64).contains(&admitted), "{admitted} of {possible}");
    assert_eq!((sealed, answers), (bursts, bursts));
}

#[test]
fn flood_of_either_kind_leaves_the_other_its_rate() {
    let host = outside(&datagram("192.0.2.9", "203.0.113.1", (9, 22), b"?"));
    let hello = ospf("203.0.113.254");
    let arp_request = arp([203, 0, 113, 254], [203, 0, 113, 77]);
    for (flood, others) in [(&host, [&hello, &arp_request, &lldp()]), (&hello, [&host; 3])] {
        let (mut world, kernel) = gateway(1, 512, |_| {});
        for _ in 0..200 {
            at_kernel(&mut world, &kernel, OUTSIDE, flood);
        }
        assert!(world.drops(ExceptionLimit) > 100);
        for frame in others {
            assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, frame), std::slice::from_ref(frame));
        }
    }
}

#[test]
fn flood_of_neighbour_frames_keeps_the_rate() {
    let began = Instant::now();
    let (mut world, kernel) = gateway(1, 512, |_| {});
    let (mut admitted, mut refused) = (0, 0);
    for host in 0..200 {
        let frame = arp([203, 0, 113, 254], [203, 0, 113, host]);
        match at_kernel(&mut world, &kernel, OUTSIDE, &frame).len() {
            0 => refused += 1,
            _ => admitted += 1,
        }
    }
    // Resolving the neighbours took one token.
    let possible = 32 + began.elapsed().as_secs();
    assert!((31..=possible).contains(&admitted), "{admitted} of {possible}");
    assert_eq!(refused, world.drops(ExceptionLimit));
}

#[test]
fn full_ring_to_the_kernel_loses_only_its_own_frames() {
    let (mut world, kernel) = gateway(1_000_000, 4, |_| {});
    (0..20).for_each(|_| assert!(world.wires[OUTSIDE].send(&lldp())));
    world.put(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
    world.settle();
    assert_eq!((received(&kernel).len(), world.all_drops()), (4, vec![(TxRingFull, 16)]));
    assert_eq!(world.take(OUTSIDE).len(), 1);
}

#[test]
fn pool_gets_every_frame_back() {
    let (mut world, kernel) = gateway(1, 4, |_| {});
    let free = |world: &mut World| {
        world.assembly.workers[0].0.run(&std::sync::atomic::AtomicBool::new(true));
        world.counters().free_frames.value()
    };
    let before = free(&mut world);
    for _ in 0..100 {
        for frame in [lldp(), arp([203, 0, 113, 9], [203, 0, 113, 77]), outside(&[]), ospf("10.98.0.1")] {
            assert!(world.wires[OUTSIDE].send(&frame) && kernel.send(&frame));
        }
        world.settle();
    }
    assert_eq!(free(&mut world), before);
}

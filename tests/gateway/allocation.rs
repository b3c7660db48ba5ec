//! The fast path allocates nothing after its start, for any packet, and while the slow path changes
//! tables.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use wayfarer::{
    config::model::Remote,
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{drop::DropReason, sa::PortRange, wire::ip::protocol};

/// Counts this thread's allocations while [`COUNTING`] is set. Other tests may run in other
/// threads.
struct CountingAllocator;

thread_local! {
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if COUNTING.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: the system allocator does all the work; counting only touches thread-local cells, which
// do not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Returns how often this thread allocates or frees memory in `run`.
pub(crate) fn counted(run: impl FnOnce()) -> u64 {
    ALLOCATIONS.set(0);
    COUNTING.set(true);
    run();
    COUNTING.set(false);
    ALLOCATIONS.get()
}

/// Turns the worker alone until it is idle; returns how often it allocated or freed.
fn allocations(world: &mut World) -> u64 {
    let (worker, _) = &mut world.assembly.workers[0];
    counted(|| while worker.turn() {})
}

#[test]
fn counts_allocations_and_frees() {
    assert_eq!(counted(|| drop(std::hint::black_box(Box::new(7)))), 2);
}

#[test]
fn workers_allocate_for_no_packet() {
    for name in ["aes128gcm16", "aes256-sha256", "chacha20poly1305", "aes128gmac", "null-sha1"] {
        let suite = suite(name);
        let mut for_port = tunnel(3, suite);
        for_port.remote = Remote::At(ip("192.0.2.3"), 4500);
        for_port.selectors.truncate(1);
        for_port.selectors[0].protocol = Some(protocol::UDP);
        for_port.selectors[0].remote_ports = PortRange { first: 1, last: 1 };
        let mut world = World::new(vec![tunnel(1, suite), tunnel(2, suite), for_port]);
        world.meet_neighbours();
        let mut one = Terminal::new(1, suite, "192.0.2.1");
        let mut two = Terminal::new(2, suite, "192.0.2.2");
        let mut three = Terminal::new(3, suite, "192.0.2.3");
        let up = |n: u32, size| datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), &vec![1; size]);
        let down = |n: u32, size| datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), &vec![1; size]);
        // With the first packets, threads set up their state, and the gateway learns its peers'
        // addresses.
        world.send(OUTSIDE, &one.seal(&up(1, 9)));
        world.send(OUTSIDE, &two.seal(&up(2, 9)));
        world.send(INSIDE, &down(1, 9));
        for round in 0..50 {
            // A move, a replay, a forgery, a fragment, a packet that is too big, unknown senders, a
            // control message.
            two.address = ip(&format!("192.0.2.{}", 10 + round));
            let newest = two.seal(&up(2, 700));
            let mut forged = one.seal(&up(1, 60));
            let end = forged.len() - 1;
            forged[end] ^= 1;
            let mut fragmentable = down(1, 1472);
            fragmentable[6] = 0;
            wayfarer_dataplane::wire::ip::set_total_len(&mut fragmentable, 20, 1500);
            for packet in
                [&one.seal(&up(1, 1300)), &newest, &newest, &forged, &up(1, 4), &one.wrap(&[9; 100])]
            {
                world.put(OUTSIDE, packet);
            }
            let mut ike = Terminal::new(1, suite, "192.0.2.1");
            ike.port = Some(500);
            world.put(OUTSIDE, &ike.wrap(&[0; 60]));
            // ESP and a long IKE message in fragments, and some that overlap.
            let mut pieces = fragments(&one.seal(&up(1, 1300)), 1000, round);
            pieces.extend(fragments(&ike.wrap(&[0; 4000]), 1000, round + 100));
            pieces.extend(fragments(&ike.wrap(&[0; 2000]), 1000, round + 200).into_iter().take(2));
            pieces.extend(fragments(&ike.wrap(&[0; 2000]), 500, round + 200));
            // ESP that is longer than a frame.
            let mut long = up(1, 3000);
            long[6] = 0;
            wayfarer_dataplane::wire::ip::set_total_len(&mut long, 20, 3028);
            pieces.extend(fragments(&one.seal(&long), 1500, round + 300));
            pieces.iter().for_each(|piece| world.put(OUTSIDE, piece));
            // Inner fragments, whose first one shows the port.
            for piece in fragments(&up(3, 2000), 1000, round) {
                world.put(OUTSIDE, &three.seal(&piece));
            }
            let for_port = datagram("10.99.0.7", "10.98.0.3", (2, 1), &[1; 2000]);
            fragments(&for_port, 1000, round).iter().for_each(|piece| world.put(INSIDE, piece));
            for packet in [&down(1, 100), &down(2, 1300), &fragmentable, &down(1, 1472), &down(9, 10)] {
                world.put(INSIDE, packet);
            }
            assert_eq!(allocations(&mut world), 0, "{name}, round {round}");
            // The slow path follows the move. It, not the worker, frees the old state.
            world.settle();
        }
        for reason in [
            DropReason::ReplayDuplicate,
            DropReason::NotAuthentic,
            DropReason::TooBig,
            DropReason::UnknownSpi,
        ] {
            assert_eq!(world.drops(reason), 50, "{name}: {:?}", world.all_drops());
        }
        assert_eq!(world.drops(DropReason::FragmentPorts), 0);
    }
}

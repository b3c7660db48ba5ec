//! The fast path allocates nothing after its start: whatever a packet is, and while the slow path
//! changes tables.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::drop::DropReason;

/// Counts allocations of this thread while [`COUNTING`] is set. It counts by thread, so other tests
/// may run beside.
struct Counting;

thread_local! {
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    if COUNTING.get() {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    }
}

// SAFETY: everything is the system allocator's; counting touches thread-local cells only, which
// allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
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
static ALLOCATOR: Counting = Counting;

/// Turns the worker alone until it is idle; answers how often it allocated or freed.
fn allocations(world: &mut World) -> u64 {
    ALLOCATIONS.set(0);
    COUNTING.set(true);
    let (worker, _) = &mut world.assembly.workers[0];
    while worker.turn() {}
    COUNTING.set(false);
    ALLOCATIONS.get()
}

#[test]
fn the_counter_counts() {
    COUNTING.set(true);
    drop(Box::new(7));
    COUNTING.set(false);
    assert_eq!(ALLOCATIONS.get(), 2);
}

#[test]
fn no_packet_makes_a_worker_allocate() {
    for name in ["aes128gcm16", "aes256-sha256", "chacha20poly1305", "aes128gmac", "null-sha1"] {
        let suite = suite(name);
        let mut world = World::new(vec![tunnel(1, suite), tunnel(2, suite)]);
        world.meet_neighbours();
        let mut one = Terminal::new(1, suite, "192.0.2.1");
        let mut two = Terminal::new(2, suite, "192.0.2.2");
        let up = |n: u32, size| datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), &vec![1; size]);
        let down = |n: u32, size| datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), &vec![1; size]);
        // The first packets let each thread set up what it keeps, and the gateway learn where its
        // peers are.
        world.send(OUTSIDE, &one.seal(&up(1, 9)));
        world.send(OUTSIDE, &two.seal(&up(2, 9)));
        world.send(INSIDE, &down(1, 9));
        for round in 0..50 {
            // A terminal that moves, a replay, a forgery, a fragment, one too big, strangers, a
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
            for packet in [&down(1, 100), &down(2, 1300), &fragmentable, &down(1, 1472), &down(9, 10)] {
                world.put(INSIDE, packet);
            }
            assert_eq!(allocations(&mut world), 0, "{name}, round {round}");
            // The slow path follows the move; what it frees, the worker must not.
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
    }
}

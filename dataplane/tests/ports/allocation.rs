//! The fast path allocates nothing: every allocation of a thread is counted.

use crate::{
    frames::numbered,
    world::{World, wait_for},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Port,
        classifier::Rules,
        generator::Generator,
        open::{self, Kind, Request},
        sink::Sink,
    },
};

struct CountingAllocator;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: by this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by this function's own contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Receives until `count` packets came, and sends all through `out`, or back. Returns the number of
/// allocations.
fn allocations(from: &mut dyn Port, mut out: Option<&mut dyn Port>, pool: &mut Pool, count: u64) -> u64 {
    let before = COUNT.get();
    let end = from.stats().rx_packets + count;
    wait_for("the packets", || {
        let mut burst = Burst::new();
        from.rx(pool, &mut burst);
        match out.as_deref_mut() {
            Some(out) => out.tx(pool, &mut burst),
            None => from.tx(pool, &mut burst),
        }
        from.flush(pool);
        pool.give_all(&mut burst);
        (from.stats().rx_packets >= end).then_some(())
    });
    COUNT.get() - before
}

#[test]
fn counts_allocations() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn generator_and_sink_do_not_allocate() {
    let mut pool = Pool::new(256, 2048).unwrap();
    let mut generator = Generator::new(vec![vec![0; 60], vec![0; 1500]], None);
    assert_eq!(allocations(&mut generator, Some(&mut Sink::new()), &mut pool, 10_000), 0);
    assert_eq!(allocations(&mut generator, None, &mut pool, 10_000), 0);
}

#[test]
fn devices_do_not_allocate() {
    for kind in [Kind::AfXdp, Kind::AfPacket, Kind::Tap] {
        let world = World::new(1, 1);
        let mut pools = [Pool::new(4096, 2048).unwrap()];
        let device = if kind == Kind::Tap { "tap0" } else { "gw0" };
        let request = Request { device, kind, rules: Rules::default(), tap_mtu: 1500 };
        let mut opened = world.gw(|| open::open(&request, &mut pools)).unwrap();
        let wire =
            if kind == Kind::Tap { world.kernel("tap0", libc::ETH_P_ALL) } else { world.peer("peer0") };
        let (port, pool) = (&mut *opened.ports[0], &mut pools[0]);
        port.rx(pool, &mut Burst::new());
        for number in 0..300 {
            wire.send(&numbered(opened.mac, wire.mac, 9, number, 100));
        }
        assert_eq!(allocations(port, None, pool, 300), 0, "{kind:?}");
    }
}

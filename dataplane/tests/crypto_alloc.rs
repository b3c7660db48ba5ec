//! Sealing, opening and the window allocate nothing. (Memory that a C library takes from malloc is
//! not counted here.)

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};
use wayfarer_dataplane::{
    crypto::{Backend, HEADER, Key, OpenJob, SealJob, Suite, open, seal},
    window::Window,
};

struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's contract; `at` came from `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Returns the number of allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_fast_path_allocates_nothing() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1, "allocations are counted");

    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
        for (&suite, esn) in Suite::ALL.iter().flat_map(|s| [(s, false), (s, true)]) {
            let key = Key::new(suite, &vec![7; suite.key_len()], backend).unwrap();
            let mut packets = [64, 1408].map(|text| {
                let mut esp = vec![0; HEADER + suite.iv_len() + text + suite.icv_len()];
                esp[7] = 1;
                esp
            });
            let [a, b] = &mut packets;
            let mut jobs = [a, b].map(|esp| SealJob { key: &key, seq: 1, iv: 1, esn, esp });
            assert_eq!(allocations(|| seal(&mut jobs)), 0, "seal {backend:?} {suite}");

            packets[0][20] ^= 1;
            let [a, b] = &mut packets;
            let mut jobs = [a, b].map(|esp| OpenJob { key: &key, seq: 1, esn, esp, authentic: false });
            assert_eq!(allocations(|| open(&mut jobs)), 0, "open {backend:?} {suite}");
            assert_eq!(jobs.map(|job| job.authentic), [false, true]);
        }
    }

    let window = Window::new(1024, wayfarer_dataplane::sharing::Sharing::Many);
    let walk = || {
        for seq in (1..5000).rev().step_by(7).chain(1..5000) {
            if window.check(window.infer(seq)).is_ok() {
                _ = window.accept(seq.into());
            }
        }
    };
    assert_eq!(allocations(walk), 0);
}

//! The anti-replay window against a simple model, and with real threads.

#![cfg(not(loom))]

use proptest::{collection::vec, prelude::*};
use std::{
    collections::HashSet,
    sync::{
        Barrier,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use wayfarer_dataplane::{
    sharing::Sharing,
    window::{MAX_SIZE, MIN_SIZE, Newest, Replay, Window},
};

/// A model that remembers every number.
struct Model {
    size: u64,
    top: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn check(&self, seq: u64) -> Result<(), Replay> {
        if seq == 0 {
            Err(Replay::Zero)
        } else if seq + self.size <= self.top {
            Err(Replay::Stale)
        } else if self.seen.contains(&seq) {
            Err(Replay::Duplicate)
        } else {
            Ok(())
        }
    }

    fn accept(&mut self, seq: u64) -> Result<bool, Replay> {
        self.check(seq)?;
        let newest = seq > self.top;
        self.top = self.top.max(seq);
        self.seen.insert(seq);
        Ok(newest)
    }
}

/// Returns how far from the top the next number lies.
fn step(size: u32) -> impl Strategy<Value = i64> {
    let size = i64::from(size);
    prop_oneof![
        4 => -4i64..4,
        4 => -size - 2..3,
        1 => -size - 2..=-size + 2,
        2 => -2 * size..2 * size,
        1 => -(1i64 << 30)..1 << 30,
        1 => 0i64..1 << 40,
    ]
}

fn size() -> impl Strategy<Value = u32> {
    prop_oneof![64u32..200, Just(1024), 1000u32..5000, Just(65_536)]
}

fn steps() -> impl Strategy<Value = (u32, u64, Vec<i64>)> {
    let start = prop_oneof![Just(1u64), 1u64..100_000, (1u64 << 32) - 5000..(1 << 32) + 5000, 1u64..1 << 60];
    size().prop_flat_map(move |size| (Just(size), start.clone(), vec(step(size), 1..400)))
}

/// Returns runs no longer than a burst: close together like a sender's numbers, or with jumps in
/// between.
fn runs() -> impl Strategy<Value = (u32, u64, Vec<Vec<i64>>)> {
    let start = prop_oneof![Just(1u64), 1u64..100_000, 1u64..1 << 60];
    size().prop_flat_map(move |size| {
        let near = prop_oneof![-8i64..24, -i64::from(size) / 2..i64::from(size) / 2];
        let run = prop_oneof![3 => vec(near, 1..64), 1 => vec(step(size), 1..8)];
        (Just(size), start.clone(), vec(run, 1..30))
    })
}

fn accept_run(window: &Window, run: &[u64]) -> Vec<Result<Newest, Replay>> {
    let slots: Vec<_> = run.iter().map(|&seq| window.slot(seq)).collect();
    // A value that the test would not mistake for a result.
    let mut results = vec![Err(Replay::Zero); run.len()];
    window.accept_run(&slots, &mut results);
    results
}

proptest! {
    #[test]
    fn decides_as_the_model_does(
        (size, start, steps) in steps(), sharing in prop_oneof![Just(Sharing::One), Just(Sharing::Many)],
    ) {
        let window = Window::new(size, sharing);
        let mut model = Model { size: size.into(), top: 0, seen: HashSet::new() };
        prop_assert_eq!(window.accept(start), model.accept(start));
        for step in steps {
            let seq = model.top.saturating_add_signed(step);
            prop_assert_eq!(window.check(seq), model.check(seq), "check {}", seq);
            prop_assert_eq!(window.accept(seq), model.accept(seq), "accept {}", seq);
            prop_assert_eq!(window.top(), model.top);
        }
    }

    /// Judges a run of numbers as if they came one after the other.
    #[test]
    fn decides_on_runs_as_the_model_does(
        (size, start, runs) in runs(), sharing in prop_oneof![Just(Sharing::One), Just(Sharing::Many)],
    ) {
        let window = Window::new(size, sharing);
        let mut model = Model { size: size.into(), top: 0, seen: HashSet::new() };
        prop_assert_eq!(window.accept(start), model.accept(start));
        for steps in runs {
            let before = model.top;
            let run: Vec<_> = steps.iter().map(|&step| before.saturating_add_signed(step)).collect();
            let outcomes = accept_run(&window, &run);
            let expected: Vec<_> = run.iter().map(|&seq| model.accept(seq)).collect();
            for ((seq, outcome), expected) in run.iter().zip(&outcomes).zip(&expected) {
                prop_assert_eq!(outcome.map(|_| ()), expected.map(|_| ()), "{} of {:?}", seq, run);
                prop_assert!(*outcome != Ok(true) || *expected == Ok(true), "{} is not the newest of {:?}", seq, run);
            }
            prop_assert_eq!(window.top(), model.top);
            let mut newest = run.iter().zip(&outcomes).filter(|(_, outcome)| **outcome == Ok(true));
            prop_assert_eq!(newest.next_back().map_or(before, |(seq, _)| *seq), model.top, "{:?}", run);
        }
    }

    /// Infers any number from the left edge to 2^32 further from its lower half, across every wrap.
    #[test]
    fn infers_the_high_half(
        size in size(),
        top in prop_oneof![1u64..1 << 20, (1u64 << 32) - 70_000..(1 << 32) + 70_000, 1u64 << 31..1 << 50],
        ahead in prop_oneof![0u64..1 << 17, 0u64..1 << 30, Just((1 << 32) - 65_537)], behind in 0u64..65_536,
    ) {
        let window = Window::new(size, Sharing::Many);
        window.accept(top).unwrap();
        prop_assert_eq!(window.infer((top + ahead) as u32), top + ahead);
        let behind = behind % u64::from(size);
        if behind < top {
            prop_assert_eq!(window.infer((top - behind) as u32), top - behind);
        }
    }

    /// Takes a number left of the window for a later one, so that its ICV fails, or refuses it as
    /// stale.
    #[test]
    fn infers_nothing_accepted_for_a_stale_number(
        size in size(),
        top in prop_oneof![1u64 << 30..1 << 33, (1u64 << 32)..(1 << 32) + 70_000],
        back in 0u64..1 << 30,
    ) {
        let window = Window::new(size, Sharing::Many);
        window.accept(top).unwrap();
        let stale = top.saturating_sub(u64::from(size) + back);
        let inferred = window.infer(stale as u32);
        prop_assert!(inferred == stale + (1 << 32) || window.check(inferred).is_err());
    }
}

#[test]
fn follows_extended_numbers_across_the_wrap() {
    let window = Window::new(1024, Sharing::Many);
    let mut real = (1u64 << 32) - 3 * (1 << 30);
    for jump in [1 << 30, 1 << 30, (1 << 30) - 7, 3, 3, 1, 1, 3, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 5] {
        real += jump;
        let seq = window.infer(real as u32);
        assert_eq!(seq, real);
        assert_eq!(window.accept(seq), Ok(true));
        let old = window.infer(real.wrapping_sub(1 << 30) as u32);
        assert!(old > real, "a jump back by 2^30 reads as the next turn of the low half");
    }
}

#[test]
fn the_ends_of_the_number_space_are_safe() {
    let window = Window::new(64, Sharing::Many);
    assert_eq!(window.infer(0), 0);
    assert_eq!(window.infer(u32::MAX), u64::from(u32::MAX));
    assert_eq!(window.check(0), Err(Replay::Zero));
    assert_eq!(window.accept(u64::MAX), Ok(true));
    assert_eq!(window.accept(u64::MAX), Err(Replay::Duplicate));
    assert_eq!(window.accept(u64::MAX - 63), Ok(false));
    assert_eq!(window.accept(u64::MAX - 64), Err(Replay::Stale));
    assert_eq!(window.check(window.infer(5)), Err(Replay::Stale));
}

#[test]
fn has_exactly_the_configured_size() {
    for (asked, size) in
        [(0, MIN_SIZE), (64, 64), (65, 65), (1000, 1000), (MAX_SIZE, MAX_SIZE), (u32::MAX, MAX_SIZE)]
    {
        for top in 70_000..70_064 {
            let window = Window::new(asked, Sharing::Many);
            window.accept(top).unwrap();
            assert_eq!(window.check(top - u64::from(size)), Err(Replay::Stale), "{size}");
            assert_eq!(window.check(top - u64::from(size) + 1), Ok(()), "{size}");
        }
    }
}

#[test]
fn a_whole_window_sent_again_is_refused() {
    for size in [64, 100, 1024, 65_536] {
        let window = Window::new(size, Sharing::Many);
        let all = 1000..1000 + u64::from(size);
        assert!(all.clone().all(|seq| window.accept(seq) == Ok(true)));
        for seq in all {
            assert_eq!(window.check(seq), Err(Replay::Duplicate));
            assert_eq!(window.accept(seq), Err(Replay::Duplicate));
        }
    }
}

#[test]
fn a_check_changes_nothing() {
    let window = Window::new(64, Sharing::Many);
    assert_eq!((window.check(500), window.check(500), window.top()), (Ok(()), Ok(()), 0));
    assert_eq!(window.accept(5), Ok(true));
}

/// Returns the same numbers in another order for each seed.
fn shuffled(mut numbers: Vec<u64>, seed: u64) -> Vec<u64> {
    let mut state = seed | 1;
    for i in (1..numbers.len()).rev() {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.swap(i, (state % (i as u64 + 1)) as usize);
    }
    numbers
}

#[test]
fn workers_accept_every_number_in_the_window_once() {
    const WORKERS: u64 = 4;
    const ROUND: u64 = 20_000;
    let window = Window::new(MAX_SIZE, Sharing::Many);
    let accepted: Vec<AtomicU8> = (0..=5 * ROUND).map(|_| AtomicU8::new(0)).collect();
    let barrier = Barrier::new(WORKERS as usize);
    thread::scope(|s| {
        for worker in 0..WORKERS {
            let (window, accepted, barrier) = (&window, &accepted, &barrier);
            s.spawn(move || {
                for round in 0..5 {
                    // Within one round no number can become stale.
                    let numbers = (1 + round * ROUND..=(round + 1) * ROUND).collect();
                    barrier.wait();
                    for seq in shuffled(numbers, worker * 5 + round + 1) {
                        match window.accept(seq) {
                            Ok(_) => _ = accepted[seq as usize].fetch_add(1, Relaxed),
                            Err(refused) => assert_eq!(refused, Replay::Duplicate),
                        }
                    }
                }
            });
        }
    });
    assert!(accepted[1..].iter().all(|times| times.load(Relaxed) == 1));
}

#[test]
fn workers_that_race_the_left_edge_accept_none_twice() {
    const LAST: usize = 200_000;
    let window = Window::new(64, Sharing::Many);
    let accepted: Vec<AtomicU8> = (0..=LAST).map(|_| AtomicU8::new(0)).collect();
    let (next, stale) = (AtomicUsize::new(1), AtomicUsize::new(0));
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                loop {
                    let seq = next.fetch_add(1, Relaxed);
                    if seq > LAST {
                        break;
                    }
                    // Each number comes from several workers, the later ones near the edge of the
                    // window.
                    for back in [0, 1, 40, 62, 63, 64, 65, 90] {
                        let seq = seq.saturating_sub(back);
                        match window.accept(seq as u64) {
                            Ok(_) => _ = accepted[seq].fetch_add(1, Relaxed),
                            Err(Replay::Stale) => _ = stale.fetch_add(1, Relaxed),
                            Err(_) => (),
                        }
                    }
                }
            });
        }
    });
    assert!(accepted.iter().all(|times| times.load(Relaxed) <= 1));
    assert!(stale.load(Relaxed) > 0);
    assert_eq!(window.top(), LAST as u64);
}

/// Gives two workers the same millions of numbers, each in its own slightly different order, many
/// of them twice. They mark them one by one and in runs.
#[test]
fn two_workers_with_millions_of_numbers_accept_each_once() {
    const CHUNK: usize = 8192;
    const CHUNKS: usize = 500;
    // Wide enough for a whole chunk and its neighbour. The workers wait for each other in between.
    let window = Window::new(2 * CHUNK as u32, Sharing::Many);
    let accepted: Vec<AtomicU8> = (0..=CHUNK * CHUNKS).map(|_| AtomicU8::new(0)).collect();
    let barrier = Barrier::new(2);
    let newest: usize = race(2, |worker| {
        let mut newest = 0;
        for chunk in 0..CHUNKS {
            let first = (1 + chunk * CHUNK) as u64;
            let last = first + CHUNK as u64 - 1;
            // Half of the numbers once more, before or after their first time, and some of the
            // chunk before.
            let numbers =
                (first..=last).chain((first..=last).step_by(2)).chain(first.saturating_sub(100)..first);
            let numbers = shuffled(numbers.collect(), (chunk * 2 + worker + 1) as u64 * 0x9e37_79b9);
            barrier.wait();
            newest += mark_in_turn(&window, &numbers, &mut |seq, outcome| match outcome {
                Ok(_) => _ = accepted[seq as usize].fetch_add(1, Relaxed),
                Err(Replay::Zero) => assert_eq!(seq, 0),
                Err(refused) => assert_eq!(refused, Replay::Duplicate, "{seq}"),
            });
        }
        newest
    });
    let wrong = accepted[1..].iter().filter(|times| times.load(Relaxed) != 1).count();
    assert_eq!((wrong, window.top()), (0, (CHUNK * CHUNKS) as u64));
    assert!(newest >= CHUNKS);
}

/// Does the same without waiting, so that a number may be stale before its turn.
#[test]
fn two_workers_that_run_apart_accept_none_twice() {
    const LAST: usize = 1_000_000;
    let window = Window::new(64, Sharing::Many);
    let accepted: Vec<AtomicU8> = (0..=LAST).map(|_| AtomicU8::new(0)).collect();
    let stale: usize = race(2, |worker| {
        let mut stale = 0;
        for (turn, first) in (1..=LAST as u64 - 31).step_by(32).enumerate() {
            // Half of the previous numbers come again.
            let numbers = shuffled(
                (first.saturating_sub(70)..first).step_by(2).chain(first..first + 32).collect(),
                (turn * 2 + worker + 1) as u64,
            );
            mark_in_turn(&window, &numbers, &mut |seq, outcome| match outcome {
                Ok(_) => _ = accepted[seq as usize].fetch_add(1, Relaxed),
                Err(refused) => stale += usize::from(refused == Replay::Stale),
            });
        }
        stale
    });
    assert!(accepted.iter().all(|times| times.load(Relaxed) <= 1));
    assert!(stale > 0);
    assert_eq!(window.top(), LAST as u64);
}

/// Runs the `work` of each worker in its own thread. Returns the sum of the results.
fn race(workers: usize, work: impl Fn(usize) -> usize + Sync) -> usize {
    thread::scope(|s| {
        let work = &work;
        let threads: Vec<_> = (0..workers).map(|worker| s.spawn(move || work(worker))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

/// Marks numbers in runs of 1 to 64, and every other run one by one. Passes the result of each to
/// `judge`. Returns how many were the newest.
fn mark_in_turn(
    window: &Window,
    mut numbers: &[u64],
    judge: &mut impl FnMut(u64, Result<Newest, Replay>),
) -> usize {
    let mut newest = 0;
    for turn in 0.. {
        let (run, rest) = numbers.split_at(numbers.len().min(turn * 7 % 64 + 1));
        let outcomes = match turn % 2 {
            0 => accept_run(window, run),
            _ => run.iter().map(|&seq| window.accept(seq)).collect(),
        };
        for (&seq, outcome) in run.iter().zip(outcomes) {
            newest += usize::from(outcome == Ok(true));
            judge(seq, outcome);
        }
        numbers = rest;
        if numbers.is_empty() {
            break;
        }
    }
    newest
}

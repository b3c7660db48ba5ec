//! The window under every interleaving that loom can think of:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p wayfarer-dataplane --test window_loom --target-dir target/loom
//! ```

#![cfg(loom)]

use loom::{sync::Arc, thread};
use wayfarer_dataplane::{
    sharing::Sharing,
    window::{Newest, Replay, Window},
};

type Outcome = Result<Newest, Replay>;

/// Runs one worker for each list of numbers, beside each other, on a window of 64 whose top is `top`; gives what each
/// was told to `judge`.
fn interleave(top: u64, workers: &'static [&'static [u64]], judge: fn(&Window, &[Vec<Outcome>])) {
    let mut model = loom::model::Builder::new();
    // Two workers are followed through everything they can do to each other; with three that takes hours.
    model.preemption_bound = (workers.len() > 2).then_some(3);
    model.check(move || {
        let window = Arc::new(Window::new(64, Sharing::Many));
        window.accept(top).unwrap();
        let workers: Vec<_> = workers
            .iter()
            .map(|numbers| {
                let window = Arc::clone(&window);
                thread::spawn(move || numbers.iter().map(|&seq| window.accept(seq)).collect())
            })
            .collect();
        let outcomes: Vec<Vec<Outcome>> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        judge(&window, &outcomes);
    });
}

fn accepted(outcomes: &[Vec<Outcome>]) -> usize {
    outcomes.iter().flatten().filter(|o| o.is_ok()).count()
}

#[test]
fn one_of_two_with_the_same_number_wins_and_is_newest() {
    interleave(1, &[&[7], &[7]], |window, outcomes| {
        assert_eq!(accepted(outcomes), 1);
        assert!(outcomes.concat().contains(&Ok(true)));
        assert!(outcomes.concat().contains(&Err(Replay::Duplicate)));
        assert_eq!(window.top(), 7);
    });
}

#[test]
fn numbers_of_one_block_do_not_erase_each_other() {
    interleave(1, &[&[5, 6], &[6, 5]], |window, outcomes| {
        assert_eq!(accepted(outcomes), 2);
        assert_eq!((window.accept(5), window.accept(6)), (Err(Replay::Duplicate), Err(Replay::Duplicate)));
    });
}

/// 5 and 165 share a word: the window's four words hold 160 numbers.
#[test]
fn a_word_taken_by_a_later_lap_never_forgets_into_a_replay() {
    interleave(1, &[&[5], &[165], &[5]], |window, outcomes| {
        assert_eq!(outcomes[1], [Ok(true)]);
        assert!(accepted(outcomes) <= 2, "{outcomes:?}");
        assert_eq!((window.accept(5), window.accept(165)), (Err(Replay::Stale), Err(Replay::Duplicate)));
    });
}

#[test]
fn two_laps_at_once_keep_the_later() {
    interleave(100, &[&[165, 165], &[325, 165]], |window, outcomes| {
        assert_eq!(outcomes[1][0], Ok(true));
        assert!(accepted(outcomes) <= 2, "{outcomes:?}");
        assert_eq!((window.accept(165), window.accept(325)), (Err(Replay::Stale), Err(Replay::Duplicate)));
        assert_eq!(window.accept(324), Ok(false));
    });
}

#[test]
fn all_in_the_window_are_accepted() {
    interleave(100, &[&[99, 130], &[131, 98]], |_, outcomes| assert_eq!(accepted(outcomes), 4));
}

//! The window under every interleaving that loom finds:
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

/// A way to mark numbers, and the numbers that a worker marks.
type Work = (fn(&Window, &[u64]) -> Vec<Outcome>, &'static [u64]);

/// Marks the numbers one after the other.
fn each(window: &Window, numbers: &[u64]) -> Vec<Outcome> {
    numbers.iter().map(|&seq| window.accept(seq)).collect()
}

/// Marks all numbers at once.
fn run(window: &Window, numbers: &[u64]) -> Vec<Outcome> {
    let slots: Vec<_> = numbers.iter().map(|&seq| window.slot(seq)).collect();
    let mut outcomes = vec![Ok(false); slots.len()];
    window.accept_run(&slots, &mut outcomes);
    outcomes
}

/// Runs workers side by side on a window of 64 whose top is `top`. Checks what holds for every
/// window, then passes the results of each worker to `judge`.
fn interleave(top: u64, workers: &'static [Work], judge: fn(&Window, &[Vec<Outcome>])) {
    let mut model = loom::model::Builder::new();
    // Two workers are followed through all interleavings; with three that takes hours.
    model.preemption_bound = (workers.len() > 2).then_some(3);
    model.check(move || {
        let window = Arc::new(Window::new(64, Sharing::Many));
        window.accept(top).unwrap();
        let threads: Vec<_> = workers
            .iter()
            .map(|&(mark, numbers)| {
                let window = Arc::clone(&window);
                thread::spawn(move || mark(&window, numbers))
            })
            .collect();
        let outcomes: Vec<Vec<Outcome>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        for (&(_, numbers), outcomes) in workers.iter().zip(&outcomes) {
            assert_eq!(numbers.len(), outcomes.len());
        }
        let numbers = workers.iter().flat_map(|(_, numbers)| *numbers).copied();
        check(top, window.top(), &numbers.zip(outcomes.concat()).collect::<Vec<_>>());
        judge(&window, &outcomes);
    });
}

/// Asserts that no number is accepted twice, that none is refused without reason, and that the
/// highest is known to be the newest.
fn check(first: u64, last: u64, outcomes: &[(u64, Outcome)]) {
    for &(seq, outcome) in outcomes {
        let times = outcomes.iter().filter(|(other, outcome)| *other == seq && outcome.is_ok()).count();
        assert!(times <= usize::from(seq != first), "{seq} was accepted twice: {outcomes:?}");
        match outcome {
            Ok(_) => (),
            Err(Replay::Duplicate) => {
                assert!(times == 1 || seq == first, "{seq} is no duplicate: {outcomes:?}")
            }
            Err(Replay::Stale) => assert!(last >= seq + 64, "{seq} is within the window: {outcomes:?}"),
            Err(Replay::Zero) => assert_eq!(seq, 0),
        }
    }
    assert!(
        last == first || outcomes.contains(&(last, Ok(true))),
        "{last} is not known as the newest: {outcomes:?}"
    );
}

fn accepted(outcomes: &[Vec<Outcome>]) -> usize {
    outcomes.iter().flatten().filter(|o| o.is_ok()).count()
}

#[test]
fn one_of_two_with_the_same_number_wins_and_is_newest() {
    interleave(1, &[(each, &[7]), (each, &[7])], |window, outcomes| {
        assert_eq!(accepted(outcomes), 1);
        assert!(outcomes.concat().contains(&Ok(true)));
        assert!(outcomes.concat().contains(&Err(Replay::Duplicate)));
        assert_eq!(window.top(), 7);
    });
}

#[test]
fn numbers_of_one_block_do_not_erase_each_other() {
    interleave(1, &[(each, &[5, 6]), (each, &[6, 5])], |window, outcomes| {
        assert_eq!(accepted(outcomes), 2);
        assert_eq!((window.accept(5), window.accept(6)), (Err(Replay::Duplicate), Err(Replay::Duplicate)));
    });
}

/// Tests numbers that share a word: 5 and 165, because the window's four words hold 160 numbers.
#[test]
fn word_reused_by_a_later_lap_allows_no_replay() {
    interleave(1, &[(each, &[5]), (each, &[165]), (each, &[5])], |window, outcomes| {
        assert_eq!(outcomes[1], [Ok(true)]);
        assert!(accepted(outcomes) <= 2, "{outcomes:?}");
        assert_eq!((window.accept(5), window.accept(165)), (Err(Replay::Stale), Err(Replay::Duplicate)));
    });
}

#[test]
fn two_laps_at_once_keep_the_later() {
    interleave(100, &[(each, &[165, 165]), (each, &[325, 165])], |window, outcomes| {
        assert_eq!(outcomes[1][0], Ok(true));
        assert!(accepted(outcomes) <= 2, "{outcomes:?}");
        assert_eq!((window.accept(165), window.accept(325)), (Err(Replay::Stale), Err(Replay::Duplicate)));
        assert_eq!(window.accept(324), Ok(false));
    });
}

#[test]
fn all_in_the_window_are_accepted() {
    interleave(100, &[(each, &[99, 130]), (each, &[131, 98])], |_, outcomes| {
        assert_eq!(accepted(outcomes), 4)
    });
}

#[test]
fn numbers_of_two_equal_runs_pass_once_and_the_last_is_newest() {
    interleave(1, &[(run, &[6, 7]), (run, &[6, 7])], |_, outcomes| assert_eq!(accepted(outcomes), 2));
}

#[test]
fn a_run_with_duplicates_is_as_strict_as_single_numbers() {
    interleave(1, &[(run, &[5, 6, 6, 0]), (each, &[6, 5])], |_, outcomes| {
        assert_eq!(accepted(outcomes), 2);
        assert_eq!((outcomes[0][2], outcomes[0][3]), (Err(Replay::Duplicate), Err(Replay::Zero)));
    });
}

/// Tests runs across a word's border: number 40 begins a word.
#[test]
fn runs_across_a_block_border_share_its_words() {
    interleave(30, &[(run, &[39, 40, 38]), (run, &[40, 39])], |window, outcomes| {
        assert_eq!(accepted(outcomes), 3);
        assert_eq!(window.top(), 40);
        assert!([38, 39, 40].iter().all(|&seq| window.accept(seq) == Err(Replay::Duplicate)));
    });
}

#[test]
fn runs_of_two_laps_keep_the_later() {
    interleave(110, &[(run, &[164, 165]), (run, &[325, 324])], |window, outcomes| {
        assert_eq!(outcomes[1], [Ok(true), Ok(false)]);
        assert_eq!((window.accept(165), window.accept(325)), (Err(Replay::Stale), Err(Replay::Duplicate)));
        assert_eq!(window.accept(323), Ok(false));
    });
}

#[test]
fn run_overtaken_by_a_later_lap_allows_no_replay() {
    interleave(110, &[(run, &[165, 166]), (each, &[325]), (run, &[166, 165])], |window, outcomes| {
        assert_eq!(outcomes[1], [Ok(true)]);
        assert_eq!((window.accept(165), window.accept(325)), (Err(Replay::Stale), Err(Replay::Duplicate)));
    });
}

/// Tests a run in which 170 comes after 5 and makes it stale.
#[test]
fn run_longer_than_the_window_is_marked_in_order() {
    interleave(1, &[(run, &[5, 170])], |_, outcomes| assert_eq!(outcomes[0], [Ok(true), Ok(true)]));
    interleave(1, &[(run, &[5, 170]), (each, &[5])], |_, outcomes| assert_eq!(outcomes[0][1], Ok(true)));
}

//! What goes on beside the packets: terminals that move, tunnels that come and go, through the slow
//! path of a running gateway.

use super::{BenchError, load::Load, world};
use crate::{sim::addresses, slow_path::SlowPath};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use wayfarer_dataplane::crypto::Suite;

/// Tunnels that come and go, beside those that carry packets.
const GUESTS: u32 = 1024;

/// The pace of something that happens so many times a second while packets flow.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rate: f64,
    due: f64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), due: 0.0 }
    }

    /// How many times it is to happen because `time` has passed.
    fn pass(&mut self, time: Duration) -> u32 {
        self.due += self.rate * time.as_secs_f64();
        let now = self.due.floor();
        self.due -= now;
        now as u32
    }
}

/// Moves and changes, so many a second.
pub(super) struct Unrest {
    suite: Suite,
    window: u32,
    moves: Pace,
    changes: Pace,
    guests: VecDeque<u32>,
    next: u32,
    changed: u64,
    /// Time for which packets flowed in the last batch: what the next one will take, about.
    last: Duration,
}

impl Unrest {
    /// `roam` moves and `churn` tunnels added or removed a second.
    pub(super) fn new(suite: Suite, window: u32, roam: u32, churn: u32) -> Self {
        let (moves, changes) = (Pace::new(roam), Pace::new(churn));
        let (guests, last) = (VecDeque::new(), Duration::ZERO);
        Self { suite, window, moves, changes, guests, next: 0, changed: 0, last }
    }

    /// Tunnels added and removed so far.
    pub(super) fn changed(&self) -> u64 {
        self.changed
    }

    /// Moves that packets from terminals are to show in the next batch.
    pub(super) fn moves_ahead(&mut self) -> u32 {
        self.moves.pass(self.last)
    }

    /// Keeps the slow path at work until `finished`, as its own thread would; with `moves_by_hand`
    /// that moves terminals too.
    pub(super) fn watch(
        &mut self,
        slow_path: &mut SlowPath,
        load: &mut Load,
        since: Instant,
        moves_by_hand: bool,
        mut finished: impl FnMut() -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let start = Instant::now();
        let mut before = start;
        while !finished()? {
            let now = Instant::now();
            let time = now - before;
            before = now;
            if moves_by_hand {
                for _ in 0..self.moves.pass(time) {
                    let (index, address) = load.move_one();
                    let moved = slow_path.move_by_hand(since.elapsed(), &world::name(index), address, None);
                    moved.map_err(BenchError::Move)?;
                }
            }
            for _ in 0..self.changes.pass(time) {
                self.change(slow_path)?;
            }
            slow_path.turn(since.elapsed());
        }
        self.last = start.elapsed();
        Ok(())
    }

    /// A tunnel comes; where there are enough, the oldest goes.
    fn change(&mut self, slow_path: &mut SlowPath) -> Result<(), BenchError> {
        self.changed += 1;
        if self.guests.len() >= GUESTS as usize {
            if let Some(oldest) = self.guests.pop_front() {
                slow_path.remove_tunnel(&world::name(oldest));
            }
            return Ok(());
        }
        // Beyond the indices of those that carry packets, and free again by the time they come
        // round.
        let index = addresses::MOST + self.next % (2 * GUESTS);
        self.next = self.next.wrapping_add(1);
        let tunnel = world::tunnel(index, self.suite, self.window);
        slow_path.install_tunnel(&tunnel).map_err(BenchError::Key)?;
        self.guests.push_back(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_loses_no_fraction() {
        let mut pace = Pace::new(1000);
        let times: u32 = (0..10_000).map(|_| pace.pass(Duration::from_micros(130))).sum();
        assert!((1299..=1300).contains(&times), "{times}");
        assert_eq!(Pace::new(0).pass(Duration::from_secs(1)), 0);
    }
}

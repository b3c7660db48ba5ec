//! Work for the slow path beside the packets: terminals move, tunnels are added and removed.

use super::{BenchError, load::Load, world};
use crate::{sim::addresses, slow_path::SlowPath};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use wayfarer_dataplane::crypto::Suite;

/// The maximum number of extra tunnels, beside those that carry packets.
const EXTRA_TUNNELS: u32 = 1024;

/// The pace of events that happen at a rate while packets flow.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Events per second.
    rate: f64,
    /// The fraction of an event that is due already.
    due: f64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), due: 0.0 }
    }

    /// Lets `time` pass; returns how many events are due.
    fn pass(&mut self, time: Duration) -> u32 {
        self.due += self.rate * time.as_secs_f64();
        let now = self.due.floor();
        self.due -= now;
        now as u32
    }
}

/// Moves of terminals and changes of tunnels, each at a pace of its own.
pub(super) struct ControlLoad {
    suite: Suite,
    window: u32,
    moves: Pace,
    changes: Pace,
    extra_tunnels: VecDeque<u32>,
    next: u32,
    tunnel_changes: u64,
    /// How long packets flowed in the last batch: an estimate for the next one.
    last: Duration,
}

impl ControlLoad {
    /// Disturbs with `roam` moves, and `churn` tunnels added or removed, per second.
    pub(super) fn new(suite: Suite, window: u32, roam: u32, churn: u32) -> Self {
        let (moves, changes) = (Pace::new(roam), Pace::new(churn));
        let (extra_tunnels, last) = (VecDeque::new(), Duration::ZERO);
        Self { suite, window, moves, changes, extra_tunnels, next: 0, tunnel_changes: 0, last }
    }

    /// Returns the tunnels added and removed so far.
    pub(super) fn tunnel_changes(&self) -> u64 {
        self.tunnel_changes
    }

    /// Returns how many moves the packets of the next batch are to show.
    pub(super) fn moves_ahead(&mut self) -> u32 {
        self.moves.pass(self.last)
    }

    /// Runs the slow path until `finished`, as its own thread would, and changes tunnels; with
    /// `moves_by_hand` also moves terminals.
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

    /// Adds a tunnel, or removes the oldest if there are enough.
    fn change(&mut self, slow_path: &mut SlowPath) -> Result<(), BenchError> {
        self.tunnel_changes += 1;
        if self.extra_tunnels.len() >= EXTRA_TUNNELS as usize {
            if let Some(oldest) = self.extra_tunnels.pop_front() {
                slow_path.remove_tunnel(&world::name(oldest));
            }
            return Ok(());
        }
        // Beyond the indices of tunnels that carry packets, and out of use before the indices wrap
        // around.
        let index = addresses::MOST + self.next % (2 * EXTRA_TUNNELS);
        self.next = self.next.wrapping_add(1);
        let tunnel = world::tunnel(index, self.suite, self.window);
        slow_path.install_tunnel(&tunnel).map_err(BenchError::Key)?;
        self.extra_tunnels.push_back(index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_loses_no_fraction() {
        let mut pace = Pace::new(1000);
        let times: u32 = (0..10_000).map(|_| pace.pass(Duration::from_micros(130))).sum();
        assert!((1299..=1300).contains(&times), "{times}");
        assert_eq!(Pace::new(0).pass(Duration::from_secs(1)), 0);
    }
}

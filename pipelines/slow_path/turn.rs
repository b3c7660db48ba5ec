//! The turns of the slow path: each takes whatever came since the one before.

use super::SlowPath;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// Longest sleep between two turns, and so what a report waits at most.
const NAP: Duration = Duration::from_micros(50);

impl SlowPath {
    /// Works until `stop`.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            if !self.turn(self.start.elapsed()) {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Does one turn at time `now`, counted from the start; returns whether there was anything to
    /// do.
    pub fn turn(&mut self, now: Duration) -> bool {
        let mut busy = self.handle_events(now);
        busy |= self.handle_punts(now);
        busy |= self.handle_ike(now);
        busy |= self.handle_kernel(now);
        busy |= self.handle_timers(now);
        busy |= self.handle_requests(now);
        self.devices.log_changes(now, &self.network.ports);
        self.handle_neighbours();
        self.links.tables.collect();
        busy
    }

    fn handle_requests(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Ok((command, to)) = self.requests.try_recv() {
            let answer = self.answer(now, command);
            // Whoever asked may be gone by now.
            let _ = to.send(answer);
            busy = true;
        }
        busy
    }
}

//! The slow path's loop: each turn handles whatever arrived since the last one.

use super::SlowPath;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// Longest sleep between two turns, which bounds the delay of a report.
const MAX_SLEEP: Duration = Duration::from_micros(50);

impl SlowPath {
    /// Runs until `stop` is set.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            if !self.turn(self.start.elapsed()) {
                std::thread::sleep(MAX_SLEEP);
            }
        }
    }

    /// Runs one turn at time `now` since the start; returns true if there was anything to do.
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
            // The client may be gone by now.
            let _ = to.send(answer);
            busy = true;
        }
        busy
    }
}

//! The slow path's loop: each turn handles whatever arrived since the last one.

use super::{NewConfig, SlowPath};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// Longest sleep between two turns, which bounds the delay of a report.
const MAX_SLEEP: Duration = Duration::from_micros(50);

/// Tells the slow path's thread to end, in two steps: first it closes its peers, for which it still
/// needs the workers.
#[derive(Debug, Default)]
pub struct Stop {
    closing: AtomicBool,
    closed: AtomicBool,
    stopped: AtomicBool,
}

impl Stop {
    /// Has the slow path close its peers.
    pub fn close_peers(&self) {
        self.closing.store(true, Relaxed);
    }

    /// Returns true once all peers have answered or were given up.
    pub fn are_peers_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Ends the slow path.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }
}

impl SlowPath {
    /// Runs until it is told to stop.
    pub fn run(&mut self, stop: &Stop) {
        while !stop.stopped.load(Relaxed) {
            if stop.closing.load(Relaxed) {
                self.devices.end();
                // The host stays closed to what tunnels carried until now.
                self.links.use_barrier(None);
                if self.close_peers(self.clock.now()) {
                    stop.closed.store(true, Relaxed);
                }
            }
            if !self.turn(self.clock.now()) {
                std::thread::sleep(MAX_SLEEP);
            }
        }
    }

    /// Closes some of the peers. Returns true once all have answered or were given up; call it in
    /// each turn until then.
    pub fn close_peers(&mut self, now: Duration) -> bool {
        self.ike.as_mut().is_none_or(|ike| ike.shut_down(now))
    }

    /// Runs one turn at time `now` since the start; returns true if there was anything to do.
    pub fn turn(&mut self, now: Duration) -> bool {
        let mut busy = self.handle_events(now);
        busy |= self.handle_punts(now);
        busy |= self.handle_ike(now);
        busy |= self.handle_kernel(now);
        busy |= self.handle_timers(now);
        busy |= self.handle_requests(now);
        busy |= self.handle_new_config(now);
        self.handle_devices(now);
        self.close_old_ports();
        self.handle_neighbours(now);
        self.links.tables.collect();
        busy
    }

    fn handle_new_config(&mut self, now: Duration) -> bool {
        let Ok(NewConfig { neighbours, ike, done }) = self.new_config.try_recv() else { return false };
        self.reload_neighbours(now, &neighbours);
        self.reload_ike(now, &ike);
        // Nobody may be waiting any more.
        let _ = done.send(());
        true
    }

    fn handle_requests(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Ok((command, to)) = self.requests.try_recv() {
            self.answer(now, command, to);
            busy = true;
        }
        busy
    }
}

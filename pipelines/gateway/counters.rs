//! A worker's counters, which only the worker writes and any thread may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use wayfarer_dataplane::{
    drop::{DropReason, REASONS},
    port::PortStats,
};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`, by a plain load and store, because there is one writer.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Returns the value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Dropped packets by reason.
#[derive(Debug)]
pub struct Drops([Counter; REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Drops {
    /// Counts one packet.
    #[inline]
    pub fn count(&self, reason: DropReason) {
        self.0[reason as usize].add(1);
    }

    /// Returns the packets dropped for `reason`.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].value()
    }

    /// Returns the packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::value).sum()
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Packets received from ports.
    pub received: Counter,
    /// ESP packets that were opened and accepted.
    pub opened: Counter,
    /// Inner bytes of those.
    pub opened_bytes: Counter,
    /// Packets that were sealed in ESP.
    pub sealed: Counter,
    /// Inner bytes of those.
    pub sealed_bytes: Counter,
    /// Packets handed to ports.
    pub sent: Counter,
    /// Frames handed to the slow path.
    pub punted: Counter,
    /// Frames taken from the slow path.
    pub injected: Counter,
    /// Packets that the worker made of others: mostly the fragments of those that it cut.
    pub made: Counter,
    /// Packets that ended here without being dropped: handed to the slow path, cut into fragments, or
    /// joined to another fragment.
    pub consumed: Counter,
    /// Fragments that wait for the rest of their packets, as of the last report.
    pub waiting: Counter,
    /// Packets whose flow was remembered.
    pub flow_hits: Counter,
    /// Plain packets whose flow was not remembered.
    pub flow_misses: Counter,
    /// Turns of the poll loop.
    pub turns: Counter,
    /// Turns in which no packet came.
    pub idle_turns: Counter,
    /// The worker thread's processor time in nanoseconds, as of its last report.
    pub cpu_ns: Counter,
    /// Frames free in the pool, as of the last report.
    pub free_frames: Counter,
    /// How often the worker panicked and went on.
    pub faults: Counter,
    /// Dropped packets.
    pub drops: Drops,
    /// Each port's counters, as of the last report.
    pub ports: Box<[PortCounters]>,
}

/// One queue's [`PortStats`], shared.
#[derive(Debug, Default)]
pub struct PortCounters([Counter; 9]);

impl PortCounters {
    /// Publishes `stats`.
    pub fn set(&self, stats: &PortStats) {
        let PortStats { rx_packets, rx_bytes, rx_missed, rx_errors, rx_oversize, rx_foreign, .. } = *stats;
        let PortStats { tx_packets, tx_bytes, tx_errors, .. } = *stats;
        let received = [rx_packets, rx_bytes, rx_missed, rx_errors, rx_oversize, rx_foreign];
        let sent = [tx_packets, tx_bytes, tx_errors];
        for (counter, value) in self.0.iter().zip(received.into_iter().chain(sent)) {
            counter.set(value);
        }
    }

    /// Returns the statistics published last.
    pub fn stats(&self) -> PortStats {
        let [
            rx_packets,
            rx_bytes,
            rx_missed,
            rx_errors,
            rx_oversize,
            rx_foreign,
            tx_packets,
            tx_bytes,
            tx_errors,
        ] = std::array::from_fn(|i| self.0[i].value());
        PortStats {
            rx_packets,
            rx_bytes,
            rx_missed,
            rx_errors,
            rx_oversize,
            rx_foreign,
            tx_packets,
            tx_bytes,
            tx_errors,
        }
    }
}

impl WorkerCounters {
    /// Returns the number of all dropped packets.
    pub fn dropped(&self) -> u64 {
        self.drops.total()
    }

    /// Makes counters at zero for a worker with `ports` ports.
    pub fn new(ports: usize) -> Self {
        Self {
            received: Counter::default(),
            opened: Counter::default(),
            opened_bytes: Counter::default(),
            sealed: Counter::default(),
            sealed_bytes: Counter::default(),
            sent: Counter::default(),
            punted: Counter::default(),
            injected: Counter::default(),
            made: Counter::default(),
            consumed: Counter::default(),
            waiting: Counter::default(),
            flow_hits: Counter::default(),
            flow_misses: Counter::default(),
            turns: Counter::default(),
            idle_turns: Counter::default(),
            cpu_ns: Counter::default(),
            free_frames: Counter::default(),
            faults: Counter::default(),
            drops: Drops::default(),
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
        }
    }
}

//! A worker's counters as `show workers` gives them.

use serde::{Deserialize, Serialize};

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Number.
    pub worker: usize,
    /// Core that it is pinned to.
    pub core: Option<usize>,
    /// Packets received from ports.
    pub received: u64,
    /// ESP packets decrypted.
    pub opened: u64,
    /// Inner bytes of the ESP packets decrypted.
    pub opened_bytes: u64,
    /// Packets encrypted into ESP.
    pub sealed: u64,
    /// Inner bytes of the packets encrypted.
    pub sealed_bytes: u64,
    /// Packets handed to ports.
    pub sent: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that the worker made of others: mostly the fragments of those that it cut.
    #[serde(default)]
    pub made: u64,
    /// Packets that ended in the gateway without being dropped: handed to the slow path, cut into
    /// fragments, or joined to another fragment.
    #[serde(default)]
    pub consumed: u64,
    /// Fragments that wait for the rest of their packets.
    #[serde(default)]
    pub waiting: u64,
    /// Packets whose flow was remembered.
    #[serde(default)]
    pub flow_hits: u64,
    /// Plain packets whose flow was not remembered.
    #[serde(default)]
    pub flow_misses: u64,
    /// Frames handed to the slow path.
    pub punted: u64,
    /// Frames taken from the slow path.
    pub injected: u64,
    /// Rounds of the poll loop.
    pub turns: u64,
    /// Rounds in which no packet came.
    pub idle_turns: u64,
    /// Processor time, in seconds.
    pub cpu_s: f64,
    /// Free frames in the worker's pool.
    pub free_frames: u64,
    /// How often the worker panicked, lost the packets that it was handling, and went on. Each time
    /// is a bug in this program; please report it.
    #[serde(default)]
    pub faults: u64,
}

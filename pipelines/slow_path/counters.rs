//! The slow path's counters, which add up: every packet that it takes or makes has one end.

use crate::gateway::counters::{Counter, Drops};
use wayfarer_dataplane::drop::DropReason;

/// The slow path's counters. `punted` and `injected` are the other ends of what all workers count by these
/// names.
#[derive(Debug, Default)]
pub struct SlowPathCounters {
    /// Frames taken from workers.
    pub punted: Counter,
    /// Frames taken from sockets of devices that are shared with the kernel, which gets them too.
    pub received: Counter,
    /// Packets that the slow path made: messages of IKE, requests and answers of neighbour discovery,
    /// ICMP errors, keepalives, probes.
    pub made: Counter,
    /// Frames handed to workers.
    pub injected: Counter,
    /// Frames sent by sockets of devices that are shared with the kernel.
    pub sent: Counter,
    /// Packets that ended here without being dropped, because they are for the slow path itself. Copies of
    /// packets that a worker has dropped are among them.
    pub consumed: Counter,
    /// Dropped packets.
    pub drops: Drops,
}

impl SlowPathCounters {
    /// Counts the end of a packet that is for the slow path itself: `handled` says why it is dropped, if it
    /// is.
    pub(super) fn count_end(&self, handled: Result<(), DropReason>) {
        match handled {
            Ok(()) => self.consumed.add(1),
            Err(reason) => self.drops.count(reason),
        }
    }

    /// Returns how many packets were taken or made, less those whose end was counted and the `waiting` ones.
    pub(super) fn unaccounted(&self, waiting: usize) -> i64 {
        let came = self.punted.value() + self.received.value() + self.made.value();
        let ended = self.injected.value() + self.sent.value() + self.consumed.value() + self.drops.total();
        came as i64 - (ended + waiting as u64) as i64
    }
}

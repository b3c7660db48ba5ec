//! Lifetimes in packets and bytes (RFC 4301 §4.4.2.1). The slow path handles lifetimes in seconds.

use crate::sharing::Sharing;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

/// Soft and hard limits. `u64::MAX` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The number of packets after which the slow path should start a rekey.
    pub soft_packets: u64,
    /// The largest number of packets that may pass.
    pub hard_packets: u64,
    /// The soft limit in bytes.
    pub soft_bytes: u64,
    /// The hard limit in bytes.
    pub hard_bytes: u64,
}

impl Limits {
    /// No limits.
    pub const NONE: Self =
        Self { soft_packets: u64::MAX, hard_packets: u64::MAX, soft_bytes: u64::MAX, hard_bytes: u64::MAX };
}

/// An event of an SA that is reported to the slow path exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Due {
    /// A soft limit is reached: time for a new key.
    Soft = 1,
    /// A hard limit is reached: the SA carries no more packets.
    Hard = 2,
    /// The last sequence number is used up.
    Sequence = 4,
}

/// The packets and bytes that an SA has carried, and their limits. Bytes are those of the inner
/// packets.
#[derive(Debug)]
pub struct Lifetime {
    packets: AtomicU64,
    bytes: AtomicU64,
    /// `None` stands for [`Limits::NONE`].
    limits: Option<Box<Limits>>,
    reported: AtomicU8,
    sharing: Sharing,
}

impl Lifetime {
    pub(super) fn new(limits: Limits, sharing: Sharing) -> Self {
        let limits = (limits != Limits::NONE).then(|| Box::new(limits));
        Self {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            limits,
            reported: AtomicU8::new(0),
            sharing,
        }
    }

    /// Returns whether one worker or several use the SA.
    #[inline]
    pub(super) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Returns whether there are any limits.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limits.is_some()
    }

    /// Counts `packets` packets of `bytes` bytes in total at once. Returns `false` and counts
    /// nothing if there are limits, which must be checked for each packet.
    #[inline]
    #[must_use]
    pub fn charge_run(&self, packets: u64, bytes: u64) -> bool {
        if self.limits.is_some() {
            return false;
        }
        self.sharing.add(&self.packets, packets);
        self.sharing.add(&self.bytes, bytes);
        true
    }

    /// Counts one packet of `bytes` bytes. Returns whether it is within the hard limits. Calls
    /// `tell` for a limit just reached. `tell` returns whether the slow path will receive the
    /// event; if not, the next packet tries again.
    #[inline]
    #[must_use]
    pub fn charge(&self, bytes: usize, tell: impl FnMut(Due) -> bool) -> bool {
        let packets = self.sharing.add(&self.packets, 1) + 1;
        let bytes = self.sharing.add(&self.bytes, bytes as u64) + bytes as u64;
        let Some(l) = &self.limits else { return true };
        if packets < l.soft_packets
            && bytes < l.soft_bytes
            && packets < l.hard_packets
            && bytes < l.hard_bytes
        {
            return true;
        }
        self.at_a_limit(l, packets, bytes, tell)
    }

    #[cold]
    fn at_a_limit(&self, l: &Limits, packets: u64, bytes: u64, mut tell: impl FnMut(Due) -> bool) -> bool {
        if packets >= l.soft_packets || bytes >= l.soft_bytes {
            self.once(Due::Soft, &mut tell);
        }
        if packets >= l.hard_packets || bytes >= l.hard_bytes {
            self.once(Due::Hard, &mut tell);
        }
        packets <= l.hard_packets && bytes <= l.hard_bytes
    }

    /// Calls `tell(due)` unless the event was reported before.
    #[cold]
    pub fn once(&self, due: Due, mut tell: impl FnMut(Due) -> bool) {
        let bit = due as u8;
        if self.reported.fetch_or(bit, AcqRel) & bit == 0 && !tell(due) {
            self.reported.fetch_and(!bit, AcqRel);
        }
    }

    /// Returns the packets and bytes so far, including those beyond a hard limit.
    pub fn carried(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_reported_once_and_the_hard_one_stops() {
        let life = Lifetime::new(Limits { soft_packets: 3, hard_packets: 5, ..Limits::NONE }, Sharing::One);
        let mut reported = vec![];
        let passed = (0..8)
            .filter(|_| {
                life.charge(100, |due| {
                    reported.push(due);
                    true
                })
            })
            .count();
        assert_eq!((passed, reported), (5, vec![Due::Soft, Due::Hard]));
        assert_eq!(life.carried(), (8, 800));
    }

    #[test]
    fn a_run_counts_as_its_packets_do() {
        let free = Lifetime::new(Limits::NONE, Sharing::Many);
        assert!(free.charge_run(3, 300));
        assert_eq!(free.carried(), (3, 300));
        let limited = Lifetime::new(Limits { hard_packets: 5, ..Limits::NONE }, Sharing::Many);
        assert!(!limited.charge_run(3, 300));
        assert_eq!(limited.carried(), (0, 0));
    }

    #[test]
    fn bytes_count_and_failed_reports_are_repeated() {
        let life = Lifetime::new(Limits { soft_bytes: 150, ..Limits::NONE }, Sharing::Many);
        let mut tries = 0;
        for _ in 0..5 {
            assert!(life.charge(100, |_| {
                tries += 1;
                tries == 3
            }));
        }
        assert_eq!(tries, 3);
    }
}

//! What the capture ports of one gateway share.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::SystemTime,
};

/// The time in the captures, and whether their readers must wait. The ports share it, because a
/// packet that one of them reads leaves by another.
#[derive(Debug, Default)]
pub struct Captures {
    /// The time of the last record read, in nanoseconds since 1970; 0 before the first one.
    time: AtomicU64,
    /// `true` if an input may have times of nanoseconds.
    has_nanoseconds: AtomicBool,
    /// The number of outputs whose pipes take less than they are given.
    congested: AtomicUsize,
}

impl Captures {
    /// Returns the time in the captures, or the present time if no record has been read, in
    /// nanoseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        let present = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        match self.time.load(Relaxed) {
            0 => present().as_nanos().try_into().unwrap_or(u64::MAX),
            time => time,
        }
    }

    /// Sets the time in the captures, in nanoseconds since 1970.
    pub(super) fn set_time(&self, time: u64) {
        self.time.store(time, Relaxed);
    }

    /// Returns whether an input may have times of nanoseconds.
    pub(super) fn has_nanoseconds(&self) -> bool {
        self.has_nanoseconds.load(Relaxed)
    }

    /// Notes that an input may have times of nanoseconds.
    pub(super) fn expect_nanoseconds(&self) {
        self.has_nanoseconds.store(true, Relaxed);
    }

    /// Returns whether no input may be read for now, because an output could not follow.
    pub(super) fn is_congested(&self) -> bool {
        self.congested.load(Relaxed) > 0
    }

    /// Notes that one more output is congested, or one less.
    pub(super) fn set_congested(&self, is_congested: bool) {
        if is_congested {
            self.congested.fetch_add(1, Relaxed);
        } else {
            self.congested.fetch_sub(1, Relaxed);
        }
    }
}

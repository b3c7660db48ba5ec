//! The options of a run.

use std::time::Duration;

/// What to demonstrate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long.
    pub duration: Duration,
    /// Terminals, at most [`Options::MOST`].
    pub terminals: u32,
    /// How often each of them moves, on average.
    pub move_every: Duration,
    /// Bytes of an inner packet, 64 to 1400.
    pub size: usize,
    /// A packet that arrives where a terminal was until so long ago was in flight when it moved.
    pub in_flight: Duration,
}

impl Options {
    /// Most terminals: as many as there are inner addresses.
    pub const MOST: u32 = crate::sim::addresses::MOST;
}

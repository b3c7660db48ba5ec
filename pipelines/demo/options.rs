//! The options of a run.

use std::time::Duration;

/// The extent of a demonstration.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the run.
    pub duration: Duration,
    /// Number of terminals, at most [`Options::MOST`].
    pub terminals: u32,
    /// The average time between two moves of a terminal.
    pub move_every: Duration,
    /// Bytes of an inner packet, 64 to 1400.
    pub size: usize,
    /// How long a packet may be in flight. Packets that reach a mapping later than this after the
    /// terminal has left it, or after another packet has reached the terminal at its new mapping,
    /// count as lost.
    pub in_flight: Duration,
}

impl Options {
    /// The maximum number of terminals: as many as there are inner addresses.
    pub const MOST: u32 = crate::sim::addresses::MOST;
}

//! What has happened to a tunnel, and its times. Most tunnels have neither.

use std::time::Duration;
use wayfarer_dataplane::sa::Path;

/// What has happened to a tunnel.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The path by which the peer was last seen, if policy did not follow it.
    pub(super) seen: Option<Path>,
    /// Number of times that the peer moved.
    pub(super) moves: u64,
    /// When the peer last moved, since the start.
    pub(super) moved_at: Option<Duration>,
    /// Number of reports of soft limits: one for each SA and kind of limit.
    pub(super) soft_reports: u64,
    /// Number of reports of hard limits and of the last sequence number.
    pub(super) hard_reports: u64,
}

/// The times of a tunnel.
#[derive(Debug)]
pub(super) struct Times {
    /// Time between NAT keepalives; `None` for none.
    pub(super) keepalive: Option<Duration>,
    /// When the soft and the hard lifetime in seconds end, since the start.
    pub(super) lifetimes: [Option<Duration>; 2],
}

impl Times {
    /// Returns the times of a tunnel that is installed now, whose lifetimes in seconds are these; `None` if
    /// it has none.
    pub(super) fn new(
        now: Duration,
        keepalive: Option<Duration>,
        lifetimes: [Option<Duration>; 2],
    ) -> Option<Box<Self>> {
        let lifetimes = lifetimes.map(|after| after.map(|after| now + after));
        let has_times = keepalive.is_some() || lifetimes != [None; 2];
        has_times.then(|| Box::new(Self { keepalive, lifetimes }))
    }
}

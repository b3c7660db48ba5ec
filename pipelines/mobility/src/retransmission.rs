//! When a request is sent again.

use core::time::Duration;

/// When a request without a response is sent again (RFC 7296 §2.4): each wait is 1.6 times as long
/// as the one before.
#[derive(Clone, Copy, Debug)]
pub struct Retransmission {
    /// The first wait.
    pub first: Duration,
    /// Number of times that a request is sent again before the peer is given up.
    pub tries: u32,
}

impl Default for Retransmission {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), tries: 8 }
    }
}

impl Retransmission {
    /// Returns the wait after the request was sent again `tries` times.
    pub fn after(&self, tries: u32) -> Duration {
        (0..tries.min(16)).fold(self.first, |wait, _| wait * 8 / 5)
    }

    /// Returns the time from the first transmission until the peer is given up.
    pub fn total(&self) -> Duration {
        (0..=self.tries).map(|tries| self.after(tries)).sum()
    }
}

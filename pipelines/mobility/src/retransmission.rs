//! When a request is sent again, and when something that failed is tried again.

use core::time::Duration;

/// The longest wait of [`back_off`].
pub const MAX_BACK_OFF: Duration = Duration::from_secs(60);

/// Returns the wait before the next try after this many failures: a second, which doubles up to
/// [`MAX_BACK_OFF`].
pub fn back_off(failures: u32) -> Duration {
    (Duration::from_secs(1) * 2u32.pow(failures.min(8))).min(MAX_BACK_OFF)
}

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

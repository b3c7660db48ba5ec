//! Limits the rate of ICMP errors.

use std::time::Duration;

/// ICMP errors that may be sent in one second (RFC 1812 §4.3.2.8, RFC 4443 §2.4 f).
const PER_SECOND: u32 = 1000;

/// Limits the rate of ICMP errors.
#[derive(Debug, Default)]
pub(super) struct ProblemLimit {
    second: u64,
    sent: u32,
}

impl ProblemLimit {
    /// Counts one more error at `now`; returns true if it may be sent.
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            *self = Self { second: now.as_secs(), sent: 0 };
        }
        self.sent = self.sent.saturating_add(1);
        self.sent <= PER_SECOND
    }
}

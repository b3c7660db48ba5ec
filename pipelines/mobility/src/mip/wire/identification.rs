//! The numbers by which replies are matched, and old messages are told from new ones.

use core::time::Duration;

/// The time from 1900, where NTP begins to count, to 1970, in seconds.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// The Identification of a registration (RFC 5944 §5.7): a timestamp in the format of NTP, or two
/// nonces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification(pub u64);

impl Identification {
    /// Returns the timestamp for a time since 1970.
    pub fn at(since_1970: Duration) -> Self {
        // NTP's seconds wrap in 2036.
        let seconds = since_1970.as_secs().wrapping_add(NTP_TO_UNIX) << 32;
        let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds | fraction)
    }

    /// Returns the upper half: the home agent's nonce, or seconds.
    pub fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the lower half: the node's nonce, or the fraction of a second. A reply has that of its request.
    pub fn low(self) -> u32 {
        self.0 as u32
    }

    /// Returns this one with another upper half.
    #[must_use]
    pub fn with_high(self, high: u32) -> Self {
        Self(u64::from(high) << 32 | u64::from(self.low()))
    }

    /// Returns whether this timestamp is later than `other`, at most 68 years.
    pub fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// Returns the time between two timestamps.
    pub fn distance(self, other: Self) -> Duration {
        let apart = self.0.wrapping_sub(other.0).cast_signed().unsigned_abs();
        let nanos = (u128::from(apart) * 1_000_000_000) >> 32;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

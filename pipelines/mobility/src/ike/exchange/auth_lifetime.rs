//! AUTH_LIFETIME, by which a responder says until when the initiator must have authenticated again (RFC
//! 4478 §3).

use crate::ike::wire::{self, Malformed, Payload, notify};
use core::time::Duration;

/// The notify's data: seconds from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) struct AuthLifetime([u8; 4]);

impl AuthLifetime {
    /// Returns the notify for this time.
    pub(in crate::ike) fn new(time: Duration) -> Self {
        Self(u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_be_bytes())
    }

    /// Finds the notify in a message.
    ///
    /// # Errors
    /// Fails if its data is not a number of four octets.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Option<Self>, Malformed> {
        let data = wire::notified(payloads, notify::AUTH_LIFETIME).map(<[u8; 4]>::try_from);
        data.transpose().map(|data| data.map(Self)).map_err(|_| Malformed::Length)
    }

    /// Returns the time.
    pub(in crate::ike) fn time(self) -> Duration {
        Duration::from_secs(u32::from_be_bytes(self.0).into())
    }

    /// Returns the payload.
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::notify(notify::AUTH_LIFETIME, &self.0)
    }
}

//! Failures of a handshake.

use crate::ike::{reason::Reason, wire::ErrorNotify};

/// The failure of a handshake.
#[derive(Debug)]
pub(in crate::ike) struct Failure {
    pub(in crate::ike) reason: Reason,
    /// The notify for the peer, if it is told. It answers the peer's request, or accompanies a
    /// Delete if the peer has answered ours (RFC 7296 §2.21.2).
    pub(in crate::ike) notify: Option<ErrorNotify>,
}

impl Failure {
    /// Returns a failure that the peer is told of.
    pub(in crate::ike) fn with_notify(reason: Reason, notify: impl Into<ErrorNotify>) -> Self {
        Self { reason, notify: Some(notify.into()) }
    }
}

impl From<Reason> for Failure {
    /// Returns a failure that the peer is not told of.
    fn from(reason: Reason) -> Self {
        Self { reason, notify: None }
    }
}

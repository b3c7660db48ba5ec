//! Why a handshake ends before both sides are established.

use crate::ike::{event::Reason, wire::ErrorNotify};

/// The end of a handshake.
#[derive(Debug)]
pub(in crate::ike) struct Failure {
    pub(in crate::ike) reason: Reason,
    /// What the peer is to hear; `None`: nothing. It answers the peer's request, or, if the peer
    /// has answered ours, goes with a Delete (RFC 7296 §2.21.2).
    pub(in crate::ike) notify: Option<ErrorNotify>,
}

impl Failure {
    /// Returns one that the peer is to hear of.
    pub(in crate::ike) fn told(reason: Reason, notify: impl Into<ErrorNotify>) -> Self {
        Self { reason, notify: Some(notify.into()) }
    }
}

impl From<Reason> for Failure {
    /// Returns one that the peer does not hear of.
    fn from(reason: Reason) -> Self {
        Self { reason, notify: None }
    }
}

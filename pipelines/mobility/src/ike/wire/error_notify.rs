//! Error notifies: why a request was refused (RFC 7296 §3.10.1).

use super::{malformed::Malformed, notify, payload::Payload};
use alloc::{vec, vec::Vec};

/// An error notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorNotify {
    /// The number, below 16384.
    pub kind: u16,
    /// The notification data.
    pub data: Vec<u8>,
}

impl ErrorNotify {
    /// Returns the first error notify in the payloads.
    pub fn find(payloads: &[Payload<'_>]) -> Option<Self> {
        payloads.iter().find_map(|payload| match payload {
            Payload::Notify(n) if notify::is_error(n.kind) => {
                Some(Self { kind: n.kind, data: n.data.to_vec() })
            }
            _ => None,
        })
    }

    /// Returns INVALID_KE_PAYLOAD, which asks for this key exchange method (RFC 7296 §1.2, §1.3).
    pub fn invalid_ke_payload(method: u16) -> Self {
        Self { kind: notify::INVALID_KE_PAYLOAD, data: method.to_be_bytes().to_vec() }
    }

    /// Returns the notify as a payload.
    pub fn payload(&self) -> Payload<'_> {
        Payload::notify(self.kind, &self.data)
    }
}

impl From<u16> for ErrorNotify {
    fn from(kind: u16) -> Self {
        Self { kind, data: vec![] }
    }
}

impl From<Malformed> for ErrorNotify {
    /// Returns the notify that answers a malformed message (RFC 7296 §2.5, §2.21.3).
    fn from(why: Malformed) -> Self {
        match why {
            Malformed::Critical(kind) => {
                Self { kind: notify::UNSUPPORTED_CRITICAL_PAYLOAD, data: vec![kind] }
            }
            _ => notify::INVALID_SYNTAX.into(),
        }
    }
}

//! Error notifies: why a request was refused (RFC 7296 §3.10.1).

use super::{
    malformed::Malformed,
    notify::{self, Notify},
    payload::Payload,
};
use alloc::{vec, vec::Vec};

/// The protocol of the SAs that error notifies are about (RFC 7296 §3.10).
const ESP: u8 = 3;

/// An error notify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorNotify {
    /// The number, below 16384.
    pub kind: u16,
    /// The SPI of the child SA that the notify is about.
    pub esp_spi: Option<[u8; 4]>,
    /// The notification data.
    pub data: Vec<u8>,
}

impl ErrorNotify {
    /// Returns the first error notify in the payloads.
    pub fn find(payloads: &[Payload<'_>]) -> Option<Self> {
        payloads.iter().find_map(|payload| match payload {
            Payload::Notify(n) if notify::is_error(n.kind) => {
                let esp_spi = n.spi.try_into().ok().filter(|_| n.protocol == ESP);
                Some(Self { kind: n.kind, esp_spi, data: n.data.to_vec() })
            }
            _ => None,
        })
    }

    /// Returns INVALID_KE_PAYLOAD, which asks for this key exchange method (RFC 7296 §1.2, §1.3).
    pub fn invalid_ke_payload(method: u16) -> Self {
        Self { kind: notify::INVALID_KE_PAYLOAD, esp_spi: None, data: method.to_be_bytes().to_vec() }
    }

    /// Returns CHILD_SA_NOT_FOUND for a child SA that the peer wants to replace, by the peer's SPI of
    /// it.
    pub fn child_sa_not_found(spi: [u8; 4]) -> Self {
        Self { kind: notify::CHILD_SA_NOT_FOUND, esp_spi: Some(spi), data: vec![] }
    }

    /// Returns the notify as a payload.
    pub fn payload(&self) -> Payload<'_> {
        let (protocol, spi) = self.esp_spi.as_ref().map_or((0, &[][..]), |spi| (ESP, &spi[..]));
        Payload::Notify(Notify { protocol, spi, kind: self.kind, data: &self.data })
    }
}

impl From<u16> for ErrorNotify {
    fn from(kind: u16) -> Self {
        Self { kind, esp_spi: None, data: vec![] }
    }
}

impl From<Malformed> for ErrorNotify {
    /// Returns the notify that answers a malformed message (RFC 7296 §2.5, §2.21.3).
    fn from(why: Malformed) -> Self {
        match why {
            Malformed::Critical(kind) => {
                Self { kind: notify::UNSUPPORTED_CRITICAL_PAYLOAD, esp_spi: None, data: vec![kind] }
            }
            _ => notify::INVALID_SYNTAX.into(),
        }
    }
}

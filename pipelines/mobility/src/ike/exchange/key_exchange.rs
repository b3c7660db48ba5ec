//! The KE payload (RFC 7296 §3.4) of exchanges that consist of little more: IKE_INTERMEDIATE and
//! IKE_FOLLOWUP_KE.

use crate::ike::wire::{Malformed, Payload, kind};
use alloc::vec::Vec;

/// One side's part of a key exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct KeyExchange {
    /// The key exchange method, a transform ID of type 4.
    pub(in crate::ike) method: u16,
    /// The sender's public value.
    pub(in crate::ike) data: Vec<u8>,
}

impl KeyExchange {
    /// Finds the KE payload of a message.
    ///
    /// # Errors
    /// Fails if there is none (RFC 9370 §2.2.2).
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let kex = payloads.iter().find_map(|p| match p {
            Payload::Ke { method, data } => Some(Self { method: *method, data: data.to_vec() }),
            _ => None,
        });
        kex.ok_or(Malformed::Missing(kind::KE))
    }

    /// Returns the KE payload.
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::Ke { method: self.method, data: &self.data }
    }
}

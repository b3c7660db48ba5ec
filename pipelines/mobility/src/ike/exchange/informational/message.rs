//! The two messages of INFORMATIONAL (RFC 7296 §1.4), with what MOBIKE says in them (RFC 4555 §3).

use crate::ike::{
    description,
    nat::NatDetection,
    wire::{self, Delete, ErrorNotify, Malformed, Payload, notify},
};
use alloc::vec::Vec;

/// A request. One that says nothing asks for a sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalRequest {
    /// Whether the sender does not take our proof (RFC 7296 §2.21.2).
    pub(in crate::ike) is_unauthenticated: bool,
    pub(in crate::ike) deletes: Vec<Delete>,
    /// Whether the SAs are to go by the addresses of this message (RFC 4555 §3.5).
    pub(in crate::ike) updates: bool,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// What the answer is to bring back (RFC 4555 §3.7).
    pub(in crate::ike) cookie: Option<Vec<u8>>,
    /// The path as the sender sees it, if there may be no NAT (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: Option<Vec<u8>>,
    /// Our own description of the path.
    pub(in crate::ike) description: Option<Vec<u8>>,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalResponse {
    pub(in crate::ike) deletes: Vec<Delete>,
    pub(in crate::ike) refusal: Option<ErrorNotify>,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// What a gateway of ours says to our description.
    pub(in crate::ike) description: Option<Vec<u8>>,
    /// What the request asked it to bring back.
    pub(in crate::ike) cookie: Option<Vec<u8>>,
}

impl InformationalRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// If a notify is not as long as it must be.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let notified = |kind| wire::notified(payloads, kind);
        Ok(Self {
            is_unauthenticated: notified(notify::AUTHENTICATION_FAILED).is_some(),
            deletes: deletes(payloads),
            updates: notified(notify::UPDATE_SA_ADDRESSES).is_some(),
            nat: NatDetection::read(payloads)?,
            cookie: notified(notify::COOKIE2).map(<[u8]>::to_vec),
            no_nats: notified(notify::NO_NATS_ALLOWED).map(<[u8]>::to_vec),
            description: notified(description::REQUEST).map(<[u8]>::to_vec),
        })
    }

    /// Returns its payloads.
    pub(in crate::ike) fn payloads(&self) -> Vec<Payload<'_>> {
        let flag = |is_set: bool, kind| is_set.then(|| Payload::notify(kind, &[]));
        let mut payloads = Vec::new();
        payloads.extend(flag(self.is_unauthenticated, notify::AUTHENTICATION_FAILED));
        payloads.extend(self.deletes.iter().cloned().map(Payload::Delete));
        payloads.extend(flag(self.updates, notify::UPDATE_SA_ADDRESSES));
        payloads.extend(self.nat.iter().flat_map(NatDetection::payloads));
        payloads.extend(optional(notify::COOKIE2, &self.cookie));
        payloads.extend(optional(notify::NO_NATS_ALLOWED, &self.no_nats));
        payloads.extend(optional(description::REQUEST, &self.description));
        payloads
    }
}

impl InformationalResponse {
    /// Reads an answer.
    ///
    /// # Errors
    /// As [`InformationalRequest::read`].
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        Ok(Self {
            deletes: deletes(payloads),
            refusal: ErrorNotify::find(payloads),
            nat: NatDetection::read(payloads)?,
            description: wire::notified(payloads, description::REPLY).map(<[u8]>::to_vec),
            cookie: wire::notified(payloads, notify::COOKIE2).map(<[u8]>::to_vec),
        })
    }

    /// Returns its payloads.
    pub(in crate::ike) fn payloads(&self) -> Vec<Payload<'_>> {
        let mut payloads: Vec<_> = self.deletes.iter().cloned().map(Payload::Delete).collect();
        payloads.extend(self.refusal.as_ref().map(ErrorNotify::payload));
        payloads.extend(self.nat.iter().flat_map(NatDetection::payloads));
        payloads.extend(optional(description::REPLY, &self.description));
        payloads.extend(optional(notify::COOKIE2, &self.cookie));
        payloads
    }
}

fn deletes(payloads: &[Payload<'_>]) -> Vec<Delete> {
    let delete = |payload: &Payload<'_>| match payload {
        Payload::Delete(delete) => Some(delete.clone()),
        _ => None,
    };
    payloads.iter().filter_map(delete).collect()
}

fn optional(kind: u16, data: &Option<Vec<u8>>) -> Option<Payload<'_>> {
    data.as_ref().map(|data| Payload::notify(kind, data))
}

//! The two messages of INFORMATIONAL (RFC 7296 §1.4), including MOBIKE's notifies (RFC 4555 §3).

use crate::ike::{
    description,
    nat::NatDetection,
    wire::{self, Delete, ErrorNotify, Malformed, Payload, notify},
};
use alloc::vec::Vec;

/// A request. An empty one checks that the peer is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalRequest {
    /// True if the sender rejects our proof of identity (RFC 7296 §2.21.2).
    pub(in crate::ike) is_unauthenticated: bool,
    pub(in crate::ike) deletes: Vec<Delete>,
    /// True if the SAs must use the addresses of this message from now on (RFC 4555 §3.5).
    pub(in crate::ike) updates: bool,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// COOKIE2, which the response must return (RFC 4555 §3.7).
    pub(in crate::ike) cookie: Option<Vec<u8>>,
    /// The path as the sender sees it, if it forbids NATs (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: Option<Vec<u8>>,
    /// Our proprietary description of the path.
    pub(in crate::ike) description: Option<Vec<u8>>,
}

/// The response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalResponse {
    pub(in crate::ike) deletes: Vec<Delete>,
    pub(in crate::ike) refusal: Option<ErrorNotify>,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// The answer of a Wayfarer gateway to our description.
    pub(in crate::ike) description: Option<Vec<u8>>,
    /// COOKIE2 as the request had it.
    pub(in crate::ike) cookie: Option<Vec<u8>>,
}

impl InformationalRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// Fails if a notify has a wrong length.
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

    /// Returns the payloads.
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
    /// Parses a response.
    ///
    /// # Errors
    /// As of [`InformationalRequest::read`].
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        Ok(Self {
            deletes: deletes(payloads),
            refusal: ErrorNotify::find(payloads),
            nat: NatDetection::read(payloads)?,
            description: wire::notified(payloads, description::REPLY).map(<[u8]>::to_vec),
            cookie: wire::notified(payloads, notify::COOKIE2).map(<[u8]>::to_vec),
        })
    }

    /// Returns the payloads.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::{nat::NatDetection, proposal::protocol};
    use alloc::vec;

    fn nat() -> Option<NatDetection> {
        let hashes = [[1; 20], [2; 20], [3; 20]];
        let [one, other, there] = hashes.each_ref();
        let payloads = [
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, one),
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, other),
            Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, there),
        ];
        NatDetection::read(&payloads).unwrap()
    }

    #[test]
    fn messages_round_trip() {
        let deletes = vec![Delete { protocol: protocol::ESP, spis: vec![7, 8] }];
        let request = InformationalRequest {
            is_unauthenticated: true,
            deletes: deletes.clone(),
            updates: true,
            nat: nat(),
            cookie: Some(vec![4; 16]),
            no_nats: Some(vec![5; 12]),
            description: Some(vec![6; 16]),
        };
        assert_eq!(InformationalRequest::read(&request.payloads()), Ok(request));
        let response = InformationalResponse {
            deletes,
            refusal: Some(notify::UNEXPECTED_NAT_DETECTED.into()),
            nat: nat(),
            description: Some(vec![6; 6]),
            cookie: Some(vec![4; 16]),
        };
        assert_eq!(InformationalResponse::read(&response.payloads()), Ok(response));
        assert_eq!(InformationalRequest::read(&[]), Ok(InformationalRequest::default()));
    }
}

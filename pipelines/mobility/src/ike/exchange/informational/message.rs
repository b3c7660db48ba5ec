//! The two messages of INFORMATIONAL (RFC 7296 §1.4), including MOBIKE's notifies (RFC 4555 §3).

use crate::ike::{
    crash::CrashToken,
    description::{self, Description},
    exchange::auth_lifetime::AuthLifetime,
    nat::{NatDetection, NoNatsAllowed},
    wire::{self, Delete, ErrorNotify, Malformed, Payload, notify},
};
use alloc::vec::Vec;

/// A request. An empty one checks that the peer is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalRequest {
    /// Why the sender rejects our answer in IKE_AUTH (RFC 7296 §2.21.2).
    pub(in crate::ike) refusal: Option<ErrorNotify>,
    pub(in crate::ike) deletes: Vec<Delete>,
    /// True if the SAs must use the addresses of this message from now on (RFC 4555 §3.5).
    pub(in crate::ike) updates: bool,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// COOKIE2, which the response must return (RFC 4555 §3.7).
    pub(in crate::ike) cookie: Option<Vec<u8>>,
    /// The path as the sender sees it, if it forbids NATs (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: Option<NoNatsAllowed>,
    /// How long our authentication counts from now on (RFC 4478 §3).
    pub(in crate::ike) auth_lifetime: Option<AuthLifetime>,
    /// The sender's token for the IKE SA of the message (RFC 6290 §4.3).
    pub(in crate::ike) crash_token: Option<CrashToken>,
    /// The proprietary description of the path by a Wayfarer terminal.
    pub(in crate::ike) description: Option<Description>,
}

/// The response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ike) struct InformationalResponse {
    pub(in crate::ike) deletes: Vec<Delete>,
    pub(in crate::ike) refusal: Option<ErrorNotify>,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// The answer of a Wayfarer gateway to our description.
    pub(in crate::ike) description: Option<description::Answer>,
    /// COOKIE2 as the request had it.
    pub(in crate::ike) cookie: Option<Vec<u8>>,
}

impl InformationalRequest {
    /// Parses a request. Proprietary notifies are ours only if the sender `is_wayfarer`.
    ///
    /// # Errors
    /// Fails if a notify has a wrong length.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>], is_wayfarer: bool) -> Result<Self, Malformed> {
        let notified = |kind| wire::notified(payloads, kind);
        Ok(Self {
            refusal: match notified(notify::AUTHENTICATION_FAILED) {
                Some(_) => Some(notify::AUTHENTICATION_FAILED.into()),
                None => ErrorNotify::find(payloads),
            },
            deletes: deletes(payloads),
            updates: notified(notify::UPDATE_SA_ADDRESSES).is_some(),
            nat: NatDetection::read(payloads)?,
            cookie: notified(notify::COOKIE2).map(<[u8]>::to_vec),
            no_nats: NoNatsAllowed::read(payloads)?,
            auth_lifetime: AuthLifetime::read(payloads)?,
            crash_token: CrashToken::find(payloads),
            description: notified(description::REQUEST).filter(|_| is_wayfarer).map(Description::read),
        })
    }

    /// Passes the payloads to `send`, and returns its result.
    pub(in crate::ike) fn with_payloads<R>(&self, send: impl FnOnce(&[Payload<'_>]) -> R) -> R {
        let no_nats = self.no_nats.map(NoNatsAllowed::data);
        let description = self.description.as_ref().map(Description::data);
        let flag = |is_set: bool, kind| is_set.then(|| Payload::notify(kind, &[]));
        let mut payloads = Vec::new();
        payloads.extend(self.refusal.as_ref().map(ErrorNotify::payload));
        payloads.extend(self.deletes.iter().cloned().map(Payload::Delete));
        payloads.extend(flag(self.updates, notify::UPDATE_SA_ADDRESSES));
        payloads.extend(self.nat.iter().flat_map(NatDetection::payloads));
        payloads.extend(optional(notify::COOKIE2, &self.cookie));
        payloads.extend(optional(notify::NO_NATS_ALLOWED, &no_nats));
        payloads.extend(self.auth_lifetime.as_ref().map(AuthLifetime::payload));
        payloads.extend(self.crash_token.as_ref().map(CrashToken::payload));
        payloads.extend(optional(description::REQUEST, &description));
        send(&payloads)
    }
}

impl InformationalResponse {
    /// Parses a response.
    ///
    /// # Errors
    /// As of [`InformationalRequest::read`].
    pub(in crate::ike) fn read(payloads: &[Payload<'_>], is_wayfarer: bool) -> Result<Self, Malformed> {
        let description = wire::notified(payloads, description::REPLY).filter(|_| is_wayfarer);
        Ok(Self {
            deletes: deletes(payloads),
            refusal: ErrorNotify::find(payloads),
            nat: NatDetection::read(payloads)?,
            description: description.map(description::Answer::read).transpose()?,
            cookie: wire::notified(payloads, notify::COOKIE2).map(<[u8]>::to_vec),
        })
    }

    /// Passes the payloads to `send`, and returns its result.
    pub(in crate::ike) fn with_payloads<R>(&self, send: impl FnOnce(&[Payload<'_>]) -> R) -> R {
        let description = self.description.as_ref().map(description::Answer::data);
        let mut payloads: Vec<_> = self.deletes.iter().cloned().map(Payload::Delete).collect();
        payloads.extend(self.refusal.as_ref().map(ErrorNotify::payload));
        payloads.extend(self.nat.iter().flat_map(NatDetection::payloads));
        payloads.extend(optional(description::REPLY, &description));
        payloads.extend(optional(notify::COOKIE2, &self.cookie));
        send(&payloads)
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
    use crate::{ike::proposal::protocol, path::Addresses};
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
        let [local, remote] = ["192.0.2.7:4500", "203.0.113.1:4500"].map(|end| end.parse().unwrap());
        let request = InformationalRequest {
            refusal: Some(notify::AUTHENTICATION_FAILED.into()),
            deletes: deletes.clone(),
            updates: true,
            nat: nat(),
            cookie: Some(vec![4; 16]),
            no_nats: Some(NoNatsAllowed::new(local, remote)),
            auth_lifetime: Some(AuthLifetime::new(core::time::Duration::from_secs(3600))),
            crash_token: CrashToken::find(&[Payload::notify(notify::QCD_TOKEN, &[5; 32])]),
            description: Some(Description::new(Addresses { local, remote })),
        };
        let read =
            |is_wayfarer| request.with_payloads(|payloads| InformationalRequest::read(payloads, is_wayfarer));
        assert_eq!(read(true), Ok(request.clone()));
        assert_eq!(read(false).unwrap().description, None, "another vendor's notify");
        let response = InformationalResponse {
            deletes,
            refusal: Some(notify::UNEXPECTED_NAT_DETECTED.into()),
            nat: nat(),
            description: Some(description::Answer { translations: 1, supported: 2, used: 2 }),
            cookie: Some(vec![4; 16]),
        };
        let read = |is_wayfarer| {
            response.with_payloads(|payloads| InformationalResponse::read(payloads, is_wayfarer))
        };
        assert_eq!(read(true), Ok(response.clone()));
        assert_eq!(read(false).unwrap().description, None, "another vendor's notify");
        assert_eq!(InformationalRequest::read(&[], true), Ok(InformationalRequest::default()));
    }
}

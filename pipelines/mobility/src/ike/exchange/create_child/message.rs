//! The two messages of CREATE_CHILD_SA (RFC 7296 §1.3).

use super::followup_message::Ticket;
use crate::ike::{
    crash::CrashToken,
    peer::child::ChildOffer,
    proposal::protocol,
    wire::{self, ErrorNotify, Malformed, Notify, Payload, Proposal, kind, notify},
};
use alloc::{vec, vec::Vec};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct CreateChildRequest {
    /// The SPI by which the sender receives the child SA that is to be replaced (RFC 7296 §1.3.3).
    pub(in crate::ike) rekeyed: Option<[u8; 4]>,
    pub(in crate::ike) sa: SaPayloads,
}

/// The response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum CreateChildResponse {
    /// The peer agrees. If further key exchanges were agreed on, there is a ticket for the next one.
    Agreed(SaPayloads, Option<Ticket>),
    /// The request is to come again with this key exchange method (RFC 7296 §1.3).
    OtherKex(u16),
    Refused(ErrorNotify),
}

/// The payloads by which both messages describe the new SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct SaPayloads {
    pub(in crate::ike) offer: SaOffer,
    pub(in crate::ike) nonce: Vec<u8>,
    /// The method and the data of the KE payload.
    pub(in crate::ike) ke: Option<(u16, Vec<u8>)>,
    /// The responder's token for the new IKE SA (RFC 6290 §4.3).
    pub(in crate::ike) crash_token: Option<CrashToken>,
}

/// An offer for the new SA, or the choice from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum SaOffer {
    Child(ChildOffer),
    IkeSa(Vec<Proposal>),
}

impl CreateChildRequest {
    /// Parses a request.
    ///
    /// # Errors
    /// Fails if a mandatory payload is missing, or if REKEY_SA has no SPI of ESP.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let rekeyed = payloads.iter().find_map(|payload| match payload {
            Payload::Notify(n) if n.kind == notify::REKEY_SA => Some(n.spi),
            _ => None,
        });
        let rekeyed = rekeyed.map(|spi| spi.try_into().map_err(|_| Malformed::Length)).transpose()?;
        Ok(Self { rekeyed, sa: SaPayloads::read(payloads)? })
    }

    /// Returns the payloads.
    pub(in crate::ike) fn payloads(&self) -> Vec<Payload<'_>> {
        let rekeyed = self.rekeyed.as_ref().map(|spi| {
            Payload::Notify(Notify { protocol: protocol::ESP, spi, kind: notify::REKEY_SA, data: &[] })
        });
        rekeyed.into_iter().chain(self.sa.mode()).chain(self.sa.payloads()).collect()
    }
}

impl CreateChildResponse {
    /// Parses a response.
    ///
    /// # Errors
    /// Fails if it has no error notify and a mandatory payload is missing, or INVALID_KE_PAYLOAD
    /// names no key exchange method.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        if let Some(method) = wire::wanted_kex(payloads)? {
            return Ok(Self::OtherKex(method));
        }
        match ErrorNotify::find(payloads) {
            Some(refusal) => Ok(Self::Refused(refusal)),
            None => Ok(Self::Agreed(SaPayloads::read(payloads)?, Ticket::find(payloads))),
        }
    }
}

impl SaPayloads {
    /// Parses the mandatory payloads: an SA payload and a nonce, and both traffic selectors for a
    /// child SA (RFC 7296 §1.3.1 to §1.3.3).
    fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let Some(Payload::Sa(proposals)) = find(kind::SA) else { return Err(Malformed::Missing(kind::SA)) };
        let Some(Payload::Nonce(nonce)) = find(kind::NONCE) else {
            return Err(Malformed::Missing(kind::NONCE));
        };
        let ke = find(kind::KE).and_then(|payload| match payload {
            Payload::Ke { method, data } => Some((*method, data.to_vec())),
            _ => None,
        });
        let offer = match proposals.first().is_some_and(|p| p.protocol == protocol::IKE) {
            true => SaOffer::IkeSa(proposals.clone()),
            false => SaOffer::Child(ChildOffer::read(payloads)?),
        };
        Ok(Self { offer, nonce: nonce.to_vec(), ke, crash_token: CrashToken::find(payloads) })
    }

    /// Returns the payloads of the answer that agrees, with the ticket for the next key exchange if
    /// there is one.
    pub(in crate::ike) fn answer<'a>(&'a self, ticket: Option<&'a Ticket>) -> Vec<Payload<'a>> {
        self.payloads().into_iter().chain(self.mode()).chain(ticket.map(Ticket::payload)).collect()
    }

    fn payloads(&self) -> Vec<Payload<'_>> {
        let (proposals, child) = match &self.offer {
            SaOffer::Child(child) => (&child.proposals, Some(child)),
            SaOffer::IkeSa(proposals) => (proposals, None),
        };
        let mut payloads = vec![Payload::Sa(proposals.clone()), Payload::Nonce(&self.nonce)];
        payloads.extend(self.ke.as_ref().map(|(method, data)| Payload::Ke { method: *method, data }));
        if let Some(ChildOffer { ts_i, ts_r, .. }) = child {
            payloads.extend([Payload::TsI(ts_i.clone()), Payload::TsR(ts_r.clone())]);
        }
        payloads.extend(self.crash_token.as_ref().map(CrashToken::payload));
        payloads
    }

    /// Returns the notify that requests or grants transport mode.
    fn mode(&self) -> Option<Payload<'_>> {
        match &self.offer {
            SaOffer::Child(child) if child.transport => {
                Some(Payload::notify(notify::USE_TRANSPORT_MODE, &[]))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::wire::TrafficSelector;

    fn sa(transport: bool) -> SaPayloads {
        let proposal = |protocol| Proposal { number: 1, protocol, spi: vec![9; 4], transforms: vec![] };
        let host = |last| vec![TrafficSelector::host([10, 0, 0, last].into())];
        let child =
            ChildOffer { proposals: vec![proposal(protocol::ESP)], ts_i: host(1), ts_r: host(2), transport };
        let ke = Some((31, vec![8; 32]));
        SaPayloads { offer: SaOffer::Child(child), nonce: vec![7; 32], ke, crash_token: None }
    }

    #[test]
    fn messages_round_trip() {
        for transport in [false, true] {
            let request = CreateChildRequest { rekeyed: Some([1, 2, 3, 4]), sa: sa(transport) };
            assert_eq!(CreateChildRequest::read(&request.payloads()), Ok(request));
            let agreed = sa(transport);
            assert_eq!(
                CreateChildResponse::read(&agreed.answer(None)),
                Ok(CreateChildResponse::Agreed(agreed, None))
            );
        }
        let read = |refusal: ErrorNotify| CreateChildResponse::read(&[refusal.payload()]);
        let refusal: ErrorNotify = notify::TEMPORARY_FAILURE.into();
        assert_eq!(read(refusal.clone()), Ok(CreateChildResponse::Refused(refusal)));
        assert_eq!(read(ErrorNotify::invalid_ke_payload(19)), Ok(CreateChildResponse::OtherKex(19)));
        for data in [vec![], vec![0], vec![0, 19, 0]] {
            let refusal = ErrorNotify { kind: notify::INVALID_KE_PAYLOAD, esp_spi: None, data };
            assert_eq!(read(refusal), Err(Malformed::Length));
        }
    }

    #[test]
    fn a_message_without_a_mandatory_payload_is_malformed() {
        let request = CreateChildRequest { rekeyed: None, sa: sa(false) };
        for kind in [kind::SA, kind::NONCE, kind::TS_I, kind::TS_R] {
            let payloads: Vec<_> = request.payloads().into_iter().filter(|p| p.kind() != kind).collect();
            assert_eq!(CreateChildRequest::read(&payloads), Err(Malformed::Missing(kind)));
            assert_eq!(CreateChildResponse::read(&payloads), Err(Malformed::Missing(kind)));
        }
        let long = Notify { protocol: protocol::ESP, spi: &[1; 8], kind: notify::REKEY_SA, data: &[] };
        let payloads = [vec![Payload::Notify(long)], request.payloads()].concat();
        assert_eq!(CreateChildRequest::read(&payloads), Err(Malformed::Length));
    }
}

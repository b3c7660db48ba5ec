//! Habits of other implementations, put on an endpoint of ours.

use super::keys::LoggedKeys;
use crate::primitives::Primitives;
use wayfarer_mobility::{
    ike::{
        endpoint::Endpoint,
        event::Event,
        nat::nat_detection,
        protection::Fragments,
        wire::{self, ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
};

/// Takes COOKIE2 out of answers without NAT_DETECTION: libreswan returns it only beside that
/// (`process_v2N_mobike_requests`). In the others, NAT_DETECTION is about the end to which the side sends,
/// wherever the request has come from (`ikev2_out_nat_v2n`).
#[derive(Debug, Default)]
pub struct LibreswanAnswers {
    keys: Vec<LoggedKeys>,
    /// `true` if both are taken out of all answers, as version 4.10 leaves them out once it has forgotten
    /// MOBIKE.
    pub forgets_mobike: bool,
    /// `true` if answers go to where the peer is known, wherever the request has come from, as those of
    /// version 5.4 without MOBIKE.
    pub answers_known_end: bool,
}

impl LibreswanAnswers {
    /// Learns the keys of the side's IKE SAs from its events. It must
    /// [log](wayfarer_mobility::ike::settings::Settings::log_keys) them.
    pub fn learn(&mut self, event: &Event) {
        self.keys.extend(LoggedKeys::of(event));
    }

    /// Returns a message of the side with this endpoint as the other implementation would send it.
    pub fn apply(&mut self, endpoint: &Endpoint, message: Vec<u8>) -> Vec<u8> {
        self.try_apply(endpoint, &message).unwrap_or(message)
    }

    /// Returns the addresses by which a message of the side goes that ours would send by `addresses`.
    pub fn way(&self, endpoint: &Endpoint, addresses: Addresses, message: &[u8]) -> Addresses {
        let answer =
            Header::parse(message).ok().filter(|header| self.answers_known_end && header.is_response());
        let spis = answer.map(|header| [header.spi_i, header.spi_r]);
        let peer = spis.and_then(|spis| endpoint.peers().find(|peer| peer.spis() == Some(spis)));
        peer.map_or(addresses, |peer| peer.addresses())
    }

    fn try_apply(&mut self, endpoint: &Endpoint, message: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(message).ok().filter(Header::is_response)?;
        let keys = self.keys.iter_mut().find(|keys| keys.spis() == [header.spi_i, header.spi_r])?;
        if header.exchange != ExchangeType::Informational.number() {
            return None;
        }
        let protection = keys.protection(header.is_from_initiator());
        let opened = protection.open(&header, message, &mut Fragments::default()).ok()??;
        let hash;
        let mut payloads = wire::parse(opened.first, &opened.body).ok()?;
        if !self.forgets_mobike && wire::notified(&payloads, notify::NAT_DETECTION_SOURCE_IP).is_some() {
            let peer = endpoint.peers().find(|peer| peer.spis() == Some(keys.spis()))?;
            hash = nat_detection(&Primitives, header.spi_i, header.spi_r, peer.addresses().remote);
            for payload in &mut payloads {
                if let Payload::Notify(n) = payload
                    && n.kind == notify::NAT_DETECTION_DESTINATION_IP
                {
                    n.data = &hash;
                }
            }
        } else {
            let of_mobike =
                [notify::COOKIE2, notify::NAT_DETECTION_SOURCE_IP, notify::NAT_DETECTION_DESTINATION_IP];
            payloads.retain(|payload| !matches!(payload, Payload::Notify(n) if of_mobike.contains(&n.kind)));
        }
        let mut body = vec![];
        let first = wire::emit(&payloads, &mut body);
        Some(keys.seal(header, first, body, None).remove(0))
    }
}

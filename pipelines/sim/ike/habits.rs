//! Habits of other implementations, put on an endpoint of ours.

use super::keys::LoggedKeys;
use wayfarer_mobility::ike::{
    event::Event,
    protection::Fragments,
    wire::{self, ExchangeType, Header, Payload, notify},
};

/// Takes COOKIE2 out of answers without NAT_DETECTION: libreswan returns it only beside that
/// (`process_v2N_mobike_requests`).
#[derive(Debug, Default)]
pub struct LibreswanAnswers {
    keys: Vec<LoggedKeys>,
    /// `true` if both are taken out of all answers, as version 4.10 leaves them out once it has forgotten
    /// MOBIKE.
    pub forgets_mobike: bool,
}

impl LibreswanAnswers {
    /// Learns the keys of the side's IKE SAs from its events. It must
    /// [log](wayfarer_mobility::ike::settings::Settings::log_keys) them.
    pub fn learn(&mut self, event: &Event) {
        self.keys.extend(LoggedKeys::of(event));
    }

    /// Returns a message of the side as the other implementation would send it.
    pub fn apply(&mut self, message: Vec<u8>) -> Vec<u8> {
        self.without_mobike(&message).unwrap_or(message)
    }

    fn without_mobike(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(message).ok().filter(Header::is_response)?;
        let keys = self.keys.iter_mut().find(|keys| keys.spis() == [header.spi_i, header.spi_r])?;
        if header.exchange != ExchangeType::Informational.number() {
            return None;
        }
        let protection = keys.protection(header.is_from_initiator());
        let opened = protection.open(&header, message, &mut Fragments::default()).ok()??;
        let mut payloads = wire::parse(opened.first, &opened.body).ok()?;
        if !self.forgets_mobike && wire::notified(&payloads, notify::NAT_DETECTION_SOURCE_IP).is_some() {
            return None;
        }
        let of_mobike =
            [notify::COOKIE2, notify::NAT_DETECTION_SOURCE_IP, notify::NAT_DETECTION_DESTINATION_IP];
        payloads.retain(|payload| !matches!(payload, Payload::Notify(n) if of_mobike.contains(&n.kind)));
        let mut body = vec![];
        let first = wire::emit(&payloads, &mut body);
        Some(keys.seal(header, first, body, None).remove(0))
    }
}

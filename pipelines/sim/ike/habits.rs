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
}

impl LibreswanAnswers {
    /// Learns the keys of the side's IKE SAs from its events. It must
    /// [log](wayfarer_mobility::ike::settings::Settings::log_keys) them.
    pub fn learn(&mut self, event: &Event) {
        self.keys.extend(LoggedKeys::of(event));
    }

    /// Returns a message of the side as the other implementation would send it.
    pub fn apply(&mut self, message: Vec<u8>) -> Vec<u8> {
        self.without_cookie2(&message).unwrap_or(message)
    }

    fn without_cookie2(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let header = Header::parse(message).ok().filter(Header::is_response)?;
        let keys = self.keys.iter_mut().find(|keys| keys.spis() == [header.spi_i, header.spi_r])?;
        if header.exchange != ExchangeType::Informational.number() {
            return None;
        }
        let protection = keys.protection(header.is_from_initiator());
        let opened = protection.open(&header, message, &mut Fragments::default()).ok()??;
        let mut payloads = wire::parse(opened.first, &opened.body).ok()?;
        if wire::notified(&payloads, notify::NAT_DETECTION_SOURCE_IP).is_some() {
            return None;
        }
        let is_cookie2 =
            |payload: &Payload<'_>| matches!(payload, Payload::Notify(n) if n.kind == notify::COOKIE2);
        payloads.retain(|payload| !is_cookie2(payload));
        let mut body = vec![];
        let first = wire::emit(&payloads, &mut body);
        Some(keys.seal(header, first, body, None).remove(0))
    }
}

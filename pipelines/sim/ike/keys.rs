//! Keys of an IKE SA from a side's key log, to send messages in the name of either side.

use super::seeded::Seeded;
use crate::primitives::Primitives;
use wayfarer_mobility::{
    crypto::Secret,
    ike::{
        event::Event,
        protection::Protection,
        schedule::IkeSaKeys,
        suite::IkeSuite,
        wire::{self, Header},
    },
};

/// The keys of one IKE SA.
#[derive(Debug)]
pub struct LoggedKeys {
    spis: [u64; 2],
    suite: IkeSuite,
    keys: IkeSaKeys,
    /// The next IV of messages sealed here, far from those of the endpoints.
    counter: u64,
    random: Seeded,
}

impl LoggedKeys {
    /// Reads the keys of the newest IKE SA in `events`.
    ///
    /// # Panics
    /// If there are none: [`log_keys`](wayfarer_mobility::ike::settings::Settings::log_keys) is
    /// off, or there is no IKE SA yet.
    pub fn newest(events: &[Event]) -> Self {
        events.iter().rev().find_map(Self::of).expect("the keys of an IKE SA")
    }

    /// Reads the keys of an IKE SA, if `event` has them.
    pub fn of(event: &Event) -> Option<Self> {
        match event {
            Event::IkeSaKeys { spis, suite, encr: [ei, er], integ: [ai, ar] } => {
                let none = Secret::default;
                let (ai, ar, ei, er) = (ai.clone(), ar.clone(), ei.clone(), er.clone());
                let keys = IkeSaKeys { d: none(), ai, ar, ei, er, pi: none(), pr: none() };
                let (suite, random) = (suite.clone(), Seeded::new(1));
                Some(Self { spis: *spis, suite, keys, counter: 1 << 40, random })
            }
            _ => None,
        }
    }

    /// Returns the SPIs of the IKE SA, the initiator's first.
    pub fn spis(&self) -> [u64; 2] {
        self.spis
    }

    /// Returns the protection of messages from the initiator, or from the responder.
    pub fn protection(&self, from_initiator: bool) -> Protection<'_> {
        Protection { crypto: &Primitives, suite: &self.suite, keys: &self.keys, from_initiator }
    }

    /// Makes the header of a message; `flags` say which side sends it.
    pub fn header(&self, exchange: u8, flags: u8, message_id: u32) -> Header {
        let ([spi_i, spi_r], version) = (self.spis, wire::VERSION);
        Header { spi_i, spi_r, next: 0, version, exchange, flags, message_id, length: 0 }
    }

    /// Seals a message with the payloads `body`, the first of type `first`; in fragments if it is
    /// longer than `limit`.
    pub fn seal(&mut self, header: Header, first: u8, body: Vec<u8>, limit: Option<usize>) -> Vec<Vec<u8>> {
        let Self { suite, keys, counter, random, .. } = self;
        let from_initiator = header.is_from_initiator();
        let protection = Protection { crypto: &Primitives, suite, keys, from_initiator };
        protection.seal(random, header, first, body, limit, counter)
    }
}

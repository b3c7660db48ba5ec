//! An authenticated peer that sends messages which no endpoint of ours would.

use crate::pair::Pair;
use std::time::Duration;
use wayfarer::sim::ike::{connections::TERMINAL, keys::LoggedKeys, side::to_gateway};
use wayfarer_mobility::ike::{
    connection::Connection,
    event::Event,
    protection::{Fragments, Plaintext, Protection},
    settings::Settings,
    wire::{
        self, Delete, ExchangeType, Header, Notify, Payload, Proposal, TrafficSelector, Transform, flags,
        kind, notify,
    },
};

/// The gateway's answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It accepted a proposal, with this SPI.
    Accepted(Vec<u8>),
    /// It refused, with this error notify.
    Refused(u16),
    /// Another answer.
    Other,
    /// No answer.
    None,
}

/// A pair whose terminal's messages the test makes itself, with the keys of its IKE SA.
pub(super) struct Insider {
    pub(super) pair: Pair,
    keys: LoggedKeys,
    next: u32,
    nonces: u8,
}

impl Insider {
    /// Connects a pair, and takes the terminal's place.
    pub(super) fn new(gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        let mut pair = Pair::with(gateway, terminal, Settings { log_keys: true, ..settings });
        pair.connect();
        let keys = LoggedKeys::newest(&pair.gateway.events);
        Self { pair, keys, next: 2, nonces: 0 }
    }

    /// Takes the terminal's place after this many exchanges; its next request is lost.
    pub(super) fn after(exchanges: u32, gateway: Connection, terminal: Connection) -> Self {
        let pair = Pair::with(gateway, terminal, Settings { log_keys: true, ..Settings::default() });
        Self::after_in(exchanges, pair)
    }

    /// Takes the place of this pair's terminal in the same way. The gateway must log its keys.
    pub(super) fn after_in(exchanges: u32, mut pair: Pair) -> Self {
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        for _ in 0..exchanges {
            pair.up().iter().for_each(|message| pair.deliver_up(message));
            pair.down().iter().for_each(|message| pair.deliver_down(message));
        }
        drop(pair.up());
        let keys = LoggedKeys::newest(&pair.gateway.events);
        Self { pair, keys, next: exchanges, nonces: 0 }
    }

    /// Goes on with the keys of the newest IKE SA.
    pub(super) fn renew_keys(&mut self) {
        self.keys = LoggedKeys::newest(&self.pair.gateway.events);
    }

    /// Continues after this many more exchanges of the terminal.
    pub(super) fn skip(&mut self, exchanges: u32) {
        self.next += exchanges;
    }

    /// Returns the SPI that the terminal chose for its first child SA.
    pub(super) fn first_spi(&self) -> u32 {
        let spi = |event: &Event| match event {
            Event::ChildUp { sa, .. } => Some(sa.spi_in),
            _ => None,
        };
        self.pair.terminal.events.iter().find_map(spi).unwrap()
    }

    /// Seals a request.
    pub(super) fn seal(&mut self, exchange: ExchangeType, payloads: &[Payload<'_>]) -> Vec<u8> {
        let mut body = vec![];
        let first = wire::emit(payloads, &mut body);
        self.seal_body(exchange, first, body)
    }

    /// Seals a request with any bytes in place of payloads, the first of which has type `first`.
    pub(super) fn seal_body(&mut self, exchange: ExchangeType, first: u8, body: Vec<u8>) -> Vec<u8> {
        self.next += 1;
        self.protect(exchange, flags::INITIATOR, self.next - 1, first, body)
    }

    /// Does the same in fragments.
    pub(super) fn seal_fragments(
        &mut self,
        exchange: ExchangeType,
        first: u8,
        body: Vec<u8>,
    ) -> Vec<Vec<u8>> {
        self.next += 1;
        let header = self.keys.header(exchange.number(), flags::INITIATOR, self.next - 1);
        self.keys.seal(header, first, body, Some(200))
    }

    /// Seals an empty request by AES-GCM, behind a payload that is not encrypted: one of type `kind`
    /// without a body, critical if `flags` say so. `number` is that of a fragment and of all fragments,
    /// or nothing if the message is whole.
    pub(super) fn seal_behind(
        &mut self,
        exchange: ExchangeType,
        kind: u8,
        flags: u8,
        number: &[u8],
    ) -> Vec<u8> {
        self.next += 1;
        let Protection { crypto, suite, keys, .. } = self.keys.protection(true);
        let (mut message, mut text, iv) = (vec![], vec![0], [0xee; 8]);
        let encrypted = if number.is_empty() { kind::SK } else { kind::SKF };
        let length = 4 + number.len() as u8 + 8 + 1 + 16;
        let header = self.keys.header(exchange.number(), flags::INITIATOR, self.next - 1);
        let whole = wire::HEADER as u32 + 4 + u32::from(length);
        Header { next: kind, length: whole, ..header }.emit(&mut message);
        message.extend([encrypted, flags, 0, 4, 0, 0, 0, length]);
        message.extend(number);
        crypto.seal(suite.encr, &keys.ei, None, &iv, &message, &mut text);
        [message, iv.to_vec(), text].concat()
    }

    /// Seals any message of either side.
    pub(super) fn protect(
        &mut self,
        exchange: ExchangeType,
        flags: u8,
        message_id: u32,
        first: u8,
        body: Vec<u8>,
    ) -> Vec<u8> {
        let header = self.keys.header(exchange.number(), flags, message_id);
        self.keys.seal(header, first, body, None).remove(0)
    }

    /// Seals any message of either side with these payloads.
    pub(super) fn protect_payloads(
        &mut self,
        exchange: ExchangeType,
        flags: u8,
        message_id: u32,
        payloads: &[Payload<'_>],
    ) -> Vec<u8> {
        let mut body = vec![];
        let first = wire::emit(payloads, &mut body);
        self.protect(exchange, flags, message_id, first, body)
    }

    /// Opens a message of the gateway, and returns what `read` finds in it.
    pub(super) fn read<T>(&self, message: &[u8], read: impl FnOnce(&[Payload<'_>]) -> T) -> T {
        let header = Header::parse(message).unwrap();
        let mut parts = Fragments::default();
        let opened = self.keys.protection(false).open(&header, message, &mut parts).unwrap().unwrap();
        read(&wire::parse(opened.first, &opened.body).unwrap())
    }

    /// Sends a request, and returns its answer.
    pub(super) fn ask(&mut self, exchange: ExchangeType, payloads: &[Payload<'_>]) -> Answer {
        let message = self.seal(exchange, payloads);
        self.send(&message)
    }

    /// Sends a sealed request, and returns its answer.
    pub(super) fn send(&mut self, message: &[u8]) -> Answer {
        let Some(opened) = self.response(message) else { return Answer::None };
        let payloads = wire::parse(opened.first, &opened.body).unwrap();
        payloads
            .iter()
            .find_map(|payload| match payload {
                Payload::Notify(n) if notify::is_error(n.kind) => Some(Answer::Refused(n.kind)),
                Payload::Sa(chosen) => Some(Answer::Accepted(chosen[0].spi.clone())),
                _ => None,
            })
            .unwrap_or(Answer::Other)
    }

    /// Sends a sealed request, and returns the response.
    pub(super) fn response(&mut self, message: &[u8]) -> Option<Plaintext> {
        self.pair.gateway.endpoint.handle_datagram(self.pair.now, to_gateway(TERMINAL, 4500), message);
        let protection = self.keys.protection(false);
        let mut parts = Fragments::default();
        for (_, answer) in self.pair.gateway.work(self.pair.now) {
            let header = Header::parse(&answer).unwrap();
            if !header.is_response() || header.message_id + 1 != self.next {
                continue;
            }
            return protection.open(&header, &answer, &mut parts).unwrap();
        }
        None
    }

    /// Answers the gateway's request with this message ID, from `address`.
    pub(super) fn answer(
        &mut self,
        exchange: ExchangeType,
        message_id: u32,
        address: [u8; 4],
        payloads: &[Payload<'_>],
    ) {
        let mut body = vec![];
        let first = wire::emit(payloads, &mut body);
        let answer = self.protect(exchange, flags::INITIATOR | flags::RESPONSE, message_id, first, body);
        self.pair.gateway.endpoint.handle_datagram(self.pair.now, to_gateway(address, 4500), &answer);
    }

    /// Requests a child SA with this SPI for the gateway's addresses `inner`, as a rekey of `old`
    /// if there is one.
    pub(super) fn child(
        &mut self,
        spi: u32,
        old: Option<u32>,
        kex: bool,
        inner: &[TrafficSelector],
    ) -> Answer {
        self.nonces = self.nonces.wrapping_add(1);
        let nonce = [self.nonces; 32];
        let old = old.map(u32::to_be_bytes);
        let mut transforms = vec![(1, 20, Some(256)), (5, 0, None)];
        transforms.extend(kex.then_some((4, 31, None)));
        let transforms = transforms.into_iter().map(|(kind, id, key_bits)| Transform { kind, id, key_bits });
        let spi = spi.to_be_bytes().to_vec();
        let everything = TrafficSelector::range([0; 4].into(), [255; 4].into());
        let mut payloads: Vec<Payload<'_>> = vec![];
        payloads.extend(old.as_ref().map(|old| {
            Payload::Notify(Notify { protocol: 3, spi: &old[..], kind: notify::REKEY_SA, data: &[] })
        }));
        payloads.extend([
            Payload::Sa(vec![Proposal { number: 1, protocol: 3, spi, transforms: transforms.collect() }]),
            Payload::Nonce(&nonce),
            Payload::TsI(vec![everything]),
            Payload::TsR(if inner.is_empty() { vec![everything] } else { inner.to_vec() }),
        ]);
        payloads.extend(kex.then_some(Payload::Ke { method: 31, data: &nonce }));
        self.ask(ExchangeType::CreateChildSa, &payloads)
    }

    /// Requests a rekey of the IKE SA with this SPI, without deleting the old one.
    pub(super) fn ike_sa(&mut self, spi: u64) -> Answer {
        self.ike_sa_by(spi, &[(256, 6)])
    }

    /// Does the same with a proposal for each of these lengths of AES-GCM's key and PRFs.
    pub(super) fn ike_sa_by(&mut self, spi: u64, suites: &[(u16, u16)]) -> Answer {
        self.nonces = self.nonces.wrapping_add(1);
        let nonce = [self.nonces; 32];
        let spi = spi.to_be_bytes().to_vec();
        let proposal = |(number, (bits, prf)): (u8, &(u16, u16))| {
            let transforms = [(1, 20, Some(*bits)), (2, *prf, None), (4, 31, None)];
            let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits });
            Proposal { number, protocol: 1, spi: spi.clone(), transforms: transforms.to_vec() }
        };
        self.ask(
            ExchangeType::CreateChildSa,
            &[
                Payload::Sa((1..).zip(suites).map(proposal).collect()),
                Payload::Nonce(&nonce),
                Payload::Ke { method: 31, data: &nonce },
            ],
        )
    }

    /// Continues with the newest IKE SA.
    pub(super) fn switch(&mut self) {
        self.keys = LoggedKeys::newest(&self.pair.gateway.events);
        self.next = 0;
    }

    /// Connects anew, as after a restart.
    pub(super) fn connect_anew(&mut self, terminal: Connection) {
        self.pair.replace_terminal(terminal);
        self.pair.connect();
        self.switch();
        self.next = 2;
    }

    /// Deletes the child SA with this SPI.
    pub(super) fn delete(&mut self, spi: u32) {
        self.ask(ExchangeType::Informational, &[Payload::Delete(Delete { protocol: 3, spis: vec![spi] })]);
    }

    /// Deletes the IKE SA that protects its messages.
    pub(super) fn delete_ike_sa(&mut self) {
        self.ask(ExchangeType::Informational, &[Payload::Delete(Delete { protocol: 1, spis: vec![] })]);
    }

    /// Lets time pass at the gateway, whose messages are lost.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pair.now += time;
        self.pair.gateway.endpoint.handle_timeout(self.pair.now);
        drop(self.pair.gateway.work(self.pair.now));
    }

    /// Counts the IKE SAs that the gateway keeps.
    pub(super) fn ike_sas(&self) -> usize {
        self.pair.gateway.endpoint.peers().map(|peer| peer.ike_sas()).sum()
    }

    /// Counts the child SAs that the gateway keeps.
    pub(super) fn children(&self) -> usize {
        self.pair.gateway.endpoint.peers().map(|peer| peer.children().count()).sum()
    }
}

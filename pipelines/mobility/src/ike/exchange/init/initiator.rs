//! The initiator's side of IKE_SA_INIT.

use super::message::{InitMessage, InitResponse, VENDOR_ID, hash_numbers};
use crate::{
    crypto::{Kex, KexSecret, Refused, Secret, SignatureHashes},
    ike::{
        connection::Connection,
        context::Context,
        event::PeerId,
        nat::{IKE_PORT, NAT_T_PORT, NatDetection},
        peer::{
            Peer, Phase,
            failure::Failure,
            ike_sa::IkeSa,
            initiator::{
                InitKexBegin, InitKexFinish, InitSent, Initiator, InitiatorHandshake, InitiatorState,
            },
            state::PendingTask,
            transcript::Transcript,
        },
        proposal,
        reason::Reason,
        schedule::{IkeSaKeys, NONCE},
        wire::{self, ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::net::IpAddr;

/// Most times that a peer may make us start over: a cookie, another group, a cookie again.
const MAX_RESTARTS: u32 = 4;

impl Peer {
    /// Begins to connect; returns `None` if the connection offers no key exchange.
    pub(in crate::ike) fn initiate(
        cx: &mut Context<'_>,
        id: PeerId,
        index: usize,
        connection: &Connection,
        addresses: Addresses,
    ) -> Option<Self> {
        let kex = *connection.ike.first()?.kex.first()?;
        let mut peer = Self::new(id, cx.now, addresses);
        peer.connection = Some(index);
        peer.is_initiator = true;
        peer.active = cx.draw_spi(id);
        cx.know_spi(peer.active);
        let transcript =
            Transcript { spi_i: peer.active, nonce_i: cx.random.bytes(NONCE), ..Transcript::default() };
        let handshake = InitiatorHandshake {
            transcript,
            hashes: SignatureHashes::default(),
            wants_ocsp: false,
            ppk: false,
            keys_without_ppk: None,
            child_spi: cx.draw_child_spi(),
        };
        let state = InitiatorState::InitKexBegin(InitKexBegin { kex, cookie: vec![], restarts: 0 });
        peer.phase = Phase::Initiator(Box::new(Initiator { handshake, state }));
        peer.start(cx, Task::KexBegin(kex), PendingTask::Handshake);
        Some(peer)
    }

    /// Connects from `local`, if that is of the right family and nothing was sent yet.
    pub(in crate::ike) fn begin_from(&mut self, local: IpAddr) {
        let Phase::Initiator(initiator) = &self.phase else { return };
        let is_unsent =
            matches!(&initiator.state, InitiatorState::InitKexBegin(begin) if begin.restarts == 0);
        if is_unsent && local.is_ipv4() == self.addresses.remote.is_ipv4() {
            self.addresses.local.set_ip(local);
        }
    }

    /// Sends IKE_SA_INIT again, or gives the peer up (RFC 7296 §2.1, §2.4).
    pub(in crate::ike) fn resend_init(&mut self, cx: &mut Context<'_>) {
        let Phase::Initiator(initiator) = &mut self.phase else { return };
        let InitiatorState::InitSent(sent) = &mut initiator.state else { return };
        sent.tries += 1;
        if sent.tries > cx.settings.retransmission.tries {
            return self.fail(cx, Reason::Timeout);
        }
        sent.resend_at = cx.now + cx.settings.retransmission.after(sent.tries);
        cx.send(self.addresses, &initiator.handshake.transcript.first);
    }
}

impl InitKexBegin {
    /// Sends the request.
    pub(in crate::ike) fn handle_key_pair(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) -> Result<InitiatorState, Failure> {
        let (secret, data) = result.map_err(|Refused| Reason::KeyExchange)?;
        self.send(handshake, peer, cx, secret, data)
    }

    fn send(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        secret: Box<dyn KexSecret>,
        data: Vec<u8>,
    ) -> Result<InitiatorState, Failure> {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let transcript = &mut handshake.transcript;
        let spi_i = transcript.spi_i;
        let proposals = (1..).zip(&connection.ike).map(|(number, offer)| offer.ike(number, &[])).collect();
        let mut nat = NatDetection::new(cx.crypto, [spi_i, 0], peer.addresses);
        if connection.force_udp {
            nat.randomize_source(cx.random);
        }
        let hashes = hash_numbers(SignatureHashes::ALL);
        let mut payloads = Vec::new();
        // The cookie comes first, and everything else stays the same (RFC 7296 §2.6).
        if !self.cookie.is_empty() {
            payloads.push(Payload::notify(notify::COOKIE, &self.cookie));
        }
        payloads.extend([
            Payload::Sa(proposals),
            Payload::Ke { method: self.kex.transform(), data: &data },
            Payload::Nonce(&transcript.nonce_i),
        ]);
        if cx.settings.nat_traversal {
            payloads.extend(nat.payloads());
        }
        payloads.push(Payload::notify(notify::SIGNATURE_HASH_ALGORITHMS, &hashes));
        if connection.fragment.is_some() {
            payloads.push(Payload::notify(notify::IKEV2_FRAGMENTATION_SUPPORTED, &[]));
        }
        if connection.ike.iter().any(|offer| !offer.more_kex.is_empty()) {
            payloads.push(Payload::notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        if connection.ppk.is_some() {
            payloads.push(Payload::notify(notify::USE_PPK, &[]));
        }
        if cx.settings.vendor_id {
            payloads.push(Payload::Vendor(&VENDOR_ID));
        }
        let header = Header {
            spi_i,
            spi_r: 0,
            next: 0,
            version: wire::VERSION,
            exchange: ExchangeType::SaInit.number(),
            flags: wire::flags::INITIATOR,
            message_id: 0,
            length: 0,
        };
        transcript.first = wire::emit_message(header, &payloads);
        let resend_at = cx.now + cx.settings.retransmission.after(0);
        cx.send(peer.addresses, &transcript.first);
        Ok(InitiatorState::InitSent(InitSent { begin: self, secret, data, tries: 0, resend_at }))
    }
}

impl InitSent {
    /// Handles a response, which may be forged because it is not authenticated. An impossible one
    /// is ignored: the real one may still arrive, and the last retransmission ends the attempt (RFC
    /// 7296 §2.4).
    pub(in crate::ike) fn handle_response(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: InitResponse,
        (header, message): (&Header, &[u8]),
    ) -> Result<InitiatorState, Failure> {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        match response {
            InitResponse::Cookie(cookie) => self.with_cookie(handshake, peer, cx, cookie),
            InitResponse::OtherKex(method) => {
                Ok(self.with_kex(peer, cx, connection, Kex::from_transform(method)))
            }
            InitResponse::Answer(answer) => {
                Ok(self.handle_answer(handshake, peer, cx, connection, answer, (header, message)))
            }
        }
    }

    /// Sends the request again with a cookie.
    fn with_cookie(
        mut self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        cookie: Vec<u8>,
    ) -> Result<InitiatorState, Failure> {
        self.begin.restarts += 1;
        if self.begin.restarts > MAX_RESTARTS {
            return Ok(InitiatorState::InitSent(self));
        }
        InitKexBegin { cookie, ..self.begin }.send(handshake, peer, cx, self.secret, self.data)
    }

    /// Begins another key exchange if we offered it (RFC 7296 §1.2).
    fn with_kex(
        mut self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        connection: &Connection,
        kex: Option<Kex>,
    ) -> InitiatorState {
        let offered = |kex: &Kex| connection.ike.iter().any(|offer| offer.kex.contains(kex));
        if let Some(kex) = kex.filter(offered).filter(|kex| *kex != self.begin.kex) {
            self.begin.restarts += 1;
            if self.begin.restarts <= MAX_RESTARTS {
                peer.start(cx, Task::KexBegin(kex), PendingTask::Handshake);
                return InitiatorState::InitKexBegin(InitKexBegin { kex, ..self.begin });
            }
        }
        InitiatorState::InitSent(self)
    }

    /// Accepts the responder's choice if it is one of our proposals, with the key exchange that we
    /// began.
    fn handle_answer(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        connection: &Connection,
        answer: InitMessage,
        (header, message): (&Header, &[u8]),
    ) -> InitiatorState {
        let kex = self.begin.kex;
        let one = proposal::only(&answer.proposals);
        let chosen = one.and_then(|one| proposal::choose_ike(&connection.ike, one));
        let Some(chosen) = chosen.filter(|c| c.suite.kex == kex && kex.transform() == answer.method) else {
            return InitiatorState::InitSent(self);
        };
        if header.spi_r == 0 {
            return InitiatorState::InitSent(self);
        }
        handshake.hashes = answer.hashes;
        handshake.wants_ocsp = answer.wants_ocsp;
        handshake.ppk = answer.ppk;
        let transcript = &mut handshake.transcript;
        transcript.spi_r = header.spi_r;
        transcript.nonce_r = answer.nonce;
        transcript.second = message.to_vec();
        peer.is_wayfarer = answer.is_wayfarer;
        let nat = answer
            .nat
            .map(|detection| detection.nat(cx.crypto, [header.spi_i, header.spi_r], peer.addresses));
        peer.nat = nat.unwrap_or_default();
        peer.start(cx, Task::KexFinish(self.secret, answer.kex), PendingTask::Handshake);
        InitiatorState::InitKexFinish(InitKexFinish { suite: chosen.suite, fragments: answer.fragments })
    }
}

impl InitKexFinish {
    /// Creates the IKE SA and continues.
    pub(in crate::ike) fn handle_shared_secret(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Secret, Refused>,
    ) -> Result<InitiatorState, Failure> {
        let shared = result.map_err(|Refused| Reason::KeyExchange)?;
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let Self { suite, fragments } = self;
        let transcript = &handshake.transcript;
        let keys = IkeSaKeys::first(cx.crypto, &suite, &shared, transcript.seed());
        let spis = [transcript.spi_i, transcript.spi_r];
        cx.log_keys(spis, &suite, &keys);
        let mut ike_sa = IkeSa::new(true, spis, suite, keys);
        ike_sa.next = 1;
        ike_sa.limit = connection.fragment.filter(|_| fragments);
        peer.ike_sas.push(ike_sa);
        // MOBIKE uses port 4500 from here on, with or without a NAT (RFC 4555 §3.3).
        if peer.nat.any() || connection.mobike || connection.force_udp {
            peer.addresses.local.set_port(NAT_T_PORT);
            if peer.addresses.remote.port() == IKE_PORT {
                peer.addresses.remote.set_port(NAT_T_PORT);
            }
        }
        if connection.no_nats && peer.nat.any() {
            return Err(Reason::Nat.into());
        }
        handshake.next_kex(peer, cx, 0)
    }
}

//! The beginning side until it is established (RFC 7296 §1.2, §2.6, §2.7, §2.15, §2.16; RFC 9242, RFC 9370, RFC 8784).

use super::{
    auth::{self, AuthPayloads, Proof, Side, Transcript},
    configure::Attributes,
    ike_sa::IkeSa,
    initiator::{Eap, Initiator},
    request::Request,
    state::{Peer, PendingTask, Phase},
};
use crate::{
    aaa::eap::{Conversation, Step},
    crypto::{Kex, KexSecret, Refused, Secret, SignatureHashes},
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        context::Context,
        event::{PeerId, Reason},
        exchange::{
            child_offer::{ChildOffer, esp_proposals},
            mobike::addresses::Additional,
        },
        nat::{IKE_PORT, NAT_T_PORT, nat_detection},
        proposal::{self, protocol},
        protection::Plaintext,
        schedule::{IkeSaKeys, NONCE},
        wire::{self, Delete, ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::time::Duration;

/// How often a peer may send us back to the start: a cookie, another group, a cookie again.
const RESTARTS: u32 = 4;

impl Peer {
    /// Begins to connect.
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
        peer.phase = Phase::Initiating(Box::new(Initiator {
            transcript,
            kex,
            secret: None,
            data: vec![],
            cookie: vec![],
            restarts: 0,
            tries: 0,
            resend_at: None,
            suite: None,
            hashes: SignatureHashes::default(),
            kex_done: 0,
            child_spi: 0,
            eap: None,
            proved: false,
            answer: None,
            ppk: false,
        }));
        peer.start(cx, Task::KexBegin(kex), PendingTask::InitBegun);
        Some(peer)
    }

    fn initiating(&mut self) -> Option<&mut Initiator> {
        match &mut self.phase {
            Phase::Initiating(initiating) => Some(initiating),
            _ => None,
        }
    }

    pub(in crate::ike) fn init_begun(
        &mut self,
        cx: &mut Context<'_>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) {
        let Some(initiating) = self.initiating() else { return };
        match result {
            Ok((secret, data)) => {
                initiating.secret = Some(secret);
                initiating.data = data;
                self.send_init(cx);
            }
            Err(Refused) => self.fail(cx, Reason::KeyExchange),
        }
    }

    /// Sends IKE_SA_INIT, with the cookie if we were given one.
    fn send_init(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let addresses = self.addresses;
        let Some(initiating) = self.initiating() else { return };
        let spi_i = initiating.transcript.spi_i;
        let proposals = (1..).zip(&connection.ike).map(|(number, offer)| offer.ike(number, &[])).collect();
        // A terminal that always wants UDP says that it is somewhere else than it is.
        let mut source = nat_detection(cx.crypto, spi_i, 0, addresses.local);
        if connection.force_udp {
            cx.random.fill(&mut source);
        }
        let destination = nat_detection(cx.crypto, spi_i, 0, addresses.remote);
        let hashes = auth::hash_numbers(SignatureHashes::ALL);
        let mut payloads = Vec::new();
        if !initiating.cookie.is_empty() {
            payloads.push(Payload::notify(notify::COOKIE, &initiating.cookie));
        }
        payloads.extend([
            Payload::Sa(proposals),
            Payload::Ke { method: initiating.kex.transform(), data: &initiating.data },
            Payload::Nonce(&initiating.transcript.nonce_i),
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, &source),
            Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, &destination),
            Payload::notify(notify::SIGNATURE_HASH_ALGORITHMS, &hashes),
        ]);
        if connection.fragment.is_some() {
            payloads.push(Payload::notify(notify::IKEV2_FRAGMENTATION_SUPPORTED, &[]));
        }
        if connection.ike.iter().any(|offer| !offer.more_kex.is_empty()) {
            payloads.push(Payload::notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        if connection.ppk.is_some() {
            payloads.push(Payload::notify(notify::USE_PPK, &[]));
        }
        payloads.push(Payload::Vendor(&auth::VENDOR_ID));
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
        initiating.transcript.first = wire::emit_message(header, &payloads);
        initiating.tries = 0;
        initiating.resend_at = Some(cx.now + cx.settings.retransmission.after(0));
        cx.send(addresses, &initiating.transcript.first);
    }

    /// When IKE_SA_INIT is sent again.
    pub(in crate::ike) fn init_resend_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Initiating(initiating) => initiating.resend_at,
            _ => None,
        }
    }

    pub(in crate::ike) fn resend_init(&mut self, cx: &mut Context<'_>) {
        let addresses = self.addresses;
        let Some(initiating) = self.initiating() else { return };
        initiating.tries += 1;
        if initiating.tries > cx.settings.retransmission.tries {
            return self.fail(cx, Reason::Silent);
        }
        initiating.resend_at = Some(cx.now + cx.settings.retransmission.after(initiating.tries));
        cx.send(addresses, &initiating.transcript.first);
    }

    /// The answer to IKE_SA_INIT, or what somebody claims to be one: nothing in it is proved yet.
    pub(in crate::ike) fn handle_init_response(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) {
        let Some(connection) = self.connection(cx) else { return };
        let is_answer = header.is_response()
            && header.exchange == ExchangeType::SaInit.number()
            && header.message_id == 0
            && addresses.remote == self.addresses.remote;
        let Some(initiating) = self.initiating().filter(|i| is_answer && i.resend_at.is_some()) else {
            return;
        };
        let Ok(payloads) = wire::parse(header.next, message.get(wire::HEADER..).unwrap_or_default()) else {
            return;
        };
        let notified = |kind| wire::notified(&payloads, kind);
        if let Some(cookie) = notified(notify::COOKIE).filter(|c| (1..=64).contains(&c.len())) {
            initiating.restarts += 1;
            if initiating.restarts <= RESTARTS {
                initiating.cookie = cookie.to_vec();
                self.send_init(cx);
            }
            return;
        }
        if let Some(group) = notified(notify::INVALID_KE_PAYLOAD) {
            let kex = group.try_into().ok().map(u16::from_be_bytes).and_then(Kex::from_transform);
            let offered = |kex: &Kex| connection.ike.iter().any(|offer| offer.kex.contains(kex));
            if let Some(kex) = kex.filter(offered).filter(|kex| *kex != initiating.kex) {
                initiating.restarts += 1;
                if initiating.restarts <= RESTARTS {
                    initiating.kex = kex;
                    initiating.resend_at = None;
                    self.start(cx, Task::KexBegin(kex), PendingTask::InitBegun);
                }
            }
            return;
        }
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let (Some(Payload::Sa(offered)), Some(Payload::Ke { method, data }), Some(Payload::Nonce(nonce))) =
            (find(wire::kind::SA), find(wire::kind::KE), find(wire::kind::NONCE))
        else {
            // Anybody could say so: the real answer may still come. The last retransmission ends it.
            return;
        };
        let chosen = proposal::choose_ike(&connection.ike, offered.get(..1).unwrap_or_default());
        let Some(chosen) =
            chosen.filter(|c| c.suite.kex == initiating.kex && c.suite.kex.transform() == *method)
        else {
            return;
        };
        if header.spi_r == 0 {
            return;
        }
        let Some(secret) = initiating.secret.take() else { return };
        initiating.resend_at = None;
        initiating.suite = Some(chosen.suite);
        initiating.hashes = auth::hashes(&payloads);
        initiating.transcript.spi_r = header.spi_r;
        initiating.transcript.nonce_r = nonce.to_vec();
        initiating.transcript.second = message.to_vec();
        initiating.ppk = notified(notify::USE_PPK).is_some();
        let data = data.to_vec();
        self.knows_us = auth::is_ours(&payloads);
        self.nat =
            self.detect_nat(cx, &payloads, [header.spi_i, header.spi_r], self.addresses).unwrap_or_default();
        self.start(cx, Task::KexFinish(secret, data), PendingTask::InitFinished);
    }

    pub(in crate::ike) fn init_finished(&mut self, cx: &mut Context<'_>, result: Result<Secret, Refused>) {
        let Some(connection) = self.connection(cx) else { return };
        let nat = self.nat;
        let mobike = connection.mobike;
        let Some(initiating) = self.initiating() else { return };
        let (Ok(shared), Some(suite)) = (result, initiating.suite.clone()) else {
            return self.fail(cx, Reason::KeyExchange);
        };
        let transcript = &initiating.transcript;
        let keys = IkeSaKeys::first(cx.crypto, &suite, &shared, transcript.seed());
        let spis = [transcript.spi_i, transcript.spi_r];
        cx.log_keys(spis, &suite, &keys);
        let peer_fragments = {
            let body = transcript.second.get(wire::HEADER..).unwrap_or_default();
            let first = Header::parse(&transcript.second).map_or(0, |header| header.next);
            let payloads = wire::parse(first, body).unwrap_or_default();
            wire::notified(&payloads, notify::IKEV2_FRAGMENTATION_SUPPORTED).is_some()
        };
        let mut ike_sa = IkeSa::new(true, spis, suite, keys);
        ike_sa.next = 1;
        ike_sa.limit = connection.fragment.filter(|_| peer_fragments);
        self.ike_sas.push(ike_sa);
        // With MOBIKE the other port is used from here on, whatever is on the way (RFC 4555 §3.3).
        if nat.any() || mobike || connection.force_udp {
            self.addresses.local.set_port(NAT_T_PORT);
            if self.addresses.remote.port() == IKE_PORT {
                self.addresses.remote.set_port(NAT_T_PORT);
            }
        }
        if connection.no_nats && nat.any() {
            return self.fail(cx, Reason::Nat);
        }
        self.next_kex(cx);
    }

    /// The next further key exchange, or IKE_AUTH.
    fn next_kex(&mut self, cx: &mut Context<'_>) {
        let Some(initiating) = self.initiating() else { return };
        let done = initiating.kex_done;
        match initiating.suite.as_ref().and_then(|suite| suite.more_kex.get(done)).copied() {
            Some(kex) => self.start(cx, Task::KexBegin(kex), PendingTask::IntermediateBegun(kex)),
            None => self.begin_auth(cx),
        }
    }

    pub(in crate::ike) fn intermediate_begun(
        &mut self,
        cx: &mut Context<'_>,
        kex: Kex,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) {
        let Ok((secret, data)) = result else { return self.fail(cx, Reason::KeyExchange) };
        let payloads = [Payload::Ke { method: kex.transform(), data: &data }];
        let Phase::Initiating(initiating) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first() else { return };
        let exchange = ExchangeType::Intermediate;
        initiating.transcript.intermediate_sent(cx.crypto, ike_sa, exchange, false, &payloads);
        self.request(cx, exchange, &payloads, Request::Intermediate(secret), None);
    }

    pub(in crate::ike) fn intermediate_response(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        opened: &Plaintext,
        secret: Box<dyn KexSecret>,
    ) {
        let Phase::Initiating(initiating) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first() else { return };
        initiating.transcript.intermediate(cx.crypto, ike_sa, Side::Responder, header, opened);
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let data = payloads.iter().find_map(|p| match p {
            Payload::Ke { data, .. } => Some(data.to_vec()),
            _ => None,
        });
        match data {
            Some(data) => self.start(cx, Task::KexFinish(secret, data), PendingTask::IntermediateFinished),
            None => self.fail(cx, Reason::Protocol),
        }
    }

    pub(in crate::ike) fn intermediate_finished(
        &mut self,
        cx: &mut Context<'_>,
        result: Result<Secret, Refused>,
    ) {
        let Ok(shared) = result else { return self.fail(cx, Reason::KeyExchange) };
        let Phase::Initiating(initiating) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        ike_sa.keys = ike_sa.keys.further(cx.crypto, &ike_sa.suite, &shared, initiating.transcript.seed());
        cx.log_keys([ike_sa.spi_i, ike_sa.spi_r], &ike_sa.suite, &ike_sa.keys);
        initiating.kex_done += 1;
        self.next_kex(cx);
    }

    /// We prove who we are, unless by EAP, which comes later.
    fn begin_auth(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let Phase::Initiating(initiating) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        initiating.child_spi = cx.draw_child_spi();
        match (&connection.ppk, initiating.ppk) {
            (Some(ppk), true) => {
                ike_sa.keys = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &ppk.secret.0);
            }
            (Some(ppk), false) if ppk.required => return self.fail(cx, Reason::Authentication),
            _ => initiating.ppk = false,
        }
        let octets = initiating.transcript.octets(cx.crypto, ike_sa, Side::Initiator, &connection.local_id);
        let hashes = initiating.hashes;
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let data = self.shared_key(cx, &key.0, &octets).to_vec();
                self.send_auth(cx, Some(Proof { method: auth::SHARED_KEY, data }));
            }
            LocalAuth::Key(signer) => {
                self.start(cx, Task::Sign(signer.clone(), octets, hashes), PendingTask::Signed)
            }
            LocalAuth::Eap(_) => self.send_auth(cx, None),
        }
    }

    /// The first IKE_AUTH request.
    pub(in crate::ike) fn send_auth(&mut self, cx: &mut Context<'_>, proof: Option<Proof>) {
        let Some(connection) = self.connection(cx) else { return };
        let Phase::Initiating(initiating) = &self.phase else { return };
        let ppk = connection.ppk.as_ref().filter(|_| initiating.ppk);
        let spi = initiating.child_spi;
        let asks = connection.ask_address.then(Attributes::request);
        let additional = self.additional_addresses(connection);
        let forbidden = self.forbidden_nats();
        let mut payloads = vec![Payload::IdI(connection.local_id.clone())];
        payloads.extend(auth::certificates(&connection.local_auth));
        payloads.push(Payload::notify(notify::INITIAL_CONTACT, &[]));
        if let RemoteAuth::Key(verifier) = &connection.remote_auth {
            payloads.push(Payload::CertReq {
                encoding: auth::X509_SIGNATURE,
                authorities: verifier.authorities(),
            });
        }
        if let crate::ike::connection::IdentityPattern::Of(all) = &connection.remote_id
            && let [only] = &all[..]
        {
            payloads.push(Payload::IdR(only.clone()));
        }
        payloads.extend(proof.as_ref().map(Proof::payload));
        payloads.extend(ppk.map(|ppk| Payload::notify(notify::PPK_IDENTITY, &ppk.id)));
        payloads.extend(asks.as_ref().map(Attributes::payload));
        if let Some(child) = connection.children.first() {
            if child.transport && !self.nat.any() {
                payloads.push(Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
            }
            let any = |v4| crate::ike::selector::everything(v4);
            let (local, remote) = match connection.ask_address {
                // The address is not known yet: the gateway narrows this to it.
                true => (vec![any(true), any(false)], self.remote_side(child)),
                false => (self.local_side(child), self.remote_side(child)),
            };
            payloads.push(Payload::Sa(esp_proposals(&connection.esp, spi, None)));
            payloads.push(Payload::TsI(local));
            payloads.push(Payload::TsR(remote));
        }
        if connection.mobike {
            payloads.push(Payload::notify(notify::MOBIKE_SUPPORTED, &[]));
            payloads.extend(additional.iter().map(Additional::payload));
        }
        if connection.no_nats {
            payloads.push(Payload::notify(notify::NO_NATS_ALLOWED, &forbidden));
        }
        self.request(cx, ExchangeType::Auth, &payloads, Request::Auth, None);
    }

    /// The responder's IKE_AUTH answer.
    pub(in crate::ike) fn auth_response(&mut self, cx: &mut Context<'_>, opened: Plaintext) {
        let Some(connection) = self.connection(cx) else { return };
        let Phase::Initiating(initiating) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first() else { return };
        let Ok(payloads) = wire::parse(opened.first, &opened.body) else {
            return self.fail(cx, Reason::Protocol);
        };
        let answer = AuthPayloads::read(&payloads, Side::Responder);
        if let (None, None, Some(kind)) = (answer.auth, answer.eap, answer.error) {
            // One packet that somebody changed is not the end: whoever dials begins again (RFC 4555 §3.9).
            let is_nat = kind == notify::UNEXPECTED_NAT_DETECTED;
            return self.fail(cx, if is_nat { Reason::Nat } else { Reason::Refused(kind) });
        }
        if initiating.proved {
            return self.next_eap(cx, opened);
        }
        let (Some(identity), Some((method, data))) = (answer.identity, answer.auth) else {
            return self.give_up(cx, Reason::Authentication);
        };
        if !connection.remote_id.matches(identity) {
            return self.give_up(cx, Reason::NoConnection);
        }
        if initiating.ppk && wire::notified(&payloads, notify::PPK_IDENTITY).is_none() {
            return self.give_up(cx, Reason::Authentication);
        }
        let identity = identity.clone();
        let octets = initiating.transcript.octets(cx.crypto, ike_sa, Side::Responder, &identity);
        let certificates = answer.certificates.iter().map(|c| c.to_vec()).collect();
        let data = data.to_vec();
        drop(payloads);
        initiating.answer = Some(opened);
        self.identity = Some(identity.clone());
        match &connection.remote_auth {
            RemoteAuth::Psk(key) if method == auth::SHARED_KEY => {
                let theirs = self.shared_key(cx, &key.0, &octets);
                match auth::same(&theirs, &data) {
                    true => self.responder_proved(cx),
                    false => self.give_up(cx, Reason::Authentication),
                }
            }
            RemoteAuth::Key(verifier) if method != auth::SHARED_KEY => {
                let verifier = verifier.clone();
                let task = Task::Verify { verifier, identity, certificates, method, data, octets };
                self.start(cx, task, PendingTask::Verified);
            }
            _ => self.give_up(cx, Reason::Authentication),
        }
    }

    /// The responder is who it says it is.
    pub(in crate::ike) fn responder_proved(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let Some(initiating) = self.initiating() else { return };
        initiating.proved = true;
        let Some(opened) = initiating.answer.take() else { return };
        match &connection.local_auth {
            LocalAuth::Eap(method) => {
                initiating.eap = Some(Eap::Talking(method.begin(&connection.local_id.data)));
                self.next_eap(cx, opened);
            }
            _ => self.finish_auth(cx, &opened),
        }
    }

    /// The gateway's next EAP packet, or its last answer.
    fn next_eap(&mut self, cx: &mut Context<'_>, opened: Plaintext) {
        let Some(initiating) = self.initiating() else { return };
        match initiating.eap.take() {
            Some(Eap::Talking(conversation)) => {
                let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
                let packet = payloads.iter().find_map(|p| match p {
                    Payload::Eap(packet) => Some(packet.to_vec()),
                    _ => None,
                });
                let Some(packet) = packet else { return self.give_up(cx, Reason::Protocol) };
                initiating.eap = Some(Eap::Thinking);
                self.start(cx, Task::Eap(conversation, packet), PendingTask::Eap);
            }
            Some(Eap::Over(key)) => {
                let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
                let data = AuthPayloads::read(&payloads, Side::Responder).auth.map(|(_, data)| data.to_vec());
                let theirs = self.eap_proof(cx, &key, Side::Responder);
                match data.is_some_and(|data| auth::same(&theirs, &data)) {
                    true => self.finish_auth(cx, &opened),
                    false => self.give_up(cx, Reason::Authentication),
                }
            }
            _ => self.give_up(cx, Reason::Protocol),
        }
    }

    /// AUTH data of `side` by what EAP gave.
    fn eap_proof(&self, cx: &Context<'_>, key: &Secret, side: Side) -> Secret {
        let (Phase::Initiating(initiating), Some(connection), Some(ike_sa)) =
            (&self.phase, self.connection(cx), self.ike_sas.first())
        else {
            return Secret::default();
        };
        let identity = match side {
            Side::Initiator => Some(&connection.local_id),
            Side::Responder => self.identity.as_ref(),
        };
        let Some(identity) = identity else { return Secret::default() };
        let octets = initiating.transcript.octets(cx.crypto, ike_sa, side, identity);
        self.shared_key(cx, key, &octets)
    }

    pub(in crate::ike) fn eap_client_stepped(
        &mut self,
        cx: &mut Context<'_>,
        conversation: Box<dyn Conversation>,
        step: Step,
    ) {
        match step {
            Step::Send(packet) => {
                if let Some(initiating) = self.initiating() {
                    initiating.eap = Some(Eap::Talking(conversation));
                }
                self.request(cx, ExchangeType::Auth, &[Payload::Eap(&packet)], Request::Auth, None);
            }
            Step::Success(_, Some(key)) => {
                let data = self.eap_proof(cx, &key, Side::Initiator);
                if let Some(initiating) = self.initiating() {
                    initiating.eap = Some(Eap::Over(key));
                }
                let payloads = [Payload::Auth { method: auth::SHARED_KEY, data: &data }];
                self.request(cx, ExchangeType::Auth, &payloads, Request::Auth, None);
            }
            // A method without a key proves nothing about who sits in between.
            Step::Success(_, None) | Step::Failure(_) | Step::Ask => self.fail(cx, Reason::Eap),
        }
    }

    /// Both have proved who they are: the first child SA.
    fn finish_auth(&mut self, cx: &mut Context<'_>, opened: &Plaintext) {
        let Some(connection) = self.connection(cx) else { return };
        let phase = core::mem::replace(&mut self.phase, Phase::Established);
        let Phase::Initiating(initiating) = phase else { return };
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let answer = AuthPayloads::read(&payloads, Side::Responder);
        self.peer_supports(&answer, connection);
        self.established(cx, false);
        if let Some(configuration) = answer.configuration
            && let Err(address) = self.take_configuration(cx, connection, configuration)
        {
            cx.forget_child_spi(initiating.child_spi);
            return self.close(cx, Reason::InnerAddress(address));
        }
        let agreed = ChildOffer::read(&payloads)
            .ok()
            .and_then(|offer| self.accept_child(&offer, connection, 0, (initiating.child_spi, false), None));
        match agreed {
            Some(agreed) => {
                let transcript = &initiating.transcript;
                self.install(cx, agreed, &[], [&transcript.nonce_i, &transcript.nonce_r], true, true);
                (1..connection.children.len())
                    .for_each(|policy| self.want(super::request::QueuedRequest::Child(policy)));
            }
            None => {
                cx.forget_child_spi(initiating.child_spi);
                let kind = answer.error.unwrap_or(notify::TS_UNACCEPTABLE);
                self.close(cx, Reason::Refused(kind));
            }
        }
    }

    /// We do not take the responder's answer, and it should know (RFC 7296 §2.21.2).
    pub(in crate::ike) fn give_up(&mut self, cx: &mut Context<'_>, reason: Reason) {
        let payloads = [
            Payload::notify(notify::AUTHENTICATION_FAILED, &[]),
            Payload::Delete(Delete { protocol: protocol::IKE, spis: vec![] }),
        ];
        if self.active().is_some_and(|ike_sa| ike_sa.outstanding.is_none()) {
            self.request(cx, ExchangeType::Informational, &payloads, Request::DeleteIkeSa, None);
        }
        self.fail(cx, reason);
    }
}

//! The answering side until it is established: IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH (RFC 7296 §1.2, §2.15, §2.16;
//! RFC 9242, RFC 9370, RFC 8784).

use super::{
    auth::{self, AuthPayloads, Proof, Side, Transcript},
    child::AgreedChild,
    choose::Candidates,
    ike_sa::IkeSa,
    responder::{Claim, Eap, Responder, Stage},
    state::{Peer, PendingTask, Phase},
};
use crate::{
    aaa::eap::{Conversation, Step, packet},
    crypto::{Kex, Refused, Secret, SignatureHashes},
    identity::Identity,
    ike::{
        bounds,
        connection::{Connection, LocalAuth, RemoteAuth},
        context::Context,
        counter::Counter,
        event::{PeerId, Reason},
        exchange::{child_offer::ChildOffer, mobike::addresses::Additional},
        nat::nat_detection,
        proposal,
        protection::Plaintext,
        schedule::{IkeSaKeys, NONCE},
        wire::{self, ErrorNotify, ExchangeType, Header, Notify, Payload, notify},
    },
    path::Addresses,
    rate::Rate,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};

/// Longest identity of a peer, in bytes.
const LONGEST_NAME: usize = 512;

/// Why a first message is refused, as a notification says it.
pub(in crate::ike) struct InitRefused {
    pub(in crate::ike) kind: u16,
    pub(in crate::ike) data: Vec<u8>,
}

impl InitRefused {
    fn new(kind: u16) -> Self {
        Self { kind, data: vec![] }
    }
}

impl Peer {
    /// A peer's first message. Its answer follows when the key exchange is done.
    pub(in crate::ike) fn answer_init(
        cx: &mut Context<'_>,
        id: PeerId,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) -> Result<Self, InitRefused> {
        let syntax = || InitRefused::new(notify::INVALID_SYNTAX);
        let body = message.get(wire::HEADER..).unwrap_or_default();
        let payloads = wire::parse(header.next, body).map_err(|why| {
            let ErrorNotify { kind, data } = why.into();
            InitRefused { kind, data }
        })?;
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let Some(Payload::Sa(offered)) = find(wire::kind::SA) else { return Err(syntax()) };
        let Some(Payload::Ke { method, data }) = find(wire::kind::KE) else { return Err(syntax()) };
        let Some(Payload::Nonce(nonce)) = find(wire::kind::NONCE) else { return Err(syntax()) };
        let notified = |kind| wire::notified(&payloads, kind);
        let intermediate = notified(notify::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();

        let is_at = |c: &Connection| c.is_at(addresses.local.ip(), addresses.remote.ip());
        let at: Vec<usize> = (0..).zip(cx.connections).filter(|(_, c)| is_at(c)).map(|(i, _)| i).collect();
        let fits = |connection: &Connection| {
            let chosen = proposal::choose_ike(&connection.ike, offered)?;
            (intermediate || chosen.suite.more_kex.is_empty()).then_some(chosen)
        };
        let Some(chosen) = at.iter().find_map(|i| fits(cx.connections.get(*i)?)) else {
            return Err(InitRefused::new(notify::NO_PROPOSAL_CHOSEN));
        };
        if *method != chosen.suite.kex.transform() {
            let data = chosen.suite.kex.transform().to_be_bytes().to_vec();
            return Err(InitRefused { kind: notify::INVALID_KE_PAYLOAD, data });
        }
        // Who it is comes later: all connections that take what was chosen are still possible.
        let candidates = Candidates::new(cx.connections, at.into_iter(), &chosen.suite, chosen.number);

        let mut peer = Self::new(id, cx.now, addresses);
        let spi = cx.draw_spi(id);
        peer.nat = peer.detect_nat(cx, &payloads, [header.spi_i, 0], addresses).unwrap_or_default();
        let transcript = Transcript {
            spi_i: header.spi_i,
            spi_r: spi,
            nonce_i: nonce.to_vec(),
            nonce_r: cx.random.bytes(NONCE),
            first: message.to_vec(),
            ..Transcript::default()
        };
        peer.use_ppk = notified(notify::USE_PPK).is_some();
        peer.knows_us = auth::is_ours(&payloads);
        let kex = chosen.suite.kex;
        peer.phase = Phase::Answering(Box::new(Responder {
            candidates,
            transcript,
            hashes: auth::hashes(&payloads),
            fragments: notified(notify::IKEV2_FRAGMENTATION_SUPPORTED).is_some(),
            kex_done: 0,
            stage: Stage::Init(Box::new(chosen)),
            repeats: Rate::default(),
        }));
        peer.start(cx, Task::KexAnswer(kex, data.to_vec()), PendingTask::InitAnswer);
        Ok(peer)
    }

    /// Sends the answer to its first message again, if `message` is that again and it was answered.
    pub(in crate::ike) fn repeat_init(&mut self, cx: &mut Context<'_>, message: &[u8], addresses: Addresses) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Transcript { first, second, .. } = &answering.transcript;
        if second.is_empty() || first != message {
            return;
        }
        // Whose address that is, is not proved: it must not draw more than a peer in bad weather needs.
        if answering.repeats.admits(cx.now, bounds::REPEATS, bounds::REPEAT) {
            cx.count(Counter::Repeated);
            cx.send(addresses, second);
        } else {
            cx.count(Counter::TooOften);
        }
    }

    /// The key exchange of the first message is done.
    pub(in crate::ike) fn init_answered(
        &mut self,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Stage::Init(chosen) = &answering.stage else { return };
        let Ok((data, shared)) = result else {
            // A public value that is none: its sender can only begin anew.
            return self.fail(cx, Reason::KeyExchange);
        };
        let suite = chosen.suite.clone();
        let transcript = &mut answering.transcript;
        let (spi_i, spi_r) = (transcript.spi_i, transcript.spi_r);
        let keys = IkeSaKeys::first(cx.crypto, &suite, &shared, transcript.seed());

        let source = nat_detection(cx.crypto, spi_i, spi_r, self.addresses.local);
        let destination = nat_detection(cx.crypto, spi_i, spi_r, self.addresses.remote);
        let known = auth::hash_numbers(SignatureHashes::ALL);
        let mut authorities: Vec<u8> = Vec::new();
        let (mut fragments, mut ppk) = (false, false);
        for connection in answering.candidates.fitting(cx.connections) {
            if let RemoteAuth::Key(verifier) = &connection.remote_auth {
                for hash in verifier.authorities().chunks(20) {
                    if !authorities.chunks(20).any(|known| known == hash) {
                        authorities.extend_from_slice(hash);
                    }
                }
            }
            fragments |= connection.fragment.is_some();
            ppk |= connection.ppk.is_some();
        }
        let mut payloads = vec![
            Payload::Sa(vec![suite.proposal(chosen.number, &[])]),
            Payload::Ke { method: suite.kex.transform(), data: &data },
            Payload::Nonce(&transcript.nonce_r),
            Payload::Notify(Notify::new(notify::NAT_DETECTION_SOURCE_IP, &source)),
            Payload::Notify(Notify::new(notify::NAT_DETECTION_DESTINATION_IP, &destination)),
        ];
        if !authorities.is_empty() {
            payloads.push(Payload::CertReq { encoding: auth::X509_SIGNATURE, authorities: &authorities });
        }
        if fragments && answering.fragments {
            payloads.push(Payload::Notify(Notify::new(notify::IKEV2_FRAGMENTATION_SUPPORTED, &[])));
        }
        payloads.push(Payload::Notify(Notify::new(notify::SIGNATURE_HASH_ALGORITHMS, &known)));
        if !suite.more_kex.is_empty() {
            payloads.push(Payload::Notify(Notify::new(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, &[])));
        }
        if self.use_ppk && ppk {
            payloads.push(Payload::Notify(Notify::new(notify::USE_PPK, &[])));
        }
        if self.knows_us {
            payloads.push(Payload::Vendor(&auth::VENDOR_ID));
        }
        let header = Header {
            spi_i,
            spi_r,
            next: 0,
            version: wire::VERSION,
            exchange: ExchangeType::SaInit.number(),
            flags: wire::flags::RESPONSE,
            message_id: 0,
            length: 0,
        };
        let message = wire::emit_message(header, &payloads);
        cx.send(self.addresses, &message);
        transcript.second = message;
        cx.log_keys([spi_i, spi_r], &suite, &keys);

        let mut ike_sa = IkeSa::new(false, [spi_i, spi_r], suite, keys);
        ike_sa.expected = 1;
        let limits = answering.candidates.fitting(cx.connections).filter_map(|c| c.fragment);
        ike_sa.limit = limits.min().filter(|_| answering.fragments);
        answering.stage = Stage::Ready;
        self.active = ike_sa.local_spi();
        // Many may be half open: no more room than it takes.
        self.ike_sas.reserve_exact(1);
        self.ike_sas.push(ike_sa);
    }

    /// The initiator may go on from another port behind IKE_SA_INIT, and where a NAT has several addresses, from another
    /// of those (RFC 7296 §2.23).
    pub(in crate::ike) fn float(&mut self, addresses: Addresses) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        if let Stage::Proving(claim) = &mut answering.stage {
            claim.is_unchanged &= addresses == self.addresses;
        }
        if self.from.is_ipv4() == addresses.remote.is_ipv4() {
            self.addresses = addresses;
        }
    }

    /// IKE_INTERMEDIATE: the next further key exchange.
    pub(in crate::ike) fn answer_intermediate(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        opened: Plaintext,
    ) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        let kex = match (&answering.stage, ike_sa.suite.more_kex.get(answering.kex_done)) {
            (Stage::Ready, Some(kex)) => *kex,
            _ => {
                return self.refuse(cx, ExchangeType::Intermediate, notify::INVALID_SYNTAX, Reason::Protocol);
            }
        };
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let data = payloads.iter().find_map(|p| match p {
            Payload::Ke { method, data } if *method == kex.transform() => Some(data.to_vec()),
            _ => None,
        });
        let Some(data) = data else {
            return self.refuse(cx, ExchangeType::Intermediate, notify::INVALID_SYNTAX, Reason::Protocol);
        };
        answering.transcript.intermediate(cx.crypto, ike_sa, Side::Initiator, header, &opened);
        ike_sa.busy = true;
        self.start(cx, Task::KexAnswer(kex, data), PendingTask::IntermediateAnswer(kex));
    }

    pub(in crate::ike) fn intermediate_answered(
        &mut self,
        cx: &mut Context<'_>,
        kex: Kex,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        let Ok((data, shared)) = result else { return self.fail(cx, Reason::KeyExchange) };
        let payloads = [Payload::Ke { method: kex.transform(), data: &data }];
        answering.transcript.intermediate_sent(
            cx.crypto,
            ike_sa,
            ExchangeType::Intermediate,
            true,
            &payloads,
        );
        let datagrams = ike_sa.answer(cx, ExchangeType::Intermediate, &payloads);
        cx.send_all(self.addresses, datagrams);
        let seed = answering.transcript.seed();
        ike_sa.change_keys(ike_sa.keys.further(cx.crypto, &ike_sa.suite, &shared, seed));
        cx.log_keys([ike_sa.spi_i, ike_sa.spi_r], &ike_sa.suite, &ike_sa.keys);
        answering.kex_done += 1;
    }

    /// IKE_AUTH.
    pub(in crate::ike) fn answer_auth(&mut self, cx: &mut Context<'_>, opened: Plaintext) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Some(ike_sa) = self.ike_sas.first() else { return };
        match &mut answering.stage {
            Stage::Ready if answering.kex_done == ike_sa.suite.more_kex.len() => self.take_claim(cx, opened),
            Stage::Proving(claim) => match claim.eap.take() {
                Some(Eap::Talking(conversation)) => {
                    let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
                    let packet = payloads.iter().find_map(|p| match p {
                        Payload::Eap(packet) => Some(packet.to_vec()),
                        _ => None,
                    });
                    let Some(packet) = packet else {
                        return self.refuse_auth(cx, notify::INVALID_SYNTAX, Reason::Protocol);
                    };
                    claim.eap = Some(Eap::Thinking);
                    self.wait_busy();
                    self.start(cx, Task::Eap(conversation, packet), PendingTask::Eap);
                }
                Some(Eap::Over(key)) => self.finish_eap(cx, key, &opened),
                other => {
                    claim.eap = other;
                    self.refuse_auth(cx, notify::INVALID_SYNTAX, Reason::Protocol);
                }
            },
            _ => self.refuse_auth(cx, notify::INVALID_SYNTAX, Reason::Protocol),
        }
    }

    /// The first IKE_AUTH request: who the peer says it is.
    fn take_claim(&mut self, cx: &mut Context<'_>, opened: Plaintext) {
        let Phase::Answering(answering) = &self.phase else { return };
        let Ok(payloads) = wire::parse(opened.first, &opened.body) else {
            return self.refuse_auth(cx, notify::INVALID_SYNTAX, Reason::Protocol);
        };
        let request = AuthPayloads::read(&payloads, Side::Initiator);
        let Some(identity) = request.identity.filter(|identity| identity.data.len() <= LONGEST_NAME) else {
            return self.refuse_auth(cx, notify::INVALID_SYNTAX, Reason::Protocol);
        };
        self.identity = Some(identity.clone());
        let index = match answering.candidates.claimed(cx.connections, identity, &request) {
            Ok(index) => index,
            Err(why) => return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, why),
        };
        let Some(connection) = cx.connections.get(index) else { return };
        let identity = identity.clone();
        self.connection = Some(index);
        // Whoever forbids NATs, the peer here, is told of one before all else (RFC 4555 §3.9).
        self.no_nats = wire::notified(&payloads, notify::NO_NATS_ALLOWED).is_some();
        let is_unchanged = self.came_unchanged(cx, &payloads, &answering.transcript.first, self.addresses);
        if self.no_nats && !is_unchanged {
            return self.refuse_nat(cx);
        }

        // With EAP the key is mixed in with the last proof (RFC 8784 §3).
        let mut ppk = false;
        let mut proof = request.auth.map(|(method, data)| (method, data.to_vec()));
        if matches!(connection.remote_auth, RemoteAuth::Eap(_)) {
            // Such a peer goes on without it, where that is allowed to whom it proves to be.
        } else if let (true, Some(known)) = (self.use_ppk, &connection.ppk) {
            let named = wire::notified(&payloads, notify::PPK_IDENTITY);
            let without = wire::notified(&payloads, notify::NO_PPK_AUTH);
            match (named, without) {
                (Some(id), _) if id == known.id => {
                    ppk = true;
                    if let Some(ike_sa) = self.ike_sas.first_mut() {
                        ike_sa.keys = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &known.secret.0);
                    }
                }
                (Some(_), Some(data)) if !known.required => {
                    proof = proof.map(|(method, _)| (method, data.to_vec()));
                }
                (None, _) if !known.required => {}
                _ => return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication),
            }
        } else if let (None, Some(data)) = (&connection.ppk, wire::notified(&payloads, notify::NO_PPK_AUTH)) {
            proof = proof.map(|(method, _)| (method, data.to_vec()));
        } else if connection.ppk.as_ref().is_some_and(|known| known.required) {
            return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
        }
        let certificates = request.certificates.iter().map(|c| c.to_vec()).collect();
        let octets = answering_octets(self, cx, Side::Initiator, &identity);
        let eap = matches!(connection.remote_auth, RemoteAuth::Eap(_)).then_some(Eap::Signing);
        let Phase::Answering(answering) = &mut self.phase else { return };
        answering.stage =
            Stage::Proving(Box::new(Claim { connection: index, request: opened, ppk, eap, is_unchanged }));
        self.wait_busy();
        match (&connection.remote_auth, proof) {
            (RemoteAuth::Psk(key), Some((_, data))) => {
                let ours = self.shared_key(cx, &key.0, &octets);
                if !auth::same(&ours, &data) {
                    return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
                }
                self.prove(cx);
            }
            (RemoteAuth::Key(verifier), Some((method, data))) => {
                let verifier = verifier.clone();
                let task = Task::Verify { verifier, identity, certificates, method, data, octets };
                self.start(cx, task, PendingTask::Verified);
            }
            (RemoteAuth::Eap(_), None) => self.prove(cx),
            _ => self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication),
        }
    }

    /// The peer's certificate calls it `names`: all of them count, whichever it came by.
    pub(in crate::ike) fn vouched(&mut self, cx: &mut Context<'_>, names: &[Identity]) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Stage::Proving(claim) = &mut answering.stage else { return };
        let payloads = wire::parse(claim.request.first, &claim.request.body).unwrap_or_default();
        let wanted = AuthPayloads::read(&payloads, Side::Initiator).wanted;
        match answering.candidates.proved(cx.connections, claim.connection, names, wanted) {
            Ok(index) => {
                drop(payloads);
                claim.connection = index;
                self.connection = Some(index);
                self.take_names(cx, names);
                self.prove(cx);
            }
            Err(why) => self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, why),
        }
    }

    /// The peer is who it says it is, or will show it by EAP: now we prove who we are.
    pub(in crate::ike) fn prove(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection.and_then(|i| cx.connections.get(i)) else { return };
        let octets = answering_octets(self, cx, Side::Responder, &connection.local_id);
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let data = self.shared_key(cx, &key.0, &octets);
                self.proved(cx, Proof { method: auth::SHARED_KEY, data: data.to_vec() });
            }
            LocalAuth::Key(signer) => {
                let Phase::Answering(answering) = &self.phase else { return };
                self.start(cx, Task::Sign(signer.clone(), octets, answering.hashes), PendingTask::Signed);
            }
            LocalAuth::Eap(_) => self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::NoConnection),
        }
    }

    /// Our proof is made.
    pub(in crate::ike) fn proved(&mut self, cx: &mut Context<'_>, proof: Proof) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Stage::Proving(claim) = &mut answering.stage else { return };
        let Some(connection) = cx.connections.get(claim.connection) else { return };
        let RemoteAuth::Eap(authenticator) = &connection.remote_auth else {
            return self.establish(cx, Some(proof));
        };
        // The conversation's first packet goes with our proof.
        let identity = self.identity.as_ref().map(|id| &id.data[..]).unwrap_or_default();
        let conversation = authenticator.begin(identity);
        claim.eap = Some(Eap::Thinking);
        self.start(cx, Task::Eap(conversation, Vec::new()), PendingTask::EapBegun(proof));
    }

    /// The EAP method has taken a packet; `proof` is ours, with the first one.
    pub(in crate::ike) fn eap_stepped(
        &mut self,
        cx: &mut Context<'_>,
        conversation: Box<dyn Conversation>,
        step: Step,
        proof: Option<Proof>,
    ) {
        let Phase::Answering(answering) = &mut self.phase else { return };
        let Stage::Proving(claim) = &mut answering.stage else { return };
        let Some(connection) = cx.connections.get(claim.connection) else { return };
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        let mut takes = Vec::new();
        let (packet, refused) = match step {
            Step::Send(packet) => {
                claim.eap = Some(Eap::Talking(conversation));
                (packet, None)
            }
            Step::Success(packet, Some(key)) => {
                // Who EAP proved it to be is who it is, and decides what holds for it.
                let proved = conversation.identity().filter(|name| !name.is_empty()).map(Identity::from_name);
                let others = conversation.other_names();
                let others = others.iter().map(|name| Identity::from_name(name));
                let names: Vec<Identity> = proved.iter().cloned().chain(others).collect();
                let chosen = answering.candidates.proved(cx.connections, claim.connection, &names, None);
                let chosen = chosen.map_err(|why| match proved {
                    None if why == Reason::NoConnection => Reason::Unnamed,
                    _ => why,
                });
                // Without a name it is nobody's other device, whatever it calls itself.
                self.account = Some(Box::new(proved.unwrap_or_else(|| Identity::unnamed(self.id.0))));
                takes = names;
                claim.eap = Some(Eap::Over(key));
                match chosen {
                    Ok(index) => {
                        claim.connection = index;
                        self.connection = Some(index);
                        (packet, None)
                    }
                    Err(why) => (packet::failure(&packet), Some(why)),
                }
            }
            // A method without a key proves nothing about who sits in between (RFC 7296 §2.16).
            Step::Success(packet, None) => (packet::failure(&packet), Some(Reason::Eap)),
            Step::Failure(packet) => (packet, Some(Reason::Eap)),
            Step::Ask => (packet::failure(&[]), Some(Reason::Eap)),
        };
        let mut payloads = Vec::new();
        if let Some(proof) = &proof {
            payloads.push(Payload::IdR(connection.local_id.clone()));
            payloads.extend(auth::certificates(&connection.local_auth));
            payloads.push(proof.payload());
        }
        payloads.push(Payload::Eap(&packet));
        let datagrams = ike_sa.answer(cx, ExchangeType::Auth, &payloads);
        cx.send_all(self.addresses, datagrams);
        self.take_names(cx, &takes);
        if let Some(why) = refused {
            self.fail(cx, why);
        }
    }

    /// The peer proves that it took part in the EAP conversation.
    fn finish_eap(&mut self, cx: &mut Context<'_>, key: Secret, opened: &Plaintext) {
        let Some(identity) = self.identity.clone() else { return };
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let request = AuthPayloads::read(&payloads, Side::Initiator);
        let Some((auth::SHARED_KEY, data)) = request.auth else {
            return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
        };
        let octets = answering_octets(self, cx, Side::Initiator, &identity);
        let theirs = self.shared_key(cx, &key, &octets);
        if !auth::same(&theirs, data) {
            return self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
        }
        let Some(connection) = self.connection.and_then(|i| cx.connections.get(i)) else { return };
        let octets = answering_octets(self, cx, Side::Responder, &connection.local_id);
        let ours = self.shared_key(cx, &key, &octets);
        self.establish(cx, Some(Proof { method: auth::SHARED_KEY, data: ours.to_vec() }));
    }

    /// Refuses the peer because a NAT is on the way where none is allowed.
    fn refuse_nat(&mut self, cx: &mut Context<'_>) {
        cx.count(Counter::NatRefused);
        self.refuse_auth(cx, notify::UNEXPECTED_NAT_DETECTED, Reason::Nat);
    }

    /// Both have proved who they are: the last IKE_AUTH answer, with addresses and the first child SA.
    fn establish(&mut self, cx: &mut Context<'_>, proof: Option<Proof>) {
        let Phase::Answering(answering) = &self.phase else { return };
        let Stage::Proving(claim) = &answering.stage else { return };
        let no_nats = cx.connections.get(claim.connection).is_some_and(|connection| connection.no_nats);
        if (no_nats || self.no_nats) && !claim.is_unchanged {
            return self.refuse_nat(cx);
        }
        // Any source can be written on its last request: it is where it got our first answer, until it says otherwise.
        let seen = self.place();
        self.addresses.remote.set_ip(self.from);
        let phase = core::mem::replace(&mut self.phase, Phase::Established);
        let Phase::Answering(answering) = phase else { return };
        let Stage::Proving(claim) = answering.stage else { return };
        let Some(connection) = cx.connections.get(claim.connection) else { return };
        let payloads = wire::parse(claim.request.first, &claim.request.body).unwrap_or_default();
        let request = AuthPayloads::read(&payloads, Side::Initiator);
        self.peer_supports(&request, connection);
        let with_eap = claim.eap.is_some() || matches!(connection.remote_auth, RemoteAuth::Eap(_));
        self.established(cx, wire::notified(&payloads, notify::INITIAL_CONTACT).is_some());

        let mut answer = Vec::new();
        if !with_eap {
            answer.push(Payload::IdR(connection.local_id.clone()));
            answer.extend(auth::certificates(&connection.local_auth));
        }
        answer.extend(proof.as_ref().map(Proof::payload));
        if claim.ppk {
            answer.push(Payload::Notify(Notify::new(notify::PPK_IDENTITY, &[])));
        }
        let configured = match request.configuration {
            Some(asked) => self.configure(cx, connection, asked),
            None => Ok(None),
        };
        let agreed: Result<Option<AgreedChild>, u16> = match (&configured, request.proposals) {
            (Err(notify), _) => Err(*notify),
            (Ok(_), None) => Ok(None),
            (Ok(_), Some(_)) => match ChildOffer::read(&payloads) {
                Ok(offer) => self.agree_first_child(cx, connection, &offer).map(Some),
                Err(_) => Err(notify::INVALID_SYNTAX),
            },
        };
        let buffers;
        if let Ok(Some(configuration)) = &configured {
            buffers = configuration.payload();
            answer.push(buffers);
        }
        let additional = self.additional_addresses(connection);
        if self.mobike {
            answer.push(Payload::Notify(Notify::new(notify::MOBIKE_SUPPORTED, &[])));
            answer.extend(additional.iter().map(Additional::payload));
        }
        let error = agreed.as_ref().err().copied();
        match &agreed {
            Ok(Some(agreed)) => {
                answer.push(Payload::Sa(vec![agreed.suite.proposal(agreed.number, agreed.spi_in)]));
                answer.push(Payload::TsI(agreed.remote.clone()));
                answer.push(Payload::TsR(agreed.local.clone()));
                if agreed.transport {
                    answer.push(Payload::Notify(Notify::new(notify::USE_TRANSPORT_MODE, &[])));
                }
            }
            Ok(None) => {}
            Err(_) => answer.extend(error.map(|kind| Payload::Notify(Notify::new(kind, &[])))),
        }
        let Some(ike_sa) = self.ike_sas.first_mut() else { return };
        let datagrams = ike_sa.answer(cx, ExchangeType::Auth, &answer);
        cx.send_all(seen.addresses, datagrams);
        drop(answer);
        if let Ok(Some(agreed)) = agreed {
            let transcript = &answering.transcript;
            self.install(cx, agreed, &[], [&transcript.nonce_i, &transcript.nonce_r], false, true);
        }
        self.go(cx, seen, true);
    }

    fn wait_busy(&mut self) {
        if let Some(ike_sa) = self.ike_sas.first_mut() {
            ike_sa.busy = true;
        }
    }

    /// Refuses the peer in its IKE_AUTH.
    pub(in crate::ike) fn refuse_auth(&mut self, cx: &mut Context<'_>, kind: u16, reason: Reason) {
        self.refuse(cx, ExchangeType::Auth, kind, reason);
    }

    pub(in crate::ike) fn answering_transcript(&self) -> Option<&Transcript> {
        match &self.phase {
            Phase::Answering(answering) => Some(&answering.transcript),
            _ => None,
        }
    }
}

/// What `side`, who is called `identity`, signs.
fn answering_octets(peer: &Peer, cx: &Context<'_>, side: Side, identity: &Identity) -> Vec<u8> {
    let (Some(transcript), Some(ike_sa)) = (peer.answering_transcript(), peer.ike_sas.first()) else {
        return Vec::new();
    };
    transcript.octets(cx.crypto, ike_sa, side, identity)
}

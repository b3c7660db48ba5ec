//! The initiator's side of IKE_AUTH (RFC 7296 §1.2, §2.15, §2.16; RFC 8784).

use super::{
    configuration,
    message::{self, AuthResponse, MAX_IDENTITY_LEN, Proof, SHARED_KEY, Terms, constant_time_eq},
};
use crate::{
    aaa::eap::{Conversation, Step},
    crypto::{PeerSignature, Secret, SignError, Signer, VerifyError},
    identity::{Forms, Identity},
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, RemoteAuth},
        context::Context,
        crash::CrashToken,
        exchange::{auth_lifetime::AuthLifetime, child_offer::esp_proposals, mobike::addresses::Additional},
        method::Method,
        peer::{
            Peer,
            failure::Failure,
            ike_sa::IkeSa,
            initiator::{
                AuthSent, EapMethod, EapProofSent, EapSent, InitiatorHandshake, InitiatorState, Signature,
                Verification,
            },
            request::{QueuedRequest, Request},
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        reason::Reason,
        selector,
        wire::{ExchangeType, Payload, certificate, notify},
    },
    task::Task,
};
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};

/// The next state; `None` once both sides are established.
type Next = Result<Option<InitiatorState>, Failure>;

/// The octets that we sign.
struct OwnOctets {
    octets: Vec<u8>,
    /// Those that apply without the post-quantum key, if there is one and the responder may go on
    /// without it.
    without_ppk: Option<Vec<u8>>,
}

/// Our proof.
struct OwnProof {
    proof: Proof,
    /// The AUTH data that applies without the post-quantum key.
    without_ppk: Option<Vec<u8>>,
}

/// Returns a failure that rejects the responder's proof and tells it so (RFC 7296 §2.21.2).
fn give_up(reason: Reason) -> Failure {
    Failure::with_notify(reason, notify::AUTHENTICATION_FAILED)
}

/// Parses the responder's response.
fn read(opened: &Plaintext) -> Result<AuthResponse, Failure> {
    let answer = opened.read(AuthResponse::read).map_err(|_| give_up(Reason::Protocol))?;
    match answer.refusal() {
        // A single modified packet may be the cause, so this is not final: the connection is dialed
        // again (RFC 4555 §3.9).
        Some(notify::UNEXPECTED_NAT_DETECTED) => Err(Reason::Nat.into()),
        Some(kind) => Err(Reason::Refused(kind).into()),
        None => Ok(answer),
    }
}

impl InitiatorHandshake {
    /// Sends our proof of identity; with EAP, the request that starts the conversation.
    pub(in crate::ike) fn begin_auth(
        &mut self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
    ) -> Result<InitiatorState, Failure> {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        // Without USE_PPK of the responder, a key that is required ends the attempt (RFC 8784 §3).
        if !self.ppk && connection.ppk.as_ref().is_some_and(|ppk| ppk.required) {
            return Err(Reason::Authentication.into());
        }
        self.ppk &= connection.ppk.is_some();
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let proof = self.prove_by_key(peer, cx, connection, &key.0)?;
                self.send_auth(peer, cx, connection, Some(&proof));
            }
            LocalAuth::Key(signer) => {
                let OwnOctets { octets, without_ppk } = self.own_octets(peer, cx, connection)?;
                peer.start(cx, self.signing(signer, octets), PendingTask::Handshake);
                return Ok(InitiatorState::Signature(Signature { without_ppk, proof: None }));
            }
            LocalAuth::Eap(_) => self.send_auth(peer, cx, connection, None),
        }
        Ok(InitiatorState::AuthSent(AuthSent))
    }

    /// Returns the task of signing these octets.
    fn signing(&self, signer: &Arc<dyn Signer>, octets: Vec<u8>) -> Task {
        let Self { hashes, wants_ocsp, .. } = *self;
        Task::Sign { signer: signer.clone(), octets, hashes, wants_ocsp }
    }

    /// Mixes in the post-quantum key, if both sides use one. Returns the octets that we sign, and
    /// those that apply if the responder goes on without the key, unless it is required (RFC 8784
    /// §3).
    fn own_octets(
        &mut self,
        peer: &mut Peer,
        cx: &Context<'_>,
        connection: &Connection,
    ) -> Result<OwnOctets, Failure> {
        let ike_sa = peer.handshake_sa()?;
        let sign =
            |ike_sa: &IkeSa| self.transcript.octets(cx.crypto, ike_sa, Side::Initiator, &connection.local_id);
        let octets = sign(ike_sa);
        let Some(ppk) = connection.ppk.as_ref().filter(|_| self.ppk) else {
            return Ok(OwnOctets { octets, without_ppk: None });
        };
        let mixed = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &ppk.secret.0);
        let before = core::mem::replace(&mut ike_sa.keys, mixed);
        let (octets, without_ppk) = (sign(ike_sa), Some(octets).filter(|_| !ppk.required));
        self.keys_without_ppk = Some(before).filter(|_| !ppk.required);
        Ok(OwnOctets { octets, without_ppk })
    }

    /// Returns our proof by a shared key, or by the key that EAP produced (RFC 7296 §2.15, §2.16).
    fn prove_by_key(
        &mut self,
        peer: &mut Peer,
        cx: &Context<'_>,
        connection: &Connection,
        key: &[u8],
    ) -> Result<OwnProof, Failure> {
        let OwnOctets { octets, without_ppk } = self.own_octets(peer, cx, connection)?;
        let data = |octets: Vec<u8>| peer.shared_key(cx, key, &octets).to_vec();
        let proof = Proof { method: SHARED_KEY, data: data(octets) };
        Ok(OwnProof { proof, without_ppk: without_ppk.map(data) })
    }

    /// Goes on without the post-quantum key if the responder did not mix it in, and fails if it is
    /// required. A responder that did says so (RFC 8784 §3).
    fn settle_ppk(&mut self, peer: &mut Peer, is_mixed: bool) -> Result<(), Failure> {
        let before = self.keys_without_ppk.take();
        if self.ppk && !is_mixed {
            peer.handshake_sa()?.keys = before.ok_or_else(|| give_up(Reason::Authentication))?;
        }
        Ok(())
    }

    /// Sends the first request.
    fn send_auth(
        &self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        connection: &Connection,
        proof: Option<&OwnProof>,
    ) {
        // Without a proof, EAP follows, and the token goes with the last request (RFC 6290 §4.2).
        let token = proof.and_then(|_| peer.own_crash_token(cx));
        let request = connection.ask_address.then(|| configuration::request(peer.inner_before()));
        let additional = peer.additional_addresses(connection);
        let no_nats = connection.no_nats.then(|| peer.no_nats_allowed().data());
        let ocsp = message::ocsp(&connection.local_auth, self.wants_ocsp);
        let mut payloads = vec![Payload::IdI(connection.local_id.clone())];
        payloads.extend(message::certificates(&connection.local_auth, &ocsp));
        if peer.predecessor().is_none() {
            payloads.push(Payload::notify(notify::INITIAL_CONTACT, &[]));
        }
        if let RemoteAuth::Key(verifier) = &connection.remote_auth {
            let authorities = verifier.authorities();
            payloads.push(Payload::CertReq { encoding: certificate::X509_SIGNATURE, authorities });
            if verifier.wants_ocsp() {
                payloads.push(Payload::CertReq { encoding: certificate::OCSP_CONTENT, authorities: &[] });
            }
        }
        if let IdentityPattern::Of { written, .. } = &connection.remote_id
            && let [only] = &written[..]
        {
            payloads.push(Payload::IdR(only.clone()));
        }
        payloads.extend(proof.into_iter().flat_map(|proof| self.proof_payloads(connection, proof)));
        payloads.extend(token.as_ref().map(CrashToken::payload));
        payloads.extend(request.map(Payload::Cp));
        if let Some(child) = connection.children.first() {
            if child.transport && !peer.nat.any() {
                payloads.push(Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
            }
            let local = match connection.ask_address {
                // The address is not known yet. The gateway narrows this to it (RFC 7296 §2.19).
                true => vec![selector::everything(true), selector::everything(false)],
                false => peer.local_side(child),
            };
            payloads.push(Payload::Sa(esp_proposals(&connection.esp, self.child_spi, None)));
            payloads.push(Payload::TsI(local));
            payloads.push(Payload::TsR(peer.remote_side(child)));
        }
        if connection.mobike {
            payloads.push(Payload::notify(notify::MOBIKE_SUPPORTED, &[]));
            payloads.extend(additional.iter().map(Additional::payload));
        }
        payloads.extend(no_nats.iter().map(|data| Payload::notify(notify::NO_NATS_ALLOWED, data)));
        peer.request(cx, ExchangeType::Auth, &payloads, Request::Handshake, None);
    }

    /// Returns the AUTH payload of our proof, with what belongs to it if it includes a post-quantum
    /// key (RFC 8784 §3).
    fn proof_payloads<'a>(
        &self,
        connection: &'a Connection,
        OwnProof { proof, without_ppk }: &'a OwnProof,
    ) -> impl Iterator<Item = Payload<'a>> + use<'a> {
        let ppk = connection.ppk.as_ref().filter(|_| self.ppk);
        let id = ppk.map(|ppk| Payload::notify(notify::PPK_IDENTITY, &ppk.id));
        let without_ppk = without_ppk.as_ref().map(|data| Payload::notify(notify::NO_PPK_AUTH, data));
        [proof.payload()].into_iter().chain(id).chain(without_ppk)
    }

    /// Returns the responder's AUTH data for the key that EAP produced (RFC 7296 §2.16).
    fn expected_proof(&self, peer: &mut Peer, cx: &Context<'_>, key: &Secret) -> Result<Secret, Failure> {
        let identity = peer.identity.clone().ok_or(Reason::Authentication)?;
        let octets = self.transcript.octets(cx.crypto, peer.handshake_sa()?, Side::Responder, &identity);
        Ok(peer.shared_key(cx, key, &octets))
    }

    /// Applies the responder's terms and installs the first child SA, now that both sides are
    /// authenticated.
    fn finish(&self, peer: &mut Peer, cx: &mut Context<'_>, terms: &Terms) -> Next {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        peer.check_bars(cx).map_err(give_up)?;
        peer.handshake_sa()?.crash_token = terms.crash_token.clone().map(Box::new);
        peer.mobike = connection.mobike && terms.mobike;
        peer.established(cx, false);
        peer.schedule_renewal(cx, terms.auth_lifetime.map(AuthLifetime::time));
        if let Some(configuration) = &terms.configuration {
            let accepted = peer.accept_configuration(cx, connection, configuration);
            accepted.map_err(Reason::InnerAddress)?;
        }
        let offer = terms.child.as_ref().map(Result::as_ref).transpose().map_err(|_| Reason::Protocol)?;
        let agreed = offer.and_then(|offer| {
            let ours = (connection, &connection.esp[..]);
            peer.accept_child(cx, offer, ours, 0, (self.child_spi, false), None)
        });
        // A terminal without a child SA is useless, so it starts over.
        let agreed = agreed.ok_or(Reason::Refused(terms.error.unwrap_or(notify::TS_UNACCEPTABLE)))?;
        let Self { transcript, .. } = self;
        peer.install(cx, agreed, &[], [&transcript.nonce_i, &transcript.nonce_r], true, true);
        (1..connection.children.len()).for_each(|policy| peer.enqueue(QueuedRequest::Child(policy)));
        Ok(None)
    }
}

impl Signature {
    /// Sends the first request with our signature, or with both if there are two.
    pub(in crate::ike) fn handle_signature(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(u8, Vec<u8>), SignError>,
    ) -> Result<InitiatorState, Failure> {
        let (method, data) = result.map_err(Reason::Signature)?;
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let proof = match (self.proof, self.without_ppk, &connection.local_auth) {
            (None, Some(octets), LocalAuth::Key(signer)) => {
                peer.start(cx, handshake.signing(signer, octets), PendingTask::Handshake);
                let proof = Some(Proof { method, data });
                return Ok(InitiatorState::Signature(Signature { without_ppk: None, proof }));
            }
            (None, ..) => OwnProof { proof: Proof { method, data }, without_ppk: None },
            (Some(proof), ..) => OwnProof { proof, without_ppk: Some(data) },
        };
        handshake.send_auth(peer, cx, connection, Some(&proof));
        Ok(InitiatorState::AuthSent(AuthSent))
    }
}

impl AuthSent {
    /// Checks the responder's proof.
    pub(in crate::ike) fn handle_response(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        opened: &Plaintext,
    ) -> Next {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let AuthResponse { identity, certificates, proof, eap, ppk, terms } = read(opened)?;
        let (Some(identity), Some(Proof { method, data })) = (identity, proof) else {
            return Err(give_up(Reason::Authentication));
        };
        if identity.data.len() > MAX_IDENTITY_LEN || !connection.remote_id.matches(&Forms::of(&identity)) {
            return Err(give_up(Reason::NoConnection));
        }
        // With EAP, the key is mixed in with the last proofs only (RFC 8784 §3).
        if !matches!(connection.local_auth, LocalAuth::Eap(_)) {
            handshake.settle_ppk(peer, ppk)?;
        }
        let octets = handshake.transcript.octets(cx.crypto, peer.handshake_sa()?, Side::Responder, &identity);
        peer.identity = Some(identity.clone());
        let verification = Verification { terms, eap };
        match &connection.remote_auth {
            RemoteAuth::Psk(key) if method == SHARED_KEY => {
                peer.method = Some(Method::Psk);
                if !constant_time_eq(&peer.shared_key(cx, &key.0, &octets), &data) {
                    return Err(give_up(Reason::Authentication));
                }
                peer.is_proved = true;
                verification.go_on(handshake, peer, cx)
            }
            RemoteAuth::Key(verifier) if method != SHARED_KEY => {
                peer.method = Some(Method::Certificate(verifier.scheme(method, &data)));
                let verifier = verifier.clone();
                let signature = PeerSignature { method, data, octets, hashes: handshake.hashes };
                let task = Task::Verify { verifier, identity, certificates, signature, may_wait: true };
                peer.start(cx, task, PendingTask::Handshake);
                Ok(Some(InitiatorState::Verification(verification)))
            }
            _ => Err(give_up(Reason::Authentication)),
        }
    }
}

impl Verification {
    /// Continues if the responder proved its identity.
    pub(in crate::ike) fn handle_verification(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Vec<Identity>, VerifyError>,
    ) -> Next {
        let names = result.map_err(|why| give_up(Reason::Verification(why)))?;
        peer.is_proved = true;
        peer.take_names(cx, &names).map_err(give_up)?;
        self.go_on(handshake, peer, cx)
    }

    /// Starts EAP, or finishes if we do not use it.
    fn go_on(self, handshake: &mut InitiatorHandshake, peer: &mut Peer, cx: &mut Context<'_>) -> Next {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let LocalAuth::Eap(method) = &connection.local_auth else {
            return handshake.finish(peer, cx, &self.terms);
        };
        let packet = self.eap.ok_or_else(|| give_up(Reason::Protocol))?;
        let conversation = method.begin(peer.origin(connection));
        peer.start(cx, Task::Eap(conversation, packet), PendingTask::Handshake);
        Ok(Some(InitiatorState::EapMethod(EapMethod)))
    }
}

impl EapSent {
    /// Passes the gateway's packet to the EAP method.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        opened: &Plaintext,
    ) -> Result<InitiatorState, Failure> {
        let packet = read(opened)?.eap.ok_or_else(|| give_up(Reason::Protocol))?;
        peer.start(cx, Task::Eap(self.conversation, packet), PendingTask::Handshake);
        Ok(InitiatorState::EapMethod(EapMethod))
    }
}

impl EapMethod {
    /// Sends the method's packet, or the proof that we have its key.
    pub(in crate::ike) fn handle_step(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (conversation, step): (Box<dyn Conversation>, Step),
    ) -> Result<InitiatorState, Failure> {
        match step {
            Step::Send(packet) => {
                let payloads = [Payload::Eap(&packet)];
                peer.request(cx, ExchangeType::Auth, &payloads, Request::Handshake, None);
                Ok(InitiatorState::EapSent(EapSent { conversation }))
            }
            Step::Success(_, Some(key)) => {
                let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
                let proof = handshake.prove_by_key(peer, cx, connection, &key)?;
                let token = peer.own_crash_token(cx);
                let mut payloads: Vec<_> = handshake.proof_payloads(connection, &proof).collect();
                payloads.extend(token.as_ref().map(CrashToken::payload));
                peer.request(cx, ExchangeType::Auth, &payloads, Request::Handshake, None);
                Ok(InitiatorState::EapProofSent(EapProofSent { key }))
            }
            // A method without a key does not exclude a man in the middle (RFC 7296 §2.16).
            Step::Success(_, None) | Step::Failure(_) | Step::Unanswered(_) | Step::Ask | Step::Wait(_) => {
                Err(Reason::Eap.into())
            }
        }
    }
}

impl EapProofSent {
    /// Checks the proof that the gateway took part in the EAP conversation.
    pub(in crate::ike) fn handle_response(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        opened: &Plaintext,
    ) -> Next {
        let answer = read(opened)?;
        handshake.settle_ppk(peer, answer.ppk)?;
        let expected = handshake.expected_proof(peer, cx, &self.key)?;
        match answer.proof.is_some_and(|proof| constant_time_eq(&expected, &proof.data)) {
            true => handshake.finish(peer, cx, &answer.terms),
            false => Err(give_up(Reason::Authentication)),
        }
    }
}

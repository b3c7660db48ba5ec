//! The initiator's side of IKE_AUTH (RFC 7296 §1.2, §2.15, §2.16; RFC 8784).

use super::{
    configuration,
    message::{
        self, AuthResponse, MAX_IDENTITY_LEN, Proof, SHARED_KEY, Terms, X509_SIGNATURE, constant_time_eq,
    },
};
use crate::{
    aaa::eap::{Conversation, Step},
    crypto::{PeerSignature, Secret, SignError, VerifyError},
    identity::{Forms, Identity},
    ike::{
        connection::{Connection, IdentityPattern, LocalAuth, RemoteAuth},
        context::Context,
        crash::CrashToken,
        event::Reason,
        exchange::{child_offer::esp_proposals, mobike::addresses::Additional},
        method::Method,
        peer::{
            Peer,
            failure::Failure,
            initiator::{
                AuthSent, EapMethod, EapProofSent, EapSent, InitiatorHandshake, InitiatorState, Signature,
                Verification,
            },
            request::{QueuedRequest, Request},
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        selector,
        wire::{ExchangeType, Payload, notify},
    },
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};

/// The next state; `None` once both sides are established.
type Next = Result<Option<InitiatorState>, Failure>;

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
        let ike_sa = peer.handshake_sa()?;
        match (&connection.ppk, self.ppk) {
            (Some(ppk), true) => {
                ike_sa.keys = ike_sa.keys.with_ppk(cx.crypto, ike_sa.suite.prf, &ppk.secret.0);
            }
            (Some(ppk), false) if ppk.required => return Err(Reason::Authentication.into()),
            _ => self.ppk = false,
        }
        let octets = self.transcript.octets(cx.crypto, ike_sa, Side::Initiator, &connection.local_id);
        match &connection.local_auth {
            LocalAuth::Psk(key) => {
                let data = peer.shared_key(cx, &key.0, &octets).to_vec();
                self.send_auth(peer, cx, connection, Some(&Proof { method: SHARED_KEY, data }));
            }
            LocalAuth::Key(signer) => {
                let task = Task::Sign(signer.clone(), octets, self.hashes);
                peer.start(cx, task, PendingTask::Handshake);
                return Ok(InitiatorState::Signature(Signature));
            }
            LocalAuth::Eap(_) => self.send_auth(peer, cx, connection, None),
        }
        Ok(InitiatorState::AuthSent(AuthSent))
    }

    /// Sends the first request.
    fn send_auth(
        &self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        connection: &Connection,
        proof: Option<&Proof>,
    ) {
        let ppk = connection.ppk.as_ref().filter(|_| self.ppk);
        // Without a proof, EAP follows, and the token goes with the last request (RFC 6290 §4.2).
        let token = proof.and_then(|_| peer.own_crash_token(cx));
        let request = connection.ask_address.then(configuration::request);
        let additional = peer.additional_addresses(connection);
        let no_nats = connection.no_nats.then(|| peer.no_nats_allowed().data());
        let mut payloads = vec![Payload::IdI(connection.local_id.clone())];
        payloads.extend(message::certificates(&connection.local_auth));
        payloads.push(Payload::notify(notify::INITIAL_CONTACT, &[]));
        if let RemoteAuth::Key(verifier) = &connection.remote_auth {
            let authorities = verifier.authorities();
            payloads.push(Payload::CertReq { encoding: X509_SIGNATURE, authorities });
        }
        if let IdentityPattern::Of { written, .. } = &connection.remote_id
            && let [only] = &written[..]
        {
            payloads.push(Payload::IdR(only.clone()));
        }
        payloads.extend(proof.map(Proof::payload));
        payloads.extend(ppk.map(|ppk| Payload::notify(notify::PPK_IDENTITY, &ppk.id)));
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

    /// Returns the AUTH data of `side` for the key that EAP produced (RFC 7296 §2.16).
    fn eap_proof(
        &self,
        peer: &mut Peer,
        cx: &Context<'_>,
        side: Side,
        key: &Secret,
    ) -> Result<Secret, Failure> {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        let identity = match side {
            Side::Initiator => Some(&connection.local_id),
            Side::Responder => peer.identity.as_ref(),
        };
        let identity = identity.cloned().ok_or(Reason::Authentication)?;
        let octets = self.transcript.octets(cx.crypto, peer.handshake_sa()?, side, &identity);
        Ok(peer.shared_key(cx, key, &octets))
    }

    /// Applies the responder's terms and installs the first child SA, now that both sides are
    /// authenticated.
    fn finish(&self, peer: &mut Peer, cx: &mut Context<'_>, terms: &Terms) -> Next {
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        peer.handshake_sa()?.crash_token = terms.crash_token.clone().map(Box::new);
        peer.mobike = connection.mobike && terms.mobike;
        peer.established(cx, false);
        if let Some(configuration) = &terms.configuration {
            let accepted = peer.accept_configuration(cx, connection, configuration);
            accepted.map_err(Reason::InnerAddress)?;
        }
        let offer = terms.child.as_ref().map(Result::as_ref).transpose().map_err(|_| Reason::Protocol)?;
        let agreed = offer.and_then(|offer| {
            peer.accept_child(offer, (connection, &connection.esp), 0, (self.child_spi, false), None)
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
    /// Sends the first request with our signature.
    pub(in crate::ike) fn handle_signature(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(u8, Vec<u8>), SignError>,
    ) -> Result<InitiatorState, Failure> {
        let (method, data) = result.map_err(Reason::Signature)?;
        let connection = peer.connection(cx).ok_or(Reason::NoConnection)?;
        handshake.send_auth(peer, cx, connection, Some(&Proof { method, data }));
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
        // A responder that mixed in the key says so (RFC 8784 §3).
        if handshake.ppk && !ppk {
            return Err(give_up(Reason::Authentication));
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
                let task = Task::Verify { verifier, identity, certificates, signature };
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
        result.map_err(|why| give_up(Reason::Verification(why)))?;
        peer.is_proved = true;
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
                let data = handshake.eap_proof(peer, cx, Side::Initiator, &key)?;
                let token = peer.own_crash_token(cx);
                let mut payloads = vec![Payload::Auth { method: SHARED_KEY, data: &data }];
                payloads.extend(token.as_ref().map(CrashToken::payload));
                peer.request(cx, ExchangeType::Auth, &payloads, Request::Handshake, None);
                Ok(InitiatorState::EapProofSent(EapProofSent { key }))
            }
            // A method without a key does not exclude a man in the middle (RFC 7296 §2.16).
            Step::Success(_, None) | Step::Failure(_) | Step::Unanswered(_) | Step::Ask => {
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
        let expected = handshake.eap_proof(peer, cx, Side::Responder, &self.key)?;
        match answer.proof.is_some_and(|proof| constant_time_eq(&expected, &proof.data)) {
            true => handshake.finish(peer, cx, &answer.terms),
            false => Err(give_up(Reason::Authentication)),
        }
    }
}

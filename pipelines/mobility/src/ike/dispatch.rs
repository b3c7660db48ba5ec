//! Passes messages and outcomes of tasks to the state or the exchange that waits for them.

use super::{
    context::Context,
    counter::Counter,
    exchange::{
        create_child::{
            followup_message::{Followup, FollowupResponse},
            message::{CreateChildRequest, CreateChildResponse},
        },
        informational::message::{InformationalRequest, InformationalResponse},
        init::message::InitResponse,
    },
    peer::{
        Peer, Phase,
        failure::Failure,
        ike_sa::Arrival,
        initiator::{Initiator, InitiatorHandshake, InitiatorState as Initiating},
        request::{AuthLifetimeSent, CrashTokenSent, IkeSaDeleteSent, Request, Withdrawn},
        responder::{Responder, ResponderHandshake, ResponderState as Responding},
        state::PendingTask,
    },
    proposal::protocol,
    protection::{OpenError, Plaintext},
    reason::Reason,
    wire::{Delete, ExchangeType, Header, Malformed, notify},
};
use crate::{
    path::Addresses,
    task::{Outcome, TaskId},
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::{mem, net::SocketAddr};

/// The next state of a handshake; `None` once both sides are established.
type Next<S> = Result<Option<S>, Failure>;

impl Peer {
    /// Handles a message that contains one of our SPIs.
    pub(in crate::ike) fn handle_message(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) {
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        if let Phase::Initiator(_) = self.phase
            && self.ike_sas.is_empty()
        {
            return self.handle_init_response(cx, header, message, addresses);
        }
        let Some(at) = self.ike_sas.iter().position(|s| s.local_spi() == ours) else {
            return cx.count(Counter::UnknownSpi);
        };
        let Some(exchange) = ExchangeType::from_number(header.exchange) else {
            return cx.count(Counter::UnknownExchange);
        };
        let result = match header.is_response() {
            true => self.handle_response(cx, at, header, message, addresses.remote),
            false => self.handle_request(cx, at, exchange, header, message, addresses),
        };
        match result {
            Ok(()) => {}
            Err(OpenError::Malformed(Malformed::Encrypted))
                if header.is_response()
                    && self.ike_sas.get(at).is_some_and(|ike_sa| ike_sa.is_lost_by(header, message)) =>
            {
                self.lose_ike_sa(cx, ours);
            }
            Err(OpenError::Malformed(_)) => cx.count(Counter::Malformed),
            Err(OpenError::Forged) => cx.count(Counter::Forged),
        }
    }

    /// Handles a possible response to our IKE_SA_INIT. Anything else is ignored, because anybody
    /// may have sent it.
    fn handle_init_response(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) {
        let is_answer = header.is_response()
            && header.exchange == ExchangeType::SaInit.number()
            && header.message_id == 0
            && addresses.remote == self.addresses.remote;
        let Phase::Initiator(initiator) = &self.phase else { return };
        if !is_answer || !matches!(initiator.state, Initiating::InitSent(_)) {
            return;
        }
        let Ok(response) = InitResponse::parse(header, message) else { return };
        self.step_initiator(cx, |state, handshake, peer, cx| match state {
            Initiating::InitSent(sent) => {
                sent.handle_response(handshake, peer, cx, response, (header, message)).map(Some)
            }
            state => Ok(Some(state)),
        });
    }

    fn handle_request(
        &mut self,
        cx: &mut Context<'_>,
        at: usize,
        exchange: ExchangeType,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) -> Result<(), OpenError> {
        let Some(ike_sa) = self.ike_sas.get_mut(at) else { return Ok(()) };
        let arrival = ike_sa.open_request(cx.crypto, header, message)?;
        let spi = ike_sa.local_spi();
        // An IKE SA that was replaced or deleted makes nothing new (RFC 7296 §2.8).
        if matches!(arrival, Arrival::New(_))
            && ike_sa.life().removed_at().is_some()
            && exchange != ExchangeType::Informational
        {
            return Ok(());
        }
        // An unauthenticated peer could claim any address, but it has proved the one of its first
        // message.
        let proved = self.expire_at.is_some();
        let elsewhere = match proved {
            true => addresses.remote != self.addresses.remote,
            false => addresses.remote.ip() != self.from,
        };
        let opened = match arrival {
            Arrival::Nothing => return Ok(()),
            // A response with certificates or EAP may be much larger than its request. A peer that
            // means it repeats the request.
            Arrival::New(_) if elsewhere && !proved && !ike_sa.admits_stray(cx.now) => {
                cx.count(Counter::TooOften);
                return Ok(());
            }
            Arrival::Repeated => {
                match ike_sa.repeat(cx.now, elsewhere, proved) {
                    Some(answered) => {
                        cx.count(Counter::Repeated);
                        cx.send_all(addresses, answered);
                    }
                    None => cx.count(Counter::TooOften),
                }
                return Ok(());
            }
            Arrival::New(opened) => opened,
        };
        self.note_heard(cx);
        self.note_source(cx, addresses);
        match (&self.phase, exchange) {
            (Phase::Responder(_), ExchangeType::Intermediate | ExchangeType::Auth) => {
                self.step_responder(cx, exchange, |state, handshake, peer, cx| {
                    respond(state, handshake, peer, cx, (exchange, header, &opened), addresses)
                });
            }
            (Phase::Established | Phase::Ended, ExchangeType::Informational) => {
                let is_wayfarer = self.is_wayfarer;
                match opened.read(|payloads| InformationalRequest::read(payloads, is_wayfarer)) {
                    Ok(request) => self.answer_informational(cx, spi, &request, addresses),
                    Err(why) => self.refuse_request(cx, spi, exchange, &why.into(), addresses),
                }
            }
            (Phase::Established, ExchangeType::CreateChildSa) => {
                match opened.read(CreateChildRequest::read) {
                    Ok(request) => self.answer_create(cx, spi, request, addresses),
                    Err(why) => self.refuse_request(cx, spi, exchange, &why.into(), addresses),
                }
            }
            (Phase::Established, ExchangeType::FollowupKe) => match opened.read(Followup::read) {
                Ok(request) => self.answer_followup(cx, spi, request, addresses),
                Err(why) => self.refuse_request(cx, spi, exchange, &why.into(), addresses),
            },
            (Phase::Responder(_), ExchangeType::Informational) => {
                match opened.read(|payloads| InformationalRequest::read(payloads, false)) {
                    // The peer rejects our proof, and may say so (RFC 7296 §2.21.2).
                    Ok(request) => {
                        self.answer(cx, spi, exchange, &[], addresses);
                        let refusal = request.refusal.map(|refusal| Reason::Refused(refusal.kind));
                        self.fail(cx, refusal.unwrap_or(Reason::Deleted));
                    }
                    Err(why) => self.refuse_request(cx, spi, exchange, &why.into(), addresses),
                }
            }
            // The peer repeats the request once we are ready.
            (Phase::Initiator(_), _) => {}
            // An exchange of the handshake, which is over.
            (Phase::Established, _) => {
                let why = opened.read(|_| Ok(())).err().unwrap_or(Malformed::Exchange(header.exchange));
                self.refuse_request(cx, spi, exchange, &why.into(), addresses);
            }
            _ => cx.count(Counter::UnknownExchange),
        }
        // What waited for an exchange of the peer may begin.
        self.start_queued(cx);
        Ok(())
    }

    fn handle_response(
        &mut self,
        cx: &mut Context<'_>,
        at: usize,
        header: &Header,
        message: &[u8],
        source: SocketAddr,
    ) -> Result<(), OpenError> {
        let Some(ike_sa) = self.ike_sas.get_mut(at) else { return Ok(()) };
        let spi = ike_sa.local_spi();
        let Some((opened, outstanding)) = ike_sa.open_response(cx.crypto, header, message)? else {
            return Ok(());
        };
        self.note_heard(cx);
        self.take_response(cx, header, &opened, outstanding.request, source);
        if self.ike_sas.iter().any(|s| s.local_spi() == spi && s.must_be_deleted()) {
            self.request_delete_ike_sa(cx, spi);
        }
        self.start_queued(cx);
        Ok(())
    }

    /// Passes the response to the request that waits for it.
    fn take_response(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        opened: &Plaintext,
        request: Request,
        source: SocketAddr,
    ) {
        let is_wayfarer = self.is_wayfarer;
        let read = || opened.read(|payloads| InformationalResponse::read(payloads, is_wayfarer));
        match request {
            Request::Handshake => self.step_initiator(cx, |state, handshake, peer, cx| match state {
                Initiating::IntermediateSent(s) => {
                    s.handle_response(handshake, peer, cx, (header, opened)).map(Some)
                }
                Initiating::AuthSent(s) => s.handle_response(handshake, peer, cx, opened),
                Initiating::EapSent(s) => s.handle_response(peer, cx, opened).map(Some),
                Initiating::EapProofSent(s) => s.handle_response(handshake, peer, cx, opened),
                state => Ok(Some(state)),
            }),
            Request::Create(sent) => {
                sent.handle_response(self, cx, opened.read(CreateChildResponse::read));
            }
            Request::Followup(sent) => {
                sent.handle_response(self, cx, opened.read(FollowupResponse::read));
            }
            Request::Liveness(sent) => sent.handle_response(self, cx, read()),
            Request::Update(sent) => sent.handle_response(self, cx, read()),
            Request::Probe(sent) => sent.handle_response(self, cx, read(), source),
            Request::PathProbe(sent) => sent.handle_response(self, cx),
            Request::DeleteChild(sent) => sent.handle_response(self, cx),
            Request::DeleteIkeSa(sent) => sent.handle_response(self, cx),
            // The arrival of the response is all that these ask for.
            Request::DeleteUnused(_)
            | Request::CrashToken(CrashTokenSent)
            | Request::AuthLifetime(AuthLifetimeSent)
            | Request::Withdrawn(Withdrawn) => {}
        }
    }

    /// Passes the end of IKE SA `spi` to its outstanding request, which the IKE SA that replaced it
    /// sends again.
    pub(in crate::ike) fn requeue_outstanding(&mut self, cx: &mut Context<'_>, spi: u64) {
        let ike_sa = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi);
        let Some(outstanding) = ike_sa.and_then(|ike_sa| ike_sa.outstanding.take()) else { return };
        match outstanding.request {
            Request::Create(sent) => sent.requeue(self, cx),
            Request::Followup(sent) => sent.requeue(self, cx),
            Request::DeleteChild(sent) => sent.requeue(self),
            Request::DeleteUnused(sent) => sent.requeue(self),
            Request::Liveness(sent) => sent.requeue(self),
            Request::AuthLifetime(sent) => sent.requeue(self),
            Request::Update(sent) => sent.requeue(self),
            Request::Probe(sent) => sent.requeue(self),
            Request::Withdrawn(sent) => sent.requeue(self),
            Request::PathProbe(_) => self.interrupt_path_probe(cx),
            // The handshake is over, the peer has deleted this IKE SA itself, and its successor has
            // another token.
            Request::Handshake | Request::DeleteIkeSa(_) | Request::CrashToken(CrashTokenSent) => {}
        }
    }

    /// Handles the outcome of a task.
    pub(in crate::ike) fn handle_outcome(&mut self, cx: &mut Context<'_>, task: TaskId, outcome: Outcome) {
        let Some(at) = self.waiting.iter().position(|(id, _)| *id == task) else { return };
        if let Outcome::Asking = outcome {
            return self.note_server_asked(cx);
        }
        let (_, waiting) = self.waiting.swap_remove(at);
        match (waiting, outcome) {
            (PendingTask::Handshake, outcome) => match &self.phase {
                Phase::Initiator(_) => self.step_initiator(cx, |state, handshake, peer, cx| {
                    initiator_outcome(state, handshake, peer, cx, outcome)
                }),
                _ => self.step_responder(cx, ExchangeType::Auth, |state, handshake, peer, cx| {
                    responder_outcome(state, handshake, peer, cx, outcome)
                }),
            },
            (PendingTask::CreateKexBegin(step), Outcome::KexBegun(result)) => {
                step.handle_key_pair(self, cx, result)
            }
            (PendingTask::CreateKexFinish(step), Outcome::KexFinished(result)) => {
                step.handle_shared_secret(self, cx, result);
            }
            (PendingTask::FollowupBegin(step), Outcome::KexBegun(result)) => {
                step.handle_key_pair(self, cx, result);
            }
            (PendingTask::PeerCreate(step), Outcome::KexAnswered(result)) => {
                step.handle_kex_answer(self, cx, result)
            }
            (PendingTask::FollowupKex(step), Outcome::KexAnswered(result)) => {
                step.handle_kex_answer(self, cx, result);
            }
            _ => {}
        }
        self.start_queued(cx);
    }

    /// Takes a step of a handshake that we began: it consumes the state and returns the next one.
    /// Meanwhile the peer has no phase.
    fn step_initiator(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Initiating, &mut InitiatorHandshake, &mut Self, &mut Context<'_>) -> Next<Initiating>,
    ) {
        let initiator = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Initiator(initiator) => initiator,
            other => return self.phase = other,
        };
        let Initiator { mut handshake, state } = *initiator;
        match step(state, &mut handshake, self, cx) {
            Ok(Some(state)) => self.phase = Phase::Initiator(Box::new(Initiator { handshake, state })),
            Ok(None) => {}
            Err(failure) => {
                cx.forget_child_spi(handshake.child_spi);
                self.end_initiator(cx, failure);
            }
        }
    }

    /// Ends a handshake that we began. A responder whose proof was rejected is told so (RFC 7296
    /// §2.21.2).
    fn end_initiator(&mut self, cx: &mut Context<'_>, Failure { reason, notify }: Failure) {
        if self.is_established() {
            return self.close(cx, reason);
        }
        if notify.is_some() && self.active().is_some_and(|ike_sa| ike_sa.outstanding.is_none()) {
            let deletes = vec![Delete { protocol: protocol::IKE, spis: Vec::new() }];
            let request =
                InformationalRequest { refusal: notify, deletes, ..InformationalRequest::default() };
            let sent = Request::DeleteIkeSa(IkeSaDeleteSent { spi: self.active });
            request.with_payloads(|payloads| {
                self.request(cx, ExchangeType::Informational, payloads, sent, None);
            });
        }
        self.end(cx, reason);
    }

    /// Takes a step of a handshake that the peer began, as [`Self::step_initiator`] does. A failure
    /// answers the request in `exchange`. A peer whose connection is no longer in the configuration
    /// is refused.
    fn step_responder(
        &mut self,
        cx: &mut Context<'_>,
        exchange: ExchangeType,
        step: impl FnOnce(Responding, &mut ResponderHandshake, &mut Self, &mut Context<'_>) -> Next<Responding>,
    ) {
        let responder = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Responder(responder) => responder,
            other => return self.phase = other,
        };
        let Responder { mut handshake, state } = *responder;
        let is_current = state.claim().is_none_or(|claim| cx.connections.is_current(claim.connection));
        let next = match is_current {
            true => step(state, &mut handshake, self, cx),
            false => Err(Failure::with_notify(Reason::Reconfigured, notify::AUTHENTICATION_FAILED)),
        };
        match next {
            Ok(Some(state)) => self.phase = Phase::Responder(Box::new(Responder { handshake, state })),
            Ok(None) => {}
            Err(Failure { reason, notify }) => {
                if let Some(notify) = notify {
                    self.refuse_request(cx, self.active, exchange, &notify, self.addresses);
                }
                self.end(cx, reason);
            }
        }
    }
}

/// Passes a request to the state of the handshake that waits for it.
fn respond(
    state: Responding,
    handshake: &mut ResponderHandshake,
    peer: &mut Peer,
    cx: &mut Context<'_>,
    (exchange, header, opened): (ExchangeType, &Header, &Plaintext),
    addresses: Addresses,
) -> Next<Responding> {
    match (state, exchange) {
        (Responding::EapTurn(s), ExchangeType::Auth) => s.auth(peer, cx, addresses, opened),
        (Responding::EapProof(s), ExchangeType::Auth) => s.auth(handshake, peer, cx, addresses, opened),
        (state, exchange) => {
            peer.float(addresses);
            match (state, exchange) {
                (Responding::Ready(s), ExchangeType::Intermediate) => {
                    s.intermediate(handshake, peer, cx, (header, opened)).map(Some)
                }
                (Responding::Ready(s), ExchangeType::Auth) => s.auth(handshake, peer, cx, opened),
                _ => Err(Failure::with_notify(Reason::Protocol, notify::INVALID_SYNTAX)),
            }
        }
    }
}

/// Passes the outcome of a task to the waiting state of a handshake that the peer began.
fn responder_outcome(
    state: Responding,
    handshake: &mut ResponderHandshake,
    peer: &mut Peer,
    cx: &mut Context<'_>,
    outcome: Outcome,
) -> Next<Responding> {
    match (state, outcome) {
        (Responding::InitKex(s), Outcome::KexAnswered(result)) => {
            s.handle_kex_answer(handshake, peer, cx, result).map(Some)
        }
        (Responding::IntermediateKex(s), Outcome::KexAnswered(result)) => {
            s.handle_kex_answer(handshake, peer, cx, result).map(Some)
        }
        (Responding::Verification(s), Outcome::Verified(result)) => {
            s.handle_verification(handshake, peer, cx, result)
        }
        (Responding::Signature(s), Outcome::Signed(result)) => {
            s.handle_signature(handshake, peer, cx, result)
        }
        (Responding::EapStart(s), Outcome::Eap(conversation, step)) => {
            s.handle_step(handshake, peer, cx, (conversation, step))
        }
        (Responding::EapMethod(s), Outcome::Eap(conversation, step)) => {
            s.handle_step(handshake, peer, cx, (conversation, step))
        }
        (state, _) => Ok(Some(state)),
    }
}

/// Passes the outcome of a task to the waiting state of a handshake that we began.
fn initiator_outcome(
    state: Initiating,
    handshake: &mut InitiatorHandshake,
    peer: &mut Peer,
    cx: &mut Context<'_>,
    outcome: Outcome,
) -> Next<Initiating> {
    let next = match (state, outcome) {
        (Initiating::InitKexBegin(s), Outcome::KexBegun(result)) => {
            s.handle_key_pair(handshake, peer, cx, result)
        }
        (Initiating::InitKexFinish(s), Outcome::KexFinished(result)) => {
            s.handle_shared_secret(handshake, peer, cx, result)
        }
        (Initiating::IntermediateKexBegin(s), Outcome::KexBegun(result)) => {
            s.handle_key_pair(handshake, peer, cx, result)
        }
        (Initiating::IntermediateKexFinish(s), Outcome::KexFinished(result)) => {
            s.handle_shared_secret(handshake, peer, cx, result)
        }
        (Initiating::Signature(s), Outcome::Signed(result)) => {
            s.handle_signature(handshake, peer, cx, result)
        }
        (Initiating::EapMethod(s), Outcome::Eap(conversation, step)) => {
            s.handle_step(handshake, peer, cx, (conversation, step))
        }
        (Initiating::Verification(s), Outcome::Verified(result)) => {
            return s.handle_verification(handshake, peer, cx, result);
        }
        (state, _) => Ok(state),
    };
    next.map(Some)
}

//! What messages and finished tasks lead to.

use super::{
    auth::Proof,
    ike_sa::{Arrival, Outstanding},
    request::Request,
    state::{Peer, PendingTask, Phase},
};
use crate::{
    ike::{
        context::Context,
        counter::Counter,
        event::Reason,
        exchange::{
            create_child::message::{CreateChildRequest, CreateChildResponse},
            informational::message::{InformationalRequest, InformationalResponse},
        },
        protection::{OpenError, Plaintext},
        wire::{ExchangeType, Header, Payload, notify},
    },
    path::Addresses,
    task::{Outcome, TaskId},
};

impl Peer {
    /// A message that carries one of our SPIs.
    pub(in crate::ike) fn handle_message(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) {
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        if let Phase::Initiating(_) = self.phase
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
            true => self.handle_response(cx, at, header, message),
            false => self.handle_request(cx, at, exchange, header, message, addresses),
        };
        match result {
            Ok(()) => {}
            Err(OpenError::Malformed(_)) => cx.count(Counter::Malformed),
            Err(OpenError::Forged) => cx.count(Counter::Forged),
        }
    }

    pub(in crate::ike) fn handle_request(
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
        if matches!(arrival, Arrival::New(_))
            && ike_sa.forget_at.is_some()
            && exchange != ExchangeType::Informational
        {
            return Ok(());
        }
        // Who has not proved who it is says of any address that it is there: it has shown one.
        let proved = self.expire_at.is_some();
        let elsewhere = match proved {
            true => addresses.remote != self.addresses.remote,
            false => addresses.remote.ip() != self.from,
        };
        let opened = match arrival {
            Arrival::Nothing => return Ok(()),
            // An answer, with certificates or in EAP, may be many times its request. It is asked again if it is meant so.
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
        self.heard(cx);
        match (&self.phase, exchange) {
            (Phase::Answering(_), ExchangeType::Intermediate) => {
                self.float(addresses);
                self.answer_intermediate(cx, header, opened);
            }
            (Phase::Answering(_), ExchangeType::Auth) => {
                self.float(addresses);
                self.answer_auth(cx, opened);
            }
            (Phase::Established | Phase::Ended, ExchangeType::Informational) => {
                match opened.read(InformationalRequest::read) {
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
            (Phase::Answering(_), ExchangeType::Informational) => {
                // It does not take our proof, and says so.
                self.answer(cx, spi, exchange, &[], addresses);
                self.fail(cx, Reason::Closed);
            }
            // It asks again when we are ready.
            (Phase::Initiating(_), _) => {}
            (Phase::Established, _) => {
                self.answer(cx, spi, exchange, &[Payload::notify(notify::INVALID_SYNTAX, &[])], addresses);
            }
            _ => cx.count(Counter::UnknownExchange),
        }
        Ok(())
    }

    pub(in crate::ike) fn handle_response(
        &mut self,
        cx: &mut Context<'_>,
        at: usize,
        header: &Header,
        message: &[u8],
    ) -> Result<(), OpenError> {
        let Some(ike_sa) = self.ike_sas.get_mut(at) else { return Ok(()) };
        let spi = ike_sa.local_spi();
        let Some((opened, outstanding)) = ike_sa.open_response(cx.crypto, header, message)? else {
            return Ok(());
        };
        self.heard(cx);
        self.take_response(cx, spi, header, opened, *outstanding);
        if self.ike_sas.iter().any(|s| s.local_spi() == spi && s.delete_next && s.outstanding.is_none()) {
            self.request_delete_ike_sa(cx, spi);
        }
        self.work(cx);
        Ok(())
    }

    pub(in crate::ike) fn take_response(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        header: &Header,
        opened: Plaintext,
        outstanding: Outstanding,
    ) {
        match outstanding.request {
            Request::Intermediate(secret) => self.intermediate_response(cx, header, &opened, secret),
            Request::Auth => self.auth_response(cx, opened),
            Request::Create(sent) => {
                sent.answered(self, cx, opened.read(CreateChildResponse::read));
            }
            Request::Update(update) => {
                update.answered(self, cx, opened.read(InformationalResponse::read));
            }
            Request::Routability(cookie) => {
                self.routability_answered(cx, cookie, opened.read(InformationalResponse::read));
            }
            // The answer shows that the peer took the request, whatever it says (RFC 7296 §1.4).
            Request::Delete(id) => self.retire(cx, id),
            Request::DeleteIkeSa => self.ike_sa_deleted(cx, spi),
            Request::Liveness | Request::Withdrawn => {}
        }
    }

    /// A task is done.
    pub(in crate::ike) fn handle_outcome(&mut self, cx: &mut Context<'_>, task: TaskId, outcome: Outcome) {
        let Some(at) = self.waiting.iter().position(|(id, _)| *id == task) else { return };
        let (_, waiting) = self.waiting.swap_remove(at);
        match (waiting, outcome) {
            (PendingTask::InitAnswer, Outcome::KexAnswered(result)) => self.init_answered(cx, result),
            (PendingTask::IntermediateAnswer(kex), Outcome::KexAnswered(result)) => {
                self.intermediate_answered(cx, kex, result);
            }
            (PendingTask::Verified, Outcome::Verified(result)) => match (&self.phase, result) {
                (Phase::Answering(_), Ok(names)) => self.vouched(cx, &names),
                (Phase::Answering(_), Err(why)) => {
                    self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Distrusted(why));
                }
                (_, Ok(_)) => self.responder_proved(cx),
                (_, Err(why)) => self.give_up(cx, Reason::Distrusted(why)),
            },
            (PendingTask::Signed, Outcome::Signed(Ok((method, data)))) => match &self.phase {
                Phase::Answering(_) => self.proved(cx, Proof { method, data }),
                _ => self.send_auth(cx, Some(Proof { method, data })),
            },
            (PendingTask::Signed, Outcome::Signed(Err(_))) => match &self.phase {
                Phase::Answering(_) => {
                    self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
                }
                _ => self.fail(cx, Reason::Authentication),
            },
            (PendingTask::EapBegun(proof), Outcome::Eap(conversation, step)) => {
                self.eap_stepped(cx, conversation, step, Some(proof));
            }
            (PendingTask::Eap, Outcome::Eap(conversation, step)) => match &self.phase {
                Phase::Answering(_) => self.eap_stepped(cx, conversation, step, None),
                _ => self.eap_client_stepped(cx, conversation, step),
            },
            (PendingTask::InitBegun, Outcome::KexBegun(result)) => self.init_begun(cx, result),
            (PendingTask::InitFinished, Outcome::KexFinished(result)) => self.init_finished(cx, result),
            (PendingTask::IntermediateBegun(kex), Outcome::KexBegun(result)) => {
                self.intermediate_begun(cx, kex, result)
            }
            (PendingTask::IntermediateFinished, Outcome::KexFinished(result)) => {
                self.intermediate_finished(cx, result)
            }
            (PendingTask::CreateKexBegin(step), Outcome::KexBegun(result)) => step.begun(self, cx, result),
            (PendingTask::CreateKexFinish(step), Outcome::KexFinished(result)) => {
                step.finished(self, cx, result);
            }
            (PendingTask::PeerCreate(step), Outcome::KexAnswered(result)) => step.answered(self, cx, result),
            _ => {}
        }
        self.work(cx);
    }
}

//! Both sides of IKE_INTERMEDIATE, each time with one additional key exchange (RFC 9242, RFC 9370).

use crate::{
    crypto::{KexSecret, Refused, Secret},
    ike::{
        context::Context,
        exchange::key_exchange::KeyExchange,
        peer::{
            Peer,
            failure::Failure,
            initiator::{
                InitiatorHandshake, InitiatorState, IntermediateKexBegin, IntermediateKexFinish,
                IntermediateSent,
            },
            request::Request,
            responder::{IntermediateKex, Ready, ResponderHandshake, ResponderState},
            state::PendingTask,
            transcript::Side,
        },
        protection::Plaintext,
        reason::Reason,
        wire::{ExchangeType, Header, notify},
    },
    task::Task,
};
use alloc::{boxed::Box, vec::Vec};

impl Ready {
    /// Handles the peer's request for the next additional key exchange.
    pub(in crate::ike) fn intermediate(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (header, opened): (&Header, &Plaintext),
    ) -> Result<ResponderState, Failure> {
        let syntax = || Failure::with_notify(Reason::Protocol, notify::INVALID_SYNTAX);
        let ike_sa = peer.handshake_sa()?;
        let kex = *ike_sa.suite.more_kex.get(self.kex_done).ok_or_else(syntax)?;
        let request = opened.read(KeyExchange::read);
        let request = request.map_err(|why| Failure::with_notify(Reason::Protocol, why))?;
        // The method must be that of the suite's next additional key exchange (RFC 9370 §2.2.2).
        if request.method != kex.transform() {
            return Err(syntax());
        }
        handshake.transcript.intermediate(cx.crypto, ike_sa, Side::Initiator, header, opened);
        ike_sa.defer_answer();
        peer.start(cx, Task::KexAnswer(kex, request.data), PendingTask::Handshake);
        Ok(ResponderState::IntermediateKex(IntermediateKex { kex, kex_done: self.kex_done }))
    }
}

impl IntermediateKex {
    /// Answers the peer's request, and changes the keys (RFC 9370 §2.2.2).
    pub(in crate::ike) fn handle_kex_answer(
        self,
        handshake: &mut ResponderHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) -> Result<ResponderState, Failure> {
        let (data, shared) = result.map_err(|Refused| Reason::KeyExchange)?;
        let answer = KeyExchange { method: self.kex.transform(), data };
        let payloads = [answer.payload()];
        let addresses = peer.addresses;
        let ike_sa = peer.handshake_sa()?;
        let exchange = ExchangeType::Intermediate;
        handshake.transcript.intermediate_sent(cx.crypto, ike_sa, exchange, true, &payloads);
        let datagrams = ike_sa.answer(cx, exchange, &payloads);
        cx.send_all(addresses, datagrams);
        let seed = handshake.transcript.seed();
        ike_sa.change_keys(ike_sa.keys.further(cx.crypto, &ike_sa.suite, &shared, seed));
        cx.log_keys([ike_sa.spi_i, ike_sa.spi_r], &ike_sa.suite, &ike_sa.keys);
        Ok(ResponderState::Ready(Ready { kex_done: self.kex_done + 1 }))
    }
}

impl InitiatorHandshake {
    /// Begins the next additional key exchange, or IKE_AUTH after the last one.
    pub(in crate::ike) fn next_kex(
        &mut self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        kex_done: usize,
    ) -> Result<InitiatorState, Failure> {
        match peer.handshake_sa()?.suite.more_kex.get(kex_done).copied() {
            Some(kex) => {
                peer.start(cx, Task::KexBegin(kex), PendingTask::Handshake);
                Ok(InitiatorState::IntermediateKexBegin(IntermediateKexBegin { kex, kex_done }))
            }
            None => self.begin_auth(peer, cx),
        }
    }
}

impl IntermediateKexBegin {
    /// Sends the request.
    pub(in crate::ike) fn handle_key_pair(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) -> Result<InitiatorState, Failure> {
        let Self { kex, kex_done } = self;
        let (secret, data) = result.map_err(|Refused| Reason::KeyExchange)?;
        let request = KeyExchange { method: kex.transform(), data };
        let payloads = [request.payload()];
        let exchange = ExchangeType::Intermediate;
        handshake.transcript.intermediate_sent(cx.crypto, peer.handshake_sa()?, exchange, false, &payloads);
        peer.request(cx, exchange, &payloads, Request::Handshake, None);
        Ok(InitiatorState::IntermediateSent(IntermediateSent { kex, kex_done, secret }))
    }
}

impl IntermediateSent {
    /// Handles the peer's response.
    pub(in crate::ike) fn handle_response(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        (header, opened): (&Header, &Plaintext),
    ) -> Result<InitiatorState, Failure> {
        let ike_sa = peer.handshake_sa()?;
        handshake.transcript.intermediate(cx.crypto, ike_sa, Side::Responder, header, opened);
        let answer = opened.read(KeyExchange::read).map_err(|_| Reason::Protocol)?;
        if answer.method != self.kex.transform() {
            return Err(Reason::Protocol.into());
        }
        peer.start(cx, Task::KexFinish(self.secret, answer.data), PendingTask::Handshake);
        Ok(InitiatorState::IntermediateKexFinish(IntermediateKexFinish { kex_done: self.kex_done }))
    }
}

impl IntermediateKexFinish {
    /// Changes the keys and continues.
    pub(in crate::ike) fn handle_shared_secret(
        self,
        handshake: &mut InitiatorHandshake,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Secret, Refused>,
    ) -> Result<InitiatorState, Failure> {
        let shared = result.map_err(|Refused| Reason::KeyExchange)?;
        let ike_sa = peer.handshake_sa()?;
        ike_sa.keys = ike_sa.keys.further(cx.crypto, &ike_sa.suite, &shared, handshake.transcript.seed());
        cx.log_keys([ike_sa.spi_i, ike_sa.spi_r], &ike_sa.suite, &ike_sa.keys);
        handshake.next_kex(peer, cx, self.kex_done + 1)
    }
}

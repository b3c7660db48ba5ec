//! Both sides of IKE_FOLLOWUP_KE, each time with one additional key exchange (RFC 9370 §2.2.4).

use super::followup_message::{Followup, FollowupResponse, Ticket};
use crate::{
    crypto::{KexSecret, Refused, Secret},
    ike::{
        bounds,
        context::Context,
        exchange::key_exchange::KeyExchange,
        peer::{
            Peer,
            creation::{
                Collision, FollowupBegin, FollowupKex, FollowupSent, FollowupTurn, KexFinish, OwnAgreed,
                PeerAgreed,
            },
            request::Request,
            state::PendingTask,
        },
        wire::{ErrorNotify, ExchangeType, Malformed, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec::Vec};

impl OwnAgreed {
    /// Begins the next key exchange, which the peer finds by its ticket; creates the SA after the
    /// last one.
    pub(super) fn proceed(self, peer: &mut Peer, cx: &mut Context<'_>, ticket: Option<Ticket>) {
        match (self.next_kex(), ticket) {
            (None, _) => self.complete(peer, cx),
            (Some(kex), Some(ticket)) => {
                // If the peer was creating the same SA, its exchange has lost: otherwise this one
                // would have ended.
                peer.drop_followup_of(cx, self.create.target);
                let step = FollowupBegin { agreed: self, kex, ticket };
                peer.start(cx, Task::KexBegin(kex), PendingTask::FollowupBegin(Box::new(step)));
            }
            // The peer cannot go on without a ticket.
            (Some(_), None) => self.create.fail(peer, cx, None),
        }
    }
}

impl FollowupBegin {
    /// Sends the request.
    pub(in crate::ike) fn handle_key_pair(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) {
        let Self { agreed, kex, ticket } = self;
        let (secret, data) = match result {
            Ok(key_pair) => key_pair,
            Err(Refused) => return agreed.create.fail(peer, cx, None),
        };
        let public = KeyExchange { method: kex.transform(), data };
        let request = Followup { kex: public, ticket: Some(ticket) };
        let sent = Request::Followup(Box::new(FollowupSent { agreed, kex, secret }));
        peer.request(cx, ExchangeType::FollowupKe, &request.payloads(), sent, None);
    }
}

impl FollowupSent {
    /// Handles the peer's response. A peer that no longer has the state for our ticket refuses with
    /// STATE_NOT_FOUND; we begin anew later, until the SA to be replaced expires.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: Result<FollowupResponse, Malformed>,
    ) {
        let Self { agreed, kex, secret } = self;
        match response {
            Ok(FollowupResponse::Answered(Followup { kex: public, ticket }))
                if public.method == kex.transform() =>
            {
                let step = PendingTask::CreateKexFinish(Box::new(KexFinish { agreed, ticket }));
                peer.start(cx, Task::KexFinish(secret, public.data), step);
            }
            Ok(FollowupResponse::Refused(refusal)) => agreed.create.fail(peer, cx, Some(refusal.kind)),
            // If this was the last key exchange, the peer has created the SA.
            Ok(FollowupResponse::Answered(_)) | Err(_) => agreed.create.fail_created(peer, cx),
        }
    }

    /// Begins anew by the IKE SA that replaced the one of the request.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer, cx: &mut Context<'_>) {
        self.agreed.create.abandon(peer, cx, Some(cx.now));
    }
}

impl PeerAgreed {
    /// Waits for the next key exchange with this ticket; without one, creates the SA.
    pub(super) fn proceed(self, peer: &mut Peer, cx: &mut Context<'_>, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return self.complete(peer, cx) };
        // The nonces decide about a collision before there is an SA.
        if let Some(target) = self.sa.target() {
            peer.collides(target, Collision::new(&self.nonces, None));
        }
        let until = cx.now + bounds::FOLLOWUP_WAIT;
        peer.followup = Some(Box::new(FollowupTurn { agreed: self, ticket, until }));
    }
}

impl Peer {
    /// Answers an IKE_FOLLOWUP_KE request that came by IKE SA `spi`.
    pub(in crate::ike) fn answer_followup(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        request: Followup,
        addresses: Addresses,
    ) {
        let is_next = |turn: &mut Box<FollowupTurn>| {
            turn.agreed.spi == spi && request.ticket.as_ref() == Some(&turn.ticket)
        };
        let refusal = match self.followup.take_if(is_next) {
            Some(turn) => turn.handle_request(self, cx, request.kex, addresses),
            None => Err(notify::STATE_NOT_FOUND),
        };
        if let Err(refusal) = refusal {
            self.refuse_request(cx, spi, ExchangeType::FollowupKe, &refusal.into(), addresses);
        }
    }
}

impl FollowupTurn {
    /// Answers the next key exchange. Its method must be the one that was agreed on.
    fn handle_request(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        request: KeyExchange,
        addresses: Addresses,
    ) -> Result<(), u16> {
        let Self { agreed, .. } = self;
        let Some(kex) = agreed.next_kex().filter(|kex| kex.transform() == request.method) else {
            peer.withdraw_agreed(cx, agreed.sa);
            return Err(notify::INVALID_SYNTAX);
        };
        if let Some(ike_sa) = peer.ike_sas.iter_mut().find(|s| s.local_spi() == agreed.spi) {
            ike_sa.defer_answer();
        }
        let step = FollowupKex { agreed, addresses, kex };
        peer.start(cx, Task::KexAnswer(kex, request.data), PendingTask::FollowupKex(Box::new(step)));
        Ok(())
    }
}

impl FollowupKex {
    /// Continues with our public value and the shared secret.
    pub(in crate::ike) fn handle_kex_answer(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) {
        let Self { mut agreed, addresses, kex } = self;
        let (spi, exchange) = (agreed.spi, ExchangeType::FollowupKe);
        let refusal: ErrorNotify = match result {
            // The SA to be replaced may have gone meanwhile.
            Ok(_) if !peer.is_replaceable(spi, &agreed.sa) => notify::TEMPORARY_FAILURE.into(),
            Ok((data, shared)) => {
                agreed.shared.push(shared);
                let public = KeyExchange { method: kex.transform(), data };
                let ticket = agreed.next_kex().map(|_| Ticket::draw(cx));
                let answer = Followup { kex: public, ticket };
                peer.answer(cx, spi, exchange, &answer.payloads(), addresses);
                return agreed.proceed(peer, cx, answer.ticket);
            }
            Err(Refused) => notify::INVALID_SYNTAX.into(),
        };
        peer.refuse_request(cx, spi, exchange, &refusal, addresses);
        peer.withdraw_agreed(cx, agreed.sa);
    }
}

//! The responder's side of INFORMATIONAL (RFC 7296 §1.4).

use super::message::InformationalRequest;
use crate::{
    ike::{
        context::Context,
        peer::{
            Peer,
            child::ChildState,
            creation::{AgreedSa, Target},
            state::PendingTask,
        },
        proposal::protocol,
        reason::Reason,
        wire::{Delete, ExchangeType, notify},
    },
    path::Addresses,
};
use alloc::vec::Vec;

impl Peer {
    /// Answers an INFORMATIONAL request that came by IKE SA `spi`. The response goes to the address
    /// that the request came from, because the peer may only be testing a path (RFC 4555 §3.10).
    pub(in crate::ike) fn answer_informational(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        request: &InformationalRequest,
        addresses: Addresses,
    ) {
        // A peer that rejects our proof may request nothing else (RFC 7296 §2.21.2).
        let is_rejected =
            request.refusal.as_ref().is_some_and(|refusal| refusal.kind == notify::AUTHENTICATION_FAILED);
        let ends = is_rejected || request.deletes.iter().any(|d| d.protocol == protocol::IKE);
        let of_esp = request.deletes.iter().filter(|delete| delete.protocol == protocol::ESP);
        let deletes = of_esp.filter_map(|delete| {
            let spis: Vec<_> = delete.spis.iter().filter_map(|spi| self.peer_deletes(cx, *spi)).collect();
            (!spis.is_empty()).then_some(Delete { protocol: protocol::ESP, spis })
        });
        let deletes = deletes.collect();
        let (mut response, to) = match !ends && self.is_established() {
            true => self.answer_addresses(cx, spi, request, addresses),
            false => Default::default(),
        };
        response.deletes = deletes;
        if let Some(lifetime) = request.auth_lifetime.filter(|_| !ends && self.is_established()) {
            self.schedule_renewal(cx, Some(lifetime.time()));
        }
        if request.crash_token.is_some() {
            self.take_crash_token(spi, request.crash_token.clone());
        }
        // COOKIE2 must be returned unchanged (RFC 4555 §4.2.5).
        response.cookie = request.cookie.clone();
        response.with_payloads(|payloads| {
            self.answer(cx, spi, ExchangeType::Informational, payloads, addresses);
        });
        if ends {
            let rejected = Reason::Refused(notify::AUTHENTICATION_FAILED);
            self.peer_ends(cx, spi, if is_rejected { rejected } else { Reason::Deleted });
        } else if let Some(to) = to {
            self.move_to(cx, to, true);
        }
    }

    /// Ends the child SA that the peer receives by `spi_out`. Returns our SPI of it, unless we are
    /// deleting it ourselves.
    fn peer_deletes(&mut self, cx: &mut Context<'_>, spi_out: u32) -> Option<u32> {
        let Some(child) = self.children.iter().find(|child| child.sa.spi_out == spi_out) else {
            return self.peer_deletes_agreed(cx, spi_out);
        };
        let (id, spi_in, state) = (child.id, child.sa.spi_in, child.state());
        if matches!(state, ChildState::Lingering { .. }) {
            return None;
        }
        self.retire(cx, id);
        // If both sides delete it at once, neither response names it (RFC 7296 §1.4.1).
        (!matches!(state, ChildState::Deleting { .. })).then_some(spi_in)
    }

    /// Gives up the child SA that the peer created by our request and receives by `spi_out`, if we are
    /// still computing its keys. Returns our SPI of it.
    fn peer_deletes_agreed(&mut self, cx: &mut Context<'_>, spi_out: u32) -> Option<u32> {
        let spi_in = |task: &PendingTask| match &task.own_agreed()?.sa {
            AgreedSa::Child(agreed) if agreed.spi_out == spi_out => Some(agreed.spi_in),
            _ => None,
        };
        let (at, spi) =
            self.waiting.iter().enumerate().find_map(|(at, (_, task))| Some((at, spi_in(task)?)))?;
        let (id, task) = self.waiting.swap_remove(at);
        cx.cancel(id);
        task.into_own_create().into_iter().for_each(|create| create.fail(self, cx, None));
        Some(spi)
    }

    /// Ends IKE SA `spi` for this reason, as the peer requested. The request has been answered.
    fn peer_ends(&mut self, cx: &mut Context<'_>, spi: u64, reason: Reason) {
        let until = cx.now + cx.settings.linger;
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
            ike_sa.change(|life| life.end(until));
        }
        if spi == self.active {
            // Both were rekeying the IKE SA, and the peer's exchange won (RFC 7296 §2.25.2).
            let own = self.own_create(|target| target == Target::IkeSa);
            if own.is_none_or(|create| create.rival().is_none()) {
                return self.fail(cx, reason);
            }
            let is_it = |task: &mut PendingTask| {
                task.own_create().is_some_and(|create| create.target == Target::IkeSa)
            };
            if let Some(at) = self.waiting.iter_mut().position(|(_, task)| is_it(task)) {
                let (id, task) = self.waiting.swap_remove(at);
                cx.cancel(id);
                task.into_own_create().into_iter().for_each(|create| create.abandon(self, cx, None));
            }
        } else {
            self.end_collision(spi);
        }
        self.requeue_outstanding(cx, spi);
        self.start_queued(cx);
    }
}

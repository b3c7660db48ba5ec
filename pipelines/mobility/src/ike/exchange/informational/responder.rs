//! INFORMATIONAL that the peer begins (RFC 7296 §1.4).

use super::message::InformationalRequest;
use crate::{
    ike::{
        context::Context,
        event::Reason,
        peer::{
            Peer,
            child::ChildState,
            creation::Target,
            request::{QueuedRequest, Request},
            state::PendingTask,
        },
        proposal::protocol,
        wire::{Delete, ExchangeType},
    },
    path::Addresses,
};
use alloc::vec::Vec;

impl Peer {
    /// Answers an INFORMATIONAL request that came by IKE SA `spi`. The answer goes to where the
    /// request came from: a peer may only be trying a path (RFC 4555 §3.10).
    pub(in crate::ike) fn answer_informational(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        request: &InformationalRequest,
        addresses: Addresses,
    ) {
        // A peer that does not take our proof may say no more than that (RFC 7296 §2.21.2).
        let ends = request.is_unauthenticated || request.deletes.iter().any(|d| d.protocol == protocol::IKE);
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
        // It must be returned as it is (RFC 4555 §4.2.5).
        response.cookie = request.cookie.clone();
        self.answer(cx, spi, ExchangeType::Informational, &response.payloads(), addresses);
        if ends {
            self.peer_ends(cx, spi);
        } else if let Some(to) = to {
            self.go(cx, to, true);
        }
    }

    /// Ends the child SA that the peer receives by `spi_out`, and returns our SPI of it, if we have
    /// not deleted it ourselves.
    fn peer_deletes(&mut self, cx: &mut Context<'_>, spi_out: u32) -> Option<u32> {
        let child = self.children.iter().find(|child| child.sa.spi_out == spi_out)?;
        let (id, spi_in, state) = (child.id, child.sa.spi_in, child.state);
        if matches!(state, ChildState::Lingering(_)) {
            return None;
        }
        self.retire(cx, id);
        // Both began to delete it: each answers without it (RFC 7296 §1.4.1).
        (state != ChildState::Deleting).then_some(spi_in)
    }

    /// Ends IKE SA `spi` as the peer asked, which was answered.
    fn peer_ends(&mut self, cx: &mut Context<'_>, spi: u64) {
        let until = cx.now + cx.settings.linger;
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
            ike_sa.is_replaced = true;
            ike_sa.forget_at = Some(until);
        }
        if spi == self.active {
            // Both were changing its keys, and the peer's exchange has won (RFC 7296 §2.25.2).
            let own = self.own_create(|target| target == Target::IkeSa);
            if own.is_none_or(|create| create.collision.is_none()) {
                return self.fail(cx, Reason::Deleted);
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
        self.ask_again(cx, spi);
        self.work(cx);
    }

    /// Asks by the IKE SA that took the place of `spi` what the peer did not answer by that.
    fn ask_again(&mut self, cx: &mut Context<'_>, spi: u64) {
        let ike_sa = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi);
        let Some(outstanding) = ike_sa.and_then(|ike_sa| ike_sa.outstanding.take()) else { return };
        match outstanding.request {
            Request::Create(sent) => sent.create.abandon(self, cx, Some(cx.now)),
            Request::Delete(id) => {
                if let Some(child) = self.child(id).filter(|child| child.state == ChildState::Deleting) {
                    child.state = ChildState::Replaced;
                    self.want(QueuedRequest::Delete(id));
                }
            }
            Request::Liveness => self.want(QueuedRequest::Liveness),
            Request::Update(_) => self.want(QueuedRequest::Update),
            Request::Routability(_) | Request::Withdrawn => {
                self.asked_at().into_iter().for_each(|there| self.want(QueuedRequest::Routability(there)));
            }
            _ => {}
        }
    }
}

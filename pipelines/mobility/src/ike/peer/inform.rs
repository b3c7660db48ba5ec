//! INFORMATIONAL from both sides: deletes and signs of life; what it says of addresses is in `mobility` (RFC 7296 §1.4).

use super::{
    auth,
    child::ChildState,
    creation::Target,
    request::{QueuedRequest, Request},
    state::{Peer, PendingTask, Phase},
};
use crate::{
    ike::{
        context::Context,
        event::{ChildId, Event, Reason},
        proposal::protocol,
        protection::Plaintext,
        wire::{self, Delete, ExchangeType, Payload, notify},
    },
    path::Addresses,
};
use alloc::{vec, vec::Vec};

impl Peer {
    /// An INFORMATIONAL request by IKE SA `spi`. Its answer goes to where it came from: a peer may only be trying a path.
    pub(in crate::ike) fn answer_informational(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        opened: &Plaintext,
        addresses: Addresses,
    ) {
        let payloads = match wire::parse(opened.first, &opened.body) {
            Ok(payloads) => payloads,
            Err(why) => {
                let (kind, data) = notify::refusal(why);
                let refusal = [Payload::notify(kind, &data)];
                return self.answer(cx, spi, ExchangeType::Informational, &refusal, addresses);
            }
        };
        let mut answer = Vec::new();
        // A peer that does not take our proof may say no more than that (RFC 7296 §2.21.2).
        let mut ends = auth::notified(&payloads, notify::AUTHENTICATION_FAILED).is_some();
        for payload in &payloads {
            let Payload::Delete(delete) = payload else { continue };
            match delete.protocol {
                protocol::IKE => ends = true,
                protocol::ESP => {
                    let spis: Vec<u32> =
                        delete.spis.iter().filter_map(|spi| self.peer_deletes(cx, *spi)).collect();
                    if !spis.is_empty() {
                        answer.push(Payload::Delete(Delete { protocol: protocol::ESP, spis }));
                    }
                }
                _ => {}
            }
        }
        let moved =
            (!ends && self.is_established()).then(|| self.take_addresses(cx, spi, &payloads, addresses));
        if let Some(moved) = &moved {
            answer.extend(moved.payloads());
        }
        answer.extend(
            auth::notified(&payloads, notify::COOKIE2).map(|cookie| Payload::notify(notify::COOKIE2, cookie)),
        );
        self.answer(cx, spi, ExchangeType::Informational, &answer, addresses);
        if ends {
            self.peer_ends(cx, spi);
        } else if let Some(to) = moved.and_then(|moved| moved.to) {
            self.go(cx, to, true);
        }
    }

    /// The peer deletes the pair that it receives by `spi_out`; our SPI of it, if we have not said it ourselves.
    fn peer_deletes(&mut self, cx: &mut Context<'_>, spi_out: u32) -> Option<u32> {
        let child = self.children.iter().find(|child| child.spi_out == spi_out)?;
        let (id, spi_in, state) = (child.id, child.spi_in, child.state);
        if matches!(state, ChildState::Lingering(_)) {
            return None;
        }
        self.retire(cx, id);
        // Both began to delete it: each answers without it (RFC 7296 §1.4.1).
        (state != ChildState::Deleting).then_some(spi_in)
    }

    /// A pair is deleted. Where another carries its traffic, it still receives for a while what was on its way.
    fn retire(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let until = cx.now + cx.settings.linger;
        let successor = self.child(id).and_then(|child| child.successor);
        match successor.filter(|successor| self.child(*successor).is_some()) {
            Some(successor) => {
                cx.tell(Event::ChildUse { child: successor });
                if let Some(child) = self.child(id) {
                    child.state = ChildState::Lingering(until);
                }
            }
            None => self.end_child(cx, id),
        }
    }

    /// A pair is gone.
    pub(in crate::ike) fn end_child(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let Some(at) = self.children.iter().position(|child| child.id == id) else { return };
        let child = self.children.remove(at);
        cx.end_child(id, child.spi_in);
    }

    pub(in crate::ike) fn request_delete(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        if matches!(child.state, ChildState::Deleting | ChildState::Lingering(_)) {
            return;
        }
        child.state = ChildState::Deleting;
        let delete = Delete { protocol: protocol::ESP, spis: vec![child.spi_in] };
        let request = Request::Delete(vec![id]);
        self.request(cx, ExchangeType::Informational, &[Payload::Delete(delete)], request, None);
    }

    /// The peer has deleted what we asked it to.
    pub(in crate::ike) fn deleted(&mut self, cx: &mut Context<'_>, children: &[ChildId]) {
        for id in children {
            self.retire(cx, *id);
        }
    }

    /// Ends an IKE SA: by itself where another took its place, with the peer where it is the last.
    pub(in crate::ike) fn request_delete_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        let addresses = self.addresses;
        let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) else { return };
        ike_sa.is_replaced = true;
        if ike_sa.outstanding.is_some() {
            // The window is one request.
            ike_sa.delete_next = true;
            return;
        }
        ike_sa.delete_next = false;
        let payloads = [Payload::Delete(Delete { protocol: protocol::IKE, spis: vec![] })];
        let exchange = ExchangeType::Informational;
        let datagrams = ike_sa.request(cx, exchange, &payloads, Request::DeleteIkeSa, None);
        cx.send_all(addresses, datagrams);
    }

    /// The peer knows that an IKE SA is over.
    pub(in crate::ike) fn ike_sa_deleted(&mut self, cx: &mut Context<'_>, spi: u64) {
        self.drop_ike_sa(cx, spi);
        if matches!(self.phase, Phase::Ended) {
            self.forget_at = Some(cx.now);
        }
    }

    pub(in crate::ike) fn drop_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        self.ike_sas.retain(|ike_sa| ike_sa.local_spi() != spi);
        cx.forget_spi(spi);
    }

    /// The peer ends IKE SA `spi`, and was answered.
    fn peer_ends(&mut self, cx: &mut Context<'_>, spi: u64) {
        let until = cx.now + cx.settings.linger;
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
            ike_sa.is_replaced = true;
            ike_sa.forget_at = Some(until);
        }
        if spi == self.active {
            // Both were changing its keys, and the peer's exchange has won (RFC 7296 §2.25.2).
            let has_rival = self
                .making(|making| making.what == Target::IkeSa)
                .is_some_and(|making| making.rival.is_some());
            if !has_rival {
                return self.fail(cx, Reason::Deleted);
            }
            let is_it =
                |(_, w): &(_, PendingTask)| w.making().is_some_and(|making| making.what == Target::IkeSa);
            if let Some(at) = self.waiting.iter().position(is_it) {
                let (task, waiting) = self.waiting.swap_remove(at);
                cx.cancel(task);
                waiting.making().into_iter().for_each(|making| self.abandon(cx, making, None));
            }
        }
        self.ask_again(cx, spi);
        self.work(cx);
    }

    /// What the peer did not answer by IKE SA `spi` is asked by the one that took its place.
    fn ask_again(&mut self, cx: &mut Context<'_>, spi: u64) {
        let ike_sa = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi);
        let Some(outstanding) = ike_sa.and_then(|ike_sa| ike_sa.outstanding.take()) else { return };
        match outstanding.request {
            Request::Create(making) => self.abandon(cx, &making, Some(cx.now)),
            Request::Delete(children) => children.into_iter().for_each(|id| {
                if let Some(child) = self.child(id).filter(|child| child.state == ChildState::Deleting) {
                    child.state = ChildState::Replaced;
                    self.want(QueuedRequest::Delete(id));
                }
            }),
            Request::Liveness => self.want(QueuedRequest::Liveness),
            Request::Update(_) => self.want(QueuedRequest::Update),
            Request::Routability(_) => {
                self.asked_at().into_iter().for_each(|there| self.want(QueuedRequest::Routability(there)));
            }
            _ => {}
        }
    }
}

//! The initiator's side of INFORMATIONAL: deletion of child and IKE SAs, and liveness checks (RFC
//! 7296 §1.4).

use super::message::InformationalRequest;
use crate::ike::{
    context::Context,
    event::ChildId,
    peer::{
        Peer, Phase,
        child::ChildState,
        request::{ChildDeleteSent, IkeSaDeleteSent, LivenessSent, QueuedRequest, Request, UnusedDeleteSent},
    },
    proposal::protocol,
    wire::{Delete, ExchangeType},
};
use alloc::vec;
use core::time::Duration;

/// Returns a request that deletes SAs.
fn delete(protocol: u8, spis: &[u32]) -> InformationalRequest {
    let deletes = vec![Delete { protocol, spis: spis.to_vec() }];
    InformationalRequest { deletes, ..InformationalRequest::default() }
}

impl Peer {
    /// Asks the peer to delete a child SA.
    pub(in crate::ike) fn request_delete(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        if !child.change(ChildState::delete) {
            return;
        }
        let request = delete(protocol::ESP, &[child.sa.spi_in]);
        let sent = Request::DeleteChild(ChildDeleteSent { child: id });
        request.with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, sent, None);
        });
    }

    /// Asks the peer to delete a child SA that we did not take, by our SPI of it.
    pub(in crate::ike) fn request_delete_unused(&mut self, cx: &mut Context<'_>, spi: u32) {
        let sent = Request::DeleteUnused(UnusedDeleteSent { spi });
        delete(protocol::ESP, &[spi]).with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, sent, None);
        });
    }

    /// Asks the peer to delete an IKE SA: one that was replaced, or the last one.
    pub(in crate::ike) fn request_delete_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        let addresses = self.addresses;
        let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) else { return };
        if !ike_sa.begin_delete() {
            return ike_sa.hurry_path_probe(cx, addresses, None);
        }
        let (exchange, request) = (ExchangeType::Informational, delete(protocol::IKE, &[]));
        let sent = Request::DeleteIkeSa(IkeSaDeleteSent { spi });
        request.with_payloads(|payloads| {
            let datagrams = ike_sa.request(cx, exchange, payloads, sent, None);
            cx.send_all(addresses, datagrams);
        });
    }

    /// Checks that the peer is alive.
    pub(in crate::ike) fn request_liveness(&mut self, cx: &mut Context<'_>) {
        let until = cx.now;
        self.request_check(cx, until);
    }

    /// Checks the mapping of the NAT in front of us. This is done sooner than a liveness check would be, so
    /// the peer is given up no sooner than by one.
    pub(in crate::ike) fn request_mapping_check(&mut self, cx: &mut Context<'_>) {
        let quiet = self.connection(cx).and_then(|connection| connection.liveness).unwrap_or_default();
        let until = cx.now + quiet + cx.settings.retransmission.total();
        self.request_check(cx, until);
    }

    /// Asks whether the peer is there and, if a NAT is in front of us, how it sees us (RFC 4555 §3.8).
    fn request_check(&mut self, cx: &mut Context<'_>, until: Duration) {
        let nat = self.ask_mapping(cx);
        let request = InformationalRequest { nat, ..InformationalRequest::default() };
        let sent = Request::Liveness(LivenessSent { spi: self.active, addresses: self.addresses, until });
        request.with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, sent, None);
        });
    }
}

impl ChildDeleteSent {
    /// Ends the child SA: any response shows that the peer received the request (RFC 7296 §1.4).
    pub(in crate::ike) fn handle_response(self, peer: &mut Peer, cx: &mut Context<'_>) {
        peer.retire(cx, self.child);
    }

    /// Deletes the child SA by another IKE SA, unless the peer has deleted it meanwhile.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        if peer.change_child(self.child, ChildState::delete_again) {
            peer.enqueue(QueuedRequest::DeleteChild(self.child));
        }
    }
}

impl UnusedDeleteSent {
    /// Deletes the child SA by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.enqueue(QueuedRequest::DeleteUnused(self.spi));
    }
}

impl IkeSaDeleteSent {
    /// Removes the IKE SA upon any response, and the peer if it has ended.
    pub(in crate::ike) fn handle_response(self, peer: &mut Peer, cx: &mut Context<'_>) {
        peer.drop_ike_sa(cx, self.spi);
        peer.finish_retirement(cx);
        if matches!(peer.phase, Phase::Ended) {
            peer.forget_at = Some(cx.now);
        }
    }
}

impl LivenessSent {
    /// Checks the peer by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.enqueue(QueuedRequest::Liveness);
    }
}

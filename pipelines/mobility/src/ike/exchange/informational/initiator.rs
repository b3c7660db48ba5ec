//! The initiator's side of INFORMATIONAL: deletion of child and IKE SAs (RFC 7296 §1.4.1).

use super::message::InformationalRequest;
use crate::ike::{
    context::Context,
    event::ChildId,
    peer::{Peer, Phase, child::ChildState, request::Request},
    proposal::protocol,
    wire::{Delete, ExchangeType},
};
use alloc::vec;

/// Returns a request that deletes SAs.
fn delete(protocol: u8, spis: &[u32]) -> InformationalRequest {
    let deletes = vec![Delete { protocol, spis: spis.to_vec() }];
    InformationalRequest { deletes, ..InformationalRequest::default() }
}

impl Peer {
    /// Asks the peer to delete a child SA.
    pub(in crate::ike) fn request_delete(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let Some(child) = self.child(id) else { return };
        if matches!(child.state, ChildState::Deleting | ChildState::Lingering(_)) {
            return;
        }
        child.state = ChildState::Deleting;
        let request = delete(protocol::ESP, &[child.sa.spi_in]);
        request.with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, Request::Delete(id), None);
        });
    }

    /// Asks the peer to delete an IKE SA: one that was replaced, or the last one.
    pub(in crate::ike) fn request_delete_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        let addresses = self.addresses;
        let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) else { return };
        ike_sa.is_replaced = true;
        // The window is one request.
        ike_sa.delete_next = ike_sa.outstanding.is_some();
        if ike_sa.delete_next {
            return;
        }
        let (exchange, request) = (ExchangeType::Informational, delete(protocol::IKE, &[]));
        request.with_payloads(|payloads| {
            let datagrams = ike_sa.request(cx, exchange, payloads, Request::DeleteIkeSa, None);
            cx.send_all(addresses, datagrams);
        });
    }

    /// Handles the response to our deletion of an IKE SA.
    pub(in crate::ike) fn ike_sa_deleted(&mut self, cx: &mut Context<'_>, spi: u64) {
        self.drop_ike_sa(cx, spi);
        if matches!(self.phase, Phase::Ended) {
            self.forget_at = Some(cx.now);
        }
    }
}

//! Crash tokens after the handshake, and the end of an IKE SA that the peer has lost (RFC 6290).

use super::message::InformationalRequest;
use crate::ike::{
    context::Context,
    crash::CrashToken,
    peer::{
        Peer,
        request::{CrashTokenSent, QueuedRequest, Request},
    },
    reason::Reason,
    wire::ExchangeType,
};
use alloc::boxed::Box;

impl Peer {
    /// Stores the peer's token for IKE SA `spi`, in place of an earlier one (RFC 6290 §4.4).
    pub(in crate::ike) fn take_crash_token(&mut self, spi: u64, token: Option<CrashToken>) {
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
            ike_sa.crash_token = token.map(Box::new);
        }
    }

    /// Gives the peer our token for the active IKE SA, which is new. If the peer began it, our answer
    /// had the token already (RFC 6290 §4.3).
    pub(in crate::ike) fn renew_crash_token(&mut self, cx: &Context<'_>) {
        if cx.settings.crash_secret.is_some() && self.active().is_some_and(|ike_sa| ike_sa.is_initiator) {
            self.enqueue(QueuedRequest::CrashToken);
        }
    }

    /// Sends our token for the active IKE SA.
    pub(in crate::ike) fn request_crash_token(&mut self, cx: &mut Context<'_>) {
        let crash_token = self.own_crash_token(cx);
        let request = InformationalRequest { crash_token, ..InformationalRequest::default() };
        request.with_payloads(|payloads| {
            let sent = Request::CrashToken(CrashTokenSent);
            self.request(cx, ExchangeType::Informational, payloads, sent, None);
        });
    }

    /// Ends IKE SA `spi`, which the peer has lost: silently, because the peer could not read a message
    /// about it (RFC 6290 §4.5). If it has a successor, the peer lives on with that. If the peer has
    /// ended already, its DELETE needs no answer any more.
    pub(in crate::ike) fn lose_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        if spi == self.active {
            self.fail(cx, Reason::Lost);
            self.forget();
        } else {
            self.requeue_outstanding(cx, spi);
        }
        self.drop_ike_sa(cx, spi);
        self.start_queued(cx);
    }
}

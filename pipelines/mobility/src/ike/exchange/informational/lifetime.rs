//! AUTH_LIFETIME after the handshake (RFC 4478 §2).

use super::message::InformationalRequest;
use crate::ike::{
    context::Context,
    peer::{
        Peer,
        request::{AuthLifetimeSent, QueuedRequest, Request},
    },
    wire::ExchangeType,
};

impl Peer {
    /// Tells the peer how long its authentication still counts, if that is long enough.
    pub(in crate::ike) fn request_auth_lifetime(&mut self, cx: &mut Context<'_>) {
        let Some(auth_lifetime) = self.own_auth_lifetime(cx) else { return };
        let request =
            InformationalRequest { auth_lifetime: Some(auth_lifetime), ..InformationalRequest::default() };
        request.with_payloads(|payloads| {
            let sent = Request::AuthLifetime(AuthLifetimeSent);
            self.request(cx, ExchangeType::Informational, payloads, sent, None);
        });
    }
}

impl AuthLifetimeSent {
    /// Tells the peer by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.enqueue(QueuedRequest::AuthLifetime);
    }
}

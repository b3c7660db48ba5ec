//! Our own updates of addresses (RFC 4555 §3.5).

use crate::{
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        description::{self, Description},
        event::{Event, MoveCause},
        exchange::informational::message::{InformationalRequest, InformationalResponse},
        nat::{IKE_PORT, NAT_T_PORT, NatDetection},
        peer::{
            Peer,
            request::{QueuedRequest, Request, Retry, UpdateSent},
        },
        reason::Reason,
        wire::{ExchangeType, Malformed, notify},
    },
    path::Nat,
};
use alloc::boxed::Box;
use core::net::IpAddr;

impl Peer {
    /// Changes our address to `local`, and the peer's to `remote` if that is given. If we began, but
    /// cannot move, the peer ends: nothing would come back to an address that is gone.
    pub(in crate::ike) fn handle_local(
        &mut self,
        cx: &mut Context<'_>,
        local: IpAddr,
        remote: Option<IpAddr>,
    ) {
        if !self.is_initiator {
            return;
        }
        if !self.is_established() || !self.mobike {
            if self.addresses.local.ip() != local {
                self.fail(cx, Reason::OwnAddress);
            }
            return;
        }
        let Some(from) = self.connection(cx).map(|connection| self.path(connection)) else { return };
        self.addresses.local.set_ip(local);
        if let Some(remote) = remote {
            self.addresses.remote.set_ip(remote);
        }
        for end in [&mut self.addresses.local, &mut self.addresses.remote] {
            if end.port() == IKE_PORT {
                end.set_port(NAT_T_PORT);
            }
        }
        self.moves += 1;
        self.moved_at = Some(cx.now);
        self.end_esp_check();
        // It is not known yet whether there is a NAT on this path. UDP works in any case.
        self.udp = Some(true);
        let path = self.path_by(true);
        let (peer, nat, cause) = (self.id, self.nat, MoveCause::Own);
        cx.tell(Event::PeerMoved { peer, from, path, cause, confirmed: true, nat });
        self.resend_all(cx.now);
        self.retry = None;
        self.queued.retain(|request| *request != QueuedRequest::Update);
        self.enqueue(QueuedRequest::Update);
        self.start_queued(cx);
    }

    /// Announces our addresses to the peer.
    pub(in crate::ike) fn request_update(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let addresses = self.addresses;
        let Some(spis) = self.active_spis() else { return };
        let mut nat = NatDetection::new(cx.crypto, spis, addresses);
        if connection.force_udp || self.asks_for_udp() {
            nat.randomize_source(cx.random);
        }
        let mut cookie = [0; 16];
        cx.random.fill(&mut cookie);
        let tries = self.retry.take().map_or(0, |retry| retry.tries);
        let request = InformationalRequest {
            updates: true,
            nat: Some(nat),
            cookie: Some(cookie.to_vec()),
            no_nats: connection.no_nats.then(|| self.no_nats_allowed()),
            description: self.is_wayfarer.then(|| Description::new(addresses)),
            ..InformationalRequest::default()
        };
        let update = Request::Update(Box::new(UpdateSent { spis, cookie, addresses, tries }));
        request.with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, update, None);
        });
    }

    /// Returns true if the gateway must go on with ESP in UDP, even on a path without a NAT, until
    /// its packets show that it does not.
    ///
    /// Gateways disagree on whether UDP ends when the NAT is gone: libreswan's keeps what it
    /// connected with, strongSwan's goes by NAT detection, and Linux drops what comes in the other
    /// way. If UDP was in use, a random hash in NAT detection makes all of them keep it. A gateway of
    /// ours says itself what it uses, and if NATs are forbidden, the hash would look like one.
    fn asks_for_udp(&self) -> bool {
        self.keeps_udp && !self.is_wayfarer && !self.no_nats
    }

    /// Queues another update of our addresses.
    pub(in crate::ike) fn retry_update(&mut self) {
        if self.retry.as_mut().and_then(|retry| retry.at.take()).is_some() {
            self.enqueue(QueuedRequest::Update);
        }
    }
}

impl UpdateSent {
    /// Handles the peer's response.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: Result<InformationalResponse, Malformed>,
    ) {
        let Some(connection) = peer.connection(cx) else { return };
        if self.addresses != peer.addresses {
            // We moved again meanwhile, so another update follows.
            return;
        }
        let is_repetition = peer.end_announcement();
        let nat = response.as_ref().ok().and_then(|response| response.nat.as_ref());
        let seen = nat.and_then(NatDetection::destination);
        match response
            .map_err(|_| Reason::Protocol)
            .and_then(|response| self.read_nat(peer, cx, connection, &response))
        {
            Ok(nat) => {
                let from = peer.path(connection);
                peer.nat = nat;
                peer.udp = peer.asks_for_udp().then_some(true);
                peer.schedule_keepalive(cx);
                let has_changed = peer.note_mapping(self.spis, seen);
                if is_repetition && has_changed {
                    cx.tell(Event::MappingChanged { peer: peer.id });
                }
                // The check that led to the repetition goes on. Otherwise each would be the first again.
                if !is_repetition {
                    peer.begin_esp_check(cx.now);
                }
                let (peer, path, cause) = (peer.id, peer.path(connection), MoveCause::Own);
                cx.tell(Event::PeerMoved { peer, from, path, cause, confirmed: true, nat });
                cx.tell(Event::MoveAnswered { peer, refusal: None });
            }
            // The IKE SA must be closed if COOKIE2 does not come back (RFC 4555 §3.7).
            Err(Reason::Protocol) => peer.close(cx, Reason::Protocol),
            // We have not moved, so the link may be as good as before.
            Err(_) if is_repetition => {}
            Err(reason) => self.handle_refusal(peer, cx, reason),
        }
    }

    /// Announces our addresses by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.enqueue(QueuedRequest::Update);
    }

    /// Returns the NATs on the path, as the peer saw them.
    fn read_nat(
        &self,
        peer: &Peer,
        cx: &Context<'_>,
        connection: &Connection,
        response: &InformationalResponse,
    ) -> Result<Nat, Reason> {
        match response.refusal.as_ref().map(|refusal| refusal.kind) {
            Some(notify::UNEXPECTED_NAT_DETECTED) => return Err(Reason::Nat),
            Some(kind @ notify::UNACCEPTABLE_ADDRESSES) => return Err(Reason::Refused(kind)),
            _ if response.cookie.as_deref() != Some(&self.cookie[..]) => return Err(Reason::Protocol),
            _ => {}
        }
        let nat = response.nat.as_ref().map(|detection| detection.nat(cx.crypto, self.spis, peer.addresses));
        // A Wayfarer gateway also answers which translations it saw and which encapsulation to use.
        let answer = &response.description;
        let is_changed =
            nat.is_some_and(Nat::any) || answer.as_ref().is_some_and(|answer| answer.translations != 0);
        if connection.no_nats && is_changed {
            return Err(Reason::Nat);
        }
        let mut nat = nat.unwrap_or(peer.nat);
        nat.remote |= answer.as_ref().is_some_and(|answer| answer.used == description::UDP) && !nat.any();
        Ok(nat)
    }

    /// Schedules another attempt. The peer refused our addresses, perhaps because something on the
    /// path changed them in a single packet. So we try as often as a lost packet is repeated before
    /// we give up (RFC 4555 §3.5, §3.9).
    fn handle_refusal(self, peer: &mut Peer, cx: &mut Context<'_>, reason: Reason) {
        if reason == Reason::Nat {
            cx.count(Counter::NatRefused);
        }
        cx.tell(Event::MoveAnswered { peer: peer.id, refusal: Some(reason.clone()) });
        let tries = self.tries + 1;
        if tries > cx.settings.retransmission.tries {
            return peer.close(cx, reason);
        }
        let at = Some(cx.now + cx.settings.retransmission.after(tries - 1));
        peer.retry = Some(Box::new(Retry { at, tries }));
    }
}

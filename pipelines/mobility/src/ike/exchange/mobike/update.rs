//! Our own updates of addresses (RFC 4555 §3.5).

use crate::{
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        description,
        event::{Event, Reason},
        exchange::informational::message::{InformationalRequest, InformationalResponse},
        nat::{IKE_PORT, NAT_T_PORT, NatDetection},
        peer::{
            Peer,
            request::{QueuedRequest, Request, Retry, Update},
        },
        wire::{ExchangeType, Malformed, notify},
    },
    path::{Nat, Path},
};
use alloc::boxed::Box;
use core::net::IpAddr;

impl Peer {
    /// Sends from `local` from now on, and to `remote` if that is another address of the peer.
    pub(in crate::ike) fn handle_local(
        &mut self,
        cx: &mut Context<'_>,
        local: IpAddr,
        remote: Option<IpAddr>,
    ) {
        if !self.is_established() || !self.mobike || !self.is_initiator {
            return;
        }
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
        // Nobody knows yet what is on this path; UDP passes everything.
        let path = Path::new(self.addresses, true);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: true, nat: self.nat });
        self.resend_all(cx.now);
        self.retry = None;
        self.wanted.retain(|wanted| *wanted != QueuedRequest::Update);
        self.want(QueuedRequest::Update);
        self.work(cx);
    }

    /// Tells the peer our addresses.
    pub(in crate::ike) fn request_update(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let addresses = self.addresses;
        let Some(ike_sa) = self.active() else { return };
        let mut nat = NatDetection::new(cx.crypto, [ike_sa.spi_i, ike_sa.spi_r], addresses);
        if connection.force_udp {
            nat.feign(cx.random);
        }
        let mut cookie = [0; 16];
        cx.random.fill(&mut cookie);
        let tries = self.retry.take().map_or(0, |retry| retry.tries);
        let request = InformationalRequest {
            updates: true,
            nat: Some(nat),
            cookie: Some(cookie.to_vec()),
            no_nats: connection.no_nats.then(|| self.forbidden_nats()),
            description: self.knows_us.then(|| description::request(addresses)),
            ..InformationalRequest::default()
        };
        let update = Request::Update(Box::new(Update { cookie, addresses, tries }));
        self.request(cx, ExchangeType::Informational, &request.payloads(), update, None);
    }

    /// Has our addresses told again, since it is time.
    pub(in crate::ike) fn retry_update(&mut self) {
        if self.retry.as_mut().and_then(|retry| retry.at.take()).is_some() {
            self.want(QueuedRequest::Update);
        }
    }
}

impl Update {
    /// Takes the peer's answer, which came by the IKE SA with these SPIs.
    pub(in crate::ike) fn answered(
        &self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        spis: [u64; 2],
        response: Result<InformationalResponse, Malformed>,
    ) {
        let Some(connection) = peer.connection(cx) else { return };
        if self.addresses != peer.addresses {
            // We moved again meanwhile: that update is on its way.
            return;
        }
        match response.map_err(|_| Reason::Protocol).and_then(|r| self.read(peer, cx, spis, connection, &r)) {
            Ok(nat) => {
                peer.nat = nat;
                peer.keepalive_at = nat.here.then(|| cx.now + cx.settings.keepalive);
                let path = peer.path(connection);
                cx.tell(Event::PeerMoved { peer: peer.id, path, confirmed: true, nat });
            }
            // The IKE SA must be closed if COOKIE2 does not come back (RFC 4555 §3.7).
            Err(Reason::Protocol) => peer.close(cx, Reason::Protocol),
            Err(reason) => self.refused(peer, cx, reason),
        }
    }

    /// Returns the NATs on the path, as the peer saw them.
    fn read(
        &self,
        peer: &Peer,
        cx: &Context<'_>,
        spis: [u64; 2],
        connection: &Connection,
        response: &InformationalResponse,
    ) -> Result<Nat, Reason> {
        match response.refusal.as_ref().map(|refusal| refusal.kind) {
            Some(notify::UNEXPECTED_NAT_DETECTED) => return Err(Reason::Nat),
            Some(kind @ notify::UNACCEPTABLE_ADDRESSES) => return Err(Reason::Refused(kind)),
            _ if response.cookie.as_deref() != Some(&self.cookie[..]) => return Err(Reason::Protocol),
            _ => {}
        }
        let nat = response.nat.as_ref().map(|said| said.nat(cx.crypto, spis, peer.addresses));
        // A gateway of ours says what it saw, and what to use.
        let said = response.description.as_ref().filter(|_| peer.knows_us);
        let said = said.map(|said| description::read_answer(said).ok_or(Reason::Protocol)).transpose()?;
        let is_changed =
            nat.is_some_and(Nat::any) || said.as_ref().is_some_and(|said| said.translations != 0);
        if connection.no_nats && is_changed {
            return Err(Reason::Nat);
        }
        let mut nat = nat.unwrap_or(peer.nat);
        nat.there |= said.is_some_and(|said| said.used == description::UDP) && !nat.any();
        Ok(nat)
    }

    /// Tries again later. Our addresses are not what the peer takes, perhaps because something on
    /// the way changed them. It may have been one packet only: we try as often as a packet may be
    /// lost, and only then give up (RFC 4555 §3.5, §3.9).
    fn refused(&self, peer: &mut Peer, cx: &mut Context<'_>, reason: Reason) {
        if reason == Reason::Nat {
            cx.count(Counter::NatRefused);
        }
        let tries = self.tries + 1;
        if tries > cx.settings.retransmission.tries {
            return peer.close(cx, reason);
        }
        let at = Some(cx.now + cx.settings.retransmission.after(tries - 1));
        peer.retry = Some(Box::new(Retry { at, tries }));
    }
}

//! Addresses that change: what MOBIKE says of them, from both sides (RFC 4555).

use super::{
    auth,
    move_check::{PeerPath, is_reachable},
    request::{QueuedRequest, Request, Retry, Update},
    state::Peer,
};
use crate::{
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        description,
        event::{Event, Reason},
        nat::{IKE_PORT, NAT_T_PORT, nat_detection},
        protection::Plaintext,
        wire::{self, ExchangeType, Payload, notify},
    },
    path::{Addresses, Nat, Path},
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::net::{IpAddr, SocketAddr};

/// What of an INFORMATIONAL request is about addresses, and goes into its answer.
#[derive(Debug, Default)]
pub(in crate::ike) struct AddressChange {
    /// Where the peer says that it is.
    pub(in crate::ike) to: Option<PeerPath>,
    detection: Option<[[u8; 20]; 2]>,
    refusal: Option<u16>,
    description: Option<Vec<u8>>,
}

impl AddressChange {
    pub(in crate::ike) fn payloads(&self) -> Vec<Payload<'_>> {
        let mut payloads: Vec<Payload<'_>> =
            self.refusal.map(|kind| Payload::notify(kind, &[])).into_iter().collect();
        if let Some([source, destination]) = &self.detection {
            payloads.push(Payload::notify(notify::NAT_DETECTION_SOURCE_IP, source));
            payloads.push(Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, destination));
        }
        payloads.extend(self.description.as_ref().map(|data| Payload::notify(description::REPLY, data)));
        payloads
    }
}

/// One of our other addresses, as a notification (RFC 4555 §3.6).
#[derive(Debug)]
pub(in crate::ike) struct Additional {
    kind: u16,
    data: Vec<u8>,
}

impl Additional {
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::notify(self.kind, &self.data)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// What NO_NATS_ALLOWED says: both ends of the path, as its sender sees them (RFC 4555 §4.2.6).
fn no_nats(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    [octets(from.ip()), octets(to.ip()), ports].concat()
}

impl Peer {
    /// What NAT_DETECTION notifications say of the path that they came by; `None` where there are none.
    pub(in crate::ike) fn detect_nat(
        &self,
        cx: &Context<'_>,
        payloads: &[Payload<'_>],
        spis: [u64; 2],
        addresses: Addresses,
    ) -> Option<Nat> {
        let hash = |address| nat_detection(cx.crypto, spis[0], spis[1], address);
        let all = |kind| {
            let data = payloads.iter().filter_map(move |p| match p {
                Payload::Notify(n) if n.kind == kind => Some(n.data),
                _ => None,
            });
            data.collect::<Vec<_>>()
        };
        // A sender with several addresses may name each (RFC 7296 §2.23).
        let sources = all(notify::NAT_DETECTION_SOURCE_IP);
        let destinations = all(notify::NAT_DETECTION_DESTINATION_IP);
        if sources.is_empty() || destinations.is_empty() {
            return None;
        }
        let (there, here) = (hash(addresses.remote), hash(addresses.local));
        Some(Nat { there: !sources.contains(&&there[..]), here: !destinations.contains(&&here[..]) })
    }

    /// Our other addresses, for the peer to try when the path to this one fails.
    pub(in crate::ike) fn additional_addresses(&self, connection: &Connection) -> Vec<Additional> {
        let used = self.addresses.local.ip();
        let others = connection.local.iter().filter(|address| **address != used);
        let notify = |address: &IpAddr| Additional {
            kind: if address.is_ipv4() {
                notify::ADDITIONAL_IP4_ADDRESS
            } else {
                notify::ADDITIONAL_IP6_ADDRESS
            },
            data: octets(*address),
        };
        others.map(notify).collect()
    }

    /// Takes what a request of the peer's says of addresses.
    pub(in crate::ike) fn take_addresses(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        payloads: &[Payload<'_>],
        addresses: Addresses,
    ) -> AddressChange {
        let (true, Some(connection)) = (self.mobike, self.connection(cx)) else {
            return AddressChange::default();
        };
        let has = |kind| auth::notified(payloads, kind).is_some();
        let Some(ike_sa) = self.ike_sas.iter().find(|s| s.local_spi() == spi) else {
            return AddressChange::default();
        };
        let spis = [ike_sa.spi_i, ike_sa.spi_r];
        // Only the original initiator decides which addresses are used (RFC 4555 §3.5).
        let updates = has(notify::UPDATE_SA_ADDRESSES) && !self.is_initiator;
        let nat = self.detect_nat(cx, payloads, spis, addresses);
        // Where none is allowed, it must be shown that there is none: by this, or by what detects NATs (RFC 4555 §3.9).
        let is_unchanged = match auth::notified(payloads, notify::NO_NATS_ALLOWED) {
            Some(said) => said == no_nats(addresses.remote, addresses.local),
            None => !self.no_nats || !updates || nat.is_some_and(|nat| !nat.any()),
        };
        let detection = nat.is_some().then(|| {
            let hash = |address| nat_detection(cx.crypto, spis[0], spis[1], address);
            [hash(addresses.local), hash(addresses.remote)]
        });
        if !is_unchanged {
            cx.count(Counter::NatRefused);
            return AddressChange {
                refusal: Some(notify::UNEXPECTED_NAT_DETECTED),
                detection,
                ..AddressChange::default()
            };
        }
        let description = (self.knows_us && updates)
            .then(|| auth::notified(payloads, description::REQUEST))
            .flatten()
            .map(|said| description::answer(said, addresses, connection.force_udp));
        if !updates {
            return AddressChange { detection, ..AddressChange::default() };
        }
        // Which of our addresses a peer may use is not its own choice.
        if !is_reachable(addresses.remote) || !connection.is_local(addresses.local.ip()) {
            return AddressChange {
                refusal: Some(notify::UNACCEPTABLE_ADDRESSES),
                ..AddressChange::default()
            };
        }
        let to = Some(PeerPath { addresses, nat: nat.unwrap_or(self.nat) });
        AddressChange { to, detection, refusal: None, description }
    }

    /// Whether a peer's first IKE_AUTH request, which came by `addresses`, shows that nothing on the way changed them: by
    /// NO_NATS_ALLOWED, or by what `init`, its first message, says of where it was sent. A NAT would have changed that; the
    /// port is the other one by now (RFC 4555 §3.3, §3.9).
    pub(in crate::ike) fn came_unchanged(
        &self,
        cx: &Context<'_>,
        payloads: &[Payload<'_>],
        init: &[u8],
        addresses: Addresses,
    ) -> bool {
        if let Some(said) = auth::notified(payloads, notify::NO_NATS_ALLOWED) {
            return said == no_nats(addresses.remote, addresses.local);
        }
        let Ok(header) = wire::Header::parse(init) else { return false };
        let body = init.get(wire::HEADER..).unwrap_or_default();
        let init = wire::parse(header.next, body).unwrap_or_default();
        let names = |kind, end: SocketAddr| {
            [end.port(), IKE_PORT, NAT_T_PORT].into_iter().any(|port| {
                let hash = nat_detection(cx.crypto, header.spi_i, 0, SocketAddr::new(end.ip(), port));
                init.iter().any(|p| matches!(p, Payload::Notify(n) if n.kind == kind && *n.data == hash))
            })
        };
        !self.nat.any()
            && names(notify::NAT_DETECTION_SOURCE_IP, addresses.remote)
            && names(notify::NAT_DETECTION_DESTINATION_IP, addresses.local)
    }

    /// What forbids NATs between the peer and us.
    pub(in crate::ike) fn forbidden_nats(&self) -> Vec<u8> {
        no_nats(self.addresses.local, self.addresses.remote)
    }

    /// From now on we send from `local`, to `remote` where that is another address of the peer's.
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

    pub(in crate::ike) fn request_update(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let addresses = self.addresses;
        let Some(ike_sa) = self.active() else { return };
        let spis = [ike_sa.spi_i, ike_sa.spi_r];
        let hash = |address| nat_detection(cx.crypto, spis[0], spis[1], address);
        let (mut source, destination) = (hash(addresses.local), hash(addresses.remote));
        if connection.force_udp {
            // As in the first message: it is somewhere else than it is.
            cx.random.fill(&mut source);
        }
        let mut cookie = [0; 16];
        cx.random.fill(&mut cookie);
        let forbidden = self.forbidden_nats();
        let tries = self.retry.take().map_or(0, |retry| retry.tries);
        let description = description::request(addresses);
        let mut payloads = vec![
            Payload::notify(notify::UPDATE_SA_ADDRESSES, &[]),
            Payload::notify(notify::NAT_DETECTION_SOURCE_IP, &source),
            Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, &destination),
            Payload::notify(notify::COOKIE2, &cookie),
        ];
        if connection.no_nats {
            payloads.push(Payload::notify(notify::NO_NATS_ALLOWED, &forbidden));
        }
        if self.knows_us {
            payloads.push(Payload::notify(description::REQUEST, &description));
        }
        let request = Request::Update(Box::new(Update { cookie, addresses, tries }));
        self.request(cx, ExchangeType::Informational, &payloads, request, None);
    }

    pub(in crate::ike) fn update_response(
        &mut self,
        cx: &mut Context<'_>,
        opened: &Plaintext,
        update: Update,
    ) {
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let has = |kind| auth::notified(&payloads, kind).is_some();
        let Some(connection) = self.connection(cx) else { return };
        if update.addresses != self.addresses {
            // We moved again meanwhile: that update is on its way.
            return;
        }
        if has(notify::UNEXPECTED_NAT_DETECTED) {
            return self.update_refused(cx, update.tries, Reason::Nat);
        }
        if has(notify::UNACCEPTABLE_ADDRESSES) {
            let reason = Reason::Refused(notify::UNACCEPTABLE_ADDRESSES);
            return self.update_refused(cx, update.tries, reason);
        }
        if auth::notified(&payloads, notify::COOKIE2) != Some(&update.cookie[..]) {
            return self.close(cx, Reason::Protocol);
        }
        let Some(ike_sa) = self.active() else { return };
        let spis = [ike_sa.spi_i, ike_sa.spi_r];
        let nat = self.detect_nat(cx, &payloads, spis, self.addresses);
        // A gateway of ours says what it saw, and what to use.
        let said = auth::notified(&payloads, description::REPLY);
        let said = said.filter(|_| self.knows_us).and_then(description::read_answer);
        let is_changed =
            nat.is_some_and(Nat::any) || said.as_ref().is_some_and(|said| said.translations != 0);
        if connection.no_nats && is_changed {
            return self.update_refused(cx, update.tries, Reason::Nat);
        }
        self.nat = nat.unwrap_or(self.nat);
        self.nat.there |= said.is_some_and(|said| said.used == description::UDP) && !self.nat.any();
        self.keepalive_at = self.nat.here.then(|| cx.now + cx.settings.keepalive);
        let path = self.path(connection);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: true, nat: self.nat });
    }

    /// It is time to try again.
    pub(in crate::ike) fn retry_update(&mut self) {
        if self.retry.as_mut().and_then(|retry| retry.at.take()).is_some() {
            self.want(QueuedRequest::Update);
        }
    }

    /// Our addresses are not what the peer takes, perhaps because something on the way changed them. It may have been one packet
    /// only: we try again as often as a packet may be lost, and only then give up (RFC 4555 §3.5, §3.9).
    fn update_refused(&mut self, cx: &mut Context<'_>, tries: u32, reason: Reason) {
        if reason == Reason::Nat {
            cx.count(Counter::NatRefused);
        }
        let tries = tries + 1;
        if tries > cx.settings.retransmission.tries {
            return self.close(cx, reason);
        }
        let at = Some(cx.now + cx.settings.retransmission.after(tries - 1));
        self.retry = Some(Box::new(Retry { at, tries }));
    }
}

//! Addresses that change: MOBIKE (RFC 4555), and paths that the data plane saw.

use super::{
    Peer, auth, error,
    request::{Request, Update, Wanted},
};
use crate::ike::{
    address::{Addresses, Nat, Path, nat_detection},
    connection::Connection,
    endpoint::{Context, Counter},
    event::{Event, Reason},
    protection::Opened,
    wire::{self, ExchangeType, Payload, notify},
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// How long packets may still come from where a peer said that it is no more.
const LATE: Duration = Duration::from_secs(1);

/// A path that the peer has not confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moving {
    /// Where it was before.
    before: (Addresses, Nat),
    /// When it is to be there again, if it has not answered.
    until: Duration,
}

/// What of an INFORMATIONAL request is about addresses, and goes into its answer.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Whether the peer is somewhere else from now on.
    pub(super) is_new: bool,
    detection: Option<[[u8; 20]; 2]>,
    refusal: Option<u16>,
    description: Option<Vec<u8>>,
}

impl Moved {
    pub(super) fn payloads(&self) -> Vec<Payload<'_>> {
        let mut payloads: Vec<Payload<'_>> = self.refusal.map(|kind| error(kind, &[])).into_iter().collect();
        if let Some([source, destination]) = &self.detection {
            payloads.push(error(notify::NAT_DETECTION_SOURCE_IP, source));
            payloads.push(error(notify::NAT_DETECTION_DESTINATION_IP, destination));
        }
        payloads.extend(self.description.as_ref().map(|data| error(super::super::description::REPLY, data)));
        payloads
    }
}

/// One of our other addresses, as a notification (RFC 4555 §3.6).
#[derive(Debug)]
pub(super) struct Additional {
    kind: u16,
    data: Vec<u8>,
}

impl Additional {
    pub(super) fn payload(&self) -> Payload<'_> {
        error(self.kind, &self.data)
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

/// Whether a peer can be there.
fn is_reachable(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && address != IpAddr::from([255; 4])
}

impl Peer {
    /// What NAT_DETECTION notifications say of the path that they came by; `None` where there are none.
    pub(super) fn detect_nat(
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
    pub(super) fn additional_addresses(&self, connection: &Connection) -> Vec<Additional> {
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
    pub(super) fn take_addresses(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        payloads: &[Payload<'_>],
        addresses: Addresses,
    ) -> Moved {
        let (true, Some(connection)) = (self.mobike, self.connection(cx)) else { return Moved::default() };
        let has = |kind| auth::notified(payloads, kind).is_some();
        let Some(session) = self.sessions.iter().find(|s| s.local_spi() == spi) else {
            return Moved::default();
        };
        let spis = [session.spi_i, session.spi_r];
        // Only the original initiator decides which addresses are used (RFC 4555 §3.5).
        let updates = has(notify::UPDATE_SA_ADDRESSES) && !self.is_initiator;
        if let Some(seen) = auth::notified(payloads, notify::NO_NATS_ALLOWED)
            && seen != no_nats(addresses.remote, addresses.local)
        {
            return Moved { refusal: Some(notify::UNEXPECTED_NAT_DETECTED), ..Moved::default() };
        }
        let nat = self.detect_nat(cx, payloads, spis, addresses);
        let detection = nat.is_some().then(|| {
            let hash = |address| nat_detection(cx.crypto, spis[0], spis[1], address);
            [hash(addresses.local), hash(addresses.remote)]
        });
        let description = (self.knows_us && updates)
            .then(|| auth::notified(payloads, super::super::description::REQUEST))
            .flatten()
            .map(|said| super::super::description::answer(said, addresses, connection.force_udp));
        if !updates {
            return Moved { detection, ..Moved::default() };
        }
        if !is_reachable(addresses.remote.ip()) {
            return Moved { refusal: Some(notify::UNACCEPTABLE_ADDRESSES), ..Moved::default() };
        }
        if connection.no_nats && nat.is_some_and(Nat::any) {
            return Moved { refusal: Some(notify::UNEXPECTED_NAT_DETECTED), detection, ..Moved::default() };
        }
        let nat = nat.unwrap_or(self.nat);
        let is_new = self.addresses != addresses || self.nat != nat;
        if is_new {
            self.left = Some(Box::new((self.addresses, cx.now)));
            self.go(cx, addresses, nat);
        }
        Moved { is_new, detection, refusal: None, description }
    }

    /// The peer is there from now on, until it is shown not to be.
    fn go(&mut self, cx: &mut Context<'_>, addresses: Addresses, nat: Nat) {
        let before = self.moving.as_ref().map_or((self.addresses, self.nat), |moving| moving.before);
        self.moving = Some(Box::new(Moving { before, until: cx.now + cx.settings.routability }));
        self.addresses = addresses;
        self.nat = nat;
        self.moves += 1;
        self.moved_at = Some(cx.now);
        cx.count(Counter::Moved);
        self.resend_all(cx.now);
    }

    /// What waits for an answer goes to where the peer is now, at once. A question whether it is somewhere else has lost its
    /// meaning, but not its place in the window.
    fn resend_all(&mut self, now: Duration) {
        for outstanding in self.sessions.iter_mut().filter_map(|session| session.outstanding.as_mut()) {
            outstanding.resend_at = now;
            outstanding.tries = 0;
            outstanding.addresses = None;
            if let Request::Routability(cookie) = &mut outstanding.request {
                *cookie = None;
            }
        }
    }

    /// Tells the driver of the peer's new place, and asks the peer whether it is there.
    pub(super) fn announce_move(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let path = self.path(connection);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: self.moving.is_none(), nat: self.nat });
        if self.moving.is_some() {
            self.wanted.retain(|wanted| !matches!(wanted, Wanted::Routability(_)));
            self.want(Wanted::Routability(self.addresses));
        }
        self.work(cx);
    }

    /// The data plane saw an authentic packet, the newest so far, come by another path.
    pub(in crate::ike) fn handle_path(&mut self, cx: &mut Context<'_>, path: Path) {
        // Who answers does not move of its own accord (RFC 4555 §1.3).
        if !self.is_established() || self.is_initiator || !is_reachable(path.remote) {
            return;
        }
        let (local_port, remote_port) =
            path.udp.unwrap_or((self.addresses.local.port(), self.addresses.remote.port()));
        let addresses = Addresses {
            local: SocketAddr::new(path.local, local_port),
            remote: SocketAddr::new(path.remote, remote_port),
        };
        let nat = Nat { there: self.nat.there || path.udp.is_some(), ..self.nat };
        // What was on its way when the peer said that it moved does not take it back there.
        let is_late = self
            .left
            .as_ref()
            .is_some_and(|left| left.0.remote == addresses.remote && cx.now < left.1 + LATE);
        if addresses == self.addresses || is_late {
            return;
        }
        self.go(cx, addresses, nat);
        self.announce_move(cx);
    }

    /// Asks whether the peer is at `addresses` (RFC 4555 §3.7).
    pub(super) fn request_routability(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        let mut cookie = [0; 16];
        cx.crypto.random(&mut cookie);
        let payloads = [error(notify::COOKIE2, &cookie)];
        let payloads = if self.mobike { &payloads[..] } else { &[] };
        let request = Request::Routability(Some(cookie));
        self.request(cx, ExchangeType::Informational, payloads, request, Some(addresses));
    }

    pub(super) fn routability_response(
        &mut self,
        cx: &mut Context<'_>,
        opened: &Opened,
        cookie: Option<[u8; 16]>,
    ) {
        let Some(cookie) = cookie else { return };
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let returned = auth::notified(&payloads, notify::COOKIE2);
        if self.mobike && returned != Some(&cookie[..]) {
            return self.go_back(cx);
        }
        if self.moving.take().is_some() {
            cx.tell(Event::PathConfirmed { peer: self.id });
        }
    }

    /// The peer is not where it was said to be.
    pub(in crate::ike) fn go_back(&mut self, cx: &mut Context<'_>) {
        let (Some(moving), Some(connection)) = (self.moving.take(), self.connection(cx)) else {
            return;
        };
        (self.addresses, self.nat) = moving.before;
        self.resend_all(cx.now);
        let path = self.path(connection);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: true, nat: self.nat });
    }

    /// Where the peer has shown that it is.
    pub(super) fn confirmed(&self) -> Addresses {
        self.moving.as_ref().map_or(self.addresses, |moving| moving.before.0)
    }

    /// When a path that is not confirmed is given up.
    pub(super) fn routability_until(&self) -> Option<Duration> {
        self.moving.as_ref().map(|moving| moving.until)
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
            if end.port() == crate::ike::address::IKE_PORT {
                end.set_port(crate::ike::address::NAT_T_PORT);
            }
        }
        self.moves += 1;
        self.moved_at = Some(cx.now);
        // Nobody knows yet what is on this path; UDP passes everything.
        let path = Path::new(self.addresses, true);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: true, nat: self.nat });
        self.resend_all(cx.now);
        self.wanted.retain(|wanted| *wanted != Wanted::Update);
        self.want(Wanted::Update);
        self.work(cx);
    }

    pub(super) fn request_update(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = self.connection(cx) else { return };
        let addresses = self.addresses;
        let Some(session) = self.active() else { return };
        let spis = [session.spi_i, session.spi_r];
        let hash = |address| nat_detection(cx.crypto, spis[0], spis[1], address);
        let (mut source, destination) = (hash(addresses.local), hash(addresses.remote));
        if connection.force_udp {
            // As in the first message: it is somewhere else than it is.
            cx.crypto.random(&mut source);
        }
        let mut cookie = [0; 16];
        cx.crypto.random(&mut cookie);
        let forbidden = no_nats(addresses.local, addresses.remote);
        let description = super::super::description::request(addresses);
        let mut payloads = vec![
            error(notify::UPDATE_SA_ADDRESSES, &[]),
            error(notify::NAT_DETECTION_SOURCE_IP, &source),
            error(notify::NAT_DETECTION_DESTINATION_IP, &destination),
            error(notify::COOKIE2, &cookie),
        ];
        if connection.no_nats {
            payloads.push(error(notify::NO_NATS_ALLOWED, &forbidden));
        }
        if self.knows_us {
            payloads.push(error(super::super::description::REQUEST, &description));
        }
        let request = Request::Update(Box::new(Update { cookie, addresses }));
        self.request(cx, ExchangeType::Informational, &payloads, request, None);
    }

    pub(super) fn update_response(&mut self, cx: &mut Context<'_>, opened: &Opened, update: Update) {
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let has = |kind| auth::notified(&payloads, kind).is_some();
        let Some(connection) = self.connection(cx) else { return };
        if update.addresses != self.addresses {
            // We moved again meanwhile: that update is on its way.
            return;
        }
        if has(notify::UNEXPECTED_NAT_DETECTED) {
            return self.close(cx, Reason::Nat);
        }
        if auth::notified(&payloads, notify::COOKIE2) != Some(&update.cookie[..])
            || has(notify::UNACCEPTABLE_ADDRESSES)
        {
            return self.close(cx, Reason::Refused(notify::UNACCEPTABLE_ADDRESSES));
        }
        let Some(session) = self.active() else { return };
        let spis = [session.spi_i, session.spi_r];
        if let Some(nat) = self.detect_nat(cx, &payloads, spis, self.addresses) {
            self.nat = nat;
        }
        // A gateway of ours says what it saw, and what to use.
        let said = auth::notified(&payloads, super::super::description::REPLY);
        if let Some(answer) = said.filter(|_| self.knows_us).and_then(super::super::description::read_answer)
        {
            self.nat.there |= answer.used == super::super::description::UDP && !self.nat.any();
        }
        self.keepalive_at = self.nat.here.then(|| cx.now + cx.settings.keepalive);
        let path = self.path(connection);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed: true, nat: self.nat });
    }
}

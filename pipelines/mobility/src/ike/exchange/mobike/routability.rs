//! Moves of a peer and the check that it is reachable at its new address (RFC 4555 §3.7).
//!
//! A trusted peer's move is followed at once, and a probe checks it. If the probe is not answered
//! in time, or too much was sent to the new address meanwhile, the peer's path goes back to the
//! confirmed one. From then on, the peer's moves are probed before they are followed (see `doubt`).

use crate::{
    ike::{
        context::Context,
        counter::Counter,
        event::{Event, MoveCause},
        exchange::informational::message::{InformationalRequest, InformationalResponse},
        nat::NatDetection,
        peer::{
            Peer,
            move_check::{MoveCheck, PeerMove, PeerPath, Waiting, is_reachable},
            request::{ProbeSent, QueuedRequest, Request, Withdrawn},
        },
        reason::Reason,
        wire::{ExchangeType, Malformed},
    },
    path::{Addresses, Nat, Path},
};
use alloc::boxed::Box;
use core::{net::SocketAddr, time::Duration};

/// Time for which packets from a peer's previous address are expected after it announced a move.
const OLD_PATH_GRACE: Duration = Duration::from_secs(1);
/// The least time between two copies of a request, so that a peer that announces moves repeatedly
/// does not cause a copy for each.
const MIN_RESEND_GAP: Duration = Duration::from_millis(100);

/// Returns how a move became known, which the peer announced or a packet showed.
fn cause(announced: bool) -> MoveCause {
    if announced { MoveCause::Announced } else { MoveCause::Seen }
}

impl Peer {
    /// Sends to the peer by `path` from now on.
    fn send_to(&mut self, cx: &mut Context<'_>, path: PeerPath, cause: MoveCause) {
        let connection = self.connection(cx);
        let before = connection.map(|connection| self.path(connection));
        (self.addresses, self.nat, self.udp) = (path.addresses, path.nat, path.udp);
        let (Some(connection), Some(from)) = (connection, before) else { return };
        let path = self.path(connection);
        let confirmed = self.move_check.as_ref().is_none_or(|check| !check.is_followed());
        cx.tell(Event::PeerMoved { peer: self.id, from, path, cause, confirmed, nat: self.nat });
    }

    /// Moves the peer to `path`; `announced` says that the peer itself reported the move.
    fn follow_to(&mut self, cx: &mut Context<'_>, path: PeerPath, announced: bool) {
        if announced {
            self.left = Some(Box::new((self.addresses, cx.now)));
        }
        self.moves += 1;
        self.moved_at = Some(cx.now);
        cx.count(Counter::Moved);
        self.send_to(cx, path, cause(announced));
    }

    /// Handles a new path of the peer; `announced` says that the peer itself reported it.
    pub(in crate::ike) fn move_to(&mut self, cx: &mut Context<'_>, new_path: PeerPath, announced: bool) {
        let current = self.current_path();
        if new_path.addresses == current.addresses {
            if self.move_check.take_if(|check| !check.is_followed()).is_some() {
                self.resend_all(cx.now);
            }
            let path = new_path.or_encapsulation_of(current);
            if path != current {
                self.move_check.iter_mut().for_each(|check| check.correct(path));
                self.send_to(cx, path, cause(announced));
            }
            return self.start_queued(cx);
        }
        let confirmed = match self.move_check.take().map(|check| check.handle_sign(new_path, announced)) {
            None => current,
            // A packet arrived before the announcement, which justifies a probe at once.
            Some(Ok(MoveCheck::Waiting(waiting))) if announced => return self.end_wait(cx, waiting),
            Some(Ok(check)) => return self.move_check = Some(check),
            Some(Err(check)) => {
                // The peer moved on before it confirmed the last address.
                self.doubt(cx, check.is_followed());
                check.peer_move().confirmed
            }
        };
        if new_path.addresses == confirmed.addresses {
            self.send_to(cx, new_path, cause(announced));
            self.resend_all(cx.now);
            return self.start_queued(cx);
        }
        let peer_move = PeerMove::new(confirmed, new_path, announced);
        if self.is_trusted(cx) {
            let followed = peer_move.follow(cx.now + cx.settings.routability);
            self.move_check = Some(MoveCheck::Followed(followed));
            self.principal(cx).into_iter().for_each(|principal| cx.follow(principal));
            self.follow_to(cx, new_path, announced);
            return self.probe(cx, new_path.addresses);
        }
        // An announcement justifies a probe each time, because the peer can announce only once per
        // answer.
        let until = if announced { cx.now } else { self.next_probe_at(cx) };
        self.move_check = Some(MoveCheck::Waiting(peer_move.wait(until)));
        if current != confirmed {
            self.send_to(cx, confirmed, MoveCause::Unconfirmed);
        }
        self.resend_all(cx.now);
        self.handle_move_check(cx);
    }

    fn is_trusted(&self, cx: &mut Context<'_>) -> bool {
        self.principal(cx).is_some_and(|principal| cx.is_trusted(&principal))
    }

    /// Records that the peer did not confirm a path; `followed` says that it was already in use.
    fn doubt(&self, cx: &mut Context<'_>, followed: bool) {
        cx.count(Counter::Unconfirmed);
        let (Some(owner), Some(principal)) = (self.owner(cx), self.principal(cx)) else { return };
        if owner != principal {
            // The peer itself is probed less often, but not all others of the same principal.
            cx.doubt(owner, false);
        }
        cx.doubt(principal, followed);
    }

    /// Records that the peer confirmed a path; `followed` says that it was already in use.
    fn note_confirmed(&self, cx: &mut Context<'_>, followed: bool) {
        for (name, followed) in [(self.principal(cx), followed), (self.owner(cx), false)] {
            name.into_iter().for_each(|name| cx.confirm(&name, followed));
        }
    }

    fn next_probe_at(&self, cx: &Context<'_>) -> Duration {
        cx.next_probe_at(self.owner(cx).as_ref())
    }

    fn probe(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        self.resend_all(cx.now);
        self.enqueue(QueuedRequest::Probe(addresses));
        self.start_queued(cx);
    }

    /// Returns when [`Peer::handle_move_check`] must be called.
    pub(in crate::ike) fn move_check_at(&self) -> Option<Duration> {
        self.move_check.as_ref().map(|check| check.peer_move().until)
    }

    /// Ends the state of a move whose time is over.
    pub(in crate::ike) fn handle_move_check(&mut self, cx: &mut Context<'_>) {
        match self.move_check.take_if(|check| check.peer_move().until <= cx.now) {
            None => {}
            Some(MoveCheck::Waiting(waiting)) => self.end_wait(cx, waiting),
            probed => {
                self.move_check = probed;
                self.handle_no_answer(cx);
            }
        }
    }

    /// Sends the probe that had to wait.
    fn end_wait(&mut self, cx: &mut Context<'_>, waiting: Waiting) {
        let check = MoveCheck::Probing(waiting.probe(cx.now + cx.settings.routability));
        let addresses = check.peer_move().new_path.addresses;
        self.move_check = Some(check);
        self.probe(cx, addresses);
    }

    /// Returns to the confirmed path because the peer did not answer the probe, and schedules
    /// another probe.
    pub(in crate::ike) fn handle_no_answer(&mut self, cx: &mut Context<'_>) {
        let Some(check) = self.move_check.take() else { return };
        let confirmed = check.peer_move().confirmed;
        let waiting = match check {
            MoveCheck::Followed(followed) => {
                self.doubt(cx, true);
                // The peer was here before, so this path is confirmed.
                self.send_to(cx, confirmed, MoveCause::Unconfirmed);
                followed.unanswered(self.next_probe_at(cx))
            }
            MoveCheck::Probing(probing) => {
                self.doubt(cx, false);
                probing.unanswered(self.next_probe_at(cx))
            }
            // No probe is outstanding.
            MoveCheck::Waiting(_) => return self.move_check = Some(check),
        };
        self.move_check = waiting.map(MoveCheck::Waiting);
        if self.move_check.is_none() {
            // The driver reports the path again if the peer is still seen there.
            self.send_to(cx, confirmed, MoveCause::Unconfirmed);
        }
        self.resend_all(cx.now);
    }

    /// Ends the check because the peer ends. A followed move stays unconfirmed, so that
    /// reconnecting does not grant the peer another one.
    pub(in crate::ike) fn end_move_check(&mut self, cx: &mut Context<'_>) {
        if let Some(MoveCheck::Followed(_)) = self.move_check.take() {
            self.doubt(cx, true);
        }
    }

    /// Returns to the confirmed path because enough was sent to the unconfirmed one. The probe
    /// continues.
    pub(in crate::ike) fn handle_unconfirmed(&mut self, cx: &mut Context<'_>) {
        match self.move_check.take() {
            Some(MoveCheck::Followed(followed)) => {
                let check = MoveCheck::Probing(followed.withdraw());
                self.doubt(cx, true);
                self.send_to(cx, check.peer_move().confirmed, MoveCause::Unconfirmed);
                self.move_check = Some(check);
            }
            other => self.move_check = other,
        }
    }

    /// Sends outstanding requests to the current path at once. An outstanding probe of another
    /// address keeps its message ID, but its answer no longer matters.
    pub(in crate::ike) fn resend_all(&mut self, now: Duration) {
        self.queued.retain(|request| !matches!(request, QueuedRequest::Probe(_)));
        for outstanding in self.ike_sas.iter_mut().filter_map(|ike_sa| ike_sa.outstanding.as_mut()) {
            outstanding.resend_at = now.max(outstanding.sent_at + MIN_RESEND_GAP);
            outstanding.tries = 0;
            outstanding.addresses = None;
            match &mut outstanding.request {
                Request::Probe(_) => outstanding.request = Request::Withdrawn(Withdrawn),
                Request::PathProbe(probe) => probe.is_void = true,
                _ => {}
            }
        }
    }

    /// Returns the addresses that are being probed.
    pub(in crate::ike) fn probed_addresses(&self) -> Option<Addresses> {
        Some(self.move_check.as_ref()?.probed()?.addresses)
    }

    /// Handles a report of the data plane: an authentic packet, the newest so far, came by another
    /// path.
    pub(in crate::ike) fn handle_path(&mut self, cx: &mut Context<'_>, path: Path) {
        if !self.is_established() {
            return;
        }
        if [true, false].map(|udp| self.path_by(udp)).contains(&path) {
            return self.follow_encapsulation(cx, path.udp.is_some());
        }
        // A responder never changes addresses by itself (RFC 4555 §1.3).
        if self.is_initiator {
            return;
        }
        // Plain ESP does not show the port that a NAT gives to IKE, but a request may have.
        let heard = self.heard_elsewhere.as_deref().filter(|source| source.ip() == path.remote);
        let remote_port = heard.unwrap_or(&self.addresses.remote).port();
        let (local_port, remote_port) = path.udp.unwrap_or((self.addresses.local.port(), remote_port));
        let addresses = Addresses {
            local: SocketAddr::new(path.local, local_port),
            remote: SocketAddr::new(path.remote, remote_port),
        };
        // Packets that were in flight when the peer announced its move must not move it back.
        let is_late = self
            .left
            .as_ref()
            .is_some_and(|left| left.0.remote == addresses.remote && cx.now < left.1 + OLD_PATH_GRACE);
        let is_allowed = self.connection(cx).is_some_and(|connection| connection.is_local(path.local));
        if is_late || !is_allowed || !is_reachable(addresses.remote) {
            return;
        }
        if self.no_nats {
            // Without an announcement, only a NAT makes packets come from another address (RFC 4555
            // §3.8, §3.9).
            return cx.count(Counter::NatRefused);
        }
        let nat = Nat { remote: self.nat.remote || path.udp.is_some(), ..self.nat };
        self.move_to(cx, PeerPath { addresses, nat, udp: Some(path.udp.is_some()) }, false);
    }

    /// Sends ESP as the peer's packets come on the path that is in use, in UDP if `udp`. Peers
    /// disagree on when a move ends or begins ESP in UDP, and the Linux kernel drops what comes in
    /// the other way. The packet came from the address that we send to, so nothing is sent anywhere
    /// else, and no probe is needed.
    fn follow_encapsulation(&mut self, cx: &mut Context<'_>, udp: bool) {
        // Behind a NAT of our own, UDP always works. It also undoes what somebody on the way may
        // have gained by taking UDP headers off: the peer follows our next packet.
        if !udp && self.is_initiator && self.nat.any() {
            return;
        }
        self.keeps_udp = udp;
        let path = PeerPath { udp: Some(udp), ..self.current_path() };
        if path != self.current_path() {
            let followed = self.move_check.iter_mut().filter(|check| check.is_followed());
            followed.for_each(|check| check.correct(path));
            self.send_to(cx, path, MoveCause::Seen);
        }
    }

    /// Notes the addresses by which an established peer's request came. If plain ESP has shown a new
    /// address, this is the port at which IKE reaches the peer there.
    pub(in crate::ike) fn note_source(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        if !self.is_established() {
            return;
        }
        let is_elsewhere = addresses.remote != self.addresses.remote;
        self.heard_elsewhere = is_elsewhere.then(|| Box::new(addresses.remote));
        let Some(check) = &mut self.move_check else { return };
        let path = check.peer_move().new_path;
        let is_guessed = path.udp == Some(false)
            && path.addresses.remote.ip() == addresses.remote.ip()
            && path.addresses.local.ip() == addresses.local.ip();
        if !is_guessed || path.addresses == addresses {
            return;
        }
        let path = PeerPath { addresses, ..path };
        check.correct(path);
        let (is_followed, is_probed) = (check.is_followed(), check.probed().is_some());
        if is_followed {
            self.send_to(cx, path, MoveCause::Seen);
        }
        if is_probed {
            self.probe(cx, addresses);
        }
    }

    /// Probes the peer at `addresses` (RFC 4555 §3.7). NAT_DETECTION may be in any request of MOBIKE
    /// (RFC 4555 §3.8), and libreswan returns COOKIE2 only beside it.
    pub(in crate::ike) fn request_probe(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        let mut cookie = [0; 16];
        cx.random.fill(&mut cookie);
        let cookie2 = self.mobike.then(|| cookie.to_vec());
        let spis = self.active_spis().filter(|_| self.mobike);
        let nat = spis.map(|spis| NatDetection::new(cx.crypto, spis, addresses));
        let request = InformationalRequest { nat, cookie: cookie2, ..InformationalRequest::default() };
        let probe = Request::Probe(ProbeSent { cookie, remote: addresses.remote });
        request.with_payloads(|payloads| {
            self.request(cx, ExchangeType::Informational, payloads, probe, Some(addresses));
        });
    }

    /// Notes that the peer answered the probe of its new path.
    fn confirm_move(&mut self, cx: &mut Context<'_>) {
        match self.move_check.take() {
            Some(MoveCheck::Followed(followed)) => {
                self.note_confirmed(cx, true);
                cx.tell(Event::PathConfirmed { peer: self.id });
                let PeerMove { new_path, seen_elsewhere, .. } = *followed.confirm();
                if seen_elsewhere {
                    // The driver reports the path again if the peer is still seen elsewhere.
                    self.send_to(cx, new_path, MoveCause::Seen);
                }
            }
            Some(MoveCheck::Probing(probing)) => {
                self.note_confirmed(cx, false);
                let PeerMove { new_path, announced, .. } = *probing.confirm();
                self.follow_to(cx, new_path, announced);
                self.resend_all(cx.now);
            }
            // No probe is outstanding.
            other => self.move_check = other,
        }
    }

    fn requeue_probe(&mut self) {
        let probed = self.probed_addresses();
        probed.into_iter().for_each(|there| self.enqueue(QueuedRequest::Probe(there)));
    }

    /// Returns true if the peer has MOBIKE, and did not get a new IKE SA by a rekey since, at which libreswan
    /// forgets that.
    fn knows_cookie2(&mut self) -> bool {
        self.mobike && self.active().is_some_and(|ike_sa| !ike_sa.is_rekeyed)
    }

    /// Returns the addresses that the peer last confirmed.
    pub(in crate::ike) fn confirmed_addresses(&self) -> Addresses {
        self.move_check.as_ref().map_or(self.addresses, |check| check.peer_move().confirmed.addresses)
    }
}

impl ProbeSent {
    /// Handles the response that came from `source`. If the peer knows COOKIE2, it must return it.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: Result<InformationalResponse, Malformed>,
        source: SocketAddr,
    ) {
        match response.map(|response| response.cookie) {
            Ok(Some(returned)) if returned == self.cookie => peer.confirm_move(cx),
            // The IKE SA must be closed then (RFC 4555 §3.7).
            Ok(Some(_)) => peer.close(cx, Reason::Protocol),
            // Without COOKIE2, the answer still has the message ID of a request that was sent to nowhere else,
            // and comes from there. That stops everybody but the peer itself: message IDs count up, so a peer
            // that forges its source can answer without having received, which COOKIE2 excludes.
            Ok(None) if source == self.remote && !peer.knows_cookie2() => peer.confirm_move(cx),
            Ok(None) | Err(_) => peer.handle_no_answer(cx),
        }
    }

    /// Probes the address by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.requeue_probe();
    }
}

impl Withdrawn {
    /// Probes the address that is probed now, if any, by another IKE SA.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer) {
        peer.requeue_probe();
    }
}

//! Where a peer is said to be, and whether it is there (RFC 4555 §3.7).
//!
//! A move is followed at once, and the peer asked whether it is there. If it does not say so in
//! time, or too much was sent there meanwhile, it is back where it was; and from then on it is
//! asked first and followed later (see `doubt`).

use crate::{
    ike::{
        context::Context,
        counter::Counter,
        event::{Event, Reason},
        exchange::informational::message::{InformationalRequest, InformationalResponse},
        peer::{
            Peer,
            move_check::{MoveCheck, PeerPath, Stage, is_reachable},
            request::{QueuedRequest, Request},
        },
        wire::{ExchangeType, Malformed},
    },
    path::{Addresses, Nat, Path},
};
use alloc::boxed::Box;
use core::{net::SocketAddr, time::Duration};

/// How long packets may still come from where a peer said that it is no more.
const LATE: Duration = Duration::from_secs(1);
/// Shortest time between two copies of a request: who says again and again that it is elsewhere
/// does not draw one each time.
const GAP: Duration = Duration::from_millis(100);
/// How often a peer is asked whether it is at one place.
const MOST_ASKED: u32 = 5;

impl Peer {
    /// Returns where the peer is.
    pub(in crate::ike) fn place(&self) -> PeerPath {
        PeerPath { addresses: self.addresses, nat: self.nat }
    }

    /// Sends to `place` from now on.
    fn send_to(&mut self, cx: &mut Context<'_>, place: PeerPath) {
        (self.addresses, self.nat) = (place.addresses, place.nat);
        let Some(connection) = self.connection(cx) else { return };
        let path = self.path(connection);
        let confirmed = self.moving.as_ref().is_none_or(|moving| moving.stage != Stage::Followed);
        cx.tell(Event::PeerMoved { peer: self.id, path, confirmed, nat: self.nat });
    }

    /// Sends to `place` from now on, where the peer was not before; `told`: it said so itself.
    fn follow_to(&mut self, cx: &mut Context<'_>, place: PeerPath, told: bool) {
        if told {
            self.left = Some(Box::new((self.addresses, cx.now)));
        }
        self.moves += 1;
        self.moved_at = Some(cx.now);
        cx.count(Counter::Moved);
        self.send_to(cx, place);
    }

    /// Handles that the peer is said to be `there`; `told`: by itself.
    pub(in crate::ike) fn go(&mut self, cx: &mut Context<'_>, there: PeerPath, told: bool) {
        let here = self.place();
        if there.addresses == here.addresses {
            if self.moving.as_ref().is_some_and(|moving| moving.stage != Stage::Followed) {
                self.moving = None;
                self.resend_all(cx.now);
            }
            if there.nat != here.nat {
                self.send_to(cx, there);
            }
            return self.work(cx);
        }
        if let Some(moving) = self.moving.as_mut().filter(|m| m.there.addresses == there.addresses) {
            moving.there = there;
            if told {
                // A packet was faster than its word, which is worth a question at once.
                moving.told = true;
                if moving.stage == Stage::Waiting {
                    moving.until = cx.now;
                    self.handle_moving(cx);
                }
            }
            return;
        }
        if let Some(moving) = self.moving.as_mut().filter(|m| !told && m.told && m.stage != Stage::Waiting) {
            // Its own word is being checked: a copy of its packet from elsewhere does not come
            // between.
            moving.was_seen = true;
            return;
        }
        let before = match self.moving.take() {
            None => here,
            Some(moving) => {
                // It is elsewhere before it has said that it was there.
                self.doubt(cx, moving.stage == Stage::Followed);
                moving.before
            }
        };
        if there.addresses == before.addresses {
            self.send_to(cx, there);
            self.resend_all(cx.now);
            return self.work(cx);
        }
        let stage = if self.is_trusted(cx) { Stage::Followed } else { Stage::Waiting };
        let until = match stage {
            Stage::Followed => cx.now + cx.settings.routability,
            // Its own word is worth a question each time: it cannot give it more often than it is
            // answered.
            _ if told => cx.now,
            _ => cx.may_ask_at(self.owner().as_ref()),
        };
        self.moving =
            Some(Box::new(MoveCheck { there, before, told, was_seen: false, asked: 0, stage, until }));
        match stage {
            Stage::Followed => {
                self.principal(cx).into_iter().for_each(|principal| cx.follow(principal));
                self.follow_to(cx, there, told);
                self.ask(cx, there.addresses);
            }
            _ => {
                if here != before {
                    self.send_to(cx, before);
                }
                self.resend_all(cx.now);
                self.handle_moving(cx);
            }
        }
    }

    fn is_trusted(&self, cx: &mut Context<'_>) -> bool {
        self.principal(cx).is_some_and(|principal| cx.is_trusted(&principal))
    }

    /// Notes that the peer did not show that it is where it was said to be; `followed`: and was
    /// sent to there.
    fn doubt(&self, cx: &mut Context<'_>, followed: bool) {
        cx.count(Counter::Unconfirmed);
        let (Some(owner), Some(principal)) = (self.owner(), self.principal(cx)) else { return };
        if owner != principal {
            // Its questions become rare, not those to all for whom the same one answers.
            cx.doubt(owner, false);
        }
        cx.doubt(principal, followed);
    }

    fn ask(&mut self, cx: &mut Context<'_>, there: Addresses) {
        self.resend_all(cx.now);
        self.want(QueuedRequest::Routability(there));
        self.work(cx);
    }

    /// Returns when [`Peer::handle_moving`] is wanted.
    pub(in crate::ike) fn moving_until(&self) -> Option<Duration> {
        self.moving.as_ref().map(|moving| moving.until)
    }

    /// Ends the stage of a move if its time is over.
    pub(in crate::ike) fn handle_moving(&mut self, cx: &mut Context<'_>) {
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.until <= cx.now) else { return };
        match moving.stage {
            Stage::Waiting => {
                moving.stage = Stage::Asked;
                moving.until = cx.now + cx.settings.routability;
                let there = moving.there.addresses;
                self.ask(cx, there);
            }
            Stage::Followed | Stage::Asked => self.unanswered(cx),
        }
    }

    /// Sends to where the peer was, since it has not said that it is there, and asks again after a
    /// while.
    pub(in crate::ike) fn unanswered(&mut self, cx: &mut Context<'_>) {
        let Some(moving) = self.moving.as_ref().filter(|moving| moving.stage != Stage::Waiting) else {
            return;
        };
        let followed = moving.stage == Stage::Followed;
        self.doubt(cx, followed);
        let until = cx.may_ask_at(self.owner().as_ref());
        let Some(mut moving) = self.moving.take() else { return };
        if followed {
            // Here it has been before, so that this is confirmed.
            self.send_to(cx, moving.before);
        }
        moving.asked += 1;
        (moving.stage, moving.until) = (Stage::Waiting, until);
        match moving.asked < MOST_ASKED {
            true => self.moving = Some(moving),
            // Whoever drives us tells us again if the peer is still seen there.
            false => self.send_to(cx, moving.before),
        }
        self.resend_all(cx.now);
    }

    /// Ends a move with its peer. One that was followed will not be confirmed: to come again is not
    /// to be worth another.
    pub(in crate::ike) fn stop_moving(&mut self, cx: &mut Context<'_>) {
        if self.moving.take().is_some_and(|moving| moving.stage == Stage::Followed) {
            self.doubt(cx, true);
        }
    }

    /// Sends to where the peer was, since enough went to where it has not said that it is. The
    /// question remains.
    pub(in crate::ike) fn handle_unconfirmed(&mut self, cx: &mut Context<'_>) {
        let Some(mut moving) = self.moving.take_if(|moving| moving.stage == Stage::Followed) else { return };
        self.doubt(cx, true);
        self.send_to(cx, moving.before);
        moving.stage = Stage::Asked;
        self.moving = Some(moving);
    }

    /// Sends what waits for an answer to where the peer is now, at once. An outstanding probe of
    /// another address keeps its message ID, but its answer no longer matters.
    pub(in crate::ike) fn resend_all(&mut self, now: Duration) {
        self.wanted.retain(|wanted| !matches!(wanted, QueuedRequest::Routability(_)));
        for outstanding in self.ike_sas.iter_mut().filter_map(|ike_sa| ike_sa.outstanding.as_mut()) {
            outstanding.resend_at = now.max(outstanding.sent_at + GAP);
            outstanding.tries = 0;
            outstanding.addresses = None;
            if let Request::Routability(_) = outstanding.request {
                outstanding.request = Request::Withdrawn;
            }
        }
    }

    /// Returns where the peer is asked whether it is there.
    pub(in crate::ike) fn asked_at(&self) -> Option<Addresses> {
        let moving = self.moving.as_ref().filter(|moving| moving.stage != Stage::Waiting);
        moving.map(|moving| moving.there.addresses)
    }

    /// Handles that the data plane saw an authentic packet, the newest so far, come by another
    /// path.
    pub(in crate::ike) fn handle_path(&mut self, cx: &mut Context<'_>, path: Path) {
        // Who answers does not move of its own accord (RFC 4555 §1.3).
        if !self.is_established() || self.is_initiator {
            return;
        }
        let (local_port, remote_port) =
            path.udp.unwrap_or((self.addresses.local.port(), self.addresses.remote.port()));
        let addresses = Addresses {
            local: SocketAddr::new(path.local, local_port),
            remote: SocketAddr::new(path.remote, remote_port),
        };
        // What was on its way when the peer said that it moved does not take it back there.
        let is_late = self
            .left
            .as_ref()
            .is_some_and(|left| left.0.remote == addresses.remote && cx.now < left.1 + LATE);
        let is_allowed = self.connection(cx).is_some_and(|connection| connection.is_local(path.local));
        if addresses == self.addresses || is_late || !is_allowed || !is_reachable(addresses.remote) {
            return;
        }
        if self.no_nats {
            // Only a NAT lets packets come from elsewhere before the peer says that it moved (RFC
            // 4555 §3.8, §3.9).
            return cx.count(Counter::NatRefused);
        }
        let nat = Nat { there: self.nat.there || path.udp.is_some(), ..self.nat };
        self.go(cx, PeerPath { addresses, nat }, false);
    }

    /// Asks whether the peer is at `addresses` (RFC 4555 §3.7).
    pub(in crate::ike) fn request_routability(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        let mut cookie = [0; 16];
        cx.random.fill(&mut cookie);
        let asked = self.mobike.then(|| cookie.to_vec());
        let request = InformationalRequest { cookie: asked, ..InformationalRequest::default() };
        let probe = Request::Routability(cookie);
        self.request(cx, ExchangeType::Informational, &request.payloads(), probe, Some(addresses));
    }

    /// Takes the peer's answer to the question whether it is there, which asked it to return
    /// `cookie`.
    pub(in crate::ike) fn routability_answered(
        &mut self,
        cx: &mut Context<'_>,
        cookie: [u8; 16],
        response: Result<InformationalResponse, Malformed>,
    ) {
        match response.map(|response| response.cookie) {
            Ok(Some(returned)) if returned == cookie => self.confirm_move(cx),
            // The IKE SA must be closed then (RFC 4555 §3.7).
            Ok(Some(_)) => self.close(cx, Reason::Protocol),
            Ok(None) if !self.mobike => self.confirm_move(cx),
            Ok(None) | Err(_) => self.unanswered(cx),
        }
    }

    /// Takes it that the peer is where it was asked to be.
    fn confirm_move(&mut self, cx: &mut Context<'_>) {
        let Some(moving) = self.moving.take() else { return };
        for (name, followed) in [(self.principal(cx), moving.stage == Stage::Followed), (self.owner(), false)]
        {
            name.into_iter().for_each(|name| cx.confirm(&name, followed));
        }
        match moving.stage {
            Stage::Followed => {
                cx.tell(Event::PathConfirmed { peer: self.id });
                if moving.was_seen {
                    // Whoever drives us tells us again if it is still seen elsewhere.
                    self.send_to(cx, moving.there);
                }
            }
            Stage::Asked | Stage::Waiting => {
                self.follow_to(cx, moving.there, moving.told);
                self.resend_all(cx.now);
            }
        }
    }

    /// Returns where the peer has shown that it is.
    pub(in crate::ike) fn confirmed(&self) -> Addresses {
        self.moving.as_ref().map_or(self.addresses, |moving| moving.before.addresses)
    }
}

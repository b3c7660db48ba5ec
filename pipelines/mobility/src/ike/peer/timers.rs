//! Timers of a peer.

use super::{
    child::Child,
    ike_sa::IkeSa,
    initiator::InitiatorState,
    request::{QueuedRequest, Request},
    responder::{EapMethod, ResponderState},
    state::{Peer, Phase},
};
use crate::{
    ike::{
        context::Context, counter::Counter, event::Event, exchange::auth_lifetime::AuthLifetime,
        reason::Reason, settings::Settings,
    },
    transmit::{Payload, Transmit},
};
use alloc::vec::Vec;
use core::time::Duration;

/// Shortest time after which a peer is asked to authenticate again. Peers do so some time before,
/// strongSwan by default 24 minutes: if there is less time, at once and for ever.
const SHORTEST_TOLD: Duration = Duration::from_secs(3600);
/// How much sooner a peer is asked to authenticate again than it must, so that it may begin as late as
/// that.
const MARGIN: Duration = Duration::from_secs(60);

impl Peer {
    /// Returns when [`Peer::handle_timeout`] must be called next.
    pub(in crate::ike) fn poll_timeout(&self, cx: &Context<'_>) -> Option<Duration> {
        if let Some(at) = self.forget_at {
            let resend = self.ike_sas.iter().filter_map(|s| Some(s.outstanding.as_ref()?.resend_at)).min();
            return Some(resend.map_or(at, |resend| resend.min(at)));
        }
        let deadline = (!self.is_established()).then(|| self.handshake_ends_at(cx.settings));
        let resend = self.ike_sas.iter().filter_map(|s| Some(s.outstanding.as_ref()?.resend_at)).min();
        let forget = self.ike_sas.iter().filter_map(|s| s.life().removed_at()).min();
        let children = self.children.iter().map(|child| child.state().due_at());
        [
            deadline,
            resend,
            forget,
            children.min(),
            self.init_resend_at(),
            self.move_check_at(),
            self.path_probe_at(cx),
            self.followup.as_ref().map(|followup| followup.until),
            self.missing.as_ref().and_then(|missing| missing.poll_timeout()),
            self.retry.as_ref().and_then(|retry| retry.at),
            self.liveness_at(cx),
            self.rekey_at.filter(|_| !self.queued.contains(&QueuedRequest::RekeyIkeSa)),
            self.expire_at,
            self.authentication_ends_at(cx).map(|(at, _)| at),
            self.succession_at(),
            self.esp_check_at(cx.now),
            self.keepalive_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Returns when the handshake is given up.
    fn handshake_ends_at(&self, settings: &Settings) -> Duration {
        let claim = match &self.phase {
            Phase::Responder(responder) => responder.state.claim(),
            _ => None,
        };
        let extension = claim.map(|claim| claim.server_time.extension(settings.server_time));
        self.since + settings.half_open + extension.unwrap_or_default()
    }

    /// Returns until when its tasks may wait for others, all of them together: it must hear the result
    /// before the handshake is given up.
    pub(in crate::ike) fn waits_until(&self, settings: &Settings) -> Duration {
        self.handshake_ends_at(settings).saturating_sub(settings.half_open / 6)
    }

    /// Notes that a RADIUS server is asked about the peer. Its answer may take as long as a human
    /// needs to confirm a log-in.
    pub(in crate::ike) fn note_server_asked(&mut self, cx: &Context<'_>) {
        if let Phase::Responder(responder) = &mut self.phase
            && let ResponderState::EapMethod(EapMethod { claim }) = &mut responder.state
        {
            claim.server_time.begin(cx.now);
        }
    }

    /// Returns how long the peer's authentication still counts, for the peer itself (RFC 4478 §2); `None`
    /// if it counts for ever, or not long enough.
    pub(in crate::ike) fn own_auth_lifetime(&self, cx: &Context<'_>) -> Option<AuthLifetime> {
        let (limit, _) = self.authentication_limit(cx)?;
        let rest = (self.up_at + limit).saturating_sub(cx.now);
        (rest >= SHORTEST_TOLD).then(|| AuthLifetime::new(rest - MARGIN))
    }

    /// Returns how long the peer's authentication counts, and why it ends: a RADIUS server granted no
    /// more time, or by its connection the side that began must authenticate again.
    fn authentication_limit(&self, cx: &Context<'_>) -> Option<(Duration, Reason)> {
        let seconds = self.grant.as_ref().and_then(|grant| grant.session_timeout);
        let granted = seconds.map(|seconds| (Duration::from_secs(seconds.into()), Reason::SessionOver));
        let own = self.connection(cx).and_then(|connection| connection.lifetimes.authentication);
        let own = own.map(|limit| (limit, Reason::AuthenticationOver));
        [granted, own].into_iter().flatten().min_by_key(|(limit, _)| *limit)
    }

    /// Returns when the peer's authentication no longer counts, and why.
    fn authentication_ends_at(&self, cx: &Context<'_>) -> Option<(Duration, Reason)> {
        let (limit, reason) = self.authentication_limit(cx).filter(|_| self.is_established())?;
        Some((self.up_at + limit, reason))
    }

    /// Returns when IKE_SA_INIT is sent again.
    fn init_resend_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Initiator(initiator) => match &initiator.state {
                InitiatorState::InitSent(sent) => Some(sent.resend_at),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns when the next liveness check is due.
    fn liveness_at(&self, cx: &Context<'_>) -> Option<Duration> {
        let quiet = self.connection(cx)?.liveness?;
        let from = self.liveness_asked_at.map_or(self.heard_at, |asked| asked.max(self.heard_at));
        self.is_established().then(|| from + quiet)
    }

    /// Schedules the next keepalive, if we are behind a NAT.
    pub(in crate::ike) fn schedule_keepalive(&mut self, cx: &Context<'_>) {
        let at = self.nat.local.then(|| cx.now + cx.settings.keepalive);
        if at.is_some() || self.upkeep.is_some() {
            self.upkeep().keepalive_at = at;
        }
    }

    fn keepalive_at(&self) -> Option<Duration> {
        self.upkeep.as_ref()?.keepalive_at
    }

    /// Handles all timers due at `cx.now`.
    pub(in crate::ike) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.resend(cx);
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let now = cx.now;
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if !self.is_established() && self.handshake_ends_at(cx.settings) <= cx.now {
            return self.fail(cx, Reason::Timeout);
        }
        if is_due(self.init_resend_at()) {
            self.resend_init(cx);
        }
        if is_due(self.expire_at) {
            return self.close(cx, Reason::Expired);
        }
        if let Some((_, reason)) = self.authentication_ends_at(cx).filter(|(at, _)| *at <= now) {
            return self.close(cx, reason);
        }
        self.handle_succession(cx);
        self.handle_esp_check(cx);
        if is_due(self.rekey_at) && !self.queued.contains(&QueuedRequest::RekeyIkeSa) {
            if !self.is_rekeying_ike_sa() {
                // A hash by the next one cannot be compared with one by this one.
                self.enqueue_mapping_check();
                self.enqueue(QueuedRequest::RekeyIkeSa);
            }
            self.rekey_at = None;
        }
        self.handle_move_check(cx);
        self.handle_path_probe(cx);
        if is_due(self.retry.as_ref().and_then(|retry| retry.at)) {
            self.retry_update();
        }
        if is_due(self.liveness_at(cx)) {
            self.liveness_asked_at = Some(cx.now);
            cx.tell(Event::LivenessDue { peer: self.id });
        }
        if is_due(self.keepalive_at()) {
            cx.transmit(Transmit { addresses: self.addresses, payload: Payload::Keepalive });
            self.upkeep().keepalive_at = Some(cx.now + cx.settings.keepalive);
        }
        if is_due(self.followup.as_ref().map(|followup| followup.until)) {
            self.drop_followup(cx);
        }
        self.forget_ike_sas(cx);
        self.age_children(cx);
        self.ask_for_missing(cx.now);
        self.start_queued(cx);
    }

    fn forget_ike_sas(&mut self, cx: &mut Context<'_>) {
        let gone = |s: &&IkeSa| s.life().removed_at().is_some_and(|at| at <= cx.now);
        let gone: Vec<u64> = self.ike_sas.iter().filter(gone).map(IkeSa::local_spi).collect();
        for spi in gone {
            self.drop_ike_sa(cx, spi);
        }
    }

    /// Rekeys child SAs that are due, and ends those that were replaced.
    fn age_children(&mut self, cx: &mut Context<'_>) {
        let due = |child: &mut Child| child.change(|state| state.rekey_due(cx.now)).then_some(child.id);
        let due: Vec<_> = self.children.iter_mut().filter_map(due).collect();
        due.into_iter().for_each(|child| self.enqueue(QueuedRequest::RekeyChild(child)));
        let over = self.children.iter().filter(|child| child.state().expire_at() <= cx.now);
        let over: Vec<_> = over.map(|child| (child.id, child.state())).collect();
        for (child, state) in over {
            // If it could not be rekeyed, the IKE SA must be closed too (RFC 7296 §2.8).
            if state.carries_traffic() {
                return self.close(cx, Reason::Expired);
            }
            match self.change_child(child, |state| state.expire(cx.now + cx.settings.linger)) {
                true => self.enqueue(QueuedRequest::DeleteChild(child)),
                false => self.end_child(cx, child),
            }
        }
    }

    /// Repeats unanswered requests, or gives the peer up.
    fn resend(&mut self, cx: &mut Context<'_>) {
        let probed = self.probed_addresses().filter(|probed| *probed != self.addresses);
        let most = self.tries(cx.settings);
        let mut silent = false;
        let mut unconfirmed = false;
        for ike_sa in &mut self.ike_sas {
            let Some(outstanding) = &mut ike_sa.outstanding else { continue };
            if outstanding.resend_at > cx.now {
                continue;
            }
            if let Request::PathProbe(_) = outstanding.request {
                if !ike_sa.repeat_path_probe(cx, most, self.addresses, probed) {
                    ike_sa.outstanding = None;
                    silent = true;
                }
                continue;
            }
            outstanding.tries += 1;
            // A check that began sooner than others would have is given up no sooner.
            if let Request::Liveness(check) = &outstanding.request
                && cx.now < check.until
            {
                outstanding.tries = outstanding.tries.min(most);
            }
            let is_over = outstanding.tries > most;
            if is_over && matches!(outstanding.request, Request::Probe(_)) {
                // The peer may still be at its confirmed address. The probe keeps its place in the
                // window.
                unconfirmed = true;
                outstanding.resend_at = cx.now + cx.settings.retransmission.after(outstanding.tries);
                continue;
            }
            if is_over {
                match ike_sa.outstanding.take().map(|outstanding| outstanding.request.withdraw(cx)) {
                    Some(Request::DeleteIkeSa(_)) => ike_sa.change(|life| life.give_up(cx.now)),
                    _ => silent = true,
                }
                continue;
            }
            cx.count(Counter::Resent);
            outstanding.sent_at = cx.now;
            outstanding.resend_at = cx.now + cx.settings.retransmission.after(outstanding.tries);
            let addresses = outstanding.addresses.unwrap_or(self.addresses);
            cx.send_all(addresses, &outstanding.datagrams);
            // The peer may have left its confirmed address. An outstanding request would then block
            // the probe, so it is also sent to the probed address.
            if let Some(probed) = probed.filter(|_| outstanding.addresses.is_none()) {
                cx.send_all(probed, &outstanding.datagrams);
            }
        }
        if unconfirmed {
            self.handle_no_answer(cx);
        }
        if silent {
            self.fail(cx, Reason::Timeout);
        }
        self.finish_retirement(cx);
    }

    /// Handles the driver's answer to [`Event::LivenessDue`]: `alive` says whether its data plane
    /// received anything from the peer since.
    pub(in crate::ike) fn handle_liveness(&mut self, cx: &mut Context<'_>, alive: bool) {
        let may_be_older = self.is_first_report_in_doubt();
        if alive {
            if !may_be_older {
                self.heard_at = cx.now;
            }
        } else {
            self.enqueue(QueuedRequest::Liveness);
            self.start_queued(cx);
        }
    }

    /// Returns true if the peer can be removed.
    pub(in crate::ike) fn is_over(&self, now: Duration) -> bool {
        self.forget_at.is_some_and(|at| at <= now)
    }
}

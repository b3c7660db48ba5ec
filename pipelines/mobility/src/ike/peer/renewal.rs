//! A peer that replaces another, make before break: whoever authenticates again makes a new IKE SA with
//! new child SAs, moves the traffic to these, and then deletes the old IKE SA (RFC 7296 §2.8.3). Each
//! IKE SA is a peer of its own, and the two know each other meanwhile.

use super::{
    creation::Target,
    ike_sa::IkeSaLife,
    request::{QueuedRequest, Request},
    state::Peer,
    succession::Succession,
};
use crate::{
    ike::{
        bounds,
        context::Context,
        event::{ChildId, Event, PeerId},
        reason::Reason,
        settings::Settings,
    },
    retransmission::back_off,
};
use alloc::vec::Vec;
use core::{mem, net::IpAddr, time::Duration};

/// How long before an authentication ends we authenticate again. If it counts for less than twice as
/// long, we do so after half of its time.
const MARGIN: Duration = Duration::from_secs(300);
/// Shortest time from one authentication to the next, whatever the peer wants.
const SHORTEST: Duration = Duration::from_secs(10);

impl Peer {
    pub(super) fn succession(&mut self) -> &mut Succession {
        self.succession.get_or_insert_default()
    }

    /// Returns the peer that this one replaces.
    pub(in crate::ike) fn predecessor(&self) -> Option<PeerId> {
        self.succession.as_ref()?.predecessor
    }

    /// Replaces the peer `old`, which has these inner addresses from the gateway.
    pub(in crate::ike) fn replace(&mut self, old: PeerId, inner: Vec<IpAddr>) {
        let succession = self.succession();
        (succession.predecessor, succession.inner) = (Some(old), inner);
    }

    /// Returns the inner addresses that we ask for, because the predecessor has them.
    pub(in crate::ike) fn inner_before(&self) -> &[IpAddr] {
        self.succession.as_ref().map_or(&[], |succession| &succession.inner)
    }

    /// Notes that `new` replaces this peer, which is closed at `until` if that is given.
    pub(in crate::ike) fn be_replaced(&mut self, new: PeerId, until: Option<Duration>) {
        let succession = self.succession();
        (succession.successor, succession.renews_at) = (Some(new), None);
        self.end_esp_check();
        if let Some(until) = until {
            self.retire_by(until);
        }
    }

    /// Asks at once whether the peer lives, now that the other side has made another in its place. That may
    /// have restarted: then it no longer takes packets by the old SAs, and if it sends none, only its silence
    /// shows that.
    pub(in crate::ike) fn check_replaced(&mut self, cx: &mut Context<'_>) {
        let succession = self.succession();
        (succession.doubted_at, succession.is_reported) = (Some(cx.now), false);
        let active = self.active;
        let active = self.ike_sas.iter_mut().find(|ike_sa| ike_sa.local_spi() == active);
        match active.and_then(|ike_sa| ike_sa.outstanding.as_mut()) {
            // Any answer shows it.
            Some(outstanding) if !matches!(outstanding.request, Request::PathProbe(_)) => {
                (outstanding.tries, outstanding.resend_at) = (0, cx.now);
            }
            _ => {
                self.enqueue(QueuedRequest::Liveness);
                self.hurry_path_probe(cx);
                self.start_queued(cx);
            }
        }
    }

    /// Returns how often a request is sent again before the peer is given up: less often from
    /// [`Self::check_replaced`] on, until something comes from the peer.
    pub(super) fn tries(&self, settings: &Settings) -> u32 {
        match self.is_doubted() {
            true => settings.retransmission.tries.min(bounds::REPLACED_TRIES),
            false => settings.retransmission.tries,
        }
    }

    /// Returns true from [`Self::check_replaced`] on, until something comes from the peer.
    pub(super) fn is_doubted(&self) -> bool {
        let doubted_at = self.succession.as_ref().and_then(|succession| succession.doubted_at);
        doubted_at.is_some_and(|at| self.heard_at <= at)
    }

    /// Returns true once from [`Self::check_replaced`] on: packets that the data plane reports next may have
    /// come before, and later ones have not.
    pub(super) fn is_first_report_in_doubt(&mut self) -> bool {
        self.is_doubted() && !mem::replace(&mut self.succession().is_reported, true)
    }

    /// Closes the peer at `until`, if it does not end before.
    pub(in crate::ike) fn retire_by(&mut self, until: Duration) {
        let succession = self.succession();
        if !succession.is_retiring {
            let at = succession.retires_at.map_or(until, |at| at.min(until));
            succession.retires_at = Some(at);
        }
    }

    /// Returns true if it was to replace a peer that is still connected, and was never connected itself.
    pub(in crate::ike) fn is_failed_renewal(&self) -> bool {
        self.expire_at.is_none() && self.predecessor().is_some()
    }

    /// Notes that the peer has ended for this reason.
    pub(in crate::ike) fn note_end(&mut self, reason: Reason) {
        if let Some(succession) = &mut self.succession {
            succession.ended_for = Some(reason);
        }
    }

    /// Returns what the peer knew of the peers before and after it, once it has ended.
    pub(in crate::ike) fn take_succession(&mut self) -> Succession {
        self.succession.take().map(|succession| *succession).unwrap_or_default()
    }

    /// Notes that the peer `old` has ended, which this one replaces.
    pub(in crate::ike) fn lose_predecessor(&mut self, cx: &mut Context<'_>, old: PeerId) {
        let Some(succession) = &mut self.succession else { return };
        if succession.predecessor.take_if(|known| *known == old).is_some() {
            for child in mem::take(&mut succession.new_children) {
                cx.tell(Event::ChildUse { child });
            }
        }
    }

    /// Notes that the peer `new` has ended for this reason, which was to replace this one. If we began,
    /// we authenticate again after a while.
    pub(in crate::ike) fn lose_successor(&mut self, cx: &mut Context<'_>, new: PeerId, reason: Reason) {
        let Some(succession) = &mut self.succession else { return };
        if succession.successor.take_if(|known| *known == new).is_none() || succession.is_retiring {
            return;
        }
        succession.retires_at = None;
        if self.is_initiator {
            let wait = cx.jittered(back_off(succession.failures)).max(SHORTEST);
            succession.failures += 1;
            succession.retry_at = cx.now + wait;
            succession.renews_at = Some(succession.retry_at);
            cx.tell(Event::RenewalFailed { peer: self.id, reason, wait });
        }
    }

    /// Notes a new child SA, which may take over the traffic of one of the predecessor's. Returns true
    /// if the endpoint must decide about that.
    pub(in crate::ike) fn note_new_child(&mut self, child: ChildId) -> bool {
        let Some(succession) = self.succession.as_mut().filter(|s| s.predecessor.is_some()) else {
            return false;
        };
        succession.new_children.push(child);
        true
    }

    /// Returns the child SAs that [`Self::note_new_child`] noted, each once.
    pub(in crate::ike) fn take_new_children(&mut self) -> Vec<ChildId> {
        self.succession.as_mut().map(|s| mem::take(&mut s.new_children)).unwrap_or_default()
    }

    /// Returns true if it carries all traffic of its predecessor, as far as the peer allows: all child
    /// SAs were asked for.
    pub(in crate::ike) fn has_taken_over(&mut self) -> bool {
        let is_queued = self.queued.iter().any(|request| matches!(request, QueuedRequest::Child(_)));
        self.is_established()
            && !is_queued
            && self.own_create(|target| matches!(target, Target::Child(_))).is_none()
    }

    /// Schedules our next authentication before the present one is over: by our own limit, which runs
    /// from the last authentication on, and by the one that the peer has `told`, if it has, which runs
    /// from now on (RFC 4478 §2). Does nothing unless we began the first IKE SA.
    pub(in crate::ike) fn schedule_renewal(&mut self, cx: &Context<'_>, told: Option<Duration>) {
        if !self.is_initiator {
            return;
        }
        let own = self.connection(cx).and_then(|connection| connection.lifetimes.authentication);
        let before = |limit: Duration| cx.jittered(limit - MARGIN.min(limit / 2));
        let own = own.map(|limit| self.up_at + before(limit));
        let told = told.map(|limit| cx.now + before(limit));
        let earliest = self.up_at + SHORTEST;
        let succession = self.succession();
        let at = own.into_iter().chain(told).min();
        succession.renews_at = at.map(|at| at.max(earliest).max(succession.retry_at));
    }

    /// Has us authenticate again as soon as that may be.
    pub(in crate::ike) fn renew_soon(&mut self, now: Duration) {
        let earliest = now.max(self.up_at + SHORTEST);
        let succession = self.succession();
        let at = earliest.max(succession.retry_at);
        succession.renews_at = Some(succession.renews_at.map_or(at, |planned| planned.min(at)));
    }

    /// Returns true if a new peer may be made that replaces this one.
    pub(in crate::ike) fn may_be_replaced(&self) -> bool {
        let is_free = |s: &Succession| s.successor.is_none() && !s.is_retiring;
        self.is_established() && self.succession.as_deref().is_none_or(is_free)
    }

    /// Returns true if it is closed soon, because another peer carries its traffic.
    pub(in crate::ike) fn is_outgoing(&self) -> bool {
        self.succession.as_ref().is_some_and(|s| s.retires_at.is_some() || s.is_retiring)
    }

    /// Returns when [`Self::handle_succession`] must be called.
    pub(in crate::ike) fn succession_at(&self) -> Option<Duration> {
        let succession = self.succession.as_ref().filter(|_| self.is_established())?;
        [succession.retires_at, succession.renews_at].into_iter().flatten().min()
    }

    /// Deletes the IKE SA if a successor has taken over, or has the endpoint begin to authenticate
    /// again.
    pub(in crate::ike) fn handle_succession(&mut self, cx: &mut Context<'_>) {
        let Some(succession) = self.succession.as_mut() else { return };
        if succession.renews_at.take_if(|at| *at <= cx.now).is_some() {
            cx.renew(self.id);
        }
        if succession.retires_at.take_if(|at| *at <= cx.now).is_none() {
            return;
        }
        if mem::replace(&mut succession.is_retiring, true) {
            self.fail(cx, Reason::Replaced);
        } else {
            // The request may have to wait for an answer that never comes, or a rekey that is under way
            // may put another IKE SA in place of the deleted one.
            let settings = &cx.settings;
            succession.retires_at = Some(cx.now + settings.retransmission.total() + settings.linger);
            self.request_delete_ike_sa(cx, self.active);
        }
    }

    /// Schedules the end of a peer whose IKE SA was deleted in favour of a successor, now that the other
    /// side has answered or was given up. It still receives packets that were in flight.
    pub(in crate::ike) fn finish_retirement(&mut self, cx: &Context<'_>) {
        let is_gone = self.active().is_none_or(|ike_sa| matches!(ike_sa.life(), IkeSaLife::Ended { .. }));
        if let Some(succession) = self.succession.as_mut().filter(|s| s.is_retiring && is_gone) {
            let until = cx.now + cx.settings.linger;
            succession.retires_at = Some(succession.retires_at.map_or(until, |at| at.min(until)));
        }
    }
}

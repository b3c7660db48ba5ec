//! Checks whether the peer's packets come through the NATs on the way.
//!
//! After a move of ours that has put a NAT on the way, a gateway may go on as it connected. libreswan's
//! does: it sends ESP without UDP, which no NAT lets in, and drops ours in UDP. OpenIKED's on Linux accepts
//! every move, and carries none out; that is found only with a NAT. A new IKE_SA_INIT sets both right.
//!
//! The NAT in front of us may also forget its mapping. Then the peer's packets go to where we no longer
//! are, until it is told (`exchange::mobike::mapping`) or, without MOBIKE, we authenticate again.
//!
//! As the peer answers IKE in both cases, no liveness check finds them. So the driver is asked what it has
//! sent and received.

use super::{
    request::QueuedRequest,
    state::Peer,
    upkeep::{Announcement, EspCheck, LONG_UNANSWERED, UNANSWERED, Upkeep},
};
use crate::ike::{context::Context, event::Event};
use core::time::Duration;

/// Time until packets count, so that those have come that were on their way to our old address, and
/// from one question to the next.
const WAIT: Duration = Duration::from_secs(2);

impl Peer {
    pub(in crate::ike) fn upkeep(&mut self) -> &mut Upkeep {
        self.upkeep.get_or_insert_default()
    }

    /// Returns true if the check goes on as long as the peer is connected. One that another replaces
    /// carries less and less.
    fn goes_on_checking(&self) -> bool {
        self.checks_mapping() && self.may_be_replaced()
    }

    /// Begins the check anew, after a move of ours. If a NAT is on the way and the peer's ESP does not come,
    /// we authenticate again: soon if it has come without UDP so far, and after long silence if it has come
    /// in UDP. A gateway of ours says itself what it uses.
    pub(in crate::ike) fn begin_esp_check(&mut self, now: Duration) {
        let may_renew = self.nat.any() && !self.is_wayfarer;
        let silence = if self.keeps_udp { LONG_UNANSWERED } else { UNANSWERED };
        let renews_after = may_renew.then_some(silence);
        self.end_esp_check();
        if may_renew || self.goes_on_checking() {
            self.upkeep().esp_check = Some(EspCheck::new(now + WAIT, renews_after));
        }
    }

    /// Ends the check, because we have moved on or another peer replaces this one.
    pub(in crate::ike) fn end_esp_check(&mut self) {
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.esp_check = None;
        }
    }

    /// Returns when [`Self::handle_esp_check`] must be called.
    pub(in crate::ike) fn esp_check_at(&self, now: Duration) -> Option<Duration> {
        match self.upkeep.as_ref().and_then(|upkeep| upkeep.esp_check) {
            Some(check) => Some(check.due_at),
            None => self.goes_on_checking().then_some(now),
        }
    }

    /// Asks the driver what it has sent and received, if that is due.
    pub(in crate::ike) fn handle_esp_check(&mut self, cx: &mut Context<'_>) {
        if self.esp_check_at(cx.now).is_none_or(|at| at > cx.now) {
            return;
        }
        let due_at = cx.now + WAIT;
        match &mut self.upkeep().esp_check {
            Some(check) => {
                check.due_at = due_at;
                cx.tell(Event::TrafficDue { peer: self.id });
                self.learn_mapping();
            }
            check => *check = Some(EspCheck::new(due_at, None)),
        }
    }

    /// Handles the driver's answer: the packets that it has sent and received so far. If some were sent
    /// before each of several answers and none have come, we ask how the peer sees us, and then may
    /// announce our end or authenticate again.
    pub(in crate::ike) fn handle_traffic(&mut self, cx: &mut Context<'_>, sent: u64, received: u64) {
        let (goes_on, is_wayfarer) = (self.goes_on_checking(), self.is_wayfarer);
        let Some(check) = self.upkeep.as_mut().and_then(|upkeep| upkeep.esp_check.as_mut()) else { return };
        let Some([sent_before, received_before]) = check.before else {
            check.before = Some([sent, received]);
            return;
        };
        if received > received_before {
            check.begin_anew([sent, received]);
            if !goes_on {
                self.end_esp_check();
            }
        } else if check.announcement == Announcement::Due {
            check.announcement = Announcement::Made;
            self.enqueue(QueuedRequest::Update);
            self.start_queued(cx);
        } else if check.must_renew() {
            check.renewed();
            if !goes_on {
                self.end_esp_check();
            }
            if self.may_be_replaced() {
                cx.tell(Event::EspSilent { peer: self.id });
                self.renew_soon(cx.now);
                self.handle_succession(cx);
            }
        } else if sent > sent_before {
            check.before = Some([sent, received]);
            check.unanswered = check.unanswered.saturating_add(1);
            if check.begins_mapping_check() {
                if !is_wayfarer {
                    check.asked_at.get_or_insert(check.unanswered);
                }
                self.check_mapping(cx);
            }
        }
    }
}

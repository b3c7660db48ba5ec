//! A check whether the peer's packets come, after a move of ours that has put a NAT on the way.
//!
//! A gateway may go on as it connected. libreswan's does: it sends ESP without UDP, which no NAT lets in,
//! and drops ours in UDP. As it answers IKE, no liveness check finds that out. The NAT detection of a new
//! IKE_SA_INIT sets it right.

use super::{state::Peer, succession::EspCheck};
use crate::ike::{context::Context, event::Event};
use core::time::Duration;

/// Time until packets count, so that those have come that were on their way to our old address, and
/// from one question to the next.
const WAIT: Duration = Duration::from_secs(2);
/// Number of questions since which packets were sent and none have come, that show enough: one packet
/// may have no answer.
const UNANSWERED: u32 = 2;

impl Peer {
    /// Begins the check, if a NAT is on the way and the peer's ESP has come without UDP so far. A gateway
    /// of ours says itself what it uses.
    pub(in crate::ike) fn begin_esp_check(&mut self, now: Duration) {
        let is_due = self.nat.any() && !self.keeps_udp && !self.is_wayfarer;
        let check = EspCheck { due_at: now + WAIT, before: None, unanswered: 0 };
        self.succession().esp_check = is_due.then_some(check);
    }

    /// Ends the check, because we have moved on.
    pub(in crate::ike) fn end_esp_check(&mut self) {
        self.succession().esp_check = None;
    }

    /// Returns when [`Self::handle_esp_check`] must be called.
    pub(in crate::ike) fn esp_check_at(&self) -> Option<Duration> {
        Some(self.succession.as_ref()?.esp_check.as_ref()?.due_at)
    }

    /// Asks the driver what it has sent and received, if that is due.
    pub(in crate::ike) fn handle_esp_check(&mut self, cx: &mut Context<'_>) {
        let check = self.succession.as_mut().and_then(|succession| succession.esp_check.as_mut());
        if let Some(check) = check.filter(|check| check.due_at <= cx.now) {
            check.due_at = cx.now + WAIT;
            cx.tell(Event::TrafficDue { peer: self.id });
        }
    }

    /// Handles the driver's answer: the packets that it has sent and received so far. If some were sent
    /// before each of several answers and none have come, we authenticate again.
    pub(in crate::ike) fn handle_traffic(&mut self, cx: &mut Context<'_>, sent: u64, received: u64) {
        let Some(succession) = &mut self.succession else { return };
        let Some(check) = &mut succession.esp_check else { return };
        let Some([sent_before, received_before]) = check.before else {
            check.before = Some([sent, received]);
            return;
        };
        if received > received_before {
            succession.esp_check = None;
        } else if check.unanswered >= UNANSWERED {
            succession.esp_check = None;
            if self.may_be_replaced() {
                cx.tell(Event::EspSilent { peer: self.id });
                self.renew_soon(cx.now);
                self.handle_succession(cx);
            }
        } else if sent > sent_before {
            (check.unanswered, check.before) = (check.unanswered + 1, Some([sent, received]));
        }
    }
}

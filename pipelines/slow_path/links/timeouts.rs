//! What links do when a time has come.

use super::{Event, Links, Timer};
use crate::slow_path::{link_log, tunnels::keepalive};
use std::time::Duration;
use wayfarer_dataplane::sa::{Due, TunnelId};

impl Links {
    /// Handles the timers due at `now`; returns true if one was.
    pub(in crate::slow_path) fn handle_timeout(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Some(&(when, timer)) = self.timers.first() {
            if when > now {
                break;
            }
            self.timers.pop_first();
            busy = true;
            match timer {
                Timer::Keepalive(id) => self.keep_alive(now, id),
                Timer::SoftTime(id) => self.handle_lifetime(id, Due::Soft),
                Timer::HardTime(id) => {
                    self.handle_lifetime(id, Due::Hard);
                    self.expire(id);
                }
                Timer::Move(link) => {
                    let known = self.links.get_mut(link);
                    let decision = known.and_then(|known| known.roaming.handle_timeout(now));
                    self.carry_out(now, link, decision);
                }
                Timer::ReportAgain(link) => self.report_again(now, link),
                Timer::PathMtu(link) => self.forget_path_mtu(now, link),
                Timer::Search(id) => self.handle_search_timer(now, when, id),
            }
        }
        busy
    }

    /// Records that a lifetime in seconds of a tunnel's SAs is over.
    fn handle_lifetime(&mut self, id: TunnelId, due: Due) {
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        tunnel.due(due);
        let what = if due == Due::Soft { "soft lifetime in seconds" } else { "hard lifetime in seconds" };
        link_log::due(tunnel, "both SAs", what);
    }

    fn keep_alive(&mut self, now: Duration, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id).filter(|tunnel| !tunnel.is_expired()) else { return };
        let Some(interval) = tunnel.keepalive() else { return };
        self.timers.insert((now + interval, Timer::Keepalive(id)));
        self.events.extend(tunnel.path().as_ref().and_then(keepalive).map(Event::Keepalive));
    }
}

//! What is recorded of a tunnel: whose it is, what has happened to it, and its times.

use super::{Ends, Tunnel};
use crate::slow_path::parts::{Holder, Owner};
use std::{net::IpAddr, time::Duration};
use wayfarer_dataplane::sa::{Due, Path};

impl Tunnel {
    /// Returns the owner, which decides about the tunnel's path and its keys.
    pub(in crate::slow_path) fn owner(&self) -> Owner {
        Owner::of(self.peer.as_deref())
    }

    /// Returns whoever has the inner addresses.
    pub(in crate::slow_path) fn holder(&self) -> Holder {
        match &self.peer {
            Some(of) => of.holder.clone(),
            None => Holder::manual(self.name.clone()),
        }
    }

    /// Returns the path to the peer, if one is known.
    pub fn path(&self) -> Option<Path> {
        match self.ends {
            Ends::Known(path) => Some(path),
            Ends::Local(_) => None,
        }
    }

    /// Returns the gateway's outer address.
    pub fn local(&self) -> IpAddr {
        match self.ends {
            Ends::Known(path) => path.local,
            Ends::Local(local) => local,
        }
    }

    /// Returns the path by which the peer was last seen, if policy did not follow it.
    pub fn seen(&self) -> Option<&Path> {
        self.history.as_ref()?.seen.as_ref()
    }

    /// Returns the number of times that the peer moved.
    pub fn moves(&self) -> u64 {
        self.history.as_ref().map_or(0, |history| history.moves)
    }

    /// Returns when the peer last moved, since the start.
    pub fn moved_at(&self) -> Option<Duration> {
        self.history.as_ref()?.moved_at
    }

    /// Returns the number of reports of soft limits: one for each SA and kind of limit.
    pub fn soft_reports(&self) -> u64 {
        self.history.as_ref().map_or(0, |history| history.soft_reports)
    }

    /// Returns the number of reports of hard limits and of the last sequence number.
    pub fn hard_reports(&self) -> u64 {
        self.history.as_ref().map_or(0, |history| history.hard_reports)
    }

    /// Returns true if at least one of the SAs has expired.
    pub fn is_expired(&self) -> bool {
        self.hard_reports() > 0
    }

    /// Returns the time between NAT keepalives; `None` for none.
    pub fn keepalive(&self) -> Option<Duration> {
        self.times.as_ref()?.keepalive
    }

    /// Returns when the soft and the hard lifetime in seconds end, since the start.
    pub fn lifetimes(&self) -> [Option<Duration>; 2] {
        self.times.as_ref().map_or([None; 2], |times| times.lifetimes)
    }

    /// Records that a limit of one of the SAs was reached.
    pub(in crate::slow_path) fn due(&mut self, due: Due) {
        let history = self.history.get_or_insert_default();
        match due {
            Due::Soft => history.soft_reports += 1,
            Due::Hard | Due::Sequence => history.hard_reports += 1,
        }
    }

    /// Records that the peer was seen by `path`, which policy does not follow.
    pub(in crate::slow_path) fn see_at(&mut self, path: Path) {
        self.history.get_or_insert_default().seen = Some(path);
    }

    /// Forgets by which path the peer was last seen.
    pub(super) fn forget_seen(&mut self) {
        if let Some(history) = &mut self.history {
            history.seen = None;
        }
    }

    /// Records that the peer has moved now.
    pub(super) fn count_move(&mut self, now: Duration) {
        let history = self.history.get_or_insert_default();
        history.moves += 1;
        history.moved_at = Some(now);
    }
}

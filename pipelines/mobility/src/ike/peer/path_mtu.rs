//! What is known of the MTU of a peer's path, and when it is looked for (RFC 8899).

use crate::{mtu_search::MtuSearch, path::Path};
use core::time::Duration;

/// Time from a new path to its first probe, in which the requests that belong to the path go first.
const SETTLE: Duration = Duration::from_secs(1);
/// Time from one search to the next on a path that is in use: no sign comes from a path that drops
/// longer packets from now on.
const CONFIRM: Duration = Duration::from_secs(60);
/// The first and the longest time from a search that found less than the port's MTU to one that
/// tries more (RFC 8899 §5.1.1, PMTU_RAISE_TIMER). The first one is short, because packets may have
/// been lost for other reasons.
const RISE: [Duration; 2] = [Duration::from_secs(50), Duration::from_secs(600)];
/// The least time from a search to one that a router's report asks for.
const REPORT_GAP: Duration = Duration::from_secs(10);

/// What is known of the MTU of a path.
#[derive(Debug)]
pub(in crate::ike) struct PathMtu {
    pub(in crate::ike) path: Path,
    /// The longest packet that has passed, or what a router has reported since, in bytes.
    mtu: Option<u16>,
    /// When the driver is asked next; `None` during a search, and while the driver is asked.
    due_at: Option<Duration>,
    search: Option<MtuSearch>,
    /// The length of the longest packet that the search has sent and that has passed, in bytes.
    proved: u16,
    /// When the last search ended.
    searched_at: Option<Duration>,
    /// When longer packets are tried again, and the wait before that.
    rise_at: Duration,
    rise_wait: Duration,
    /// True if the next search does not wait for traffic: a router has reported, or the last search was
    /// given up.
    is_urgent: bool,
}

impl PathMtu {
    /// Returns what is known of a new path.
    pub(in crate::ike) fn new(now: Duration, path: Path) -> Self {
        Self {
            path,
            mtu: None,
            due_at: Some(now + SETTLE),
            search: None,
            proved: 0,
            searched_at: None,
            rise_at: now,
            rise_wait: RISE[0],
            is_urgent: false,
        }
    }

    /// Returns when the driver is to be asked.
    pub(in crate::ike) fn due_at(&self) -> Option<Duration> {
        self.due_at
    }

    /// Returns true if the driver is to be asked at `now`. It is asked once.
    pub(in crate::ike) fn take_due(&mut self, now: Duration) -> bool {
        self.due_at.take_if(|at| *at <= now).is_some()
    }

    /// Begins a search for what passes of packets of up to `most` bytes. It waits if nothing
    /// was sent and nothing speaks against what is known, or if `most` is not known.
    pub(in crate::ike) fn begin(
        &mut self,
        now: Duration,
        most: Option<u16>,
        has_sent: bool,
        jittered: impl FnOnce(Duration) -> Duration,
    ) {
        let is_wanted = has_sent || self.is_urgent || self.searched_at.is_none();
        let Some(most) = most.filter(|_| is_wanted) else {
            self.due_at = Some(now + jittered(CONFIRM));
            return;
        };
        let rises = self.rise_at <= now;
        let first = self.mtu.unwrap_or(most);
        self.search = Some(MtuSearch::new(first, most, self.path.local.is_ipv4(), rises));
    }

    /// Returns the length of the next probe.
    pub(in crate::ike) fn next(&self) -> Option<u16> {
        self.search.and_then(|search| search.next())
    }

    /// Notes that a packet of `length` bytes has passed that was sent for `size`. Returns true if that
    /// was asked.
    pub(in crate::ike) fn pass(&mut self, size: u16, length: u16) -> bool {
        let search = self.search.as_mut().filter(|search| search.next() == Some(size));
        let is_asked = search.map(|search| search.pass(size)).is_some();
        if is_asked {
            self.proved = length;
        }
        is_asked
    }

    /// Notes that packets of `size` bytes do not pass.
    pub(in crate::ike) fn fail(&mut self, size: u16) {
        let search = self.search.as_mut().filter(|search| search.next() == Some(size));
        search.into_iter().for_each(|search| search.fail(size));
    }

    /// Returns the MTU that the search has found so far, in bytes; `None` if the longest packets pass.
    pub(in crate::ike) fn found(&self) -> Option<u16> {
        let search = self.search.filter(|search| search.passed().is_some())?;
        (self.proved < search.most()).then_some(self.proved)
    }

    /// Ends the search, which has nothing left to try. Returns true if anything has passed.
    pub(in crate::ike) fn finish(
        &mut self,
        now: Duration,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> bool {
        let Some(search) = self.search.take() else { return false };
        (self.searched_at, self.is_urgent) = (Some(now), false);
        let Some(passed) = search.passed() else {
            // The peer answers no padded message, whatever its length, so that nothing is known.
            self.due_at = Some(now + RISE[1]);
            return false;
        };
        if search.is_unlimited() || self.mtu.is_none_or(|mtu| passed < mtu) {
            self.rise_wait = RISE[0];
            self.rise_at = now + self.rise_wait;
        } else if search.has_risen() {
            self.rise_wait = (self.rise_wait * 2).min(RISE[1]);
            self.rise_at = now + self.rise_wait;
        }
        self.mtu = Some(passed);
        self.due_at = Some(now + jittered(CONFIRM));
        true
    }

    /// Gives the search up, because something else needs the window, and begins another one soon.
    pub(in crate::ike) fn interrupt(&mut self, now: Duration) {
        if self.search.take().is_some() {
            self.is_urgent = true;
            self.due_at = Some(now + SETTLE);
        }
    }

    /// Notes that a router reports a smaller MTU: `mtu`, or one that is not known or not certain.
    pub(in crate::ike) fn report(&mut self, now: Duration, mtu: Option<u16>) {
        let is_soon = self.search.is_some() || self.searched_at.is_none_or(|at| now < at + REPORT_GAP);
        if mtu.is_none() && is_soon {
            return;
        }
        if let Some(mtu) = mtu {
            self.mtu = Some(mtu);
            (self.rise_wait, self.rise_at) = (RISE[0], now + RISE[0]);
        }
        self.is_urgent = true;
        self.search = None;
        self.due_at = Some(now);
    }
}

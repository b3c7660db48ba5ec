//! What is known of the MTU of a peer's path, and when it is looked for (RFC 8899). How probes are sent
//! and answered is left to whoever asks.

use crate::mtu_search::MtuSearch;
use core::time::Duration;

/// Time from a new path to its first probe, in which the requests that belong to the path go first.
const SETTLE: Duration = Duration::from_secs(1);
/// Time from one search to the next on a path that is in use, and from one look at an idle link to the
/// next: no sign comes from a path that drops longer packets from now on.
const CONFIRM: Duration = Duration::from_secs(60);
/// Time from one search to the next on a link that sends very little.
const IDLE: Duration = Duration::from_secs(600);
/// The first and the longest time from a search that found less than the port's MTU to one that
/// tries more (RFC 8899 §5.1.1, PMTU_RAISE_TIMER). The first one is short, because packets may have
/// been lost for other reasons.
const RISE: [Duration; 2] = [Duration::from_secs(50), Duration::from_secs(600)];
/// The least time from a search to one that a router's report asks for.
const REPORT_GAP: Duration = Duration::from_secs(10);
/// Number of times that a probe is sent whole. Several are rarely lost to anything but their length
/// (RFC 8899 §5.1.2, MAX_PROBES).
const TRIES: u32 = 3;
/// The same if it has the length that passed before, and has failed once: much is lost by an MTU that is
/// too small, and little by a few seconds.
const TRIES_AGAIN: u32 = 6;
/// The least and the longest time from one of them to the next (RFC 8899 §5.1.1, PROBE_TIMER).
const WAIT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The bytes of inner packets from which on some of them may have been long. Fewer are of little use to
/// search for: a search costs about as much.
const LITTLE: u64 = 4000;

/// When the MTU of the path to a peer is looked for by probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathProbing {
    /// Never.
    Off,
    /// While ESP is encapsulated in UDP.
    Udp,
    /// On every path.
    Always,
}

impl PathProbing {
    /// Returns true if it is looked for on a path where ESP is encapsulated in UDP, or on one where it is
    /// not.
    pub fn includes(self, udp: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Udp => udp,
            Self::Always => true,
        }
    }
}

/// What the data plane has sent to a peer lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketsSent {
    /// Nothing.
    None,
    /// So little that no search for the path's MTU is worth it.
    Little,
    /// So much that some of it may have been in long packets.
    Much,
}

impl PacketsSent {
    /// Returns what so many bytes of inner packets are.
    pub fn of(bytes: u64) -> Self {
        match bytes {
            0 => Self::None,
            1..LITTLE => Self::Little,
            _ => Self::Much,
        }
    }
}

/// What a probe tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The length of an IP packet in bytes.
    pub(crate) size: u16,
    /// Number of times that it is sent.
    pub(crate) tries: u32,
    /// Time from one to the next.
    pub(crate) wait: Duration,
}

/// What a search has found so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The longest packet that passes, in bytes; `None` if the path takes as long ones as are sent.
    pub mtu: Option<u16>,
    /// True if something longer did not pass. If not, no longer probe could be sent.
    pub is_limit: bool,
    /// True if the search is over. If not, longer packets may pass too.
    pub is_over: bool,
}

/// What is known of the MTU of a path, a `P`.
#[derive(Clone, Debug)]
pub(crate) struct PathMtu<P> {
    pub(crate) path: P,
    is_ipv4: bool,
    /// The longest packet that has passed, or what a router has reported since, in bytes.
    mtu: Option<u16>,
    /// True if packets of `mtu` bytes have passed.
    is_proved: bool,
    /// When the driver is asked next.
    due_at: Duration,
    search: Option<MtuSearch>,
    /// The length of the longest packet that the last search has sent and that has passed, in bytes; 0 if
    /// none ever has.
    proved: u16,
    /// Time from a search whose answers came too late to the next one.
    late_wait: Duration,
    /// Time from a search that nothing has answered to the next one.
    silent_wait: Duration,
    /// Time from one packet of a probe to the next: twice the time that the peer took to answer, within
    /// limits.
    wait: Duration,
    /// When the last search ended.
    searched_at: Option<Duration>,
    /// When longer packets are tried again, and the wait before that.
    rise_at: Duration,
    rise_wait: Duration,
    /// True if the next search does not wait for traffic: a router has reported, or the last search was
    /// given up.
    is_urgent: bool,
    /// The MTU that somebody has claimed the path to have, in bytes. The next search tries it, and does
    /// not wait for long packets.
    hint: Option<u16>,
}

impl<P: Clone> PathMtu<P> {
    /// Returns what is known of a new path.
    pub(crate) fn new(
        now: Duration,
        path: P,
        is_ipv4: bool,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> Self {
        Self {
            path,
            is_ipv4,
            mtu: None,
            is_proved: false,
            due_at: now + jittered(SETTLE),
            search: None,
            proved: 0,
            late_wait: SETTLE,
            silent_wait: CONFIRM,
            wait: WAIT[0],
            searched_at: None,
            rise_at: now,
            rise_wait: RISE[0],
            is_urgent: false,
            hint: None,
        }
    }

    /// Returns the same for another peer by the same path, which has its own probes.
    pub(crate) fn for_successor(&self, now: Duration) -> Self {
        Self { search: None, is_urgent: true, due_at: now + SETTLE, ..self.clone() }
    }

    /// Returns when the driver is to be asked.
    pub(crate) fn due_at(&self) -> Duration {
        self.due_at
    }

    /// Returns true if the driver is to be asked at `now`. It is asked once.
    pub(crate) fn take_due(&mut self, now: Duration) -> bool {
        let is_due = self.due_at <= now;
        if is_due {
            self.due_at = now + CONFIRM;
        }
        is_due
    }

    /// Begins a search for what passes of packets of up to `most` bytes. It waits if nothing long was
    /// `sent` and nothing speaks against what is known, or if `most` is not known.
    pub(crate) fn begin(
        &mut self,
        now: Duration,
        most: Option<u16>,
        sent: PacketsSent,
        jittered: impl FnOnce(Duration) -> Duration,
    ) {
        if self.search.is_some() {
            return;
        }
        let rises = self.rise_at <= now;
        let hint = self.hint.take();
        let is_wanted = match (self.searched_at, sent) {
            _ if self.is_urgent => true,
            (None, _) | (_, PacketsSent::Much) => true,
            // Nothing else would undo what a router has reported, or what once was true.
            (Some(_), _) if rises && self.mtu.is_some_and(|mtu| most > Some(mtu)) => true,
            (Some(at), PacketsSent::Little) => hint.is_some() || at + IDLE <= now,
            (Some(_), PacketsSent::None) => false,
        };
        let Some(most) = most.filter(|_| is_wanted) else {
            self.due_at = now + jittered(CONFIRM);
            return;
        };
        let first = self.mtu.unwrap_or(most);
        let mut search = MtuSearch::new(first, most, self.is_ipv4, rises, self.is_proved);
        hint.into_iter().for_each(|mtu| search.suggest(mtu));
        self.search = Some(search);
    }

    /// Returns what to probe next.
    pub(crate) fn next(&self) -> Option<Attempt> {
        let search = self.search?;
        let tries = if search.is_doubted() { TRIES_AGAIN } else { TRIES };
        Some(Attempt { size: search.next()?, tries, wait: self.wait })
    }

    /// Notes that a packet of `length` bytes has passed that was sent for `size`, and that its answer
    /// came after `took`.
    pub(crate) fn pass(&mut self, size: u16, length: u16, took: Duration) {
        self.late_wait = SETTLE;
        self.wait = (took * 2).clamp(WAIT[0], WAIT[1]);
        if let Some(search) = self.search.as_mut().filter(|search| search.next() == Some(size)) {
            search.pass(size);
            self.proved = length;
        }
    }

    /// Notes that packets of `size` bytes do not pass.
    pub(crate) fn fail(&mut self, size: u16) {
        let search = self.search.as_mut().filter(|search| search.next() == Some(size));
        search.into_iter().for_each(|search| search.fail(size));
    }

    /// Returns true if the search has found something that passes, and does not doubt it.
    fn has_found(&self) -> bool {
        self.search.is_some_and(|search| search.passed().is_some() && !search.is_doubted())
    }

    /// Returns what the search has found, if that may be used: something has passed, and the search is
    /// over or does not doubt it. Ends a search that has nothing left to try.
    pub(crate) fn conclude(
        &mut self,
        now: Duration,
        jittered: impl FnOnce(Duration) -> Duration,
    ) -> Option<Finding> {
        let search = self.search?;
        let mtu = search.passed().and((self.proved < search.most()).then_some(self.proved));
        let (is_limit, is_over) = (!search.is_unlimited(), search.next().is_none());
        let may_be_used = if is_over { self.finish(now, jittered) } else { self.has_found() };
        may_be_used.then_some(Finding { mtu, is_limit, is_over })
    }

    /// Ends the search, which has nothing left to try. Returns true if anything has passed.
    fn finish(&mut self, now: Duration, jittered: impl FnOnce(Duration) -> Duration) -> bool {
        let Some(search) = self.search.take() else { return false };
        (self.searched_at, self.is_urgent) = (Some(now), false);
        let Some(passed) = search.passed() else {
            // A peer that has never answered a padded message may never do so.
            self.rise_at = now + RISE[1];
            self.due_at = now + if self.proved == 0 { RISE[1] } else { CONFIRM };
            self.slow_down();
            return false;
        };
        if search.is_unlimited() || self.mtu.is_none_or(|mtu| passed < mtu) {
            self.rise_wait = RISE[0];
            self.rise_at = now + self.rise_wait;
        } else if search.has_risen() {
            self.rise_wait = (self.rise_wait * 2).min(RISE[1]);
            self.rise_at = now + self.rise_wait;
        }
        (self.mtu, self.is_proved) = (Some(passed), true);
        self.due_at = now + jittered(CONFIRM);
        true
    }

    /// Gives the search up, because something else goes before probes, and begins another one soon.
    pub(crate) fn interrupt(&mut self, now: Duration) {
        self.search_again(now + SETTLE);
    }

    /// Gives the search up, because an answer has come too late to show anything, or not at all. Another one
    /// waits longer for answers, begins later from time to time, and at last only if packets are sent.
    pub(crate) fn put_off(&mut self, now: Duration) {
        self.slow_down();
        let is_long_in_vain = self.search.is_some() && self.late_wait > CONFIRM;
        self.search_again(now + self.late_wait);
        if is_long_in_vain {
            (self.searched_at, self.is_urgent) = (Some(now), false);
        }
        self.late_wait = (self.late_wait * 2).min(IDLE);
    }

    /// Gives the search up, because the peer has answered nothing at all. Another one begins later and later,
    /// and only if packets are sent.
    pub(crate) fn give_up(&mut self, now: Duration) {
        self.search = None;
        (self.searched_at, self.is_urgent) = (Some(now), false);
        self.rise_at = now + RISE[1];
        self.due_at = now + self.silent_wait;
        self.silent_wait = (self.silent_wait * 2).min(RISE[1]);
    }

    /// Begins another search at once, whatever is sent, unless one is under way: the peer has just shown
    /// that it may answer.
    pub(crate) fn search_now(&mut self, now: Duration) {
        if self.search.is_none() {
            (self.is_urgent, self.due_at) = (true, now);
        }
    }

    fn search_again(&mut self, at: Duration) {
        if self.search.take().is_some() {
            (self.is_urgent, self.due_at) = (true, at);
        }
    }

    /// Waits longer for answers from now on.
    fn slow_down(&mut self) {
        self.wait = (self.wait * 2).min(WAIT[1]);
    }

    /// Notes that a router reports a smaller MTU.
    pub(crate) fn report(&mut self, now: Duration, mtu: u16) {
        (self.mtu, self.is_proved) = (Some(mtu), false);
        (self.rise_wait, self.rise_at) = (RISE[0], now + RISE[0]);
        self.is_urgent = true;
        self.search = None;
        self.due_at = now;
    }

    /// Notes that somebody claims that the path has this MTU. It is tried if probes are under way; an
    /// idle link is not woken.
    pub(crate) fn suggest(&mut self, now: Duration, mtu: u16) {
        if let Some(search) = &mut self.search {
            search.suggest(mtu);
        } else if self.searched_at.is_some_and(|at| now >= at + REPORT_GAP) {
            self.hint = Some(mtu);
            self.due_at = self.due_at.min(now);
        }
    }
}

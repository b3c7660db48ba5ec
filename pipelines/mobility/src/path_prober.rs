//! The search for the MTU of a path to a peer without IKE, by probes that it may answer (RFC 8899): of
//! keys by hand, it may be another program, which drops them.
//!
//! ```text
//! hello ─► whole ─► (answered) the length passes ─► whole: the next length
//!               └─► (silence) check ─► (answered) the length does not pass ─► whole: the next length
//!                                 └─► (silence) the path is down or slow: another search later
//! ```
//!
//! Hello and check are as short as can be. So nothing long is sent by a path before the peer has answered
//! by it, and a length is given up only if the peer answers at once.

use crate::{
    crypto::Random,
    path_mtu::{Attempt, Finding, PacketsSent, PathMtu},
};
use core::time::Duration;

/// Number of times that a peer which has not answered is asked whether it does.
const HELLOS: u32 = 3;

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnProbe {
    /// The number that its answer has too.
    pub token: u64,
    /// The length of its IP packet in bytes; `None` for one that passes every path.
    pub size: Option<u16>,
}

/// What is to be done for a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call [`PathProber::begin`].
    Due,
    /// Send this probe. No router may cut it.
    Send(OwnProbe),
    /// Nothing: the peer has answered nothing, so nothing was found. Another search follows.
    Unanswered,
}

/// A search by one path, a `P`, from one time to the next.
#[derive(Debug)]
pub struct PathProber<P> {
    known: PathMtu<P>,
    /// True once the peer has answered.
    has_answered: bool,
    /// When the search that has begun may send its first probe.
    starts_at: Option<Duration>,
    outstanding: Option<Outstanding>,
}

/// A probe that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    stage: Stage,
    attempt: Attempt,
    token: u64,
    tries: u32,
    begun_at: Duration,
    resend_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It asks whether the peer answers at all.
    Hello,
    /// It has the length to be tried.
    Whole,
    /// It asks whether the peer still answers, because those with this token got no answer.
    Check { whole: u64 },
}

impl<P: Clone> PathProber<P> {
    /// Begins for a new path.
    pub fn new(now: Duration, path: P, is_ipv4: bool, random: &dyn Random) -> Self {
        let known = PathMtu::new(now, path, is_ipv4, |wait| random.jittered(wait));
        Self { known, has_answered: false, starts_at: None, outstanding: None }
    }

    /// Returns the path.
    pub fn path(&self) -> &P {
        &self.known.path
    }

    /// Returns true if the peer has answered.
    pub fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Returns when [`PathProber::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Duration {
        match (self.outstanding, self.starts_at) {
            (Some(outstanding), _) => outstanding.resend_at,
            (None, Some(at)) => at,
            (None, None) if self.known.next().is_some() => Duration::ZERO,
            (None, None) => self.known.due_at(),
        }
    }

    /// Returns what is to be done at `now`. Call it until it returns `None`.
    pub fn handle_timeout(&mut self, now: Duration, random: &dyn Random) -> Option<Step> {
        if self.poll_timeout() > now {
            return None;
        }
        self.starts_at = None;
        match (self.outstanding.take(), self.known.next()) {
            (Some(unanswered), _) => Some(self.handle_silence(now, unanswered, random)),
            (None, Some(attempt)) => {
                let stage = if self.has_answered { Stage::Whole } else { Stage::Hello };
                Some(self.send(now, stage, attempt, random))
            }
            (None, None) => self.known.take_due(now).then_some(Step::Due),
        }
    }

    /// Handles the answer to [`Step::Due`]: `most` is the length in bytes of the longest outer packet that is
    /// sent by the path, and `sent` says what the data plane has sent since the last answer. If a search
    /// begins, it starts at the time that `turn` returns.
    pub fn begin(
        &mut self,
        now: Duration,
        most: u16,
        sent: PacketsSent,
        turn: impl FnOnce() -> Duration,
        random: &dyn Random,
    ) {
        self.known.begin(now, Some(most), sent, |wait| random.jittered(wait));
        self.starts_at = self.known.next().map(|_| turn());
    }

    /// Handles the peer's answer to the probe with this token. Returns what the search has found.
    pub fn handle_answer(&mut self, now: Duration, token: u64, random: &dyn Random) -> Option<Finding> {
        let Outstanding { stage, attempt: Attempt { size, .. }, begun_at, .. } =
            self.outstanding.take_if(|outstanding| outstanding.is_answered_by(token))?;
        self.has_answered = true;
        match stage {
            Stage::Hello => return None,
            Stage::Check { whole } if whole != token => self.known.fail(size),
            Stage::Whole | Stage::Check { .. } => self.known.pass(size, size, now - begun_at),
        }
        self.known.conclude(now, |wait| random.jittered(wait))
    }

    /// Notes that the peer has sent a probe of its own. So it answers ours, if they arrive.
    pub fn handle_probe(&mut self, now: Duration) {
        if !self.has_answered {
            self.known.search_now(now);
        }
    }

    /// Handles a router's report that packets on the path may have at most `mtu` bytes, which anybody can
    /// have sent unless it is `certain`.
    pub fn handle_report(&mut self, now: Duration, mtu: u16, certain: bool) {
        if certain {
            (self.outstanding, self.starts_at) = (None, None);
            self.known.report(now, mtu);
        } else {
            self.known.suggest(now, mtu);
        }
    }

    /// Goes on after `unanswered` was not answered in its time.
    fn handle_silence(&mut self, now: Duration, unanswered: Outstanding, random: &dyn Random) -> Step {
        let Outstanding { stage, attempt, token, tries, .. } = unanswered;
        match stage {
            Stage::Hello if tries < HELLOS => self.repeat(now, unanswered),
            Stage::Hello => {
                self.known.give_up(now);
                Step::Unanswered
            }
            Stage::Whole if tries < attempt.tries => self.repeat(now, unanswered),
            Stage::Whole => {
                let step = self.send(now, Stage::Check { whole: token }, attempt, random);
                // A late answer to the probe took so long.
                self.outstanding.iter_mut().for_each(|check| check.begun_at = unanswered.begun_at);
                step
            }
            Stage::Check { .. } => {
                self.known.put_off(now);
                Step::Unanswered
            }
        }
    }

    /// Sends the first probe of a stage.
    fn send(&mut self, now: Duration, stage: Stage, attempt: Attempt, random: &dyn Random) -> Step {
        let mut token = [0; 8];
        random.fill(&mut token);
        let token = u64::from_ne_bytes(token);
        let first = Outstanding { stage, attempt, token, tries: 0, begun_at: now, resend_at: now };
        self.repeat(now, first)
    }

    fn repeat(&mut self, now: Duration, probe: Outstanding) -> Step {
        let Outstanding { stage, attempt: Attempt { size, wait, .. }, token, tries, .. } = probe;
        self.outstanding = Some(Outstanding { tries: tries + 1, resend_at: now + wait, ..probe });
        Step::Send(OwnProbe { token, size: (stage == Stage::Whole).then_some(size) })
    }
}

impl Outstanding {
    fn is_answered_by(&self, token: u64) -> bool {
        self.token == token || self.stage == Stage::Check { whole: token }
    }
}

#[cfg(test)]
mod tests;

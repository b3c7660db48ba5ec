//! Measures a worker's time by stage. It is off by default, and else reads the time-stamp counter
//! once for each stage of a burst.

use wayfarer_dataplane::clock::ticks;

/// A part of a worker's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Receiving packets from a port.
    Receive,
    /// Parsing headers and classifying packets.
    Classify,
    /// Finding inbound SAs, and checks before opening.
    LookUp,
    /// The cryptography of opening.
    Open,
    /// Replay window, decapsulation, selectors, policy and route of inner packets.
    Decapsulate,
    /// Finding policies and outbound SAs.
    Policy,
    /// Sizes, outer headers, padding.
    Encapsulate,
    /// Lifetimes and sequence numbers.
    Number,
    /// The cryptography of sealing.
    Seal,
    /// Routes of sealed packets.
    Route,
    /// Handing packets to ports.
    Transmit,
    /// The rest of a turn: the slow path's frames, quiescence, counters.
    Turn,
}

impl Stage {
    /// Every stage, in the order of a packet's way.
    pub const ALL: [Self; 12] = [
        Self::Receive,
        Self::Classify,
        Self::LookUp,
        Self::Open,
        Self::Decapsulate,
        Self::Policy,
        Self::Encapsulate,
        Self::Number,
        Self::Seal,
        Self::Route,
        Self::Transmit,
        Self::Turn,
    ];

    /// Returns its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Classify => "classify",
            Self::LookUp => "look_up",
            Self::Open => "open",
            Self::Decapsulate => "decapsulate",
            Self::Policy => "policy",
            Self::Encapsulate => "encapsulate",
            Self::Number => "number",
            Self::Seal => "seal",
            Self::Route => "route",
            Self::Transmit => "transmit",
            Self::Turn => "turn",
        }
    }
}

/// [`ticks`] by stage, in the order of [`Stage::ALL`].
pub type StageTicks = [u64; Stage::ALL.len()];

/// A worker's stopwatch.
#[derive(Debug, Default)]
pub struct Profile {
    is_on: bool,
    last: u64,
    ticks: StageTicks,
}

impl Profile {
    /// Restarts at zero, or stops measuring.
    pub fn switch(&mut self, on: bool) {
        *self = Self { is_on: on, last: if on { ticks() } else { 0 }, ticks: StageTicks::default() };
    }

    /// Charges the time since the last mark to `stage`, which has just ended.
    #[inline]
    pub fn mark(&mut self, stage: Stage) {
        if self.is_on {
            self.charge(stage);
        }
    }

    #[cold]
    fn charge(&mut self, stage: Stage) {
        let now = ticks();
        self.ticks[stage as usize] += now.wrapping_sub(self.last);
        self.last = now;
    }

    /// Returns the ticks of each stage so far.
    pub fn ticks(&self) -> &StageTicks {
        &self.ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_stage_that_ended() {
        let mut profile = Profile::default();
        profile.mark(Stage::Receive);
        assert_eq!(profile.ticks(), &StageTicks::default());
        profile.switch(true);
        let before = ticks();
        while ticks() == before {}
        profile.mark(Stage::Seal);
        assert!(profile.ticks()[Stage::Seal as usize] > 0);
        assert_eq!(profile.ticks()[Stage::Receive as usize], 0);
        assert!(Stage::ALL.iter().enumerate().all(|(index, stage)| *stage as usize == index));
    }
}

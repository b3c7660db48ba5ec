//! Whether it pays to remember flows. If there are many more of them than slots, or somebody makes up new ones,
//! to learn a flow costs more than is saved until it loses its slot.

/// What it costs to learn a flow in the slot of another: as much as is saved by so many packets of known ones.
const COST: usize = 16;
/// What may be saved up: for so many flows.
const SAVINGS: usize = 64 * COST;
/// What may be spent a burst, though no flow is known.
const LEAST: usize = COST / 8;
/// The number of packets after which a worker looks whether it pays to look for their flows.
const TRIAL: usize = 2048;
/// The number of bursts for which it does not look for any, if it did not pay. It doubles each time that it did
/// not pay again, so many times at most.
const PAUSE: u32 = 960;
const DOUBLINGS: u32 = 4;

/// The slot that a new flow has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its own, a free one, or one of no more use.
    Free,
    /// That of another flow, which it has now.
    Taken,
    /// That of another flow, which stays.
    Full,
}

/// What a worker saves by the flows that it remembers, and spends to learn them.
#[derive(Debug)]
pub(super) struct Worth {
    /// What may be spent on flows in the slots of others.
    funds: usize,
    /// The number of bursts for which no flows are looked for.
    pause: u32,
    /// How often it did not pay since it last did.
    in_vain: u32,
    /// The packets of this trial, and those of them whose flows were not known.
    packets: usize,
    misses: usize,
    /// The misses before this burst.
    earlier: usize,
    /// The flows of this trial that have found slots, and those of them that found others'.
    flows: usize,
    crowded: usize,
}

impl Default for Worth {
    fn default() -> Self {
        Self { funds: SAVINGS, pause: 0, in_vain: 0, packets: 0, misses: 0, earlier: 0, flows: 0, crowded: 0 }
    }
}

impl Worth {
    /// Begins another burst. Returns whether its flows are to be looked for.
    #[inline]
    pub(super) fn begin(&mut self) -> bool {
        let is_on = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        is_on
    }

    /// Counts a packet whose flow is not known. Returns the number of such packets in this trial.
    pub(super) fn miss(&mut self) -> usize {
        self.misses += 1;
        self.misses
    }

    /// Ends a burst in which so many packets' flows were looked for.
    #[inline]
    pub(super) fn end(&mut self, packets: usize) {
        let hits = packets.saturating_sub(self.misses - self.earlier);
        self.funds = SAVINGS.min(self.funds + LEAST + hits);
        (self.packets, self.earlier) = (self.packets + packets, self.misses);
        if self.packets >= TRIAL {
            self.judge();
        }
    }

    /// Looks whether it paid: not if few packets were of known flows, and there are no slots for more.
    #[cold]
    fn judge(&mut self) {
        let is_in_vain = 3 * self.misses > 2 * self.packets && 2 * self.crowded > self.flows;
        let (pause, in_vain) = match self.in_vain {
            n if is_in_vain => (PAUSE << n.min(DOUBLINGS), n + 1),
            _ => (0, 0),
        };
        *self = Self { funds: self.funds, pause, in_vain, ..Self::default() };
    }

    /// Returns whether a flow may be learnt in the slot of another.
    pub(super) fn may_take(&self) -> bool {
        self.funds >= COST
    }

    /// Counts a flow that has found a slot, and pays for another's.
    pub(super) fn learn(&mut self, found: Found) {
        self.flows += 1;
        self.crowded += usize::from(found != Found::Free);
        if found == Found::Taken {
            self.funds = self.funds.saturating_sub(COST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs bursts of 32 packets, of which `misses` are of unknown flows that find such slots. Returns in how
    /// many of them flows were looked for.
    fn bursts(worth: &mut Worth, count: usize, misses: usize, found: Found) -> usize {
        let mut on = 0;
        for _ in 0..count {
            if worth.begin() {
                on += 1;
                (0..misses).for_each(|_| _ = worth.miss());
                worth.end(32);
                (0..misses).for_each(|_| worth.learn(found));
            }
        }
        on
    }

    #[test]
    fn flows_are_mostly_not_looked_for_if_most_are_unknown_and_find_no_slot() {
        // Trials of 64 bursts, behind pauses of 960, 1920, 3840, 7680 and then always 15360.
        const TRIALS: usize = 64 * 8;
        const PAUSES: usize = PAUSE as usize * (1 + 2 + 4 + 8 + 16 * 4);
        for (misses, found, on) in [
            (32, Found::Free, TRIALS + PAUSES),
            (21, Found::Full, TRIALS + PAUSES),
            (22, Found::Full, TRIALS),
            (32, Found::Taken, TRIALS),
            (0, Found::Free, TRIALS + PAUSES),
        ] {
            let was_on = bursts(&mut Worth::default(), TRIALS + PAUSES, misses, found);
            assert_eq!(was_on, on, "{misses} {found:?}");
        }
        // It looks again later.
        let mut worth = Worth::default();
        bursts(&mut worth, 64, 32, Found::Full);
        let on = bursts(&mut worth, PAUSE as usize + 64, 0, Found::Free);
        assert_eq!(on, 64);
        // Since that paid, the next pause is short again.
        bursts(&mut worth, 64, 32, Found::Full);
        assert_eq!(bursts(&mut worth, PAUSE as usize + 1, 0, Found::Free), 1);
    }

    #[test]
    fn slots_of_others_are_paid_for_by_packets_of_known_flows() {
        let mut worth = Worth::default();
        let mut learnt = 0;
        while worth.may_take() {
            worth.learn(Found::Taken);
            learnt += 1;
        }
        assert_eq!(learnt, SAVINGS / COST);
        for (misses, bursts_for_one) in [(32, COST / LEAST), (18, 1)] {
            for burst in 1..=bursts_for_one {
                assert!(!worth.may_take());
                bursts(&mut worth, 1, misses, Found::Full);
                assert_eq!(worth.may_take(), burst == bursts_for_one, "{misses}");
            }
            worth.learn(Found::Taken);
        }
    }
}

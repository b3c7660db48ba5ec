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
/// The number of bursts for which it does not look for any, if it did not pay.
const PAUSE: u32 = 960;

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
        Self { funds: SAVINGS, pause: 0, packets: 0, misses: 0, earlier: 0, flows: 0, crowded: 0 }
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
        *self = Self { funds: self.funds, pause: if is_in_vain { PAUSE } else { 0 }, ..Self::default() };
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
        for (misses, found, share) in [
            (32, Found::Free, 1.0),
            (21, Found::Full, 1.0),
            (22, Found::Full, 1.0 / 16.0),
            (32, Found::Taken, 1.0 / 16.0),
            (0, Found::Free, 1.0),
        ] {
            let on = bursts(&mut Worth::default(), 10_240, misses, found);
            assert_eq!(on, (10_240.0 * share) as usize, "{misses} {found:?}");
        }
        // It looks again later.
        let mut worth = Worth::default();
        bursts(&mut worth, 64, 32, Found::Full);
        let on = bursts(&mut worth, PAUSE as usize + 10, 0, Found::Free);
        assert_eq!(on, 10);
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

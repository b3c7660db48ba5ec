//! The way between two hosts: it loses, repeats, delays and reorders.

use super::random::Random;
use std::time::Duration;

/// What happens to packets on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable {
    /// Percent that are lost.
    pub loss: u64,
    /// Percent that arrive twice.
    pub twice: u64,
    /// Longest delay in milliseconds; the shortest is a tenth of it. A packet with a shorter one
    /// overtakes others.
    pub delay: u64,
}

impl Cable {
    /// Loses nothing and reorders everything.
    pub const FAIR: Self = Self { loss: 0, twice: 0, delay: 60 };
    /// Loses a tenth.
    pub const FOUL: Self = Self { loss: 10, twice: 5, delay: 120 };

    /// Returns after how long each copy of a packet arrives: of none, if it is lost.
    pub fn carry(self, random: &mut Random) -> Vec<Duration> {
        let copies = 1 + u64::from(random.percent(self.twice));
        let arrival = |_| {
            let is_lost = random.percent(self.loss);
            (!is_lost).then(|| Duration::from_millis(self.delay / 10 + random.below(self.delay * 9 / 10)))
        };
        (0..copies).filter_map(arrival).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_loses_repeats_and_delays_within_its_bounds() {
        let mut random = Random(1);
        let all: Vec<_> = (0..10_000).map(|_| Cable::FOUL.carry(&mut random)).collect();
        let with = |copies| all.iter().filter(|arrivals| arrivals.len() == copies).count();
        assert!((800..1200).contains(&with(0)), "{} lost", with(0));
        assert!((300..500).contains(&with(2)), "{} twice", with(2));
        let delays = || all.iter().flatten();
        assert!(delays().all(|delay| (12..120).contains(&delay.as_millis())));
        assert!(delays().min() < Some(&Duration::from_millis(15)));
        assert!(delays().max() > Some(&Duration::from_millis(115)));
        assert!((0..1000).all(|_| Cable::FAIR.carry(&mut random).len() == 1));
    }
}

//! The way between two hosts, which loses, repeats, delays and reorders packets.

use super::random::Random;
use std::time::Duration;

/// The properties of the way between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable {
    /// Percentage of packets that are lost.
    pub loss: u64,
    /// Percentage of packets that arrive twice.
    pub repetition: u64,
    /// The longest delay in milliseconds; the shortest is a tenth of it. Packets with shorter
    /// delays overtake others.
    pub delay: u64,
}

impl Cable {
    /// Reorders packets, but loses none.
    pub const LOSSLESS: Self = Self { loss: 0, repetition: 0, delay: 60 };
    /// Reorders packets, and loses a tenth.
    pub const LOSSY: Self = Self { loss: 10, repetition: 5, delay: 120 };

    /// Returns the delays after which the copies of a packet arrive; none if it is lost.
    pub fn carry(self, random: &mut Random) -> Vec<Duration> {
        let copies = 1 + u64::from(random.percent(self.repetition));
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
    fn cable_keeps_its_rates_of_loss_and_repetition_and_its_delays() {
        let mut random = Random(1);
        let all: Vec<_> = (0..10_000).map(|_| Cable::LOSSY.carry(&mut random)).collect();
        let with = |copies| all.iter().filter(|arrivals| arrivals.len() == copies).count();
        assert!((800..1200).contains(&with(0)), "{} lost", with(0));
        assert!((300..500).contains(&with(2)), "{} twice", with(2));
        let delays = || all.iter().flatten();
        assert!(delays().all(|delay| (12..120).contains(&delay.as_millis())));
        assert!(delays().min() < Some(&Duration::from_millis(15)));
        assert!(delays().max() > Some(&Duration::from_millis(115)));
        assert!((0..1000).all(|_| Cable::LOSSLESS.carry(&mut random).len() == 1));
    }
}

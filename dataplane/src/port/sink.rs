//! A port that swallows: counts what it is sent and frees it.

use super::{Port, PortStats};
use crate::{packet::Burst, pool::Pool};

/// Never receives, sends everything into nothing.
#[derive(Debug, Default)]
pub struct Sink {
    stats: PortStats,
}

impl Sink {
    /// Makes a sink that counted nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Port for Sink {
    fn rx(&mut self, _pool: &mut Pool, _burst: &mut Burst) {}

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        burst.iter().for_each(|packet| self.stats.sent(packet));
        pool.give_all(burst);
    }

    fn is_exhausted(&self) -> bool {
        true
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_frees() {
        let mut pool = Pool::new(2, 512).unwrap();
        let (mut port, mut burst) = (Sink::new(), Burst::new());
        for frame in [&b"one"[..], b"three"] {
            let mut packet = pool.take().unwrap();
            packet.fill(0, frame).unwrap();
            burst.push(packet);
        }
        port.tx(&mut pool, &mut burst);
        port.rx(&mut pool, &mut burst);
        assert_eq!((burst.len(), pool.available()), (0, 2));
        assert_eq!((port.stats().tx_packets, port.stats().tx_bytes, port.stats().rx_packets), (2, 8, 0));
        assert!(port.is_exhausted() && port.is_drained());
    }
}

//! A port that receives the same frames again and again: load for benchmarks without a device.

use super::{Port, PortStats};
use crate::{
    packet::Burst,
    pool::{HEADROOM, Pool},
};

/// Replays a list of frames round robin, as fast as the worker asks. Each is copied completely into
/// a new frame, as a receiver would do. Frames sent to it are counted and freed.
#[derive(Debug)]
pub struct Generator {
    frames: Vec<Vec<u8>>,
    next: usize,
    left: Option<u64>,
    stats: PortStats,
}

impl Generator {
    /// Returns a port that replays `frames`, `total` packets in all or without end. With no frames
    /// it is exhausted at once.
    pub fn new(frames: Vec<Vec<u8>>, total: Option<u64>) -> Self {
        let left = if frames.is_empty() { Some(0) } else { total };
        Self { frames, next: 0, left, stats: PortStats::default() }
    }
}

impl Port for Generator {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.room() > 0 && !self.is_exhausted() {
            let Some(mut packet) = pool.take() else { return };
            let frame = &self.frames[self.next];
            self.next = if self.next + 1 == self.frames.len() { 0 } else { self.next + 1 };
            self.left = self.left.map(|left| left - 1);
            if packet.fill(HEADROOM, frame).is_none() {
                self.stats.rx_oversize += 1;
                pool.give(packet);
                // One attempt a turn, so that a list in which no frame fits does not hold up the
                // worker.
                return;
            }
            self.stats.received(&packet);
            burst.push(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        burst.iter().for_each(|packet| self.stats.sent(packet));
        pool.give_all(burst);
    }

    fn is_exhausted(&self) -> bool {
        self.left == Some(0)
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::BURST;

    #[test]
    fn repeats_frames_until_the_total() {
        let mut pool = Pool::new(256, 512).unwrap();
        let mut port = Generator::new(vec![b"one".to_vec(), b"two!".to_vec(), b"three".to_vec()], Some(100));
        let mut lengths = Vec::new();
        while !port.is_exhausted() {
            let mut burst = Burst::new();
            port.rx(&mut pool, &mut burst);
            assert!(!burst.is_empty());
            lengths.extend(burst.iter().map(|p| p.len()));
            port.tx(&mut pool, &mut burst);
        }
        assert_eq!(lengths, [3, 4, 5].into_iter().cycle().take(100).collect::<Vec<_>>());
        let stats = port.stats();
        assert_eq!((stats.rx_packets, stats.tx_packets), (100, 100));
        assert_eq!((stats.rx_bytes, stats.tx_bytes), (399, 399));
        assert_eq!(pool.available(), 256);
    }

    #[test]
    fn an_empty_pool_and_a_frame_too_long_do_no_harm() {
        let mut pool = Pool::new(2, 512).unwrap();
        let mut port = Generator::new(vec![vec![0; 60]], None);
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        assert_eq!((burst.len(), burst.room(), port.is_exhausted()), (2, BURST - 2, false));
        pool.give_all(&mut burst);
        let mut port = Generator::new(vec![vec![0; 9000]], None);
        port.rx(&mut pool, &mut burst);
        assert_eq!((burst.len(), port.stats().rx_oversize, pool.available()), (0, 1, 2));
        assert!(Generator::new(vec![], None).is_exhausted());
    }
}

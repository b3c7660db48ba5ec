//! A port whose wire is memory. Tests, the demo and simulated peers hold the other end.

use super::{Port, PortStats};
use crate::{
    packet::Burst,
    pool::{HEADROOM, Pool},
    ring::FrameRing,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// The gateway's end of a memory wire.
#[derive(Debug)]
pub struct MemoryPort {
    inward: Arc<FrameRing<()>>,
    outward: Arc<FrameRing<()>>,
    closed: Arc<AtomicBool>,
    stats: PortStats,
}

/// The far end of a memory wire.
#[derive(Clone, Debug)]
pub struct Wire {
    inward: Arc<FrameRing<()>>,
    outward: Arc<FrameRing<()>>,
    closed: Arc<AtomicBool>,
}

/// Makes a port and its far end. Each direction holds `depth` frames of up to `largest` bytes.
/// Larger frames do not fit the wire.
pub fn pair(depth: usize, largest: usize) -> (MemoryPort, Wire) {
    let (inward, outward) =
        (Arc::new(FrameRing::new(depth, largest)), Arc::new(FrameRing::new(depth, largest)));
    let closed = Arc::new(AtomicBool::new(false));
    let port = MemoryPort {
        inward: inward.clone(),
        outward: outward.clone(),
        closed: closed.clone(),
        stats: PortStats::default(),
    };
    (port, Wire { inward, outward, closed })
}

impl Wire {
    /// Puts a frame on the wire towards the gateway. Returns `false` if the wire is full.
    pub fn send(&self, frame: &[u8]) -> bool {
        self.inward.push((), frame)
    }

    /// Passes the next frame from the gateway to `take`. Returns `None` if there is none.
    pub fn receive<R>(&self, take: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.outward.pop(|(), frame| take(frame))
    }

    /// Returns the number of frames from the gateway that wait on the wire.
    pub fn waiting(&self) -> usize {
        self.outward.len()
    }

    /// Declares that nothing more will be sent, so that a gateway that reads only such wires ends.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }
}

impl Port for MemoryPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.room() > 0 {
            let Some(mut packet) = pool.take() else {
                self.stats.rx_missed += u64::from(self.inward.pop(|(), _| ()).is_some());
                return;
            };
            match self.inward.pop(|(), frame| packet.fill(HEADROOM, frame)) {
                Some(Some(())) => {
                    self.stats.rx_packets += 1;
                    self.stats.rx_bytes += packet.len() as u64;
                    burst.push(packet);
                }
                Some(None) => {
                    self.stats.rx_oversize += 1;
                    pool.give(packet);
                }
                None => return pool.give(packet),
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let sent = burst.iter().take_while(|p| self.outward.push((), p.data())).count();
        for packet in burst.drain(..sent) {
            self.stats.tx_packets += 1;
            self.stats.tx_bytes += packet.len() as u64;
            pool.give(packet);
        }
    }

    fn is_exhausted(&self) -> bool {
        self.closed.load(Relaxed) && self.inward.is_empty()
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cross_in_order_and_a_full_wire_refuses() {
        let mut pool = Pool::new(8, 2048).unwrap();
        let (mut port, wire) = pair(2, 64);
        assert!(wire.send(b"one") && wire.send(b"two"));
        assert!(!wire.send(b"three"));
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        assert_eq!(burst.iter().map(|p| p.data().to_vec()).collect::<Vec<_>>(), [b"one", b"two"]);
        port.tx(&mut pool, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(wire.receive(<[u8]>::to_vec).unwrap(), b"one");
        wire.close();
        assert!(port.is_exhausted());
        assert_eq!(port.stats().tx_bytes, 6);
        assert_eq!(pool.available(), 8);
    }

    #[test]
    fn frames_that_do_not_fit_are_counted_and_freed() {
        let mut pool = Pool::new(1, 512).unwrap();
        let (mut port, wire) = pair(4, 300);
        wire.send(&[0; 300]);
        wire.send(&[0; 60]);
        wire.send(&[0; 60]);
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        assert_eq!(burst.len(), 1);
        let stats = port.stats();
        assert_eq!((stats.rx_oversize, stats.rx_missed, stats.rx_packets), (1, 1, 1));
        pool.give_all(&mut burst);
    }
}

//! Packets that came by an SPI of ours before we have its SA. Some peers send by a new SA at once, so
//! that their packets come before their answer to our request, or while we still compute the keys.

use std::{collections::BTreeMap, mem, time::Duration};
use wayfarer_dataplane::sa::Spi;

/// Longest time for which a packet is kept. Its sender has sent it again by then.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Most packets that are kept for all SPIs together. Workers pass on only some for each SPI.
const MAX_PACKETS: usize = 1024;

/// An ESP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EarlyPacket {
    /// The outer IP packet.
    pub(super) packet: Vec<u8>,
    /// Where ESP begins in it.
    pub(super) esp_at: u16,
    came_at: Duration,
}

impl EarlyPacket {
    /// Returns the ESP packet at `esp_at` of `packet`, which came now.
    pub(super) fn new(now: Duration, esp_at: u16, packet: &[u8]) -> Self {
        Self { packet: packet.to_vec(), esp_at, came_at: now }
    }
}

/// The SPIs whose SAs are awaited, and the packets that have come by each.
#[derive(Debug, Default)]
pub(super) struct EarlyPackets {
    kept: BTreeMap<u32, Vec<EarlyPacket>>,
    count: usize,
}

impl EarlyPackets {
    /// Keeps packets with this SPI from now on.
    pub(super) fn expect(&mut self, spi: Spi) {
        self.kept.entry(spi.0).or_default();
    }

    /// Keeps a packet. Returns false if its SPI is not awaited or there are too many packets.
    pub(super) fn keep(&mut self, now: Duration, spi: Spi, esp_at: u16, packet: &[u8]) -> bool {
        let Some(kept) = self.kept.get_mut(&spi.0).filter(|_| self.count < MAX_PACKETS) else { return false };
        kept.push(EarlyPacket::new(now, esp_at, packet));
        self.count += 1;
        true
    }

    /// Takes the packets with this SPI, whose SA is there now. Returns those that have not waited for
    /// too long, and the number of the others; `None` if the SPI was not awaited.
    pub(super) fn take(&mut self, now: Duration, spi: Spi) -> Option<(Vec<EarlyPacket>, usize)> {
        let all = mem::take(self.kept.get_mut(&spi.0)?);
        self.count -= all.len();
        let is_late = |packet: &EarlyPacket| packet.came_at + MAX_WAIT < now;
        let (late, packets): (Vec<_>, Vec<_>) = all.into_iter().partition(is_late);
        Some((packets, late.len()))
    }

    /// Returns the number of packets that are kept.
    pub(super) fn kept(&self) -> usize {
        self.count
    }

    /// Forgets an SPI; returns the number of packets that were kept for it.
    pub(super) fn forget(&mut self, spi: Spi) -> usize {
        let dropped = self.kept.remove(&spi.0).map_or(0, |packets| packets.len());
        self.count -= dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn packets_of_awaited_spis_are_kept_for_a_moment() {
        let mut early = EarlyPackets::default();
        assert!(!early.keep(SECOND, Spi(256), 20, b"a"));
        early.expect(Spi(256));
        assert!(early.keep(SECOND, Spi(256), 20, b"late") && early.keep(2 * SECOND, Spi(256), 28, b"b"));
        let (packets, late) = early.take(2 * SECOND + SECOND / 2, Spi(256)).unwrap();
        let packets: Vec<_> = packets.iter().map(|packet| (&packet.packet[..], packet.esp_at)).collect();
        assert_eq!((packets, late), (vec![(&b"b"[..], 28)], 1));
        assert!(early.keep(3 * SECOND, Spi(256), 20, b"c"));
        assert_eq!((early.forget(Spi(256)), early.forget(Spi(256)), early.count), (1, 0, 0));
        assert!(!early.keep(3 * SECOND, Spi(256), 20, b"d"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut early = EarlyPackets::default();
        let kept = |early: &mut EarlyPackets, spi| {
            early.expect(Spi(spi));
            (0..MAX_PACKETS).filter(|_| early.keep(SECOND, Spi(spi), 20, b"a")).count()
        };
        assert_eq!((kept(&mut early, 256), kept(&mut early, 257)), (MAX_PACKETS, 0));
        assert_eq!((early.forget(Spi(256)), kept(&mut early, 257)), (MAX_PACKETS, MAX_PACKETS));
    }
}

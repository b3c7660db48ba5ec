//! A burst of packets with the results of the stages.

use arrayvec::ArrayVec;
use wayfarer_dataplane::packet::{BURST, Burst, Packet};

/// Packets and a note on each, in two columns. Stages write notes in place, pass after pass, and
/// only the packets, two words each, move on.
#[derive(Debug)]
pub struct Batch<N> {
    packets: Burst,
    notes: ArrayVec<N, BURST>,
}

impl<N> Default for Batch<N> {
    #[inline]
    fn default() -> Self {
        Self { packets: Burst::new(), notes: ArrayVec::new() }
    }
}

impl<N> Batch<N> {
    /// Returns whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Returns whether there is no room for another.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.packets.is_full()
    }

    /// Appends a packet. Panics if there is no room.
    #[inline]
    pub fn push(&mut self, packet: Packet, note: N) {
        self.packets.push(packet);
        self.notes.push(note);
    }

    /// Returns each packet with its note.
    #[inline]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&mut Packet, &mut N)> {
        self.packets.iter_mut().zip(&mut self.notes)
    }

    /// Returns both columns.
    #[inline]
    pub fn columns(&mut self) -> (&mut [Packet], &mut [N]) {
        (&mut self.packets, &mut self.notes)
    }

    /// Takes all packets out, and shows the note on each. The notes stay until the batch is dropped, so
    /// that they need not move.
    #[inline]
    pub fn finish(&mut self) -> impl Iterator<Item = (Packet, &mut N)> {
        self.packets.take(BURST).zip(&mut self.notes)
    }

    /// Returns the packets, all of which are to be taken out. The notes stay until the batch is dropped.
    #[inline]
    pub fn take_packets(&mut self) -> &mut Burst {
        &mut self.packets
    }

    /// Takes all packets out.
    #[inline]
    pub fn drain(&mut self) -> impl Iterator<Item = (Packet, N)> {
        self.packets.take(BURST).zip(self.notes.drain(..))
    }
}

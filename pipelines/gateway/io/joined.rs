//! Packets that come in fragments: those that wait, and the room for one that is longer than a frame.

use super::Io;
use crate::gateway::{
    input_port::is_from_tunnel,
    reassembly::{Fragments, Note, Sender, Slot, Vacancy, Waiting, Whole},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    pool::MAX_FRAME,
    sa::Spi,
    wire::{ip::IpHeader, plain_fragment::PlainFragment},
};

impl Io {
    /// Keeps a fragment of a packet out of a tunnel or from any wire. If the packet is complete, moves all of
    /// its fragments to `out`, which is empty.
    pub fn reassemble(&mut self, fragment: Packet, header: &IpHeader, out: &mut Fragments) -> Option<Whole> {
        let port = fragment.port();
        let sender = if is_from_tunnel(port) { Sender::Port(port) } else { Sender::Wire };
        self.reassemble_from(sender, fragment, header, out)
    }

    /// Does the same as [`Io::reassemble`] for a packet of this sender.
    pub fn reassemble_from(
        &mut self,
        sender: Sender,
        fragment: Packet,
        header: &IpHeader,
        out: &mut Fragments,
    ) -> Option<Whole> {
        let now = self.now();
        let Self { reassembly, counters, pool, .. } = self;
        reassembly.add(now, fragment, header, sender, out, &mut |packet, reason| {
            counters.drops.count(reason);
            pool.give(packet);
        })
    }

    /// Returns what waits of the packet from a wire that a plain fragment is of.
    #[inline]
    pub(in crate::gateway) fn waiting_of(&mut self, fragment: &PlainFragment<'_>) -> Waiting {
        let now = self.now();
        self.reassembly.waiting_of(now, fragment)
    }

    /// Returns the fragment in this slot.
    pub(in crate::gateway) fn waits_at(&self, slot: Slot) -> Option<&Packet> {
        self.reassembly.waits_at(slot)
    }

    /// Takes out the fragment in this slot, which is in use.
    pub(in crate::gateway) fn take_at(&mut self, slot: Slot) -> Option<Packet> {
        self.reassembly.take_at(slot)
    }

    /// Keeps a fragment for which there is room.
    #[inline]
    pub(in crate::gateway) fn keep(&mut self, vacancy: Vacancy, note: Note, packet: Packet) {
        let now = self.now();
        self.reassembly.keep(vacancy, note, now, packet);
    }

    /// Does the same as [`identification`](crate::gateway::reassembly::Reassembly::identification).
    pub fn identification(&self, spi: Spi, number: u64) -> u32 {
        self.reassembly.identification(spi, number)
    }

    /// Drops the fragments of packets that have taken too long to get complete.
    pub fn expire_fragments(&mut self) {
        // The next turn, which may be much later, has another time.
        let now = self.now.take().unwrap_or_else(|| self.clock.now());
        let Self { reassembly, counters, pool, .. } = self;
        reassembly.expire(now, &mut |packet, reason| {
            counters.drops.count(reason);
            pool.give(packet);
        });
    }

    /// Returns the room for a packet that is longer than a frame: one of [`MAX_FRAME`] bytes, which have
    /// no meaning. It must not be sent, freed or dropped, but given back by [`Io::give_room`].
    ///
    /// # Errors
    /// `NoBuffer` if it is lent.
    pub fn take_room(&mut self) -> Result<Packet, DropReason> {
        let mut room = self.room.take().ok_or(DropReason::NoBuffer)?;
        let spans = room.push_front(room.headroom()).and_then(|()| room.set_len(MAX_FRAME));
        debug_assert!(spans.is_some(), "the room is that long");
        Ok(room)
    }

    /// Takes the room back.
    pub fn give_room(&mut self, room: Packet) {
        self.room.give(room);
    }
}

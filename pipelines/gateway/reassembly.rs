//! Reassembly of packets that arrive in fragments (RFC 791 §3.2, RFC 8200 §4.5): to the gateway itself,
//! through its NAT, from its host through an SA in transport mode, or where only ports tell the policy.
//!
//! A worker holds fragments in their frames until their packet is complete. Ports spread fragments
//! over workers by addresses, so all fragments of a packet come to one worker. `plain_fragments` takes the
//! few steps that most need; [`Reassembly::add`] takes all.
//!
//! Senders are put into groups by network, or by the SA that brings them, and packets of the host by
//! identification, because it sends many at a time. A group holds a bounded number of fragments, and no
//! group takes room from another. Within a group, a network with more than half of the fragments makes
//! room first.

mod group;
mod whole;

pub(super) use group::GROUP;
pub use group::{Fragments, Sender};
pub(super) use group::{Note, Slot, Vacancy, Waiting};
pub use whole::Whole;

use group::Group;
use std::hash::{BuildHasher, RandomState};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::Spi,
    wire::{Address, ip::IpHeader, plain_fragment::PlainFragment},
};

use super::{input_port::is_from_tunnel, keyed_hash::KeyedHash, share::network};
use crate::clock::Moment;

/// The part of a worker's frames that may hold fragments: one in so many.
const SHARE: usize = 4;

/// The fragments that one worker holds.
#[derive(Debug)]
pub struct Reassembly {
    /// The secret behind identifications of our own.
    seed: RandomState,
    /// Chooses groups.
    hash: KeyedHash,
    groups: Box<[Group]>,
    /// The most fragments of a group.
    limit: usize,
}

impl Reassembly {
    /// Makes an empty one for a worker with this many frames.
    pub fn new(frames: usize) -> Self {
        let share = frames / SHARE;
        let limit = share.clamp(1, GROUP);
        let groups = (0..(share / limit).max(1)).map(|_| Group::new(limit)).collect();
        Self { seed: RandomState::new(), hash: KeyedHash::default(), groups, limit }
    }

    /// Adds a fragment of `sender`, which begins with `header`. If it completes its packet, moves all
    /// fragments of that to `out`, which is empty. Passes all packets that are dropped to `drop`.
    pub fn add(
        &mut self,
        now: Moment,
        packet: Packet,
        header: &IpHeader,
        sender: Sender,
        out: &mut Fragments,
        drop: &mut impl FnMut(Packet, DropReason),
    ) -> Option<Whole> {
        let note = match Note::new(&packet, header, sender) {
            Ok(note) => note,
            Err(reason) => {
                drop(packet, reason);
                return None;
            }
        };
        let key = note.key();
        let (group, network) = self.network(key.src, sender);
        // The next packet of the host is in the next group, so that two long ones do not meet in one.
        let step = if sender == Sender::Host { u64::from(key.id) } else { 0 };
        let group = self.group(group.wrapping_add(step));
        let group = &mut self.groups[group];
        group.expire(now, drop);
        group.add(network, (note, now, packet), self.limit, out, drop)
    }

    /// Returns what waits at `now` of the packet from a wire that a plain fragment is of.
    #[inline]
    pub(super) fn waiting_of(&self, now: Moment, fragment: &PlainFragment<'_>) -> Waiting {
        let (hash, network) = self.network(fragment.src, Sender::Wire);
        let group = self.group(hash);
        self.groups[group].waiting(now, Vacancy { group, network }, fragment.id, self.limit)
    }

    /// Returns the fragment in this slot.
    pub(super) fn waits_at(&self, slot: Slot) -> Option<&Packet> {
        self.groups[slot.group].waits_at(slot.at)
    }

    /// Takes out the fragment in this slot, which is in use.
    pub(super) fn take_at(&mut self, slot: Slot) -> Option<Packet> {
        self.groups[slot.group].take_at(slot.at)
    }

    /// Keeps a fragment for which there is room, and which came at `now`.
    #[inline]
    pub(super) fn keep(&mut self, vacancy: Vacancy, note: Note, now: Moment, packet: Packet) {
        self.groups[vacancy.group].keep(vacancy.network, note, now, packet);
    }

    /// Returns the hash that chooses the group of a sender with this address, and the one that stands for
    /// its network there.
    #[inline]
    fn network(&self, src: Address, sender: Sender) -> (u64, u32) {
        let hash = match sender {
            Sender::Wire => self.hash.of_wide(network(src)),
            Sender::Port(port) if !is_from_tunnel(port) => {
                self.hash.of([self.hash.of_wide(network(src)), port.into()])
            }
            // Policy says of each address in a tunnel whose it is.
            _ => self.hash.of_wide(src.bits()),
        };
        let group = match sender {
            // The peer chooses among many addresses, perhaps all. No network has this word.
            Sender::Sa(Spi(spi)) => self.hash.of([spi.into(), u64::MAX]),
            _ => hash,
        };
        // The lower bits choose the group.
        (group, (hash >> 32) as u32)
    }

    /// Returns the number of the group that a hash chooses.
    #[inline]
    fn group(&self, hash: u64) -> usize {
        (hash as u32 % self.groups.len() as u32) as usize
    }

    /// Returns an identification for the fragments of our own of packet `number` of an SA. Nobody outside
    /// can foresee it (RFC 7739).
    pub fn identification(&self, spi: Spi, number: u64) -> u32 {
        self.seed.hash_one((spi, number)) as u32
    }

    /// Drops the fragments of packets that have taken too long.
    pub fn expire(&mut self, now: Moment, drop: &mut impl FnMut(Packet, DropReason)) {
        self.groups.iter_mut().for_each(|group| group.expire(now, drop));
    }

    /// Returns the number of fragments that wait.
    pub fn waiting(&self) -> usize {
        self.groups.iter().map(Group::count).sum()
    }

    /// Takes all fragments out.
    pub fn drain(&mut self) -> impl Iterator<Item = Packet> {
        self.groups.iter_mut().flat_map(Group::drain)
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests;

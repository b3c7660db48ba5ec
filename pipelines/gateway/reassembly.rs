//! Reassembly of packets that arrive in fragments (RFC 791 §3.2, RFC 8200 §4.5): to the gateway itself,
//! through its NAT, from its host through an SA in transport mode, or where only ports tell the policy.
//!
//! A worker holds fragments in their frames until their packet is complete. Ports spread fragments
//! over workers by addresses, so all fragments of a packet come to one worker.
//!
//! Senders are put into groups by network, or by the SA that brings them, and packets of the host by
//! identification, because it sends many at a time. A group holds a bounded number of fragments, and no
//! group takes room from another. Within a group, a network with more than half of the fragments makes
//! room first.

mod group;
mod whole;

pub(super) use group::GROUP;
pub use group::{Fragments, Held, Sender};
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

/// What waits of the packet of a plain fragment.
#[derive(Clone, Copy, Debug)]
pub enum Waiting {
    /// Nothing, and there is room for the fragment.
    Nothing(Room),
    /// One fragment.
    One(Place),
    /// More, or something that [`Reassembly::add`] has to do first.
    Unclear,
}

/// Room for a fragment.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    group: usize,
    network: u32,
}

/// Where a fragment waits.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    group: usize,
    at: usize,
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
        let new = match Held::new(packet, header, sender, now) {
            Ok(new) => new,
            Err((packet, reason)) => {
                drop(packet, reason);
                return None;
            }
        };
        let key = new.key();
        let (group, network) = self.network(key.src, sender);
        // The next packet of the host is in the next group, so that two long ones do not meet in one.
        let step = if sender == Sender::Host { u64::from(key.id) } else { 0 };
        let group = self.group(group.wrapping_add(step));
        let group = &mut self.groups[group];
        group.expire(now, drop);
        group.add(network, new, self.limit, out, drop)
    }

    /// Returns what waits at `now` of the packet from a wire that a plain fragment is of.
    #[inline]
    pub fn waiting_of(&self, now: Moment, fragment: &PlainFragment<'_>) -> Waiting {
        let (group, network) = self.network(fragment.src, Sender::Wire);
        let group = self.group(group);
        match self.groups[group].waiting(now, network, fragment.id, self.limit) {
            group::Waiting::Nothing => Waiting::Nothing(Room { group, network }),
            group::Waiting::One(at) => Waiting::One(Place { group, at }),
            group::Waiting::Unclear => Waiting::Unclear,
        }
    }

    /// Returns the fragment at this place.
    pub fn waits_at(&self, place: Place) -> Option<&Packet> {
        self.groups[place.group].waits_at(place.at)
    }

    /// Takes out the fragment at this place, which there is.
    pub fn take_at(&mut self, place: Place) -> Option<Packet> {
        self.groups[place.group].take_at(place.at)
    }

    /// Keeps a fragment for which there is room.
    #[inline]
    pub fn keep(&mut self, room: Room, held: Held, packet: Packet) {
        self.groups[room.group].keep(room.network, held, packet);
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
            // The peer chooses among many addresses, perhaps all.
            Sender::Sa(Spi(spi)) => self.hash.of([spi.into(), 0]),
            _ => hash,
        };
        // The lower bits choose the group.
        (group, (hash >> 32) as u32)
    }

    /// Returns the place of the group that a hash chooses.
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

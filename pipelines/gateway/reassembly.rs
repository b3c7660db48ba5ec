//! Reassembly of packets that arrive in fragments: to the gateway itself, through its NAT, or from its
//! host through an SA in transport mode (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! A worker holds fragments in their frames until their packet is complete. Ports spread fragments
//! over workers by addresses, so all fragments of a packet come to one worker.
//!
//! Senders are put into groups by network, and packets of the host by identification, because it sends
//! many at a time. A group holds a bounded number of fragments, and no group takes room from another.
//! Within a group, a network with more than half of the fragments makes room first.

use arrayvec::ArrayVec;
use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::Spi,
    wire::{
        Address,
        fragment::{self, Part},
        ip::{self, IpHeader, V4_HEADER, V6_HEADER},
    },
};

use super::{decapsulate::ECN, departure::Origin, share::network};

/// The longest time from the arrival of a packet's first fragment to that of its last one. RFC 8200
/// allows 60 seconds. Senders of IKE and ESP have sent again, or given up, well before.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most fragments that a group of networks holds, and so the most that a packet may have: enough
/// for the longest packet on a path of IPv6.
pub(super) const GROUP: usize = 64;
/// The part of a full group that makes room at once, if it came in a row: one in so many.
const AT_ONCE: usize = 8;
/// The part of a worker's frames that may hold fragments: one in so many.
const SHARE: usize = 4;

/// Congestion marks (RFC 3168 §5).
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

/// The fragments that one worker holds.
#[derive(Debug)]
pub struct Reassembly {
    seed: RandomState,
    /// The sender of the last fragment, and the hash of its network: fragments mostly come in a row.
    last: Option<((Address, Origin), u64)>,
    groups: Box<[Group]>,
    /// The most fragments of a group.
    limit: usize,
}

/// The identity of a packet, which all of its fragments share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: Address,
    dst: Address,
    id: u32,
    /// The protocol. 0 for IPv6, where only the first fragment's counts.
    protocol: u8,
    /// Nobody outside may add to what a tunnel brought, or the host.
    origin: Origin,
}

/// What searches read of a fragment: those of a group take few cache lines.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// A part of the hash of the sender's network, and the identification of the packet.
    tag: u64,
    /// The number of the packet. Packets whose first fragments came earlier have lower ones.
    number: u64,
}

impl Mark {
    fn network(&self) -> u32 {
        (self.tag >> 32) as u32
    }
}

#[derive(Debug)]
struct Held {
    key: Key,
    /// The bytes of the packet's payload that it carries.
    from: usize,
    to: usize,
    is_last: bool,
    traffic_class: u8,
    header_len: usize,
    /// When the first fragment of the packet came.
    since: Instant,
    /// The fragment. `None` stands for the whole of a packet that was refused, so that its other
    /// fragments are refused too (RFC 5722 §4).
    packet: Option<Packet>,
}

impl Held {
    fn payload(&self) -> &[u8] {
        let bytes = self.packet.as_ref().map_or(&[][..], Packet::data);
        bytes.get(self.header_len..self.header_len + self.to - self.from).unwrap_or_default()
    }
}

/// All fragments of a packet, in their order. Their frames belong to the worker's pool. They are in a
/// place of the caller's, because it takes longer to move them all than to join a packet.
pub type Fragments = ArrayVec<Packet, GROUP>;

/// A packet whose fragments are complete.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// DSCP and ECN of the packet.
    traffic_class: u8,
    /// The length of each fragment's header, in bytes.
    header_len: usize,
}

impl Whole {
    /// Returns the packet of these fragments, of which this is the first. `None` if a router marked congestion
    /// on one, and others say that the sender does not know such marks (RFC 3168 §5.3).
    fn of<'a>(first: &Held, all: impl Iterator<Item = &'a Held> + Clone) -> Option<Self> {
        let has = |mark| all.clone().any(|held| held.traffic_class & ECN == mark);
        let is_congested = has(CE);
        let traffic_class = first.traffic_class | if is_congested { CE } else { 0 };
        let is_sound = !(is_congested && has(NOT_ECT));
        is_sound.then_some(Self { traffic_class, header_len: first.header_len })
    }

    /// Joins the packet's fragments in the frame of the first. Returns `None` and changes nothing if it is
    /// longer than that.
    pub fn join_in_first(&self, fragments: &mut [Packet]) -> Option<()> {
        let header = self.header(fragments)?;
        let [first, later @ ..] = fragments else { return None };
        let (mut end, added) =
            (first.len(), later.iter().map(|packet| packet.len() - self.header_len).sum::<usize>());
        first.set_len(end + added)?;
        for packet in later {
            let part = &packet.data()[self.header_len..];
            first.data_mut()[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        // IPv6 has a header less.
        first.pull_front(self.header_len - header.len())?;
        first.data_mut()[..header.len()].copy_from_slice(&header);
        Some(())
    }

    /// Joins the packet's fragments, and writes it to the start of `out`. Returns its length in bytes, or
    /// `None` if `out` is shorter.
    pub fn join(&self, fragments: &[Packet], out: &mut [u8]) -> Option<usize> {
        let header = self.header(fragments)?;
        let mut end = 0;
        let payloads = fragments.iter().map(|packet| &packet.data()[self.header_len..]);
        for part in [&header[..]].into_iter().chain(payloads) {
            out.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        Some(end)
    }

    /// Returns the header of the packet.
    fn header(&self, fragments: &[Packet]) -> Option<ArrayVec<u8, V6_HEADER>> {
        let payload = fragments.iter().map(|packet| packet.len() - self.header_len).sum();
        let mut header = fragment::whole_header(fragments.first()?.data(), payload);
        ip::set_traffic_class(&mut header, self.traffic_class);
        Some(header)
    }
}

/// The relation of a new fragment to one of the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Beside,
    Duplicate,
    Conflict,
}

impl Reassembly {
    /// Makes an empty one for a worker with this many frames.
    pub fn new(frames: usize) -> Self {
        let share = frames / SHARE;
        let limit = share.clamp(1, GROUP);
        let group = || Group {
            marks: Vec::with_capacity(limit),
            held: Vec::with_capacity(limit),
            next_number: 0,
            patience_ends: None,
        };
        let groups = (0..(share / limit).max(1)).map(|_| group()).collect();
        Self { seed: RandomState::new(), last: None, groups, limit }
    }

    /// Adds a fragment, which begins with `header`. If it completes its packet, moves all fragments of that
    /// to `out`, which is empty. Passes all packets that are dropped to `drop`.
    pub fn add(
        &mut self,
        now: Instant,
        packet: Packet,
        header: &IpHeader,
        origin: Origin,
        out: &mut Fragments,
        drop: &mut impl FnMut(Packet, DropReason),
    ) -> Option<Whole> {
        let Some(part) = Part::read(header, packet.data()) else {
            drop(packet, DropReason::OuterOptions);
            return None;
        };
        let (length, whole_header) =
            (header.total_len() - header.header_len(), if header.is_ipv4() { V4_HEADER } else { V6_HEADER });
        let (from, to) = (part.offset, part.offset + length);
        let is_sound = length > 0 && (!part.more || length.is_multiple_of(8));
        if !is_sound || whole_header + to > usize::from(u16::MAX) {
            drop(packet, DropReason::FragmentLength);
            return None;
        }
        let protocol = if header.is_ipv4() { header.protocol } else { 0 };
        let network = self.network(header.src, origin);
        let new = Held {
            key: Key { src: header.src, dst: header.dst, id: part.id, protocol, origin },
            from,
            to,
            is_last: !part.more,
            traffic_class: header.traffic_class,
            header_len: header.header_len(),
            since: now,
            packet: Some(packet),
        };
        // The next packet of the host is in the next group, so that two long ones do not meet in one.
        let step = if origin == Origin::Host { u64::from(part.id) } else { 0 };
        let count = self.groups.len() as u64;
        let group = &mut self.groups[(network.wrapping_add(step) % count) as usize];
        group.expire(now, drop);
        // The lower bits chose the group.
        group.add((network >> 32) as u32, new, self.limit, out, drop)
    }

    /// Returns the hash of the network of a sender, whose packet has this origin.
    fn network(&mut self, src: Address, origin: Origin) -> u64 {
        let sender = (src, origin);
        if let Some((last, hash)) = self.last
            && last == sender
        {
            return hash;
        }
        // Policy says of each address in a tunnel whose it is.
        let hash = self.seed.hash_one(if origin == Origin::Wire { network(src) } else { src.bits() });
        self.last = Some((sender, hash));
        hash
    }

    /// Returns an identification for the fragments of our own of packet `number` of an SA. Nobody outside
    /// can foresee it (RFC 7739).
    pub fn identification(&self, spi: Spi, number: u64) -> u32 {
        self.seed.hash_one((spi, number)) as u32
    }

    /// Drops the fragments of packets that have taken too long.
    pub fn expire(&mut self, now: Instant, drop: &mut impl FnMut(Packet, DropReason)) {
        self.groups.iter_mut().for_each(|group| group.expire(now, drop));
    }

    /// Returns the number of fragments that wait.
    pub fn waiting(&self) -> usize {
        let held = self.groups.iter().flat_map(|group| &group.held);
        held.filter(|held| held.packet.is_some()).count()
    }

    /// Takes all fragments out.
    pub fn drain(&mut self) -> impl Iterator<Item = Packet> {
        let held = self.groups.iter_mut().flat_map(|group| {
            group.marks.clear();
            group.patience_ends = None;
            group.held.drain(..)
        });
        held.filter_map(|held| held.packet)
    }
}

/// The fragments from a part of all networks, in two lists of the same order.
#[derive(Debug)]
struct Group {
    marks: Vec<Mark>,
    held: Vec<Held>,
    next_number: u64,
    /// No packet has taken too long before this.
    patience_ends: Option<Instant>,
}

impl Group {
    fn add(
        &mut self,
        network: u32,
        mut new: Held,
        limit: usize,
        out: &mut Fragments,
        drop: &mut impl FnMut(Packet, DropReason),
    ) -> Option<Whole> {
        let key = new.key;
        let tag = u64::from(network) << 32 | u64::from(key.id);
        let mut mark = Mark { tag, number: self.next_number };
        let (mut relation, mut others, mut only) = (Relation::Beside, 0, 0);
        let (mut bytes, mut end) = (new.to - new.from, if new.is_last { new.to } else { usize::MAX });
        for at in self.places(mark, key) {
            let held = &self.held[at];
            (mark.number, new.since, others, only) = (self.marks[at].number, held.since, others + 1, at);
            match relation_of(held, &new) {
                Relation::Beside => {}
                other => relation = other,
            }
            if relation == Relation::Conflict {
                break;
            }
            bytes += held.to - held.from;
            if held.is_last {
                end = held.to;
            }
        }
        match relation {
            Relation::Beside => {}
            Relation::Duplicate => {
                new.packet.into_iter().for_each(|packet| drop(packet, DropReason::FragmentDuplicate));
                return None;
            }
            Relation::Conflict => {
                self.remove(|other| other.number == mark.number, DropReason::FragmentOverlap, drop);
                new.packet.take().into_iter().for_each(|packet| drop(packet, DropReason::FragmentOverlap));
                self.push(mark, Held { from: 0, to: usize::MAX, ..new });
                return None;
            }
        }
        // Fragments do not overlap, and none goes beyond the last one.
        let is_complete = bytes == end;
        if is_complete && others == 1 {
            return take_pair(self.swap_remove(only), new, out, drop);
        }
        if self.held.len() >= limit {
            self.make_room(drop);
        }
        // The packet itself may have made room.
        let has_others = is_complete && self.fragments(mark.number).count() == others;
        self.push(mark, new);
        if has_others { self.take(mark.number, out, drop) } else { None }
    }

    fn push(&mut self, mark: Mark, new: Held) {
        let end = new.since + PATIENCE;
        self.patience_ends = Some(self.patience_ends.map_or(end, |earliest| earliest.min(end)));
        self.next_number += 1;
        self.marks.push(mark);
        self.held.push(new);
    }

    fn swap_remove(&mut self, at: usize) -> Held {
        self.marks.swap_remove(at);
        self.held.swap_remove(at)
    }

    /// Returns the places in the lists of the fragments that `new` belongs with.
    fn places(&self, new: Mark, key: Key) -> impl Iterator<Item = usize> + '_ {
        let marked = self.marks.iter().enumerate().filter(move |(_, mark)| mark.tag == new.tag);
        marked.map(|(at, _)| at).filter(move |at| self.held[*at].key == key)
    }

    /// Returns the fragments of packet `number` and their places in the lists.
    fn fragments(&self, number: u64) -> impl Iterator<Item = (usize, &Held)> + Clone {
        let both = self.marks.iter().zip(&self.held).enumerate();
        both.filter(move |(_, (mark, _))| mark.number == number).map(|(at, (_, held))| (at, held))
    }

    /// Moves the fragments of a complete packet to `out`. Drops them if a router marked congestion on one, and
    /// others say that the sender does not know such marks (RFC 3168 §5.3).
    fn take(
        &mut self,
        number: u64,
        out: &mut Fragments,
        drop: &mut impl FnMut(Packet, DropReason),
    ) -> Option<Whole> {
        let fragments = self.fragments(number).map(|(_, held)| held);
        let first = fragments.clone().find(|held| held.from == 0)?;
        let whole = Whole::of(first, fragments);
        let Some(whole) = whole else {
            self.remove(|mark| mark.number == number, DropReason::FragmentEcn, drop);
            return None;
        };
        let mut end = 0;
        let next = |group: &Self, from| {
            group.fragments(number).find(|(_, held)| held.from == from).map(|(at, _)| at)
        };
        // They do not overlap, and none is missing.
        while let Some(at) = next(self, end) {
            let held = self.swap_remove(at);
            end = held.to;
            out.extend(held.packet);
        }
        Some(whole)
    }

    /// Drops the oldest packet of the network that has most of the fragments, or of all if none has, and
    /// those that came soon after: a look at a whole group takes as long as several packets.
    fn make_room(&mut self, drop: &mut impl FnMut(Packet, DropReason)) {
        let crowding = self.majority();
        let is_crowding = |mark: &Mark| crowding.is_none_or(|network| network == mark.network());
        let candidates = self.marks.iter().filter(|mark| is_crowding(mark));
        let Some(oldest) = candidates.map(|mark| mark.number).min() else { return };
        let last = oldest + (self.marks.len() / AT_ONCE) as u64;
        self.remove(|mark| mark.number <= last && is_crowding(mark), DropReason::FragmentCrowded, drop);
    }

    /// Returns the network that has more than half of the fragments, if one has (Boyer and Moore's
    /// majority vote).
    fn majority(&self) -> Option<u32> {
        let (mut candidate, mut votes) = (0, 0);
        for mark in &self.marks {
            if votes == 0 {
                candidate = mark.network();
            }
            votes += if mark.network() == candidate { 1 } else { -1 };
        }
        let count = self.marks.iter().filter(|mark| mark.network() == candidate).count();
        (count * 2 > self.marks.len()).then_some(candidate)
    }

    fn expire(&mut self, now: Instant, drop: &mut impl FnMut(Packet, DropReason)) {
        if self.patience_ends.is_none_or(|end| now <= end) {
            return;
        }
        for at in (0..self.held.len()).rev() {
            if now > self.held[at].since + PATIENCE {
                drop_held(self.swap_remove(at), DropReason::FragmentTimeout, drop);
            }
        }
        self.patience_ends = self.held.iter().map(|held| held.since + PATIENCE).min();
    }

    fn remove(
        &mut self,
        is_gone: impl Fn(&Mark) -> bool,
        reason: DropReason,
        drop: &mut impl FnMut(Packet, DropReason),
    ) {
        for at in (0..self.marks.len()).rev() {
            if is_gone(&self.marks[at]) {
                drop_held(self.swap_remove(at), reason, drop);
            }
        }
    }
}

fn drop_held(held: Held, reason: DropReason, drop: &mut impl FnMut(Packet, DropReason)) {
    held.packet.into_iter().for_each(|packet| drop(packet, reason));
}

/// Does the same as [`Group::take`] for a packet of two fragments, as most are, without a search.
fn take_pair(
    one: Held,
    other: Held,
    out: &mut Fragments,
    drop: &mut impl FnMut(Packet, DropReason),
) -> Option<Whole> {
    let (first, last) = if one.from == 0 { (one, other) } else { (other, one) };
    let whole = Whole::of(&first, [&first, &last].into_iter());
    let packets = [first.packet, last.packet].into_iter().flatten();
    match whole {
        Some(_) => out.extend(packets),
        None => packets.for_each(|packet| drop(packet, DropReason::FragmentEcn)),
    }
    whole
}

/// Returns the relation of `new` to `held`, a fragment of the same packet. The same fragment may come
/// twice, but different bytes for one range must not (RFC 8200 §4.5), nor bytes beyond the last one.
fn relation_of(held: &Held, new: &Held) -> Relation {
    if held.packet.is_none() {
        return Relation::Conflict;
    }
    if (held.from, held.to, held.is_last) == (new.from, new.to, new.is_last) {
        let is_same = held.payload() == new.payload();
        return if is_same { Relation::Duplicate } else { Relation::Conflict };
    }
    let overlaps = held.from < new.to && new.from < held.to;
    let goes_beyond = (held.is_last && new.to > held.to) || (new.is_last && held.to > new.to);
    if overlaps || goes_beyond { Relation::Conflict } else { Relation::Beside }
}

#[cfg(all(test, feature = "bench"))]
mod tests;

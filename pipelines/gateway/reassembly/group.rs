//! The fragments that a group of senders has sent, and which of them belong together.

use super::whole::Whole;
use crate::clock::Moment;
use arrayvec::ArrayVec;
use std::time::Duration;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::Spi,
    wire::{
        Address,
        fragment::Part,
        ip::{IpHeader, V4_HEADER, V6_HEADER},
        plain_fragment::{PlainFragment, V6_HEADERS},
    },
};

/// The longest time from the arrival of a packet's first fragment to that of its last one. RFC 8200
/// allows 60 seconds. Senders of IKE and ESP have sent again, or given up, well before.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// The most fragments that a group of networks holds, and so the most that a packet may have: enough
/// for the longest packet on a path of IPv6.
pub(in super::super) const GROUP: usize = 64;
/// The part of a full group that makes room at once, if it came in a row: one in so many.
pub(super) const AT_ONCE: usize = 8;

/// Who has sent a fragment, as far as that is sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Somebody on any wire.
    Wire,
    /// Somebody on the wire of this input port, or the peer whose link this stands for, of which an SA has
    /// admitted the packet.
    Port(u16),
    /// The peer of this inbound SA, which has yet to admit the packet.
    Sa(Spi),
    /// This host.
    Host,
}

/// The identity of a packet, which all of its fragments share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub src: Address,
    dst: Address,
    pub id: u32,
    /// The protocol. 0 for IPv6, where only the first fragment's counts.
    protocol: u8,
    /// Nobody outside may add to what a tunnel, the host or another port brought, and no peer to what
    /// another sends.
    pub sender: Sender,
}

/// What searches read of a fragment: those of a group take few cache lines.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// A part of the hash of the sender's network, and the identification of the packet.
    tag: u64,
    /// The number of the packet. Packets whose first fragments came earlier have lower ones.
    number: u64,
}

/// Returns the tag of the fragments of packets with this identification from a network.
fn tag(network: u32, id: u32) -> u64 {
    u64::from(network) << 32 | u64::from(id)
}

impl Mark {
    fn network(&self) -> u32 {
        (self.tag >> 32) as u32
    }
}

/// A note on a fragment.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Note {
    key: Key,
    /// The bytes of the packet's payload that it carries.
    from: usize,
    to: usize,
    is_last: bool,
    traffic_class: u8,
    /// The length of its own headers, in bytes.
    head_len: usize,
}

impl Note {
    /// Notes a fragment in `packet` of `sender`, which begins with `header`.
    ///
    /// # Errors
    /// The reason why it must be dropped.
    pub(super) fn new(packet: &Packet, header: &IpHeader, sender: Sender) -> Result<Self, DropReason> {
        let Part { id, offset, more, head_len, protocol: _ } =
            Part::read(header, packet.data()).ok_or(DropReason::FragmentHeaders)?;
        let length = header.total_len().saturating_sub(head_len);
        let protocol = if header.is_ipv4() { header.protocol } else { 0 };
        let key = Key { src: header.src, dst: header.dst, id, protocol, sender };
        Self::of(key, (offset, length), more, header.traffic_class, head_len)
            .ok_or(DropReason::FragmentLength)
    }

    /// Notes a plain fragment from a wire. Returns `None` if it must be dropped.
    #[inline]
    pub(in crate::gateway) fn plain(fragment: &PlainFragment<'_>) -> Option<Self> {
        let PlainFragment { src, dst, id, offset, more, traffic_class, protocol, payload } = *fragment;
        let (head_len, protocol) = if src.is_ipv4() { (V4_HEADER, protocol) } else { (V6_HEADERS, 0) };
        let key = Key { src, dst, id, protocol, sender: Sender::Wire };
        Self::of(key, (offset, payload.len()), more, traffic_class, head_len)
    }

    /// Notes a fragment that carries `length` bytes from `offset` on, `more` if there are later ones. Returns
    /// `None` if its packet would be too long, or not whole units of eight bytes are before those.
    #[inline(always)]
    fn of(
        key: Key,
        (offset, length): (usize, usize),
        more: bool,
        traffic_class: u8,
        head_len: usize,
    ) -> Option<Self> {
        let whole_header = if key.src.is_ipv4() { V4_HEADER } else { V6_HEADER };
        let (from, to) = (offset, offset + length);
        let is_sound = length > 0 && (!more || length.is_multiple_of(8));
        (is_sound && whole_header + to <= usize::from(u16::MAX)).then_some(Self {
            key,
            from,
            to,
            is_last: !more,
            traffic_class,
            head_len,
        })
    }

    /// Returns the length of the fragment with its headers, in bytes.
    pub(in crate::gateway) fn total_len(&self) -> usize {
        self.head_len + self.to - self.from
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

/// A fragment that is kept.
#[derive(Debug)]
struct Held {
    note: Note,
    /// When the first fragment of the packet came.
    since: Moment,
    /// The fragment. `None` stands for the whole of a packet that was refused, so that its other
    /// fragments are refused too (RFC 5722 §4).
    packet: Option<Packet>,
}

impl Held {
    fn payload(&self) -> &[u8] {
        let bytes = self.packet.as_ref().map_or(&[][..], Packet::data);
        let Note { from, to, head_len, .. } = self.note;
        bytes.get(head_len..head_len + to - from).unwrap_or_default()
    }
}

/// All fragments of a packet, in their order. Their frames belong to the worker's pool. They are in a
/// place of the caller's, because it takes longer to move them all than to join a packet.
pub type Fragments = ArrayVec<Packet, GROUP>;

/// The relation of a new fragment to one of the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Beside,
    Duplicate,
    Conflict,
}

/// What waits of the packet of a fragment.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) enum Waiting {
    /// Nothing, and there is room for the fragment.
    Nothing(Vacancy),
    /// One fragment, in this slot.
    One(Slot),
    /// More, or something that has to be done first by [`Group::add`].
    Unclear,
}

/// Room for a fragment.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Vacancy {
    pub(super) group: usize,
    pub(super) network: u32,
}

/// Where a fragment waits.
#[derive(Clone, Copy, Debug)]
pub(in crate::gateway) struct Slot {
    pub(super) group: usize,
    pub(super) at: usize,
}

/// The fragments from a part of all networks, in two lists of the same order.
#[derive(Debug)]
pub(super) struct Group {
    marks: Vec<Mark>,
    held: Vec<Held>,
    next_number: u64,
    /// No packet has taken too long before this.
    patience_ends: Option<Moment>,
}

impl Group {
    /// Makes an empty one with room for `limit` fragments.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            marks: Vec::with_capacity(limit),
            held: Vec::with_capacity(limit),
            next_number: 0,
            patience_ends: None,
        }
    }

    /// Returns what waits at `now` of the packet with this identification from a wire of a network whose group,
    /// which this is, and hash are those of `vacancy`.
    #[inline]
    pub(super) fn waiting(&self, now: Moment, vacancy: Vacancy, id: u32, limit: usize) -> Waiting {
        let tag = tag(vacancy.network, id);
        let (mut count, mut last) = (0, 0);
        // Without branches: there may be many marks.
        for (at, mark) in self.marks.iter().enumerate() {
            let is_it = mark.tag == tag;
            count += u32::from(is_it);
            last = if is_it { at } else { last };
        }
        match count {
            _ if self.has_old(now) => Waiting::Unclear,
            0 if self.held.len() < limit => Waiting::Nothing(vacancy),
            1 if self.waits_at(last).is_some() => Waiting::One(Slot { group: vacancy.group, at: last }),
            _ => Waiting::Unclear,
        }
    }

    /// Returns the fragment from a wire that waits in this slot.
    pub(super) fn waits_at(&self, at: usize) -> Option<&Packet> {
        let held = self.held.get(at).filter(|held| held.note.key.sender == Sender::Wire)?;
        held.packet.as_ref()
    }

    /// Takes out the fragment in this slot, which is in use.
    pub(super) fn take_at(&mut self, at: usize) -> Option<Packet> {
        self.swap_remove(at).packet
    }

    /// Keeps the first fragment to come of a packet of `network`. There is room.
    #[inline]
    pub(super) fn keep(&mut self, network: u32, note: Note, since: Moment, packet: Packet) {
        let mark = Mark { tag: tag(network, note.key.id), number: self.next_number };
        self.push(mark, Held { note, since, packet: Some(packet) });
    }

    /// Adds a fragment of `network` that came at `now`. If it completes its packet, moves all fragments of
    /// that to `out`, which is empty. There is room for `limit`. Passes all packets that are dropped to
    /// `drop`.
    pub(super) fn add(
        &mut self,
        network: u32,
        (note, now, packet): (Note, Moment, Packet),
        limit: usize,
        out: &mut Fragments,
        drop: &mut impl FnMut(Packet, DropReason),
    ) -> Option<Whole> {
        let key = note.key;
        let mut new = Held { note, since: now, packet: Some(packet) };
        let mut mark = Mark { tag: tag(network, key.id), number: self.next_number };
        let (mut relation, mut others, mut only) = (Relation::Beside, 0, 0);
        let (mut bytes, mut end) = (note.to - note.from, if note.is_last { note.to } else { usize::MAX });
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
            bytes += held.note.to - held.note.from;
            if held.note.is_last {
                end = held.note.to;
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
                self.push(mark, Held { note: Note { from: 0, to: usize::MAX, ..note }, ..new });
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
        // The packets of all that wait began no later.
        self.patience_ends.get_or_insert_with(|| new.since + PATIENCE);
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
        marked.map(|(at, _)| at).filter(move |at| self.held[*at].note.key == key)
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
        let first = fragments.clone().find(|held| held.note.from == 0)?;
        let whole = Whole::of(first.note.traffic_class, fragments.map(|held| held.note.traffic_class));
        let Some(whole) = whole else {
            self.remove(|mark| mark.number == number, DropReason::FragmentEcn, drop);
            return None;
        };
        let mut end = 0;
        let next = |group: &Self, from| {
            group.fragments(number).find(|(_, held)| held.note.from == from).map(|(at, _)| at)
        };
        // They do not overlap, and none is missing.
        while let Some(at) = next(self, end) {
            let held = self.swap_remove(at);
            end = held.note.to;
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

    /// Returns whether packets may have taken too long.
    #[inline]
    fn has_old(&self, now: Moment) -> bool {
        self.patience_ends.is_some_and(|end| now > end)
    }

    /// Drops the fragments of packets that have taken too long.
    pub(super) fn expire(&mut self, now: Moment, drop: &mut impl FnMut(Packet, DropReason)) {
        if !self.has_old(now) {
            return;
        }
        for at in (0..self.held.len()).rev() {
            if now > self.held[at].since + PATIENCE {
                drop_held(self.swap_remove(at), DropReason::FragmentTimeout, drop);
            }
        }
        self.patience_ends = self.held.iter().map(|held| held.since + PATIENCE).min();
    }

    /// Returns the number of fragments that wait.
    pub(super) fn count(&self) -> usize {
        self.held.iter().filter(|held| held.packet.is_some()).count()
    }

    /// Takes all fragments out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Packet> + '_ {
        self.marks.clear();
        self.patience_ends = None;
        self.held.drain(..).filter_map(|held| held.packet)
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
    let (first, last) = if one.note.from == 0 { (one, other) } else { (other, one) };
    let classes = [first.note.traffic_class, last.note.traffic_class];
    let whole = Whole::of(first.note.traffic_class, classes.into_iter());
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
    let (old, note) = (&held.note, &new.note);
    if (old.from, old.to, old.is_last) == (note.from, note.to, note.is_last) {
        let is_same = held.payload() == new.payload();
        return if is_same { Relation::Duplicate } else { Relation::Conflict };
    }
    let overlaps = old.from < note.to && note.from < old.to;
    let goes_beyond = (old.is_last && note.to > old.to) || (note.is_last && old.to > note.to);
    if overlaps || goes_beyond { Relation::Conflict } else { Relation::Beside }
}

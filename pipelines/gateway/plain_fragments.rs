//! Fragments of ESP and IKE to the gateway without options or other extension headers, of which nearly always
//! two are a packet. They are kept and joined in few steps; all others take those of `deliver`.

use super::{
    classify,
    io::Io,
    reassembly::{Note, Slot, Vacancy, Waiting},
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        fragment::{self, V6_FRAGMENT_HEADER},
        ip::{self, IpHeader, V4_HEADER, V6_HEADER, protocol},
        plain_fragment::{self, PlainFragment, V6_HEADERS},
    },
};

/// What has become of a fragment.
pub(super) enum Added {
    /// Nothing: it is not plain, or takes a closer look.
    Left(Packet),
    /// It was kept, or dropped.
    Taken,
    /// It has completed this packet, which is for the gateway.
    Whole(Packet),
}

/// Adds the fragment in `packet`, an IP packet to one of the gateway's addresses and perhaps the padding of its
/// frame, to those that wait, if it is plain and of ESP or UDP. It is kept if nothing of its packet waits. It is
/// joined with the other one of its packet, if that waits alone and came by the same port, and both are for the
/// gateway, say the same of congestion, and fit in one frame.
#[inline(never)]
pub(super) fn add(packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) -> Added {
    let Some(new) = read(&packet).filter(may_be_ours) else { return Added::Left(packet) };
    match io.waiting_of(&new) {
        Waiting::Nothing(vacancy) => match Note::plain(&new) {
            Some(note) => keep(packet, vacancy, note, io),
            None => Added::Left(packet),
        },
        Waiting::One(slot) => {
            let kept = io.waits_at(slot).filter(|kept| kept.port() == packet.port());
            match kept.and_then(|kept| pair(kept, (&new, &packet), tables, reader)) {
                Some(pair) => complete(packet, slot, &pair, io),
                None => Added::Left(packet),
            }
        }
        Waiting::Unclear => Added::Left(packet),
    }
}

#[inline(always)]
fn keep(mut packet: Packet, vacancy: Vacancy, note: Note, io: &mut Io) -> Added {
    // Without the padding of the frame.
    match packet.set_len(note.total_len()) {
        Some(()) => io.keep(vacancy, note, packet),
        None => io.drop(packet, DropReason::FragmentLength),
    }
    Added::Taken
}

/// How two fragments are a packet.
struct Pair {
    /// `true` if the first one came first.
    is_in_order: bool,
    /// Where the first one ends.
    end: usize,
    /// Where the payload of the last one begins, and its length.
    rest: (usize, usize),
}

/// Returns how the fragments in `kept` and `packet` are a packet for the gateway that the frame of the first one
/// holds. `new` is the one in `packet`.
#[inline(always)]
fn pair(
    kept: &Packet,
    (new, packet): (&PlainFragment<'_>, &Packet),
    tables: &Tables,
    reader: &Reader,
) -> Option<Pair> {
    let old = read(kept)?;
    let is_in_order = old.is_completed_by(new);
    let (begun, last, first) = if is_in_order { (&old, new, kept) } else { (new, &old, packet) };
    let (head, length) = (head_len(begun), last.payload.len());
    let end = head + begun.payload.len();
    let is_packet = is_in_order || begun.is_completed_by(last);
    let fits = end + length <= first.len() + first.tailroom();
    (is_packet && fits && is_ours(begun, first, tables, reader)).then_some(Pair {
        is_in_order,
        end,
        rest: (head, length),
    })
}

/// Joins the fragment in `packet` with the one in this slot.
#[inline(always)]
fn complete(packet: Packet, slot: Slot, pair: &Pair, io: &mut Io) -> Added {
    let Some(kept) = io.take_at(slot) else { return Added::Left(packet) };
    let (mut first, last) = if pair.is_in_order { (kept, packet) } else { (packet, kept) };
    if join(&mut first, &last, pair).is_some() {
        io.free(last);
        return Added::Whole(first);
    }
    [first, last].into_iter().for_each(|packet| io.drop(packet, DropReason::ReassembledTooLong));
    Added::Taken
}

/// Joins two fragments of a packet in the frame of the first one.
#[inline(always)]
fn join(first: &mut Packet, last: &Packet, pair: &Pair) -> Option<()> {
    let (at, length) = pair.rest;
    let rest = last.data().get(at..at + length)?;
    first.set_len(pair.end + length)?;
    first.data_mut()[pair.end..].copy_from_slice(rest);
    make_whole(first)
}

/// Returns the fragment in an IP packet, if it is plain.
#[inline(always)]
fn read(packet: &Packet) -> Option<PlainFragment<'_>> {
    match packet.data().first()? >> 4 {
        4 => PlainFragment::read_v4(packet.data(), packet.is_verified()),
        6 => PlainFragment::read_v6(packet.data()),
        _ => None,
    }
}

/// Returns whether there are others of its packet, and it may be of ESP or IKE.
#[inline(always)]
fn may_be_ours(fragment: &PlainFragment<'_>) -> bool {
    (fragment.more || fragment.offset > 0) && matches!(fragment.protocol, protocol::ESP | protocol::UDP)
}

/// Returns the length of the headers of a fragment, in bytes.
#[inline(always)]
fn head_len(fragment: &PlainFragment<'_>) -> usize {
    if fragment.dst.is_ipv4() { V4_HEADER } else { V6_HEADERS }
}

/// Returns whether the packet to the gateway that begins in `first` is ESP or IKE for it.
#[inline(always)]
fn is_ours(begun: &PlainFragment<'_>, first: &Packet, tables: &Tables, reader: &Reader) -> bool {
    if begun.protocol == protocol::ESP {
        return true;
    }
    let (mut header, bytes) = (IpHeader::default(), first.data());
    header.read_received(bytes, true).is_ok()
        && classify::is_for_gateway(&header, bytes, tables)
        && !tables.nat.is_for(&header, bytes, reader)
}

/// Makes the first fragment of a packet, which is plain, the whole packet, of which it has the rest.
#[inline(always)]
fn make_whole(packet: &mut Packet) -> Option<()> {
    let ip = packet.data_mut();
    if ip[0] >> 4 == 4 {
        plain_fragment::make_whole_v4(ip);
        return Some(());
    }
    ip::set_total_len(ip, V6_HEADER, ip.len());
    fragment::remove_v6_header(ip);
    packet.pull_front(V6_FRAGMENT_HEADER)
}

#[cfg(all(test, feature = "bench"))]
mod tests;

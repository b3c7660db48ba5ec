//! Fragments of ESP and IKE to the gateway without options or other extension headers, of which nearly always
//! two are a packet. They are kept and joined in few steps; all others take those of `deliver`.

use super::{
    classify,
    io::Io,
    reassembly::{Held, Place, Room, Waiting},
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
    Nothing(Packet),
    /// It was kept.
    Kept,
    /// It has completed this packet, which is for the gateway.
    Whole(Packet),
}

/// Keeps the fragment in `packet`, an IP packet and perhaps the padding of its frame, if it is ESP or UDP to the
/// gateway, and nothing of its packet waits. Joins it with the other one of its packet, if that waits alone and
/// came by the same port.
#[inline(never)]
pub(super) fn add(packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) -> Added {
    let Some(new) = read(&packet).filter(may_be_ours) else { return Added::Nothing(packet) };
    match io.waiting_of(&new) {
        Waiting::Nothing(room) if tables.is_own(new.dst, reader) => {
            let now = io.now();
            match Held::plain(&new, now) {
                Some(held) => keep(packet, room, held, io),
                None => Added::Nothing(packet),
            }
        }
        Waiting::One(place) => {
            let kept = io.waits_at(place).filter(|kept| kept.port() == packet.port());
            match kept.and_then(|kept| order(kept, (&new, &packet), tables, reader)) {
                Some(order) => complete(packet, place, &order, io),
                None => Added::Nothing(packet),
            }
        }
        _ => Added::Nothing(packet),
    }
}

#[inline(always)]
fn keep(mut packet: Packet, room: Room, held: Held, io: &mut Io) -> Added {
    // Without the padding of the frame.
    match packet.set_len(held.len()) {
        Some(()) => io.keep(room, held, packet),
        None => io.drop(packet, DropReason::FragmentLength),
    }
    Added::Kept
}

/// How two fragments are a packet.
struct Order {
    /// `true` if the one that came later is the last one.
    is_later: bool,
    /// Where the first one ends.
    end: usize,
    /// Where the payload of the last one begins, and its length.
    rest: (usize, usize),
}

/// Returns how the fragments in `kept` and `packet` are a packet for the gateway that the frame of the first one
/// holds. `new` is the one in `packet`, which may be the gateway's.
#[inline(always)]
fn order(
    kept: &Packet,
    (new, packet): (&PlainFragment<'_>, &Packet),
    tables: &Tables,
    reader: &Reader,
) -> Option<Order> {
    let old = read(kept)?;
    let is_later = old.is_completed_by(new);
    let (begun, last, first) = if is_later { (&old, new, kept) } else { (new, &old, packet) };
    let (headers, length) = (headers(begun), last.payload.len());
    let end = headers + begun.payload.len();
    let is_packet = is_later || begun.is_completed_by(last);
    let fits = end + length <= first.len() + first.tailroom();
    (is_packet && fits && is_ours(begun, first, tables, reader)).then_some(Order {
        is_later,
        end,
        rest: (headers, length),
    })
}

/// Joins the fragment in `packet` with the one at this place.
#[inline(always)]
fn complete(packet: Packet, place: Place, order: &Order, io: &mut Io) -> Added {
    let Some(kept) = io.take_at(place) else { return Added::Nothing(packet) };
    let (mut first, last) = if order.is_later { (kept, packet) } else { (packet, kept) };
    if join(&mut first, &last, order).is_some() {
        io.free(last);
        return Added::Whole(first);
    }
    [first, last].into_iter().for_each(|packet| io.drop(packet, DropReason::ReassembledTooLong));
    Added::Kept
}

/// Joins two fragments of a packet in the frame of the first one.
#[inline(always)]
fn join(first: &mut Packet, last: &Packet, order: &Order) -> Option<()> {
    let (at, length) = order.rest;
    let rest = last.data().get(at..at + length)?;
    first.set_len(order.end + length)?;
    first.data_mut()[order.end..].copy_from_slice(rest);
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
fn headers(fragment: &PlainFragment<'_>) -> usize {
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

//! Hands packets that end here to the slow path or the host's own stack.

use super::{
    care_of,
    classify::{self, ike_spi},
    exception,
    io::Io,
    kernel_side::Traffic,
    plain_fragments::{self, Added},
    policy::Action,
    policy_fragments::shows_ports,
    reassembly::{Fragments, Whole},
    rings::Punt,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::Flow,
    table::Reader,
    wire::{
        extension,
        fragment::{self, Part, V6_FRAGMENT_HEADER},
        icmp,
        ip::{Fragment, IpHeader},
    },
};

/// Hands an IKE message, an IP packet that begins with `header`, to the slow path.
pub(super) fn control(packet: Packet, header: &IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    match punt_control(packet.port(), packet.data(), header, tables, reader, io) {
        Ok(()) => io.free(packet),
        Err(reason) => io.drop(packet, reason),
    }
}

/// Hands `message`, an IKE message that begins with `header` and came in by `port`, to the slow path.
///
/// # Errors
/// `PuntRingFull`.
pub(super) fn punt_control(
    port: u16,
    message: &[u8],
    header: &IpHeader,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let known = ike_spi(message, header).and_then(|spi| tables.ike.get(&spi, reader));
    io.punt_message(port, message, header.src, known)
}

/// A packet that arrived in fragments and is complete.
pub(super) enum Defragmented {
    /// It is the gateway's, and is in one frame.
    Whole(Packet),
    /// It is the gateway's, and is longer than a frame.
    Long(Long),
    /// It is a NAT's, and still in fragments.
    Nat(Whole),
}

/// A packet that is longer than a frame.
#[derive(Debug)]
pub(super) struct Long {
    /// The packet, in the worker's room.
    pub(super) packet: Packet,
    /// The frame of its first fragment.
    pub(super) frame: Packet,
}

/// Handles a packet that is a fragment or has options, to one of the gateway's own addresses. Returns the
/// complete packet if there is one for the gateway or its NAT now. Keeps other fragments. The fragments of
/// one that is a NAT's are in `fragments`, which is empty before.
pub(super) fn defragment(
    mut packet: Packet,
    header: &mut IpHeader,
    fragments: &mut Fragments,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Option<Defragmented> {
    if header.fragment == Fragment::Whole {
        if !header.is_ipv4() && Part::read(header, packet.data()).is_some() {
            // The only fragment of its packet has nothing to do with others (RFC 6946 §4).
            fragment::remove_v6_header(packet.data_mut());
            let is_shorter = packet.pull_front(V6_FRAGMENT_HEADER).is_some();
            debug_assert!(is_shorter, "the fragment header lies within the packet");
        }
        return Some(Defragmented::Whole(packet));
    }
    let packet = match plain_fragments::add(packet, tables, reader, io) {
        Added::Whole(packet) => return Some(Defragmented::Whole(packet)),
        Added::Taken => return None,
        Added::Left(packet) => packet,
    };
    let whole = io.reassemble(packet, header, fragments)?;
    let first = fragments.first()?;
    let is_read = header.read(first.data()).is_ok();
    if is_read && tables.nat.is_for(header, first.data(), reader) {
        return Some(Defragmented::Nat(whole));
    }
    if !is_read || !classify::is_for_gateway(header, first.data(), tables) {
        fragments.drain(..).for_each(|packet| deliver_fragment(packet, tables, reader, io));
        return None;
    }
    if !fragments.iter().all(|fragment| extension::may_be_skipped_in_fragment(fragment.data())) {
        fragments.drain(..).for_each(|packet| io.drop(packet, DropReason::OuterOptions));
        return None;
    }
    join(whole, fragments, io)
}

/// Hands a fragment of a packet that is not the gateway's to the host's own stack.
fn deliver_fragment(packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) {
    match IpHeader::parse(packet.data()) {
        Ok(header) => deliver(packet, 0, &header, tables, reader, io),
        Err(why) => io.drop(packet, classify::ip_format(why)),
    }
}

/// Joins the fragments of a packet, and frees all of their frames but one.
fn join(whole: Whole, fragments: &mut Fragments, io: &mut Io) -> Option<Defragmented> {
    let (first, later) = fragments.split_first_mut()?;
    let room = match whole.join_in_first(first, later.iter().map(Packet::data)) {
        Some(()) => None,
        None => match join_in_room(whole, fragments, io) {
            Ok(room) => Some(room),
            Err(reason) => {
                fragments.drain(..).for_each(|packet| io.drop(packet, reason));
                return None;
            }
        },
    };
    let mut fragments = fragments.drain(..);
    let frame = fragments.next()?;
    fragments.for_each(|packet| io.free(packet));
    Some(match room {
        Some(packet) => Defragmented::Long(Long { packet, frame }),
        None => Defragmented::Whole(frame),
    })
}

/// Joins the fragments of a packet in the worker's room.
#[cold]
fn join_in_room(whole: Whole, fragments: &[Packet], io: &mut Io) -> Result<Packet, DropReason> {
    let mut room = io.take_room()?;
    match whole.join(fragments, room.data_mut()).and_then(|length| room.set_len(length)) {
        Some(()) => Ok(room),
        None => {
            io.give_room(room);
            Err(DropReason::ReassembledTooLong)
        }
    }
}

/// Hands a frame of ARP or neighbour discovery to the slow path, and to the kernel's side of its
/// port if there is one.
pub(super) fn neighbour(packet: Packet, io: &mut Io) {
    match io.punt(packet.port(), Punt::Neighbour, packet.data()) {
        Ok(()) => io.to_kernel(packet, Traffic::Segment),
        Err(reason) => io.drop(packet, reason),
    }
}

/// Hands a packet in clear to the host's own stack, or to the slow path if it says that ESP was too
/// big, unless it should have come through a tunnel (RFC 4301 §5.2).
pub(super) fn deliver(
    packet: Packet,
    padding: u16,
    header: &IpHeader,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let flow = Flow::of(header, packet.data());
    if tables.is_unprotected(&flow, None, reader) || tables.should_be_tunnelled(flow.src, reader) {
        return io.drop(packet, DropReason::Unprotected);
    }
    if let Err(reason) = shows_ports(header, packet.data()) {
        return io.drop(packet, reason);
    }
    let message = classify::mobility_message(header, packet.data(), tables);
    if let Some(punt) = message.filter(|_| tables.is_own(header.dst, reader)) {
        io.punt_shared(packet, punt);
    } else if let Some(encapsulation) = tables.tunnelled_home(header) {
        // A guard stands for a tunnel.
        if tables
            .decide(&flow.reversed(), reader)
            .rule()
            .is_some_and(|rule| matches!(rule.action, Action::Guard))
        {
            return io.drop(packet, DropReason::Unprotected);
        }
        care_of::unwrap(packet, header, encapsulation, None, tables, reader, io);
    } else if flow.is_icmp()
        && classify::is_too_big(header, packet.data(), tables)
        && tables.is_own(header.dst, reader)
    {
        io.punt_packet(packet, Punt::PathMtu);
    } else if let Some(reason) = refused_quote(&flow, header, packet.data(), tables, reader) {
        io.drop(packet, reason);
    } else if io.has_kernel_side(packet.port()) {
        exception::host(packet, padding, io);
    } else if tables.is_local(header.dst, reader) {
        io.to_host(packet, tables);
    } else {
        // The packet is local to a segment that the host is not on.
        io.drop(packet, DropReason::Martian);
    }
}

/// Returns why an ICMP error to the host is refused: it tells of a packet that went through a tunnel, so
/// that it should have come by that (RFC 4301 §6.2), or it does not show of which.
fn refused_quote(
    flow: &Flow,
    header: &IpHeader,
    packet: &[u8],
    tables: &Tables,
    reader: &Reader,
) -> Option<DropReason> {
    if !flow.is_icmp() || !icmp::is_error(header, packet) {
        return None;
    }
    match Flow::returned_by(header, packet) {
        Some(back) => tables.is_unprotected(&back, None, reader).then_some(DropReason::Unprotected),
        None => Some(DropReason::IcmpQuote),
    }
}

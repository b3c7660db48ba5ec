//! Packets that the host's own kernel has cut into fragments, and that SAs in transport mode may be for.
//!
//! Transport mode carries whole packets only, and what it has sealed is cut afterwards (RFC 4303 §3.3.4).
//! So fragments wait until their packet is complete. It is joined and sealed in the worker's room for a
//! long one.

use super::{
    classify::ip_format,
    departure::{Departure, Origin},
    forward,
    io::Io,
    outbound::{MAX_HEADERS, MAX_TRAILER, treat_in, wrap},
    policy::Action,
    reassembly::{Fragments, Whole},
    seal::seal_in_room,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, Mode, OutboundSa},
    table::Reader,
    wire::{
        fragment::Part,
        ip::{IpHeader, protocol},
    },
};

/// Returns whether a fragment, which begins with `header`, has to wait for its packet: the rule for later
/// fragments, which may hide their ports, is that of an SA in transport mode. The answer is the same for
/// all fragments of a packet. It is `false` if another extension header of IPv6 follows the fragment
/// header, because then the first fragment shows another protocol than the others.
pub(super) fn waits(packet: &Packet, header: &IpHeader, tables: &Tables, reader: &Reader) -> bool {
    let later = Flow { ports: None, is_later_fragment: true, ..Flow::of(header, packet.data()) };
    let rule = tables.decide(&later, reader).rule();
    let is_transport = |action: &Action| matches!(action, Action::Protect(sa) if sa.mode == Mode::Transport);
    let can_join = Part::read(header, packet.data()).is_some() && !is_extension_next(header);
    can_join && rule.is_some_and(|rule| is_transport(&rule.action))
}

/// Returns whether an extension header follows the fragment header of a later fragment of IPv6.
fn is_extension_next(header: &IpHeader) -> bool {
    let extensions = [protocol::HOP_BY_HOP, protocol::ROUTING, protocol::FRAGMENT, protocol::DESTINATION];
    !header.is_ipv4() && extensions.contains(&header.protocol)
}

/// Passes on the fragments of a complete packet as policy says of the first one, which shows the ports.
pub(super) fn pass(whole: Whole, fragments: &mut Fragments, tables: &Tables, reader: &Reader, io: &mut Io) {
    let Some(first) = fragments.first() else { return };
    let mut header = IpHeader::default();
    let read = header.read(first.data()).map_err(ip_format);
    let departure = Departure::new(&header, Origin::Host, tables);
    let done = match read.and_then(|()| treat_in(&mut None, first, &departure, tables, reader)) {
        Ok(Some(sa)) if sa.mode == Mode::Transport => seal_whole(whole, fragments, sa, tables, reader, io),
        // The policy of a tunnel could not tell for later fragments.
        Ok(Some(_)) => Err(DropReason::FragmentPorts),
        Ok(None) => return fragments.drain(..).for_each(|packet| clear(packet, tables, reader, io)),
        Err(reason) => Err(reason),
    };
    for packet in fragments.drain(..) {
        match done {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

/// Forwards a fragment in clear.
fn clear(packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) {
    match IpHeader::parse(packet.data()) {
        Ok(header) => forward::clear(packet, &header, tables, reader, io),
        Err(why) => io.drop(packet, ip_format(why)),
    }
}

/// Sends the packet of these fragments through `sa`.
fn seal_whole(
    whole: Whole,
    fragments: &[Packet],
    sa: &OutboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let endpoint = sa.endpoint(reader).ok_or(DropReason::NoEndpoint)?;
    let mut packet = join(whole, fragments, io)?;
    let mut header = IpHeader::default();
    if let Err(why) = header.read(packet.data()) {
        io.give_room(packet);
        return Err(ip_format(why));
    }
    let mut departure = Departure::new(&header, Origin::Host, tables);
    (departure.sa, departure.endpoint) = (Some(sa), Some(endpoint));
    departure.fate = wrap(&mut packet, &header, &mut departure, sa, endpoint);
    seal_in_room(packet, departure, tables, reader, io)
}

/// Joins fragments in the worker's room, with space for ESP before and behind them.
fn join(whole: Whole, fragments: &[Packet], io: &mut Io) -> Result<Packet, DropReason> {
    let mut room = io.take_room()?;
    let end = room.len() - MAX_TRAILER;
    let length = whole.join(fragments, &mut room.data_mut()[MAX_HEADERS..end]);
    let is_placed = length.and_then(|length| {
        room.pull_front(MAX_HEADERS)?;
        room.set_len(length)
    });
    if is_placed.is_none() {
        io.give_room(room);
        return Err(DropReason::ReassembledTooLong);
    }
    if let Some(first) = fragments.first() {
        room.set_port(first.port());
        if let Some(time) = first.time() {
            room.set_time(time);
        }
    }
    Ok(room)
}

//! Packets in fragments that only the whole packet's policy is for.
//!
//! Ports are in the first fragment only (RFC 4301 §7), and only that one's protocol counts in IPv6 (RFC 8200
//! §4.5). Transport mode carries whole packets, which are cut after they are sealed (RFC 4303 §3.3.4). So
//! fragments wait until their packet is complete. Then the first one decides for all of them.
//!
//! In clear, and through an SA that lets each of them pass by itself, they go on as they came. For other
//! SAs they are joined and sealed in the worker's room for a long packet, and the outer packet is cut.

use super::{
    classify::ip_format,
    departure::{Departure, Departures, Origin},
    encapsulate::payload_limit,
    forward,
    io::Io,
    outbound::{self, MAX_HEADERS, MAX_TRAILER, treat_in, wrap},
    policy::{Action, Decision, Rule},
    reassembly::{Fragments, GROUP, Whole},
    seal::seal_in_room,
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Packet},
    sa::{Endpoint, Flow, Mode, OutboundSa},
    table::Reader,
    wire::{fragment::Part, icmp::Problem, ip::IpHeader},
};

const _: () = assert!(GROUP <= BURST);

/// Returns whether a fragment, which begins with `header`, has to wait for its packet: later fragments may
/// hide what policy goes by, or its rule for them is an SA in transport mode for this host's packets. The
/// answer is the same for all fragments of a packet.
pub(super) fn waits(header: &IpHeader, origin: Origin, tables: &Tables, reader: &Reader) -> bool {
    let later = Flow::of_later(header);
    match tables.decide(&later, reader) {
        Decision::Hidden(_) => true,
        Decision::Rule(Rule { action: Action::Protect(sa), .. }) if sa.mode == Mode::Transport => {
            origin == Origin::Host
        }
        // Whether a tunnel should have brought it may be hidden as well.
        _ => {
            origin == Origin::Wire && matches!(tables.decide(&later.reversed(), reader), Decision::Hidden(_))
        }
    }
}

/// Passes on the fragments of a complete packet as policy says of the first one. They are none afterwards.
pub(super) fn pass(
    whole: Whole,
    fragments: &mut Fragments,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let Some(first) = fragments.first() else { return };
    let mut header = IpHeader::default();
    let read = header.read(first.data()).map_err(ip_format).and_then(|()| shows_ports(&header, first.data()));
    let departure = Departure::new(&header, origin, tables);
    // The port of the first one leads to its source, but a NAT's may have come by several.
    let is_by_one_port = || fragments.iter().all(|packet| packet.port() == first.port());
    let done = match read.and_then(|()| treat_in(&mut None, first, &departure, tables, reader)) {
        Ok(Some(_)) if origin == Origin::Wire && !is_by_one_port() => Err(DropReason::SourcePort),
        Ok(Some(sa)) if is_for_whole(sa, &header, first) => {
            seal_whole(whole, fragments, origin, sa, tables, reader, io)
        }
        Ok(Some(sa)) => return protect_each(fragments, origin, sa, tables, reader, io),
        Ok(None) => return fragments.drain(..).for_each(|packet| clear(packet, tables, reader, io)),
        Err(reason) => Err(reason),
    };
    for (index, packet) in fragments.drain(..).enumerate() {
        match done {
            Ok(()) => io.free(packet),
            Err(DropReason::HopLimit) if index == 0 => {
                io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
            }
            Err(reason) => io.drop(packet, reason),
        }
    }
}

/// Refuses a first fragment that is too short to show the ports, or the type of ICMP: it may be made to get
/// past policy (RFC 1858 §3, RFC 7112 §4). No other fragment, and no whole packet, is refused.
pub(super) fn shows_ports(header: &IpHeader, packet: &[u8]) -> Result<(), DropReason> {
    match Flow::is_cut_short(header, packet) {
        true => Err(DropReason::FragmentTiny),
        false => Ok(()),
    }
}

/// Returns whether the peer can judge only the whole packet, whose first fragment begins with `header`:
/// later ones do not show what the SA's selectors compare (RFC 4301 §7).
fn is_for_whole(sa: &OutboundSa, header: &IpHeader, first: &Packet) -> bool {
    let hides_protocol =
        || Part::read(header, first.data()).is_some_and(|part| part.protocol != header.protocol);
    sa.mode == Mode::Transport || sa.selects_ports || hides_protocol()
}

/// Forwards a fragment in clear.
fn clear(packet: Packet, tables: &Tables, reader: &Reader, io: &mut Io) {
    match IpHeader::parse(packet.data()) {
        Ok(header) => forward::clear(packet, &header, tables, reader, io),
        Err(why) => io.drop(packet, ip_format(why)),
    }
}

/// Sends each of these fragments through `sa`.
fn protect_each(
    fragments: &mut Fragments,
    origin: Origin,
    sa: &OutboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut headers = [IpHeader::default(); BURST];
    let mut departures = Departures::default();
    for (packet, header) in fragments.drain(..).zip(&mut headers) {
        match header.read(packet.data()) {
            Ok(()) => {
                let departure = Departure { sa: Some(sa), ..Departure::new(header, origin, tables) };
                departures.push(packet, departure);
            }
            Err(why) => io.drop(packet, ip_format(why)),
        }
    }
    outbound::carry_out(&mut departures, tables, reader, io);
}

/// Sends the packet of these fragments through `sa`.
fn seal_whole(
    whole: Whole,
    fragments: &[Packet],
    origin: Origin,
    sa: &OutboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let endpoint = sa.endpoint(reader).ok_or(DropReason::NoEndpoint)?;
    let mut packet = join(whole, fragments, io)?;
    let header = match prepare(&mut packet, sa, endpoint, tables) {
        Ok(header) => header,
        Err(reason) => {
            io.give_room(packet);
            return Err(reason);
        }
    };
    let mut departure = Departure::new(&header, origin, tables);
    (departure.sa, departure.endpoint) = (Some(sa), Some(endpoint));
    departure.fate = wrap(&mut packet, &header, &mut departure, sa, endpoint);
    seal_in_room(packet, departure, tables, reader, io)
}

/// Changes a packet as the gateway does that it passes to `sa`. Returns its header.
fn prepare(
    packet: &mut Packet,
    sa: &OutboundSa,
    endpoint: &Endpoint,
    tables: &Tables,
) -> Result<IpHeader, DropReason> {
    let header = IpHeader::parse(packet.data()).map_err(ip_format)?;
    match sa.mode {
        // Of IPv6, only headers without extensions are cut.
        Mode::Transport if !header.is_ipv4() && header.has_options() => {
            return Err(DropReason::TransportFragment);
        }
        Mode::Transport => {}
        Mode::Tunnel if header.hop_limit <= 1 => return Err(DropReason::HopLimit),
        Mode::Tunnel => {
            outbound::pass(packet, &header, tables, payload_limit(sa, endpoint, header.header_len()))
        }
    }
    Ok(header)
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

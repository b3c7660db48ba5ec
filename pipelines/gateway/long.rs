//! ESP and IKE to the gateway that came in IP fragments and are longer than a frame.
//!
//! Such a packet is opened in the worker's room for one. Its inner packet goes on in a frame if it fits,
//! and otherwise in fragments, if it may be cut.

use super::{
    classify::{self, Class},
    deliver::{Long, punt_control},
    departure::Departures,
    fragment::{fragment, fragment_outer},
    inbound::{Arrival, Arrivals, admit, finish, forward_inner},
    io::{FROM_TUNNEL, Io},
    outbound,
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{InboundSa, Mode},
    table::Reader,
    wire::{
        icmp::Problem,
        ip::{Fragment, IpHeader},
    },
};

/// Handles a packet to the gateway. Its header is read into `header`.
#[cold]
#[inline(never)]
pub(super) fn receive(long: Long, header: &mut IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    let Long { mut packet, frame } = long;
    let class = match header.read(packet.data()) {
        Ok(()) => classify::whole(&mut packet, header, tables),
        Err(why) => Err(classify::ip_format(why)),
    };
    let done = match class {
        Ok(Class::Esp(esp_at)) => return open(Long { packet, frame }, header, esp_at, tables, reader, io),
        Ok(Class::Control) => punt_control(frame.port(), packet.data(), header, tables, reader, io),
        // Its first fragment showed that it is ESP or IKE.
        Ok(_) => Err(DropReason::ReassembledTooLong),
        Err(reason) => Err(reason),
    };
    io.give_room(packet);
    match done {
        Ok(()) => io.free(frame),
        Err(reason) => io.drop(frame, reason),
    }
}

/// Opens an ESP packet, and forwards the inner one.
fn open(
    Long { packet, frame }: Long,
    header: &IpHeader,
    esp_at: u16,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut arrivals = Arrivals::default();
    let arrival = Arrival::new(&packet, header, esp_at, tables);
    arrivals.push(packet, arrival);
    admit(&mut arrivals, tables, reader, io);
    let Some((mut packet, arrival)) = arrivals.drain().next() else { return io.free(frame) };
    let mut inner = IpHeader::default();
    match finish(&mut packet, &arrival, &mut inner, tables, reader, io) {
        Ok((sa, admitted, flow)) => {
            let bytes = inner.total_len() as u64;
            io.counters().opened.add(1);
            io.counters().opened_bytes.add(bytes);
            // With limits, it was charged before.
            let _ = sa.life.charge_run(1, bytes);
            let number = arrival.seq as u32;
            divide(&mut packet, frame, &inner, (sa, number), tables, reader, io, |io, piece| {
                let header = match IpHeader::parse(piece.data()) {
                    Ok(header) => header,
                    Err(_) => return io.drop(piece, DropReason::InnerMalformed),
                };
                let mut out = Departures::default();
                forward_inner(piece, &header, &flow, sa, admitted, &mut out, tables, reader, io);
                outbound::run(&mut out, tables, reader, io);
            });
        }
        Err(reason) => io.drop(frame, reason),
    }
    io.give_room(packet);
}

/// Passes an inner packet to `each`: in `frame` if it fits, otherwise in fragments. If it must not be cut,
/// its sender hears of the size that passes. One for this host may be cut in any case, since its stack
/// joins the fragments. `packet` came out of an SA, with this number.
#[allow(clippy::too_many_arguments, reason = "the packet, where it came from, and what every stage has")]
fn divide(
    packet: &mut Packet,
    mut frame: Packet,
    inner: &IpHeader,
    (sa, number): (&InboundSa, u32),
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
    mut each: impl FnMut(&mut Io, Packet),
) {
    let room = frame.len() + frame.tailroom();
    let start = &packet.data()[..packet.len().min(room)];
    let fits = frame.fill(frame.headroom(), start).is_some() && start.len() == packet.len();
    if fits {
        return each(io, frame);
    }
    packet.set_port(frame.port());
    if let Some(time) = frame.time() {
        packet.set_time(time);
    }
    let hop = tables.routes.find(inner.dst, reader);
    let is_for_host = matches!(hop, Some(Hop::Local | Hop::Host)) && !tables.nat.has_address(inner.dst);
    let ends_here = sa.mode == Mode::Transport || is_for_host;
    let port = match hop {
        Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => Some(*port),
        _ => tables.settings.host.as_ref().map(|host| host.port),
    };
    let mtu = port.map_or(room, |port| room.min(tables.settings.ports[usize::from(port)].mtu()));
    let is_plain = inner.fragment == Fragment::Whole && (inner.is_ipv4() || !inner.has_options());
    let done = if !inner.dont_fragment {
        fragment(packet, inner, mtu, io, |io, piece, _| each(io, piece))
    } else if ends_here && is_plain {
        // No two packets of the SA that wait to be joined have one number.
        fragment_outer(packet, mtu, number, io, each)
    } else {
        frame.set_port(FROM_TUNNEL);
        return io.refuse(frame, Problem::TooBig { mtu: mtu as u16 }, DropReason::TooBig);
    };
    match done {
        Ok(()) => io.free(frame),
        Err(reason) => io.drop(frame, reason),
    }
}

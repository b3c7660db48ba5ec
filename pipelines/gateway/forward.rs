//! Forwarding of packets in clear: route, hop limit, size.

use super::{
    fragment::fragment,
    io::Io,
    nat::outward::outward,
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        icmp::Problem,
        ip::{self, IpHeader},
    },
};

/// Forwards a packet in clear by its route.
#[inline]
pub fn clear(packet: Packet, header: &IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    clear_by(tables.routes.find(header.dst, reader).copied(), packet, header, tables, reader, io);
}

/// Forwards a packet in clear by the route `hop`.
#[inline(always)]
pub fn clear_by(
    hop: Option<Hop>,
    mut packet: Packet,
    header: &IpHeader,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let port = match hop {
        Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => port,
        // The packet ends here or has no route, so its hop limit does not matter.
        Some(Hop::Local | Hop::Host) | None => return io.route_by(hop, packet, header.dst, tables),
    };
    if header.hop_limit <= 1 {
        return io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
    }
    let settings = &tables.settings.ports[usize::from(port)];
    if settings.has_nat || header.total_len() > settings.mtu() {
        return clear_changed(hop, port, packet, header, tables, reader, io);
    }
    ip::decrement_hop_limit(packet.data_mut());
    io.route_by(hop, packet, header.dst, tables);
}

/// Forwards a packet in clear by the route `hop`, which leads to `port`: by the port's NAT if it has one,
/// and in fragments if it is too long.
#[inline(never)]
fn clear_changed(
    hop: Option<Hop>,
    port: u16,
    packet: Packet,
    header: &IpHeader,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let settings = &tables.settings.ports[usize::from(port)];
    let mtu = settings.mtu();
    if header.total_len() > mtu && header.dont_fragment {
        return io.refuse(packet, Problem::TooBig { mtu: mtu as u16 }, DropReason::TooBig);
    }
    if settings.has_nat {
        return outward(packet, header, port, tables, reader, io, |packet, header, io| {
            leave(hop, mtu, packet, header, tables, io);
        });
    }
    leave(hop, mtu, packet, header, tables, io);
}

/// Sends a packet that may leave by the route `hop`, in fragments of at most `mtu` bytes if it is longer.
fn leave(hop: Option<Hop>, mtu: usize, mut packet: Packet, header: &IpHeader, tables: &Tables, io: &mut Io) {
    ip::decrement_hop_limit(packet.data_mut());
    if header.total_len() <= mtu {
        io.route_by(hop, packet, header.dst, tables);
    } else {
        let each = |io: &mut Io, piece, header: IpHeader| io.route_by(hop, piece, header.dst, tables);
        match fragment(&packet, header, mtu, io, each) {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

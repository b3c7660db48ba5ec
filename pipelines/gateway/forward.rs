//! Forwarding of packets in clear: route, hop limit, size.

use super::{
    fragment::fragment,
    io::Io,
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
    clear_by(tables.routes.find(header.dst, reader).copied(), packet, header, tables, io);
}

/// Forwards a packet in clear by the route `hop`.
#[inline(always)]
pub fn clear_by(hop: Option<Hop>, mut packet: Packet, header: &IpHeader, tables: &Tables, io: &mut Io) {
    let mtu = match hop {
        Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => {
            tables.settings.ports[usize::from(port)].mtu()
        }
        // The packet ends here or has no route, so its hop limit does not matter.
        Some(Hop::Local | Hop::Host) | None => return io.route_by(hop, packet, header.dst, tables),
    };
    if header.hop_limit <= 1 {
        return io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
    }
    let fits = header.total_len() <= mtu;
    if !fits && header.dont_fragment {
        return io.refuse(packet, Problem::TooBig { mtu: mtu as u16 }, DropReason::TooBig);
    }
    ip::decrement_hop_limit(packet.data_mut());
    if fits {
        io.route_by(hop, packet, header.dst, tables);
    } else {
        let each = |io: &mut Io, piece, header: IpHeader| io.route_by(hop, piece, header.dst, tables);
        match fragment(&packet, header, mtu, io, each) {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

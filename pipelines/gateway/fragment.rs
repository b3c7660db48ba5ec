//! Fragmentation (RFC 791 §3.2, RFC 8200 §4.5): of forwarded IPv4 packets, and of outer packets.

use super::io::Io;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    wire::{
        fragment::{CutError, Cutter},
        ip::{self, IpHeader},
    },
};

/// Cuts the IPv4 packet in `packet` into fragments of at most `mtu` bytes, and passes each to
/// `each`. The caller checks that the packet may be fragmented.
///
/// # Errors
/// The reason why the rest of the packet is dropped.
pub fn fragment(
    packet: &Packet,
    header: &IpHeader,
    mtu: usize,
    io: &mut Io,
    mut each: impl FnMut(&mut Io, Packet, IpHeader),
) -> Result<(), DropReason> {
    write(packet, Cutter::v4(packet.data(), header, mtu), io, |io, piece| {
        match IpHeader::parse(piece.data()) {
            Ok(header) => each(io, piece, header),
            Err(_) => io.drop(piece, DropReason::InnerMalformed),
        }
    })
}

/// Cuts the gateway's own `packet`, without IPv6 extension headers, into fragments of at most `mtu`
/// bytes with the identification `id`, of which IPv4 has the low 16 bits, and passes each to `each`.
/// Clears the DF bit. A packet that is no longer than that goes whole, as it is.
///
/// # Errors
/// The reason why the rest of the packet is dropped.
pub fn fragment_outer(
    packet: &mut Packet,
    mtu: usize,
    id: u32,
    io: &mut Io,
    mut each: impl FnMut(&mut Io, Packet),
) -> Result<(), DropReason> {
    if packet.len() <= mtu {
        let mut whole = make(packet, packet.len(), io)?;
        whole.data_mut().copy_from_slice(packet.data());
        each(io, whole);
        return Ok(());
    }
    let header = IpHeader::parse(packet.data()).map_err(|_| DropReason::IpHeaderLength)?;
    let pieces = match header.is_ipv4() {
        true => {
            ip::allow_fragments(packet.data_mut(), header.header_len(), id as u16);
            Cutter::v4(packet.data(), &header, mtu)
        }
        false => Cutter::v6(packet.data(), &header, mtu, id),
    };
    write(packet, pieces, io, each)
}

/// Writes the fragments of `packet` to packets of their own.
fn write(
    packet: &Packet,
    pieces: Result<Cutter<'_>, CutError>,
    io: &mut Io,
    mut each: impl FnMut(&mut Io, Packet),
) -> Result<(), DropReason> {
    let pieces = pieces.map_err(|why| match why {
        CutError::BeyondLongest => DropReason::IpTotalLength,
        CutError::Mtu => DropReason::TooBig,
    })?;
    for piece in pieces {
        let mut made = make(packet, piece.len(), io)?;
        piece.write(made.data_mut());
        each(io, made);
    }
    Ok(())
}

/// Makes a packet of `length` bytes, which have no meaning yet, for a part of `packet`.
fn make(packet: &Packet, length: usize, io: &mut Io) -> Result<Packet, DropReason> {
    let mut made = io.take()?;
    if made.set_len(length).is_none() {
        io.give_back(made);
        return Err(DropReason::NoHeadroom);
    }
    io.counters().made.add(1);
    made.set_port(packet.port());
    if let Some(time) = packet.time() {
        made.set_time(time);
    }
    Ok(made)
}

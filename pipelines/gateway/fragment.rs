//! IPv4 fragmentation of forwarded packets (RFC 791 §3.2).

use super::io::Io;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    wire::{
        fragment::{CutError, Cutter},
        ip::IpHeader,
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
    let pieces = Cutter::v4(packet.data(), header, mtu).map_err(|why| match why {
        CutError::BeyondLongest => DropReason::IpTotalLength,
        CutError::Mtu => DropReason::TooBig,
    })?;
    for piece in pieces {
        let mut made = io.take()?;
        if made.set_len(piece.len()).is_none() {
            io.give_back(made);
            return Err(DropReason::NoHeadroom);
        }
        io.counters().made.add(1);
        made.set_port(packet.port());
        if let Some(time) = packet.time() {
            made.set_time(time);
        }
        piece.write(made.data_mut());
        match IpHeader::parse(made.data()) {
            Ok(header) => each(io, made, header),
            Err(_) => io.drop(made, DropReason::InnerMalformed),
        }
    }
    Ok(())
}

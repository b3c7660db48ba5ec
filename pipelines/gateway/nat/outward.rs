//! Packets from inside that leave by a port with NAT.

use super::source::{Refusal, may_come, renumber, source};
use crate::gateway::{classify::ip_format, io::Io, reassembly::Fragments, tables::Tables};
use wayfarer_dataplane::{
    packet::Packet,
    table::Reader,
    wire::{
        ip::{Fragment, IpHeader},
        translate::{End, Side, replace_address},
    },
};

/// Translates a packet that begins with `header` and is to leave by `port`, if its source is inside of a
/// NAT there. Passes it to `each`, and a fragment once its packet is complete. A packet that has no
/// mapping yet goes to the slow path.
#[inline(never)]
pub fn outward(
    mut packet: Packet,
    header: &IpHeader,
    port: u16,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
    mut each: impl FnMut(Packet, &IpHeader, &mut Io),
) {
    let Some(nat) = nat_of(port, header, &packet, tables) else { return each(packet, header, io) };
    if header.fragment == Fragment::Whole {
        return match translate(nat, header, std::slice::from_mut(&mut packet), tables, reader) {
            // Neither its length nor its destination has changed.
            Ok(()) => each(packet, header, io),
            Err(refusal) => refusal.apply(packet, io),
        };
    }
    if let Err(reason) = may_come(nat, header.src, packet.port(), tables, reader) {
        return io.drop(packet, reason);
    }
    let mut fragments = Fragments::new();
    if io.reassemble(packet, header, &mut fragments).is_none() {
        return;
    }
    let first = fragments.first().map(|first| IpHeader::parse(first.data()));
    let done = match first {
        Some(Ok(first)) => translate(nat, &first, &mut fragments, tables, reader),
        Some(Err(why)) => Err(ip_format(why).into()),
        None => return,
    };
    for packet in fragments.drain(..) {
        match (done, IpHeader::parse(packet.data())) {
            (Ok(()), Ok(header)) => each(packet, &header, io),
            (Ok(()), Err(why)) => io.drop(packet, ip_format(why)),
            (Err(refusal), _) => refusal.apply(packet, io),
        }
    }
}

/// Returns the NAT of a packet that is to leave by `port`. An ICMP error of any router shows an inner
/// address if it quotes a packet to there.
fn nat_of(port: u16, header: &IpHeader, packet: &Packet, tables: &Tables) -> Option<u8> {
    if !header.is_ipv4() {
        return None;
    }
    tables.nat.of_source(port, header.src).or_else(|| {
        let end = End::of(header, packet.data(), Side::Source).ok().filter(End::is_quoted)?;
        tables.nat.of_source(port, end.address)
    })
}

/// Translates the source of a packet in place, or of all fragments of one. `header` is that of the
/// first.
fn translate(
    nat: u8,
    header: &IpHeader,
    packets: &mut [Packet],
    tables: &Tables,
    reader: &Reader,
) -> Result<(), Refusal> {
    let [first, later @ ..] = packets else { return Ok(()) };
    let (end, mapping) = source(nat, header, first, tables, reader)?;
    let address = tables.nat.nat(nat).address;
    end.replace(first.data_mut(), header, address, mapping.outside_port);
    later.iter_mut().for_each(|packet| replace_address(packet.data_mut(), Side::Source, address));
    renumber(header, packets, tables);
    Ok(())
}

//! Packets to the address of a NAT, from outside or from another inner host (hairpinning, RFC 4787 §6).

use super::source::{Refusal, may_come, renumber, source};
use crate::gateway::{
    classify::ip_format,
    departure::{Departure, Departures, Origin},
    input_port::from_link,
    io::Io,
    outbound, policy_fragments,
    reassembly::{Fragments, Whole},
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, InboundSa},
    table::Reader,
    wire::{
        ip::{Fragment, IpHeader},
        tcp,
        translate::{End, Side, replace_address},
    },
};

/// Translates the destination of a packet in place, or of all fragments of one; and the source if that
/// is inside too. `header` is that of the first. Returns where the packet comes from by its new source.
///
/// # Errors
/// The reason why it is not translated.
pub fn translate(
    header: &IpHeader,
    packets: &mut [Packet],
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
) -> Result<Origin, Refusal> {
    let [first, later @ ..] = packets else { return Ok(origin) };
    if !header.is_forwardable() {
        return Err(DropReason::Martian.into());
    }
    // Once translated, a packet that a tunnel should have brought would look like another one.
    if origin == Origin::Wire && tables.is_unprotected(&Flow::of(header, first.data()), None, reader) {
        return Err(DropReason::Unprotected.into());
    }
    let end = End::of(header, first.data(), Side::Destination)?;
    let nat = tables.nat.at(&end).ok_or(DropReason::NatUnknown)?;
    let mapping = tables.nat.by_outside(nat, end.protocol, end.port, reader).ok_or(DropReason::NatUnknown)?;
    let port = tables.nat.nat(nat).port;
    let sender = End::of(header, first.data(), Side::Source).ok();
    let hairpin = match sender.and_then(|sender| tables.nat.of_source(port, sender.address)) {
        Some(from) => {
            let (end, by) = source(from, header, first, tables, reader)?;
            later.iter().try_for_each(|packet| may_come(from, end.address, packet.port(), tables, reader))?;
            Some((from, (end, by)))
        }
        None => None,
    };
    if !end.is_quoted() {
        mapping.received(tables.nat.now(), tcp::flags(header, first.data()));
    }
    let mut replace = |end: &End, side, address, port| {
        end.replace(first.data_mut(), header, address, port);
        later.iter_mut().for_each(|packet| replace_address(packet.data_mut(), side, address));
    };
    replace(&end, Side::Destination, mapping.inside.bits() as u32, mapping.inside_port);
    let Some((from, (sender, by))) = hairpin else { return Ok(origin) };
    replace(&sender, Side::Source, tables.nat.nat(from).address, by.outside_port);
    renumber(header, packets, tables);
    // Whether it may have its source was decided by the inner one. The one outside is our own.
    Ok(Origin::Host)
}

/// Takes a packet to the address of a NAT that came out of `sa`.
#[cold]
#[inline(never)]
pub fn arrive_from_tunnel(
    mut packet: Packet,
    header: &IpHeader,
    sa: &InboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    // Answers to a SYN come back through this tunnel, whichever tunnel the SYN leaves by.
    if tables.settings.mss_clamp {
        tcp::fit_mss(packet.data_mut(), header, sa.inner_mtu());
    }
    packet.set_port(from_link(sa.link));
    arrive(packet, header, Origin::Tunnel, tables, reader, io);
}

/// Takes a packet to the address of a NAT that does not come from a wire in a burst: out of a tunnel, or
/// from the slow path. It goes on at once, and a fragment once its packet is complete.
#[cold]
#[inline(never)]
pub fn arrive(
    packet: Packet,
    header: &IpHeader,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut packets = Fragments::new();
    if header.fragment == Fragment::Whole {
        packets.push(packet);
        return pass(None, &mut packets, origin, tables, reader, io);
    }
    if let Some(whole) = io.reassemble(packet, header, &mut packets) {
        pass(Some(whole), &mut packets, origin, tables, reader, io);
    }
}

/// Takes out the fragments of the packet `whole`, or a packet that came in one piece, translates them, and
/// passes them on by policy at once.
#[cold]
#[inline(never)]
pub fn pass(
    whole: Option<Whole>,
    packets: &mut Fragments,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let Some(first) = packets.first() else { return };
    let done = match IpHeader::parse(first.data()) {
        Ok(first) if tables.nat.is_for(&first, packets[0].data(), reader) => {
            translate(&first, packets, origin, tables, reader)
        }
        Ok(_) => return packets.drain(..).for_each(|packet| io.to_host(packet, tables)),
        Err(why) => Err(ip_format(why).into()),
    };
    let origin = match done {
        Ok(origin) => origin,
        Err(refusal) => return packets.drain(..).for_each(|packet| refusal.apply(packet, io)),
    };
    if let Some(whole) = whole {
        return policy_fragments::pass(whole, packets, origin, tables, reader, io);
    }
    let Some(packet) = packets.pop() else { return };
    let header = match IpHeader::parse(packet.data()) {
        Ok(header) => header,
        Err(why) => return io.drop(packet, ip_format(why)),
    };
    let mut departures = Departures::default();
    departures.push(packet, Departure::new(&header, origin, tables));
    outbound::run(&mut departures, tables, reader, io);
}

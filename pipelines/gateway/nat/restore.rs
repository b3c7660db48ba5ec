//! Undoes the translation of a packet, whose sender is to be told of a problem with it.

use crate::gateway::tables::Tables;
use wayfarer_dataplane::{
    table::Reader,
    wire::{
        ip::IpHeader,
        translate::{End, Side},
    },
};

/// Gives `packet`, which came in by `port` and may have been translated since, the ends that its
/// sender knows. Fragments other than the first stay as they are, since nobody is told of these. So
/// do packets to a NAT's address that came by another port than the NAT's, from outside: nothing
/// tells them from those that were sent to the inner address itself.
pub fn restore(packet: &mut [u8], port: u16, tables: &Tables, reader: &Reader) {
    let Ok(header) = IpHeader::parse(packet) else { return };
    let nats = &tables.nat;
    let mut port = port;
    if let Ok(end) = End::of(&header, packet, Side::Source)
        && let Some(nat) = nats.at(&end)
        && let Some(mapping) = nats.by_outside(nat, end.protocol, end.port, reader)
    {
        end.replace(packet, &header, mapping.inside.bits() as u32, mapping.inside_port);
        // If the receiver is inside too, its end was translated by the same NAT.
        port = nats.nat(nat).port;
    }
    if let Ok(end) = End::of(&header, packet, Side::Destination)
        && let Some(nat) = nats.of_source(port, end.address)
        && let Some(mapping) = nats.by_inside(nat, &end, reader)
    {
        end.replace(packet, &header, nats.nat(nat).address, mapping.outside_port);
    }
}

//! Frames of plain fragments to the gateway: those that complete a packet become the frame of that, which can
//! take the short way.

use super::super::{
    io::Io,
    plain_fragments::{self, Added},
    tables::Tables,
};
use std::net::Ipv6Addr;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        Address, ethernet,
        ip::{self, V4_HEADER, protocol},
    },
};

/// Returns the destination of the IP packet in a frame, if that may be a fragment without other extension headers.
#[inline(always)]
pub(super) fn destination(packet: &Packet) -> Option<Address> {
    const MORE_AND_OFFSET: u16 = 0x3fff;
    let h = packet.data().first_chunk::<{ ethernet::HEADER + V4_HEADER }>()?;
    let ip = &h[ethernet::HEADER..];
    match (u16::from_be_bytes([h[12], h[13]]), ip[0] >> 4) {
        (ethernet::IPV4, 4) if u16::from_be_bytes([ip[6], ip[7]]) & MORE_AND_OFFSET != 0 => {
            Some(Address::v4(u32::from_be_bytes([ip[16], ip[17], ip[18], ip[19]])))
        }
        (ethernet::IPV6, 6) if ip[ip::V6_PROTOCOL_AT] == protocol::FRAGMENT => {
            let dst = packet.data().get(ethernet::HEADER + 24..)?.first_chunk::<16>()?;
            Some(Ipv6Addr::from(*dst).into())
        }
        _ => None,
    }
}

/// Adds the fragment in a frame, to an address of the gateway, to those that wait, as [`plain_fragments::add`] does,
/// if it is to the port's own MAC address. Returns the frame of the packet that it completes, or its own if nothing
/// was done, or `None` if it was kept or dropped.
#[inline(always)]
pub(super) fn add(mut packet: Packet, (tables, reader): (&Tables, &Reader), io: &mut Io) -> Option<Packet> {
    let own = tables.settings.ports[usize::from(packet.port())].mac.get();
    let ethernet = packet.data().first_chunk::<{ ethernet::HEADER }>().copied();
    let Some(ethernet) = ethernet.filter(|header| header.starts_with(&own)) else { return Some(packet) };
    if packet.pull_front(ethernet.len()).is_none() {
        return Some(packet);
    }
    let (Added::Left(mut packet) | Added::Whole(mut packet)) =
        plain_fragments::add(packet, tables, reader, io)
    else {
        return None;
    };
    if packet.push_front(ethernet.len()).is_none() {
        io.drop(packet, DropReason::NoHeadroom);
        return None;
    }
    packet.data_mut()[..ethernet.len()].copy_from_slice(&ethernet);
    Some(packet)
}

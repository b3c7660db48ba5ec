//! Frames of plain fragments to the gateway: those that complete a packet become the frame of that, which can
//! take the short way.

use super::super::{
    io::Io,
    plain_fragments::{self, Added},
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    table::Reader,
    wire::{
        ethernet,
        ip::{self, V4_HEADER, protocol},
    },
};

/// Returns whether the frame may be that of a fragment without other extension headers.
#[inline(always)]
pub(super) fn may_be(packet: &Packet) -> bool {
    const MORE_AND_OFFSET: u16 = 0x3fff;
    let Some(h) = packet.data().first_chunk::<{ ethernet::HEADER + V4_HEADER }>() else { return false };
    let ip = &h[ethernet::HEADER..];
    match u16::from_be_bytes([h[12], h[13]]) {
        ethernet::IPV4 => ip[0] >> 4 == 4 && u16::from_be_bytes([ip[6], ip[7]]) & MORE_AND_OFFSET != 0,
        ethernet::IPV6 => ip[0] >> 4 == 6 && ip[ip::V6_PROTOCOL_AT] == protocol::FRAGMENT,
        _ => false,
    }
}

/// Adds the fragment in a frame to those that wait, as [`plain_fragments::add`] does. Returns the frame of the
/// packet that it completes, or its own if nothing was done.
#[inline(always)]
pub(super) fn add(mut packet: Packet, (tables, reader): (&Tables, &Reader), io: &mut Io) -> Option<Packet> {
    let own = tables.settings.ports[usize::from(packet.port())].mac.get();
    let ethernet = packet.data().first_chunk::<{ ethernet::HEADER }>().copied();
    let Some(ethernet) = ethernet.filter(|header| header.starts_with(&own)) else { return Some(packet) };
    if packet.pull_front(ethernet.len()).is_none() {
        return Some(packet);
    }
    let (Added::Nothing(mut packet) | Added::Whole(mut packet)) =
        plain_fragments::add(packet, tables, reader, io)
    else {
        return None;
    };
    // What was cut off is there again.
    if packet.push_front(ethernet.len()).is_none() {
        io.drop(packet, DropReason::NoHeadroom);
        return None;
    }
    packet.data_mut()[..ethernet.len()].copy_from_slice(&ethernet);
    Some(packet)
}

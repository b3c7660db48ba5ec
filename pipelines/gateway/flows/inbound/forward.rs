//! Makes the packet inside an opened one ready to leave.

use super::super::{
    super::{
        decapsulate::{name_payload, renew_checksum},
        encapsulate::KeptHeader,
        io::Io,
        tables::Tables,
    },
    entry::{Exit, InnerExit},
    key::InnerKey,
    memory::{Memory, Missed},
};
use super::{inner::Inner, note::Note};
use wayfarer_dataplane::{
    packet::Packet,
    sa::{InboundSa, Mode},
    table::Reader,
    wire::{
        Address,
        ethernet::{self, Ethernet},
        ip,
    },
};

/// Makes `inner`, the packet within `packet`, from and to `ends`, ready to leave. Returns the port by which it
/// leaves, or `None` if it is not for the short way and nothing was changed.
#[inline(always)]
pub(super) fn forward(
    memory: &mut Memory,
    packet: &mut Packet,
    note: &Note<'_>,
    (sa, inner): (&InboundSa, &Inner),
    ends: (Address, Address),
    (tables, reader): (&Tables, &Reader),
    io: &Io,
) -> Option<u16> {
    let (src, dst) = ends;
    let key = InnerKey(dst);
    let Some(entry) = memory.inner.find(note.inner_slot, key, None, reader) else {
        memory.miss(Missed::Inner(key), io);
        return None;
    };
    let exit = entry.exit?;
    sa.selector_of(&inner.flow(src, dst))?;
    match (exit, sa.mode) {
        (InnerExit::Station(exit), Mode::Tunnel) if src.is_routable() => {
            to_station(packet, note, inner, sa, exit, tables)
        }
        (InnerExit::Station(_), _) => None,
        (InnerExit::Host, _) => to_host(packet, note, inner, ends, sa, tables),
    }
}

/// Does the same for an IPv6 packet.
#[inline(never)]
pub(super) fn forward_v6(
    memory: &mut Memory,
    packet: &mut Packet,
    note: &Note<'_>,
    (sa, inner): (&InboundSa, &Inner),
    at: (&Tables, &Reader),
    io: &Io,
) -> Option<u16> {
    let ends = note.inner_v6_ends(packet.data(), sa);
    forward(memory, packet, note, (sa, inner), ends, at, io)
}

/// Does the same for a packet that is forwarded.
#[inline(always)]
fn to_station(
    packet: &mut Packet,
    note: &Note<'_>,
    inner: &Inner,
    sa: &InboundSa,
    exit: Exit,
    tables: &Tables,
) -> Option<u16> {
    let (port, length) = (&tables.settings.ports[usize::from(exit.port)], usize::from(inner.length));
    if length > port.mtu() {
        return None;
    }
    // In front of the packet there is room for its Ethernet header, since ESP was there.
    let headroom = packet.headroom() + note.payload_at(sa) - ethernet::HEADER;
    packet.reshape(headroom, ethernet::HEADER + length)?;
    let (head, ip) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    Ethernet { dst: exit.mac, src: port.mac.get(), ethertype: inner.ethertype() }.emit(head);
    match inner.is_ipv4 {
        true => ip::decrement_ttl(ip.first_chunk_mut()?),
        false => ip::decrement_hop_limit(ip),
    }
    Some(exit.port)
}

/// Does the same for a packet to the host's own stack, which is no hop.
#[inline(never)]
fn to_host(
    packet: &mut Packet,
    note: &Note<'_>,
    inner: &Inner,
    ends: (Address, Address),
    sa: &InboundSa,
    tables: &Tables,
) -> Option<u16> {
    // Packets from the host must not go back to it.
    let host = tables.settings.host.as_ref().filter(|host| host.port != packet.port())?;
    let KeptHeader { length: header_len, protocol_at, protocol } =
        KeptHeader::plain(inner.is_ipv4, inner.protocol);
    let (payload_at, length) = (note.payload_at(sa), usize::from(inner.length));
    let start = match sa.mode {
        Mode::Tunnel => payload_at,
        Mode::Transport => {
            packet
                .data_mut()
                .copy_within(ethernet::HEADER..ethernet::HEADER + header_len, payload_at - header_len);
            payload_at - header_len
        }
    };
    // It becomes shorter.
    packet.reshape(packet.headroom() + start - ethernet::HEADER, ethernet::HEADER + length)?;
    let (head, ip) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    if sa.mode == Mode::Transport {
        name_payload(ip, header_len, protocol_at, protocol);
        if note.esp.udp_ports != 0 {
            renew_checksum(ip, header_len, protocol, ends);
        }
    }
    let src = tables.settings.ports[usize::from(host.port)].mac.get();
    Ethernet { dst: host.mac.get(), src, ethertype: inner.ethertype() }.emit(head);
    Some(host.port)
}

//! Terminals' side of ESP.

use crate::sim::{
    esp::{self, Layout},
    fixtures::{GATEWAY, OUTSIDE},
    frames::emit_ethernet,
};
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::{Backend, Key, Suite},
    wire::{
        esp::header as wire_header,
        ethernet,
        ip::{self, IpHeader, protocol},
    },
};
use wayfarer_mobility::ike::event::ChildSa;

/// Returns the suite that both sides agree on.
fn suite() -> Option<Suite> {
    "aes256gcm16".parse().ok()
}

/// Returns the SPI of an ESP packet.
pub(super) fn spi(packet: &[u8]) -> Option<u32> {
    let header = IpHeader::parse(packet).ok().filter(|header| header.protocol == protocol::ESP)?;
    Some(wire_header(header.payload(packet))?.0)
}

/// Returns whether a packet from the gateway is authentic.
pub(super) fn opens(sa: &ChildSa, packet: &[u8]) -> bool {
    let key = suite().and_then(|suite| Key::new(suite, &sa.key_in, Backend::detect()).ok());
    let Some((key, header)) = key.zip(IpHeader::parse(packet).ok()) else { return false };
    esp::open(&key, sa.suite.esn, &mut header.payload(packet).to_vec()).is_some()
}

/// Seals the packet `inner` with `sa` as number `seq`; returns the frame of a terminal at
/// `address`.
pub(super) fn frame(sa: &ChildSa, seq: u64, address: IpAddr, inner: &[u8]) -> Option<Vec<u8>> {
    let suite = suite()?;
    let key = Key::new(suite, &sa.key_out, Backend::detect()).ok()?;
    let layout = Layout::new(suite, inner.len());
    let mut frame = vec![0; ethernet::HEADER + ip::V4_HEADER + layout.len];
    emit_ethernet(&mut frame, OUTSIDE);
    let packet = &mut frame[ethernet::HEADER..];
    ip::emit(packet, address, GATEWAY, protocol::ESP, layout.len);
    let bytes = &mut packet[ip::V4_HEADER..];
    layout.emit(bytes, sa.spi_out, seq, protocol::IPV4);
    bytes[layout.payload].copy_from_slice(inner);
    esp::seal(&key, seq, sa.suite.esn, bytes);
    Some(frame)
}

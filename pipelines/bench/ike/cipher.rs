//! ESP as terminals do it.

use super::world::{GATEWAY, GATEWAY_MAC, OUTSIDE, STATION_MAC};
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, OpenJob, SealJob, Suite},
    wire::{
        esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
    },
};
use wayfarer_mobility::ike::event::ChildSa;

/// What both sides agree on.
fn suite() -> Option<Suite> {
    "aes256gcm16".parse().ok()
}

/// The SPI of an ESP packet.
pub(super) fn spi(packet: &[u8]) -> Option<u32> {
    let header = IpHeader::parse(packet).ok().filter(|header| header.protocol == protocol::ESP)?;
    Some(esp::header(header.payload(packet))?.0)
}

/// Whether a packet of the gateway's opens.
pub(super) fn opens(sa: &ChildSa, packet: &[u8]) -> bool {
    let key = suite().and_then(|suite| Key::new(suite, &sa.key_in, Backend::detect()).ok());
    let Some((key, header)) = key.zip(IpHeader::parse(packet).ok()) else { return false };
    let mut esp = header.payload(packet).to_vec();
    let Some((_, low)) = esp::header(&esp) else { return false };
    let mut job =
        [OpenJob { key: &key, seq: u64::from(low), esn: sa.suite.esn, esp: &mut esp, authentic: false }];
    crypto::open(&mut job);
    job[0].authentic
}

/// The frame by which a terminal at `place` sends the packet `inner` through `sa` as number `seq`.
pub(super) fn frame(sa: &ChildSa, seq: u64, place: IpAddr, inner: &[u8]) -> Option<Vec<u8>> {
    let suite = suite()?;
    let key = Key::new(suite, &sa.key_out, Backend::detect()).ok()?;
    let start = esp::HEADER + suite.iv_len();
    let tail = esp::padding(inner.len(), suite.align()) + esp::TRAILER;
    let length = start + inner.len() + tail + suite.icv_len();
    let mut frame = vec![0; ethernet::HEADER + ip::V4_HEADER + length];
    let (dst, src) = (GATEWAY_MAC[OUTSIDE], STATION_MAC[OUTSIDE]);
    Ethernet { dst, src, ethertype: ethernet::IPV4 }.emit(&mut frame);
    let packet = &mut frame[ethernet::HEADER..];
    ip::emit(packet, place, GATEWAY, protocol::ESP, length);
    let esp = &mut packet[ip::V4_HEADER..];
    esp::emit_header(esp, sa.spi_out, seq);
    esp[start..start + inner.len()].copy_from_slice(inner);
    esp::emit_trailer(&mut esp[start + inner.len()..][..tail], protocol::IPV4);
    crypto::seal(&mut [SealJob { key: &key, seq, iv: seq, esn: sa.suite.esn, esp }]);
    Some(frame)
}

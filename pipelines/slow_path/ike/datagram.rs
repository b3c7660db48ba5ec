//! IKE messages in IP packets (RFC 7296 §2, RFC 3948 §2.2).

use std::net::{IpAddr, SocketAddr};
use wayfarer_dataplane::wire::{
    checksum, esp,
    ip::{self, IpHeader},
    udp::{self, Udp},
};
use wayfarer_mobility::{
    path::Addresses,
    transmit::{Payload, Transmit},
};

/// Parses an IP packet that the workers classified as IKE. Returns the message and its addresses;
/// `None` if the checksum is wrong or it is not an IKE message after all.
pub(crate) fn parse(packet: &[u8]) -> Option<(Addresses, &[u8])> {
    let header = IpHeader::parse(packet).ok()?;
    let (src, dst): (IpAddr, IpAddr) = (header.src.into(), header.dst.into());
    let datagram = header.payload(packet);
    let udp = Udp::parse(datagram).ok()?;
    let datagram = datagram.get(..udp.length)?;
    if udp.checksum != 0 {
        let pseudo = checksum::pseudo_header(src, dst, ip::protocol::UDP, datagram.len());
        if checksum::finish(checksum::add(pseudo, datagram)) != 0 {
            return None;
        }
    }
    let payload = datagram.get(udp::HEADER..)?;
    let message = match udp.dst_port {
        esp::IKE_PORT => payload,
        _ => payload.strip_prefix(&esp::NON_ESP_MARKER)?,
    };
    let addresses =
        Addresses { local: SocketAddr::new(dst, udp.dst_port), remote: SocketAddr::new(src, udp.src_port) };
    Some((addresses, message))
}

/// Encodes a datagram as an IP packet; returns `None` if its two addresses are of different
/// families.
pub(crate) fn emit(transmit: &Transmit) -> Option<Vec<u8>> {
    let Addresses { local, remote } = transmit.addresses;
    if local.is_ipv4() != remote.is_ipv4() {
        return None;
    }
    let (marker, payload): (&[u8], &[u8]) = match &transmit.payload {
        Payload::Keepalive => (&[], &esp::KEEPALIVE),
        Payload::Message(message) if local.port() == esp::IKE_PORT => (&[], message),
        Payload::Message(message) => (&esp::NON_ESP_MARKER, message),
    };
    let length = udp::HEADER + marker.len() + payload.len();
    let mut packet = vec![0; ip::V6_HEADER];
    let ip_len = ip::emit(&mut packet, local.ip(), remote.ip(), ip::protocol::UDP, length);
    packet.truncate(ip_len);
    packet.resize(ip_len + udp::HEADER, 0);
    packet.extend_from_slice(marker);
    packet.extend_from_slice(payload);
    let header = Udp { src_port: local.port(), dst_port: remote.port(), length, checksum: 0 };
    header.emit(packet.get_mut(ip_len..)?);
    udp::set_checksum(packet.get_mut(ip_len..)?, local.ip(), remote.ip());
    Some(packet)
}

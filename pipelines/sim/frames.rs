//! Packets and frames of a gateway's neighbours and peers.

use super::{
    fixtures::{GATEWAY_MAC, STATION_MAC, ip},
    nat::Endpoints,
};
use std::net::{IpAddr, SocketAddr};
use wayfarer_dataplane::{
    port::Mac,
    wire::{
        arp::{Arp, Operation},
        ethernet::{self, Ethernet},
        fragment::{self, Cutter},
        ip::{self, Fragment, IpHeader, protocol},
        nd, udp,
    },
};

/// Makes a UDP packet with a valid checksum from addresses in text.
pub fn datagram(src: &str, dst: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    udp_packet(ip(src), ip(dst), ports, payload)
}

/// Makes a UDP packet with a valid checksum.
pub fn udp_packet(src: IpAddr, dst: IpAddr, (src_port, dst_port): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = udp::HEADER + payload.len();
    let mut packet = vec![0; ip::V6_HEADER + length];
    let start = ip::emit(&mut packet, src, dst, protocol::UDP, length);
    packet.truncate(start + length);
    udp::Udp { src_port, dst_port, length, checksum: 0 }.emit(&mut packet[start..]);
    packet[start + udp::HEADER..].copy_from_slice(payload);
    udp::set_checksum(&mut packet[start..], src, dst);
    packet
}

/// Makes an IP packet of any protocol.
pub fn ip_packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ip::V6_HEADER];
    let length = ip::emit(&mut packet, src, dst, protocol, payload.len());
    packet.truncate(length);
    packet.extend_from_slice(payload);
    packet
}

/// Returns the endpoints of an IP packet, and the offset of what it carries. The ports of a packet
/// without UDP are 0.
pub fn endpoints(packet: &[u8]) -> Option<(Endpoints, usize)> {
    let header = IpHeader::parse(packet).ok()?;
    let (ports, headers) = match header.protocol {
        protocol::UDP => {
            let udp = udp::Udp::parse(header.payload(packet)).ok()?;
            ((udp.src_port, udp.dst_port), udp::HEADER)
        }
        _ => ((0, 0), 0),
    };
    let from = SocketAddr::new(header.src.into(), ports.0);
    let to = SocketAddr::new(header.dst.into(), ports.1);
    Some((Endpoints { from, to }, header.header_len() + headers))
}

/// Cuts an IP packet to fragments of at most `mtu` bytes with the identification `id`. An IPv4 packet
/// is cut even if it says that it must not be.
///
/// # Panics
/// If the packet is malformed, or has IPv6 extension headers.
pub fn fragments(packet: &[u8], mtu: usize, id: u16) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let header = IpHeader::parse(&packet).expect("an IP packet");
    let cutter = if header.is_ipv4() {
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].fill(0);
        Cutter::v4(&packet, &header, mtu)
    } else {
        Cutter::v6(&packet, &header, mtu, id.into())
    };
    let pieces = cutter.expect("an MTU with room for payload").map(|piece| {
        let mut fragment = vec![0; piece.len()];
        piece.write(&mut fragment);
        fragment
    });
    pieces.collect()
}

/// Joins the fragments of packets, each of which comes in order and after the one before. Other packets
/// stay as they are.
pub fn joined(packets: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut whole, mut parts) = (vec![], vec![]);
    for packet in packets {
        let header = match IpHeader::parse(&packet) {
            Ok(header) if header.fragment != Fragment::Whole => header,
            _ => {
                whole.push(packet);
                continue;
            }
        };
        let is_last = fragment::Part::read(&header, &packet).is_none_or(|part| !part.more);
        parts.push(packet);
        if is_last {
            let payload: Vec<u8> =
                parts.iter().flat_map(|packet| fragment::payload(packet)).copied().collect();
            let mut packet = fragment::whole_header(&parts[0], payload.len()).to_vec();
            packet.extend(payload);
            whole.push(packet);
            parts.clear();
        }
    }
    whole
}

/// Returns the packet as a router forwards it.
pub fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    ip::decrement_hop_limit(&mut packet);
    packet
}

/// Puts an Ethernet frame around an IP packet.
pub fn frame(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|b| b >> 4 == 6) { ethernet::IPV6 } else { ethernet::IPV4 };
    let mut frame = vec![0; ethernet::HEADER];
    Ethernet { dst, src, ethertype }.emit(&mut frame);
    frame.extend_from_slice(packet);
    frame
}

/// Makes the frame that carries an IP packet to the gateway's port `port`.
pub fn to_gateway(port: usize, packet: &[u8]) -> Vec<u8> {
    frame(GATEWAY_MAC[port], STATION_MAC[port], packet)
}

/// Writes the Ethernet header of an IPv4 packet that comes to the gateway's port `port`.
pub fn emit_ethernet(frame: &mut [u8], port: usize) {
    let (dst, src) = (GATEWAY_MAC[port], STATION_MAC[port]);
    Ethernet { dst, src, ethertype: ethernet::IPV4 }.emit(frame);
}

/// Writes IPv4 and UDP headers to `packet` that span all of it, without a UDP checksum.
pub fn emit_udp(packet: &mut [u8], src: IpAddr, dst: IpAddr) {
    let length = packet.len() - ip::V4_HEADER;
    ip::emit(packet, src, dst, protocol::UDP, length);
    udp::Udp { src_port: 4000, dst_port: 7, length, checksum: 0 }.emit(&mut packet[ip::V4_HEADER..]);
}

/// Returns the reply of a station with this MAC address if `frame` is an ARP request or a neighbour
/// solicitation, for any address.
pub fn answer_neighbour(frame: &[u8], mac: Mac) -> Option<Vec<u8>> {
    let ethernet = Ethernet::parse(frame).ok()?;
    let body = &frame[ethernet::HEADER..];
    if ethernet.ethertype == ethernet::ARP {
        let request = Arp::parse(body).ok().filter(|arp| arp.operation == Operation::Request)?;
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: request.target,
            target_mac: request.sender_mac,
            target: request.sender,
        };
        return Some(reply.frame(request.sender_mac));
    }
    let header = IpHeader::parse(body).ok()?;
    let request = nd::Neighbour::parse(&header, body).ok().filter(|message| message.solicitation)?;
    let IpAddr::V6(asker) = header.src.into() else { return None };
    let reply =
        nd::Neighbour { solicitation: false, target: request.target, mac: Some(mac), solicited: true };
    Some(reply.frame(mac, request.target, ethernet.src, asker))
}

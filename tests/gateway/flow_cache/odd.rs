//! Packets and frames of every kind, of which only some are plain.

use std::net::IpAddr;
use wayfarer::sim::{frames::*, random::Random};
use wayfarer_dataplane::wire::{
    checksum, ethernet,
    icmp::{self, Problem},
    ip::{self, IpHeader, protocol},
    tcp,
};

/// Makes a TCP segment, with an MSS option if it opens a connection.
pub(super) fn tcp_packet(src: IpAddr, dst: IpAddr, ports: (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    let options: &[u8] = if flags & tcp::SYN == 0 { &[] } else { &[2, 4, 0x05, 0xb4] };
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    segment[12] = (5 + options.len() as u8 / 4) << 4;
    segment[13] = flags;
    segment.extend_from_slice(options);
    segment.extend_from_slice(payload);
    ip_packet(src, dst, protocol::TCP, &segment)
}

/// Makes an echo request.
pub(super) fn ping(src: IpAddr, dst: IpAddr, payload: &[u8]) -> Vec<u8> {
    let (protocol, kind) = if src.is_ipv4() { (protocol::ICMP, 8) } else { (protocol::ICMPV6, 128) };
    ip_packet(src, dst, protocol, &[&[kind, 0, 0, 0, 0, 1, 0, 1][..], payload].concat())
}

/// Makes the error of a router `from` about a packet.
pub(super) fn error_about(packet: &[u8], from: IpAddr, problem: Problem) -> Vec<u8> {
    let header = IpHeader::parse(packet).expect("an IP packet");
    icmp::error(problem, from, &header, packet).expect("both of one family")
}

/// Returns a packet with another time to live or hop limit.
pub(super) fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = ttl;
    } else {
        packet[8] = ttl;
        resum(&mut packet);
    }
    packet
}

/// Returns an IPv4 or IPv6 packet with another traffic class.
pub(super) fn with_class(mut packet: Vec<u8>, class: u8) -> Vec<u8> {
    ip::set_traffic_class(&mut packet, class);
    packet
}

/// Returns an IPv4 packet that routers may cut, with this identification.
pub(super) fn uncut(mut packet: Vec<u8>, id: u16) -> Vec<u8> {
    ip::allow_fragments(&mut packet, ip::V4_HEADER, id);
    packet
}

/// Returns a packet with options that say nothing: in its IPv4 header, or in an IPv6 extension header.
pub(super) fn with_options(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        let next_header = std::mem::replace(&mut packet[ip::V6_PROTOCOL_AT], protocol::DESTINATION);
        packet.splice(ip::V6_HEADER..ip::V6_HEADER, [next_header, 0, 1, 4, 0, 0, 0, 0]);
        let length = packet.len();
        ip::set_total_len(&mut packet, ip::V6_HEADER, length);
        return packet;
    }
    packet.splice(ip::V4_HEADER..ip::V4_HEADER, [1, 1, 1, 0]);
    packet[0] = 0x46;
    let length = packet.len();
    ip::set_total_len(&mut packet, ip::V4_HEADER + 4, length);
    packet
}

/// Returns a packet of `length` bytes, of which the rest is missing.
pub(super) fn cut_to(mut packet: Vec<u8>, length: usize) -> Vec<u8> {
    packet.truncate(length);
    let length = packet.len();
    ip::set_total_len(&mut packet, ip::V4_HEADER, length);
    packet
}

/// Returns a packet with a header that is wrong: its IPv4 checksum, or its version.
pub(super) fn with_wrong_header(mut packet: Vec<u8>) -> Vec<u8> {
    match packet[0] >> 4 {
        6 => packet[0] ^= 0x10,
        _ => packet[10] ^= 0x55,
    }
    packet
}

/// Returns a frame with a tag: of a priority if `vlan` is 0.
pub(super) fn tagged(mut frame: Vec<u8>, vlan: u8) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0xa0, vlan]);
    frame
}

/// Returns a frame of an IPv4 packet with one other byte, outside `kept`, and mostly with a checksum that is
/// right again.
pub(super) fn noisy(mut frame: Vec<u8>, kept: &[usize], random: &mut Random) -> Vec<u8> {
    let at = loop {
        let at = random.index(frame.len().min(60));
        if !kept.contains(&at) {
            break at;
        }
    };
    frame[at] = random.byte();
    if frame[ethernet::HEADER] == 0x45 && random.percent(70) {
        let header = &mut frame[ethernet::HEADER..ethernet::HEADER + ip::V4_HEADER];
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Makes the checksum of an IPv4 header without options right.
fn resum(packet: &mut [u8]) {
    let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    ip::set_total_len(packet, ip::V4_HEADER, length);
}

//! Headers: everything written is read back, and every truncation of a packet is an error, never a
//! panic.

use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wayfarer_dataplane::{
    port::Mac,
    wire::{
        FormatError,
        arp::{Arp, Operation},
        esp,
        ethernet::Ethernet,
        ip::{self, Fragment, IpHeader},
        nd::{self, Neighbour},
        udp::{self, Udp},
    },
};

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from_bits(a).into(), Ipv4Addr::from_bits(b).into())),
        any::<(u128, u128)>()
            .prop_map(|(a, b)| (Ipv6Addr::from_bits(a).into(), Ipv6Addr::from_bits(b).into())),
    ]
}

fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ip::V6_HEADER];
    let header = ip::emit(&mut packet, src, dst, protocol, payload.len());
    packet.truncate(header);
    packet.extend_from_slice(payload);
    packet
}

proptest! {
    #[test]
    fn ip((src, dst) in addresses(), payload in proptest::collection::vec(any::<u8>(), 0..100), class: u8) {
        let mut packet = packet(src, dst, 17, &payload);
        ip::set_traffic_class(&mut packet, class);
        let header = IpHeader::parse(&packet).unwrap();
        prop_assert_eq!((header.src.into(), header.dst.into(), header.protocol), (src, dst, 17));
        prop_assert_eq!((header.traffic_class, header.hop_limit, header.total_len()), (class, 64, packet.len()));
        prop_assert_eq!((header.fragment, header.has_options()), (Fragment::Whole, false));
        prop_assert_eq!(header.payload(&packet), &payload[..]);
        ip::decrement_hop_limit(&mut packet);
        let mut nearer = header;
        nearer.hop_limit = 63;
        prop_assert_eq!(IpHeader::parse(&packet).unwrap(), nearer);
        for cut in 0..packet.len() {
            prop_assert!(IpHeader::parse(&packet[..cut]).is_err());
        }
    }

    #[test]
    fn udp((src, dst) in addresses(), ports: (u16, u16), payload in proptest::collection::vec(any::<u8>(), 0..100)) {
        let length = udp::HEADER + payload.len();
        let mut datagram = vec![0; udp::HEADER];
        Udp { src_port: ports.0, dst_port: ports.1, length, checksum: 0 }.emit(&mut datagram);
        datagram.extend_from_slice(&payload);
        udp::set_checksum(&mut datagram, src, dst);
        let header = Udp::parse(&datagram).unwrap();
        prop_assert_eq!((header.src_port, header.dst_port, header.length), (ports.0, ports.1, length));
        prop_assert_ne!(header.checksum, 0);
        for cut in 0..length {
            prop_assert!(Udp::parse(&datagram[..cut]).is_err());
        }
    }

    #[test]
    fn ethernet(dst: Mac, src: Mac, ethertype: u16) {
        let mut frame = [0; 14];
        let header = Ethernet { dst, src, ethertype };
        header.emit(&mut frame);
        prop_assert_eq!(Ethernet::parse(&frame), Ok(header));
        prop_assert_eq!(Ethernet::parse(&frame[..13]), Err(FormatError::Truncated));
    }

    #[test]
    fn arp(sender_mac: Mac, sender: u32, target_mac: Mac, target: u32, asks: bool) {
        let operation = if asks { Operation::Request } else { Operation::Reply };
        let mut sender_mac = sender_mac;
        sender_mac[0] &= !1;
        let message = Arp {
            operation,
            sender_mac,
            sender: Ipv4Addr::from_bits(sender),
            target_mac,
            target: Ipv4Addr::from_bits(target),
        };
        let frame = message.frame([0xff; 6]);
        prop_assert_eq!(Arp::parse(&frame[14..]), Ok(message));
        for cut in 0..28 {
            prop_assert_eq!(Arp::parse(&frame[14..14 + cut]), Err(FormatError::Truncated));
        }
    }

    #[test]
    fn neighbour_discovery(target: u128, src: u128, mac: Mac, asks: bool, solicited: bool) {
        let target = Ipv6Addr::from_bits(target & !(0xff << 120));
        let mac = [mac[0] & !1, mac[1], mac[2], mac[3], mac[4], mac[5]];
        let message = Neighbour { solicitation: asks, target, mac: Some(mac), solicited: solicited && !asks };
        let (group, group_mac) = nd::solicited_node(target);
        let frame = message.frame(mac, Ipv6Addr::from_bits(src), group_mac, group);
        let header = IpHeader::parse(&frame[14..]).unwrap();
        prop_assert_eq!(Neighbour::parse(&header, &frame[14..]), Ok(message));
        let mut broken = frame.clone();
        broken[14 + 40 + 20] ^= 1;
        prop_assert_eq!(Neighbour::parse(&header, &broken[14..]), Err(FormatError::Checksum));
    }

    #[test]
    fn esp_trailers(payload in 0usize..200, align in prop_oneof![Just(4usize), Just(16)], next_header: u8) {
        let padding = esp::padding(payload, align);
        prop_assert!(padding < align && (payload + padding + esp::TRAILER).is_multiple_of(align));
        let mut plain = vec![0; payload + padding + esp::TRAILER];
        esp::emit_trailer(&mut plain[payload..], next_header);
        let tail = plain.len() - payload;
        if tail <= 8 {
            let mut space = [0xff; 8];
            esp::emit_short_trailer(&mut space, tail, next_header);
            prop_assert_eq!(&space[..tail], &plain[payload..]);
        }
        prop_assert!(plain[payload..payload + padding].iter().zip(1u8..).all(|(a, b)| *a == b));
        prop_assert_eq!(esp::trailer(&plain), Some((payload, next_header)));
    }

    #[test]
    fn any_bytes_parse_within_bounds_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..120), version: bool) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = if version { 0x45 } else { 0x60 };
        }
        if let Ok(header) = IpHeader::parse(&bytes) {
            prop_assert!(header.header_len() <= header.total_len() && header.total_len() <= bytes.len());
            prop_assert!(header.protocol_at() < header.header_len());
        }
    }
}

#[test]
fn ipv6_extension_headers_are_stepped_over_and_bounded() {
    let (src, dst) = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let chain = |headers: usize| {
        let mut payload = vec![];
        for i in 0..headers {
            payload.extend_from_slice(&[if i + 1 == headers { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        packet(src, dst, 60, &payload)
    };
    let header = IpHeader::parse(&chain(8)).unwrap();
    assert_eq!((header.protocol, header.header_len(), header.protocol_at()), (17, 40 + 64, 40 + 56));
    assert_eq!(IpHeader::parse(&chain(9)), Err(FormatError::HeaderLength));
    // Later fragments end the walk, because they continue the middle of something.
    let later = packet(src, dst, 44, &[60, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff]);
    let header = IpHeader::parse(&later).unwrap();
    assert_eq!((header.fragment, header.protocol, header.header_len()), (Fragment::Later, 60, 48));
    // A packet is cut once: a second fragment header would say whatever the first one does not.
    let once = [17, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
    let header = IpHeader::parse(&packet(src, dst, 44, &once)).unwrap();
    assert_eq!((header.fragment, header.protocol), (Fragment::First, 17));
    for outer in [[44, 0, 0, 1, 0, 0, 0, 1], [44, 0, 0, 0, 0, 0, 0, 1]] {
        let twice = [&outer[..], &once].concat();
        assert_eq!(IpHeader::parse(&packet(src, dst, 44, &twice)), Err(FormatError::HeaderLength));
    }
}

use super::*;
use proptest::prelude::*;

const ENDS: Ends = Ends { src: Ipv4Addr::new(10, 0, 0, 254), dst: Ipv4Addr::new(192, 0, 2, 7) };

// Made with scapy: a packet with its DF bit set, and it in each kind of tunnel.
const PACKET: &str = "45b80021000740003f11269a0a0100090a63000700050006000da78368656c6c6f";
const IP_IN_IP: &str = "45b800350000400040046d080a0000fec000020745b80021000740003f11269a0a0100090a630007\
                        00050006000da78368656c6c6f";
const GRE: &str = "45b8003900004000402f6cd90a0000fec00002070000080045b80021000740003f11269a0a010009\
                   0a63000700050006000da78368656c6c6f";
const GRE_WITH_CHECKSUM: &str = "45b8003d00004000402f6cd50a0000fec0000207800008008c91000045b8002100074000\
                                 3f11269a0a0100090a63000700050006000da78368656c6c6f";
const MINIMAL_WITH_SOURCE: &str = "45b8002d000740003f376dd60a0000fec00002071180da0b0a6300070a010009\
                                   00050006000da78368656c6c6f";
const PACKET_V6: &str = "603000000009114020010db800000000000000000000000120010db800000000000000000000\
                         00020001000200092c6478";
const V6_IN_V4: &str = "45000045000900004029ad820a0000fec0000207603000000009114020010db80000000000000000\
                        0000000120010db80000000000000000000000020001000200092c6478";

fn bytes(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Returns the packet in a tunnel, or `None` if that cannot carry it.
fn wrapped(kind: Encapsulation, packet: &[u8], ends: Ends, id: u16) -> Option<Vec<u8>> {
    let header = IpHeader::parse(packet).unwrap();
    let overhead = kind.overhead(&header, ends.src)?;
    // What was there before is overwritten, and a frame's padding left out.
    let mut bytes = vec![0xff; overhead];
    bytes.extend(packet);
    bytes.extend([0xaa; 6]);
    let length = kind.wrap(&mut bytes, &header, ends, id);
    assert_eq!(length, overhead + packet.len());
    assert_eq!(bytes[length..], [0xaa; 6]);
    bytes.truncate(length);
    Some(bytes)
}

/// Returns the packet that came by a tunnel.
fn unwrapped(mut bytes: Vec<u8>) -> Result<Vec<u8>, FormatError> {
    let outer = IpHeader::parse(&bytes)?;
    let kind = Encapsulation::of_protocol(outer.protocol).expect("a tunnel");
    // A frame's padding.
    bytes.extend([0x45; 30]);
    let before = bytes.clone();
    let inner =
        kind.unwrap(&mut bytes, &outer).inspect_err(|_| assert_eq!(bytes, before, "it was changed"))?;
    Ok(bytes[inner].to_vec())
}

#[test]
fn tunnels_are_as_another_implementation_builds_them() {
    for (kind, packet, expected) in [
        (Encapsulation::IpInIp, PACKET, IP_IN_IP),
        (Encapsulation::Gre, PACKET, GRE),
        (Encapsulation::Minimal, PACKET, MINIMAL_WITH_SOURCE),
        (Encapsulation::IpInIp, PACKET_V6, V6_IN_V4),
    ] {
        assert_eq!(wrapped(kind, &bytes(packet), ENDS, 9), Some(bytes(expected)), "{kind:?}");
        assert_eq!(unwrapped(bytes(expected)), Ok(bytes(packet)), "{kind:?}");
    }
    assert_eq!(unwrapped(bytes(GRE_WITH_CHECKSUM)), Ok(bytes(PACKET)));
}

#[test]
fn a_packet_of_the_tunnels_end_itself_needs_no_source_in_a_minimal_header() {
    let ends = Ends { src: Ipv4Addr::new(10, 1, 0, 9), ..ENDS };
    let short = wrapped(Encapsulation::Minimal, &bytes(PACKET), ends, 0).unwrap();
    assert_eq!(short.len(), bytes(PACKET).len() + 8);
    assert_eq!(unwrapped(short), Ok(bytes(PACKET)));
}

#[test]
fn what_may_be_cut_inside_may_be_cut_outside() {
    let mut packet = bytes(PACKET);
    ip::allow_fragments(&mut packet, V4_HEADER, 7);
    for kind in [Encapsulation::IpInIp, Encapsulation::Gre] {
        let outer = wrapped(kind, &packet, ENDS, 0x1234).unwrap();
        assert_eq!((be16(&outer, 4), be16(&outer, 6)), (0x1234, 0), "{kind:?}");
    }
    // The header is the packet's own.
    let outer = wrapped(Encapsulation::Minimal, &packet, ENDS, 0x1234).unwrap();
    assert_eq!((be16(&outer, 4), be16(&outer, 6)), (7, 0));
}

#[test]
fn minimal_encapsulation_carries_neither_fragments_nor_ipv6() {
    for flags in [0x2000, 0x0001] {
        let mut packet = bytes(PACKET);
        put16(&mut packet, 6, flags);
        let total = packet.len();
        ip::set_total_len(&mut packet, V4_HEADER, total);
        assert_eq!(wrapped(Encapsulation::Minimal, &packet, ENDS, 0), None);
        assert_eq!(unwrapped(wrapped(Encapsulation::Gre, &packet, ENDS, 0).unwrap()), Ok(packet));
    }
    assert_eq!(wrapped(Encapsulation::Minimal, &bytes(PACKET_V6), ENDS, 0), None);
}

#[test]
fn malformed_tunnels_are_refused() {
    for (tunnel, at, value, error) in [
        // A key and a sequence number (RFC 2890), a route (RFC 1701), another version.
        (GRE, 20, 0x20, FormatError::Field),
        (GRE, 20, 0x10, FormatError::Field),
        (GRE, 20, 0x40, FormatError::Field),
        (GRE, 21, 0x01, FormatError::Field),
        // Something else than IP, and another version of it.
        (GRE, 22, 0x09, FormatError::Field),
        (GRE, 24, 0x65, FormatError::Version),
        (IP_IN_IP, 20, 0x65, FormatError::Version),
        (GRE_WITH_CHECKSUM, 25, 0x00, FormatError::Checksum),
        (MINIMAL_WITH_SOURCE, 20, 0x06, FormatError::Checksum),
        (MINIMAL_WITH_SOURCE, 27, 0x08, FormatError::Checksum),
    ] {
        let mut tunnel = bytes(tunnel);
        assert_ne!(tunnel[at], value);
        tunnel[at] = value;
        assert_eq!(unwrapped(tunnel), Err(error), "{value:#04x} at {at}");
    }
    for (tunnel, header) in [(GRE, 4), (GRE_WITH_CHECKSUM, 8), (MINIMAL_WITH_SOURCE, 12)] {
        for payload in 0..header {
            let mut cut = bytes(tunnel)[..V4_HEADER + payload].to_vec();
            ip::set_total_len(&mut cut, V4_HEADER, V4_HEADER + payload);
            assert_eq!(unwrapped(cut), Err(FormatError::Truncated), "{payload} bytes");
        }
    }
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let octets = || any::<[u8; 4]>();
    (
        octets(),
        octets(),
        0..11usize,
        any::<[u8; 3]>(),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..80),
    )
        .prop_map(|(src, dst, options, [class, ttl, protocol], may_be_cut, payload)| {
            let header = V4_HEADER + 4 * options;
            let mut packet = vec![1; header];
            packet.extend(&payload);
            ip::emit(&mut packet, Ipv4Addr::from(src), Ipv4Addr::from(dst), protocol, payload.len());
            packet[0] = 0x40 | (header / 4) as u8;
            (packet[1], packet[8]) = (class, ttl);
            packet[6] = if may_be_cut { 0 } else { 0x40 };
            let total = packet.len();
            ip::set_total_len(&mut packet, header, total);
            packet
        })
}

proptest! {
    #[test]
    fn packets_come_out_as_they_went_in(packet in packets(), id: u16, own: bool) {
        let header = IpHeader::parse(&packet).unwrap();
        let src = if own { Ipv4Addr::from(be32(&packet, 12)) } else { ENDS.src };
        let ends = Ends { src, ..ENDS };
        for kind in [Encapsulation::IpInIp, Encapsulation::Minimal, Encapsulation::Gre] {
            let tunnel = wrapped(kind, &packet, ends, id).unwrap();
            let outer = IpHeader::parse(&tunnel).unwrap();
            prop_assert_eq!((outer.src, outer.dst), (ends.src.into(), ends.dst.into()));
            prop_assert_eq!(outer.traffic_class & 0xfc, header.traffic_class & 0xfc);
            if kind != Encapsulation::Minimal {
                prop_assert_eq!(outer.traffic_class & 0x03, 0);
            }
            prop_assert_eq!(outer.dont_fragment, header.dont_fragment);
            prop_assert_eq!(outer.total_len(), tunnel.len());
            prop_assert_eq!(unwrapped(tunnel).unwrap(), &*packet);
        }
    }

    #[test]
    fn any_bytes_are_unwrapped_or_refused(
        mut payload in prop::collection::vec(any::<u8>(), 0..60),
        protocol in prop::sample::select(vec![4u8, 41, 47, 55]),
        options in 0..11usize,
        is_likely: bool,
    ) {
        if is_likely {
            make_likely(&mut payload, protocol);
        }
        let header = V4_HEADER + 4 * options;
        let mut bytes = vec![1; header];
        bytes.extend(&payload);
        ip::emit(&mut bytes, ENDS.src, ENDS.dst, protocol, payload.len());
        bytes[0] = 0x40 | (header / 4) as u8;
        let total = bytes.len();
        ip::set_total_len(&mut bytes, header, total);
        if let Ok(packet) = unwrapped(bytes) {
            prop_assert!(packet.len() <= header + payload.len());
        }
    }
}

/// Makes the header of a tunnel at the start of `payload` one that is believed.
fn make_likely(payload: &mut [u8], protocol: u8) {
    match (protocol, payload) {
        (protocol::GRE, [flags, low, high_type, low_type, version, ..]) => {
            (*flags, *low, *high_type, *low_type) = (*flags & 0x83, 0, 0x08, 0x00);
            *version = 0x45;
        }
        (protocol::MINIMAL, payload) => {
            let has_source = payload.get(1).is_some_and(|flags| flags & HAS_SOURCE != 0);
            if let Some(minimal) = payload.get_mut(..MINIMAL[usize::from(has_source)]) {
                put16(minimal, 2, 0);
                let sum = checksum::of(minimal);
                put16(minimal, 2, sum);
            }
        }
        (_, [version, ..]) => *version = if protocol == protocol::IPV4 { 0x45 } else { 0x60 },
        _ => {}
    }
}

#[test]
fn only_whole_ipv4_packets_are_tunnels() {
    for flags in [0x2000, 0x0001] {
        let mut tunnel = bytes(IP_IN_IP);
        put16(&mut tunnel, 6, flags);
        let total = tunnel.len();
        ip::set_total_len(&mut tunnel, V4_HEADER, total);
        assert_eq!(unwrapped(tunnel), Err(FormatError::Field));
    }
    let mut v6 = bytes(PACKET_V6);
    v6[ip::V6_PROTOCOL_AT] = protocol::MINIMAL;
    assert_eq!(unwrapped(v6), Err(FormatError::Field));
}

#[test]
fn what_would_be_too_long_is_not_carried() {
    for (kind, longest) in [(Encapsulation::IpInIp, 65_515), (Encapsulation::Gre, 65_511)] {
        for (length, is_carried) in [(longest, true), (longest + 1, false)] {
            let mut packet = vec![0; length];
            ip::emit(&mut packet, ENDS.dst, ENDS.src, protocol::UDP, length - V4_HEADER);
            assert_eq!(wrapped(kind, &packet, ENDS, 0).is_some(), is_carried, "{kind:?} {length}");
        }
    }
}

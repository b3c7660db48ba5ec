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
const V6_IN_V4: &str = "450300450000400040296d880a0000fec0000207603000000009114020010db8000000000000\
                        00000000000120010db80000000000000000000000020001000200092c6478";

fn bytes(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Returns the packet in a tunnel, or `None` if that cannot carry it.
fn wrapped(kind: Encapsulation, packet: &[u8], ends: Ends, id: u16) -> Option<Vec<u8>> {
    let header = IpHeader::parse(packet).unwrap();
    // What was there before is overwritten.
    let mut bytes = vec![0xff; kind.overhead(&header, ends.src)?];
    bytes.extend(packet);
    kind.wrap(&mut bytes, &header, ends, id);
    Some(bytes)
}

/// Returns the packet that came by a tunnel.
fn unwrapped(mut bytes: Vec<u8>) -> Result<Vec<u8>, FormatError> {
    let outer = IpHeader::parse(&bytes)?;
    let kind = Encapsulation::of_protocol(outer.protocol).expect("a tunnel");
    let before = bytes.clone();
    let at = kind.unwrap(&mut bytes, &outer).inspect_err(|_| assert_eq!(bytes, before, "it was changed"))?;
    Ok(bytes[at..].to_vec())
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
        // Something else than IP.
        (GRE, 22, 0x09, FormatError::Field),
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
            prop_assert_eq!(outer.traffic_class, header.traffic_class);
            prop_assert_eq!(outer.dont_fragment, header.dont_fragment);
            prop_assert_eq!(outer.total_len(), tunnel.len());
            prop_assert_eq!(unwrapped(tunnel).unwrap(), &*packet);
        }
    }

    #[test]
    fn any_bytes_are_unwrapped_or_refused(
        payload in prop::collection::vec(any::<u8>(), 0..60),
        protocol in prop::sample::select(vec![4u8, 41, 47, 55]),
    ) {
        let mut bytes = vec![0; V4_HEADER];
        bytes.extend(&payload);
        ip::emit(&mut bytes, ENDS.src, ENDS.dst, protocol, payload.len());
        if let Ok(packet) = unwrapped(bytes) {
            prop_assert!(packet.len() <= V4_HEADER + payload.len());
        }
    }
}

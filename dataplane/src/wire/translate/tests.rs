use super::*;
use crate::wire::{
    ip::{self, V4_HEADER},
    udp,
};
use proptest::prelude::*;
use std::net::Ipv4Addr;

const INNER: u32 = u32::from_be_bytes([10, 98, 0, 7]);
const OUTER: u32 = u32::from_be_bytes([203, 0, 113, 1]);
const SERVER: u32 = u32::from_be_bytes([198, 51, 100, 80]);

/// Makes an IPv4 packet with right checksums. `ports` are the source and destination port, or the
/// identifier and zero.
fn packet(number: u8, src: u32, dst: u32, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut header = match number {
        protocol::TCP => vec![0; TCP_HEADER],
        _ => vec![0; SHORT_HEADER],
    };
    match number {
        protocol::ICMP => {
            header[0] = if src == SERVER { 0 } else { 8 };
            put16(&mut header, ICMP_ID, ports.0);
        }
        _ => {
            put16(&mut header, 0, ports.0);
            put16(&mut header, 2, ports.1);
        }
    }
    if number == protocol::TCP {
        header[12..14].copy_from_slice(&[0x50, 0x10]);
    }
    header.extend_from_slice(payload);
    let mut packet = vec![0; V4_HEADER];
    ip::emit(&mut packet, Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst), number, header.len());
    if number == protocol::UDP {
        let length = header.len() as u16;
        put16(&mut header, 4, length);
    }
    packet.extend(header);
    sum(&mut packet);
    packet
}

/// Writes a right checksum of TCP, UDP or ICMP.
fn sum(packet: &mut [u8]) {
    let header = IpHeader::parse(packet).unwrap();
    let (src, dst, length) = (header.src, header.dst, header.total_len() - header.header_len());
    let payload = &mut packet[header.header_len()..];
    match header.protocol {
        protocol::UDP => udp::set_checksum(payload, src, dst),
        number => {
            let (at, pseudo) = match number {
                protocol::TCP => (TCP_CHECKSUM, checksum::pseudo_header(src, dst, number, length)),
                _ => (ICMP_CHECKSUM, 0),
            };
            put16(payload, at, 0);
            let sum = checksum::finish(checksum::add(pseudo, payload));
            put16(payload, at, sum);
        }
    }
}

/// Makes an ICMP error that quotes the first `length` bytes of `quoted`.
fn error(from: u32, to: u32, quoted: &[u8], length: usize) -> Vec<u8> {
    let mut error = packet(protocol::ICMP, from, to, (0, 0), &quoted[..length.min(quoted.len())]);
    error[V4_HEADER..V4_HEADER + 2].copy_from_slice(&[3, 4]);
    put16(&mut error, V4_HEADER + 6, 1400);
    sum(&mut error);
    error
}

/// Returns the packet with its end on this side replaced.
fn translated(packet: &[u8], side: Side, address: u32, port: u16) -> Vec<u8> {
    let (mut packet, header) = (packet.to_vec(), IpHeader::parse(packet).unwrap());
    End::of(&header, &packet, side).unwrap().replace(&mut packet, &header, address, port);
    packet
}

const PROTOCOLS: [u8; 3] = [protocol::TCP, protocol::UDP, protocol::ICMP];

#[test]
fn packets_both_ways_are_what_the_other_side_would_have_sent() {
    for number in PROTOCOLS {
        for length in [0, 1, 500] {
            let payload: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let port = |port| if number == protocol::ICMP { 0 } else { port };
            let there = |src, id| packet(number, src, SERVER, (id, port(443)), &payload);
            let back = |dst, id| match number {
                protocol::ICMP => packet(number, SERVER, dst, (id, 0), &payload),
                _ => packet(number, SERVER, dst, (443, id), &payload),
            };
            assert!(translated(&there(INNER, 5000), Side::Source, OUTER, 12345) == there(OUTER, 12345));
            assert!(translated(&back(OUTER, 12345), Side::Destination, INNER, 5000) == back(INNER, 5000));
        }
    }
}

#[test]
fn quotes_of_any_length_are_what_the_sender_sent() {
    for number in PROTOCOLS {
        for length in [28, 29, 36, 38, 40, 68, 300] {
            let port = |port| if number == protocol::ICMP { 0 } else { port };
            let sent = |src, id| packet(number, src, SERVER, (id, port(443)), &[9; 400]);
            let got = translated(
                &error(SERVER + 1, OUTER, &sent(OUTER, 12345), length),
                Side::Destination,
                INNER,
                5000,
            );
            assert!(got == error(SERVER + 1, INNER, &sent(INNER, 5000), length), "in {number} {length}");
            let received = |dst, id| match number {
                protocol::ICMP => packet(number, SERVER, dst, (id, 0), &[9; 400]),
                _ => packet(number, SERVER, dst, (443, id), &[9; 400]),
            };
            let got =
                translated(&error(INNER, SERVER, &received(INNER, 5000), length), Side::Source, OUTER, 12345);
            assert!(got == error(OUTER, SERVER, &received(OUTER, 12345), length), "out {number} {length}");
        }
    }
}

#[test]
fn extension_behind_a_short_quote_stays_as_it_is() {
    let sent = packet(protocol::TCP, OUTER, SERVER, (12345, 443), &[]);
    let mut padded = sent[..28].to_vec();
    // Some senders quote eight bytes of a packet whose length they correct, and more follows.
    ip::set_total_len(&mut padded, V4_HEADER, 28);
    padded.extend([0; 100]);
    let error = error(SERVER, OUTER, &padded, padded.len());
    let got = translated(&error, Side::Destination, INNER, 5000);
    assert_eq!(got[V4_HEADER + 8 + 28..], [0; 100]);
    assert_eq!(checksum::of(&got[V4_HEADER..]), 0);
}

#[test]
fn udp_without_a_checksum_stays_without_and_a_computed_zero_is_sent_as_ffff() {
    let mut none = packet(protocol::UDP, INNER, SERVER, (5000, 53), b"query");
    put16(&mut none, V4_HEADER + UDP_CHECKSUM, 0);
    let got = translated(&none, Side::Source, OUTER, 12345);
    assert_eq!(be16(&got, V4_HEADER + UDP_CHECKSUM), 0);
    // Among all ports there is one whose checksum is zero.
    let sent = packet(protocol::UDP, INNER, SERVER, (5000, 53), b"query");
    let sums: Vec<_> = (0..=u16::MAX)
        .map(|port| be16(&translated(&sent, Side::Source, OUTER, port), V4_HEADER + UDP_CHECKSUM))
        .collect();
    assert!(sums.contains(&0xffff) && !sums.contains(&0));
}

#[test]
fn wrong_checksums_stay_wrong() {
    for number in PROTOCOLS {
        let mut sent = packet(number, INNER, SERVER, (5000, 443), b"text");
        *sent.last_mut().unwrap() ^= 1;
        let mut got = translated(&sent, Side::Source, OUTER, 12345);
        let before = got.clone();
        sum(&mut got);
        assert!(got != before, "{number}");
    }
}

#[test]
fn what_has_no_end_is_refused() {
    let of = |packet: &[u8], side| End::of(&IpHeader::parse(packet).unwrap(), packet, side).unwrap_err();
    for number in PROTOCOLS {
        let whole = packet(number, INNER, SERVER, (5000, 443), &[]);
        let mut cut = whole[..whole.len() - 1].to_vec();
        ip::set_total_len(&mut cut, V4_HEADER, whole.len() - 1);
        assert_eq!(of(&cut, Side::Source), Untranslatable::Short, "{number}");
        let mut later = whole.clone();
        later[7] = 9;
        ip::set_total_len(&mut later, V4_HEADER, whole.len());
        assert_eq!(of(&later, Side::Source), Untranslatable::Protocol, "{number}");
        // A quote that does not reach the port, of a later fragment, or for somebody else.
        let sent = packet(number, OUTER, SERVER, (5000, 443), &[]);
        for (error, name) in [
            (error(SERVER, OUTER, &sent, 27), "cut"),
            (error(SERVER, OUTER + 1, &sent, 28), "somebody else's"),
            (error(SERVER, OUTER, &later, 28), "later fragment"),
        ] {
            assert_eq!(of(&error, Side::Destination), Untranslatable::Quote, "{name} {number}");
        }
    }
    // A host of the inside is not asked from outside, and answers nothing to there.
    let query = packet(protocol::ICMP, INNER, SERVER, (7, 0), &[]);
    assert_eq!(of(&query, Side::Destination), Untranslatable::Protocol);
    let reply = packet(protocol::ICMP, SERVER, OUTER, (7, 0), &[]);
    assert_eq!(of(&reply, Side::Source), Untranslatable::Protocol);
    assert_eq!(of(&packet(47, INNER, SERVER, (0, 0), &[]), Side::Source), Untranslatable::Protocol);
}

#[test]
fn fragments_get_another_address_and_identification() {
    let mut piece = packet(protocol::UDP, INNER, SERVER, (5000, 53), &[1; 64]);
    replace_address(&mut piece, Side::Source, OUTER);
    set_identification(&mut piece, 0xbeef);
    let header = IpHeader::parse(&piece).unwrap();
    assert_eq!((header.src, be16(&piece, IP_ID)), (Address::v4(OUTER), 0xbeef));
}

proptest! {
    #[test]
    fn any_bytes_are_safe(
        mut bytes in proptest::collection::vec(any::<u8>(), V4_HEADER..120),
        number in prop_oneof![Just(1u8), Just(6), Just(17), any::<u8>()],
        kind in prop_oneof![Just(0u8), Just(3), Just(8), Just(11), any::<u8>()],
        words in 5u8..=15,
        quoted_words in 0u8..=15,
        fragment: u16,
    ) {
        bytes[0] = 0x40 | words;
        bytes[9] = number;
        put16(&mut bytes, 6, if fragment.is_multiple_of(4) { fragment } else { 0 });
        let header_len = usize::from(words) * 4;
        if let Some(byte) = bytes.get_mut(header_len) {
            *byte = kind;
        }
        if let Some(byte) = bytes.get_mut(header_len + 8) {
            *byte = 0x40 | quoted_words;
        }
        let length = bytes.len();
        if header_len <= length {
            ip::set_total_len(&mut bytes, header_len, length);
        }
        if let Ok(header) = IpHeader::parse(&bytes) {
            for side in [Side::Source, Side::Destination] {
                if let Ok(end) = End::of(&header, &bytes, side) {
                    let mut translated = bytes.clone();
                    end.replace(&mut translated, &header, OUTER, 12345);
                    // Back again, everything is as before, but for the two forms of zero.
                    let header = IpHeader::parse(&translated).unwrap();
                    prop_assert_eq!(header.total_len(), length);
                    let other = End::of(&header, &translated, side).unwrap();
                    prop_assert_eq!((other.address, other.port), (Address::v4(OUTER), 12345));
                }
            }
        }
    }
}

//! Encoding and parsing a value returns the same value.

use super::*;
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// Bytes that live as long as a payload needs them.
fn bytes(len: RangeInclusive<usize>) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), len).prop_map(|bytes| &*bytes.leak())
}

fn identity() -> impl Strategy<Value = Identity> {
    (1..255u8, vec(any::<u8>(), 0..40)).prop_map(|(kind, data)| Identity { kind, data })
}

fn transform() -> impl Strategy<Value = Transform> {
    (any::<u8>(), any::<u16>(), any::<Option<u16>>()).prop_map(|(kind, id, key_bits)| Transform {
        kind,
        id,
        key_bits,
    })
}

fn proposal() -> impl Strategy<Value = Proposal> {
    let spi = select(vec![0, 4, 8]).prop_flat_map(|len| vec(any::<u8>(), len));
    (any::<u8>(), any::<u8>(), spi, vec(transform(), 0..20))
        .prop_map(|(number, protocol, spi, transforms)| Proposal { number, protocol, spi, transforms })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        any::<[u16; 2]>().prop_map(|[a, b]| (a.min(b), a.max(b))),
        Just((u16::MAX, 0)), // OPAQUE
    ];
    let addresses = prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
    ];
    (any::<u8>(), ports, addresses).prop_map(|(protocol, (start_port, end_port), [a, b])| TrafficSelector {
        protocol,
        start_port,
        end_port,
        start: a.min(b),
        end: a.max(b),
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    prop_oneof![
        Just(Delete { protocol: 1, spis: vec![] }),
        (2..=3u8, vec(any::<u32>(), 0..30)).prop_map(|(protocol, spis)| Delete { protocol, spis }),
    ]
}

fn notify() -> impl Strategy<Value = Notify<'static>> {
    (any::<u8>(), bytes(0..=8), any::<u16>(), bytes(0..=40)).prop_map(|(protocol, spi, kind, data)| Notify {
        protocol,
        spi,
        kind,
        data,
    })
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let attribute = prop_oneof![
        any::<Option<Ipv4Addr>>().prop_map(Attribute::Ip4Address),
        any::<Option<Ipv6Addr>>().prop_map(Attribute::Ip6Address),
        any::<Option<Ipv4Addr>>().prop_map(Attribute::Ip4Dns),
        any::<Option<Ipv6Addr>>().prop_map(Attribute::Ip6Dns),
        any::<alloc::string::String>().prop_map(Attribute::DnsDomain),
        (26..0x8000u16).prop_map(Attribute::Other),
    ];
    (any::<u8>(), vec(attribute, 0..20)).prop_map(|(kind, attributes)| Configuration { kind, attributes })
}

fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        vec(proposal(), 0..8).prop_map(Payload::Sa),
        (any::<u16>(), bytes(1..=64)).prop_map(|(method, data)| Payload::Ke { method, data }),
        identity().prop_map(Payload::IdI),
        identity().prop_map(Payload::IdR),
        (any::<u8>(), bytes(0..=64)).prop_map(|(encoding, data)| Payload::Cert { encoding, data }),
        (any::<u8>(), bytes(0..=64))
            .prop_map(|(encoding, authorities)| Payload::CertReq { encoding, authorities }),
        (any::<u8>(), bytes(0..=64)).prop_map(|(method, data)| Payload::Auth { method, data }),
        bytes(16..=256).prop_map(Payload::Nonce),
        notify().prop_map(Payload::Notify),
        delete().prop_map(Payload::Delete),
        bytes(0..=64).prop_map(Payload::Vendor),
        vec(selector(), 0..10).prop_map(Payload::TsI),
        vec(selector(), 0..10).prop_map(Payload::TsR),
        configuration().prop_map(Payload::Cp),
        bytes(0..=64).prop_map(Payload::Eap),
        prop_oneof![1..33u8, 49..53u8, 54..=255u8].prop_map(Payload::Unknown),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<[u64; 2]>(), any::<[u8; 3]>(), any::<u32>()).prop_map(
        |([spi_i, spi_r], [version, exchange, flags], message_id)| Header {
            spi_i,
            spi_r,
            next: 0,
            version,
            exchange,
            flags,
            message_id,
            length: 0,
        },
    )
}

proptest! {
    #[test]
    fn messages(header in header(), payloads in vec(payload(), 0..12)) {
        let message = emit_message(header, &payloads);
        let read = Header::parse(&message).unwrap();
        let (next, length) = (payloads.first().map_or(0, Payload::kind), message.len() as u32);
        prop_assert_eq!(read, Header { next, length, ..header });
        prop_assert_eq!(parse(read.next, &message[HEADER..]).unwrap(), payloads);
    }

    #[test]
    fn protected_messages(
        header in header(),
        first: u8,
        fragment in prop_oneof![Just(None), (1..=u16::MAX, any::<u16>()).prop_map(|(n, more)| Some((n, n.saturating_add(more))))],
        rest in vec(any::<u8>(), 0..200),
    ) {
        let mut message = Vec::new();
        emit_protected(header, first, fragment, rest.len(), &mut message);
        let aad = message.clone();
        message.extend_from_slice(&rest);
        prop_assert_eq!(protected(&message), Ok(ProtectedMessage {
            first,
            fragment,
            unsupported: None,
            aad: &aad,
            rest: &rest,
        }));
        let read = Header::parse(&message).unwrap();
        prop_assert_eq!(Header { next: 0, length: 0, ..read }, header);
        prop_assert_eq!(parse(read.next, &message[HEADER..]), Err(Malformed::Encrypted));
    }
}

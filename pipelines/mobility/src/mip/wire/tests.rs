use super::*;
use crate::mip::association::{Algorithm, Association};
use alloc::{vec, vec::Vec};
use core::{net::Ipv4Addr, time::Duration};
use proptest::prelude::*;

fn association(algorithm: Algorithm) -> Association {
    let key = b"0123456789abcdef".to_vec().into();
    Association { spi: 256, algorithm, key }
}

fn request() -> Request {
    Request {
        flags: Flags { co_located: true, reverse_tunnel: true, ..Flags::default() },
        lifetime: 300,
        home: Ipv4Addr::new(10, 0, 0, 1),
        agent: Ipv4Addr::new(10, 0, 0, 254),
        care_of: Ipv4Addr::new(192, 0, 2, 7),
        identification: Identification(0xe8f2_0c10_8000_0000),
    }
}

/// RFC 5944 §3.3, byte by byte. The authenticator is from Python's hmac.
#[test]
fn request_is_on_the_wire_as_the_rfc_says() {
    let mut message = Body::Request(request()).emit();
    push(&mut message, &Extension::Nai(b"a@b")).unwrap();
    association(Algorithm::HmacMd5).authenticate(&mut message, Parties::MobileHome);
    let (fixed, extensions) = message.split_at(24);
    assert_eq!(
        fixed,
        [1, 0x22, 1, 44, 10, 0, 0, 1, 10, 0, 0, 254, 192, 0, 2, 7, 0xe8, 0xf2, 0x0c, 0x10, 0x80, 0, 0, 0]
    );
    let (nai, authentication) = extensions.split_at(5);
    assert_eq!(nai, b"\x83\x03a@b");
    let (start, authenticator) = authentication.split_at(6);
    assert_eq!(start, [32, 20, 0, 0, 1, 0]);
    assert_eq!(authenticator, MD5);
}

#[test]
fn authenticator_covers_everything_before_it_and_its_own_start() {
    for algorithm in [Algorithm::HmacMd5, Algorithm::HmacSha256] {
        let association = association(algorithm);
        let mut message = Body::Request(request()).emit();
        push(&mut message, &Extension::Nai(b"a@b")).unwrap();
        association.authenticate(&mut message, Parties::MobileHome);
        let authentic = message.len();
        push(&mut message, &Extension::EncapsulatingDelivery).unwrap();
        let is_authentic = |message: &[u8]| {
            let parsed = Message::parse(message).ok()?;
            parsed.extensions.iter().find_map(|extension| match extension {
                Extension::Authentication(own) => Some(association.verifies(&own)),
                _ => None,
            })
        };
        assert_eq!(is_authentic(&message), Some(true));
        for at in 0..authentic {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert_ne!(is_authentic(&changed), Some(true), "byte {at}");
        }
        let other = Association { spi: 257, ..association.clone() };
        let parsed = Message::parse(&message).unwrap();
        let found = parsed.extensions.iter().find_map(|extension| match extension {
            Extension::Authentication(own) => Some(other.verifies(&own)),
            _ => None,
        });
        assert_eq!(found, Some(false), "another SPI");
    }
}

#[test]
fn timestamps_count_from_1900_and_past_2036() {
    let at = |seconds| Identification::at(Duration::from_millis(seconds));
    assert_eq!(at(0).0, 2_208_988_800 << 32);
    assert_eq!(at(500).low(), 1 << 31);
    // 2036-02-07 06:28:16 UTC.
    let wrap = 2_085_978_496_000;
    assert_eq!(at(wrap).high(), 0);
    assert!(at(wrap).is_after(at(wrap - 1)) && !at(wrap - 1).is_after(at(wrap)));
    assert!(!at(wrap).is_after(at(wrap)));
    let apart = at(wrap + 1500).distance(at(wrap - 1500));
    assert!(apart.abs_diff(Duration::from_secs(3)) < Duration::from_micros(1), "{apart:?}");
    assert_eq!(at(wrap).distance(at(wrap + 1500)), at(wrap + 1500).distance(at(wrap)));
}

#[test]
fn unknown_extensions_are_skipped_or_make_the_message_worthless() {
    let parse = |extensions: &[u8]| {
        let message = [&Body::Request(request()).emit()[..], extensions].concat();
        Message::parse(&message).map(|message| message.extensions.iter().count())
    };
    assert_eq!(parse(&[]), Ok(0));
    // Padding, and those that may be skipped.
    assert_eq!(parse(&[0, 0, 200, 2, 7, 7, 0, 128, 0, 255, 1, 9]), Ok(0));
    assert_eq!(parse(&[0, 131, 1, b'x', 0]), Ok(1));
    for kind in [1, 36, 47, 127] {
        assert_eq!(parse(&[kind, 2, 7, 7, 7, 7]), Err(Malformed::Unknown(kind)));
    }
    // Vendors' extensions, the newer one with a longer length.
    assert_eq!(parse(&[37, 1, 7, 38, 0, 0, 3, 1, 2, 3]), Ok(2));
    for cut in [&[131][..], &[131, 2, 7], &[38, 0, 0], &[38, 0, 1, 0, 9], &[200, 255, 1]] {
        assert_eq!(parse(cut), Err(Malformed::Truncated), "{cut:?}");
    }
    assert_eq!(parse(&[131, 0]), Err(Malformed::Length(131)));
    assert_eq!(parse(&[32, 3, 0, 0, 0]), Err(Malformed::Length(32)));
    assert_eq!(parse(&[44, 5, 0, 0, 0, 0, 0]), Err(Malformed::Length(44)));
    assert_eq!(parse(&[44, 6, 1, 0, 0, 0, 0, 0]), Err(Malformed::Unknown(44)), "another kind of reply");
    assert_eq!(parse(&[144, 6, 1, 0, 0, 0, 0, 0]), Ok(0), "another kind of request");
}

#[test]
fn no_other_messages_are_parsed() {
    for datagram in [&[][..], &[1], &[2; 40], &[1; 23], &[3; 19], &[7; 19], &[15; 11], &[4; 40]] {
        assert!(Message::parse(datagram).is_err(), "{datagram:?}");
    }
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>().prop_map(Ipv4Addr::from_bits)
}

fn flags() -> impl Strategy<Value = Flags> {
    any::<[bool; 6]>().prop_map(|[simultaneous, broadcasts, co_located, minimal, gre, reverse_tunnel]| {
        Flags { simultaneous, broadcasts, co_located, minimal, gre, reverse_tunnel }
    })
}

fn body() -> impl Strategy<Value = Body> {
    let request = (flags(), any::<u16>(), address(), address(), address(), any::<u64>());
    let reply = (any::<u8>(), any::<u16>(), address(), address(), any::<u64>());
    let revocation = (any::<[bool; 2]>(), address(), address(), address(), any::<u32>());
    prop_oneof![
        request.prop_map(|(flags, lifetime, home, agent, care_of, id)| {
            let identification = Identification(id);
            Body::Request(Request { flags, lifetime, home, agent, care_of, identification })
        }),
        reply.prop_map(|(code, lifetime, home, agent, id)| {
            let (code, identification) = (Code(code), Identification(id));
            Body::Reply(Reply { code, lifetime, home, agent, identification })
        }),
        revocation.prop_map(
            |([is_home_agent, may_inform], home, home_domain, foreign_domain, identifier)| {
                Body::Revocation(Revocation {
                    is_home_agent,
                    may_inform,
                    home,
                    home_domain,
                    foreign_domain,
                    identifier,
                })
            }
        ),
        (any::<bool>(), address(), any::<u32>()).prop_map(|(may_inform, home, identifier)| {
            Body::RevocationAck(RevocationAck { may_inform, home, identifier })
        }),
    ]
}

fn extension() -> impl Strategy<Value = Extension<'static>> {
    prop_oneof![
        any::<[bool; 2]>().prop_flat_map(|[accepted, forced]| any::<u16>().prop_map(move |keepalive| {
            Extension::UdpTunnelReply(UdpTunnelReply { accepted, forced, keepalive })
        })),
        Just(Extension::EncapsulatingDelivery),
        prop_oneof![Just(&b"n"[..]), Just(&b"somebody@example.net"[..])].prop_map(Extension::Nai),
        (any::<bool>(), any::<u32>()).prop_map(|(can_inform, timestamp)| {
            Extension::RevocationSupport(RevocationSupport { can_inform, timestamp })
        }),
        (any::<[bool; 2]>(), any::<u8>()).prop_map(|([force, by_foreign_agent], protocol)| {
            let encapsulation = protocol.into();
            Extension::UdpTunnelRequest(UdpTunnelRequest { force, by_foreign_agent, encapsulation })
        }),
    ]
}

proptest! {
    #[test]
    fn messages_survive_a_round_trip(body in body(), extensions in prop::collection::vec(extension(), 0..6)) {
        let mut message = body.emit();
        extensions.iter().for_each(|extension| push(&mut message, extension).unwrap());
        let parsed = Message::parse(&message).unwrap();
        prop_assert_eq!(parsed.body, body);
        prop_assert_eq!(parsed.extensions.iter().collect::<Vec<_>>(), extensions);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(kind in prop_oneof![Just(1u8), Just(3), Just(7), Just(15)],
        rest in prop::collection::vec(any::<u8>(), 0..120)) {
        let datagram = [vec![kind], rest].concat();
        if let Ok(message) = Message::parse(&datagram) {
            let covers = |extension: &Extension<'_>| match extension {
                Extension::Authentication(own) => own.covered.len() <= datagram.len(),
                _ => true,
            };
            prop_assert!(message.extensions.iter().all(|extension| covers(&extension)));
        }
    }
}

const MD5: [u8; 16] =
    [0xbc, 0xd3, 0x11, 0xf5, 0x09, 0xba, 0x32, 0x28, 0x74, 0xf0, 0x02, 0xff, 0xaa, 0x3a, 0x00, 0x85];

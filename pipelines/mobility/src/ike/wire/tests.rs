use super::*;
use crate::identity::Identity;
use alloc::{vec, vec::Vec};

mod hostile;
mod round_trip;

const REQUEST: Header = Header {
    spi_i: 0x0123_4567_89ab_cdef,
    spi_r: 0,
    next: 0,
    version: VERSION,
    exchange: ExchangeType::SaInit as u8,
    flags: flags::INITIATOR,
    message_id: 0,
    length: 0,
};

/// The bytes are laid out by hand from RFC 7296 §3.1 to §3.10, next to their meaning.
#[test]
fn a_request_of_ike_sa_init_has_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        &[
            // Header: SPIs, SA first, 2.0, IKE_SA_INIT, initiator, message 0, 156 bytes.
            0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0, 0, 0, 0, 0, 0, 0, 0,
            33, 0x20, 34, 0x08, 0, 0, 0, 0, 0, 0, 0, 156,
            // SA of 40 bytes, KE next: one proposal of 36 bytes for IKE without SPI, with three
            // transforms.
            34, 0, 0, 40,
            0, 0, 0, 36, 1, 1, 0, 3,
            3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0,
            3, 0, 0, 8, 2, 0, 0, 5,
            0, 0, 0, 8, 4, 0, 0, 31,
            // KE of 40 bytes, nonce next: method 31.
            40, 0, 0, 40, 0, 31, 0, 0,
        ][..],
        &[0xaa; 32],
        // Nonce of 20 bytes, notify next.
        &[41, 0, 0, 20],
        &[0xbb; 16],
        // Notify of 28 bytes, the last: no protocol, no SPI, NAT_DETECTION_SOURCE_IP.
        &[0, 0, 0, 28, 0, 0, 0x40, 0x04],
        &[0xcc; 20],
    ]
    .concat();
    let transform = |kind, id, key_bits| Transform { kind, id, key_bits };
    let payloads = [
        Payload::Sa(vec![Proposal {
            number: 1,
            protocol: 1,
            spi: vec![],
            transforms: vec![transform(1, 20, Some(256)), transform(2, 5, None), transform(4, 31, None)],
        }]),
        Payload::Ke { method: 31, data: &[0xaa; 32] },
        Payload::Nonce(&[0xbb; 16]),
        Payload::Notify(Notify::new(notify::NAT_DETECTION_SOURCE_IP, &[0xcc; 20])),
    ];
    assert_eq!(emit_message(REQUEST, &payloads), bytes);
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header, Header { next: kind::SA, length: 156, ..REQUEST });
    assert!(header.is_from_initiator() && !header.is_response());
    assert_eq!(parse(header.next, &bytes[HEADER..]).unwrap(), payloads);
}

/// RFC 7383 §2.5, by hand.
#[test]
fn a_fragment_has_these_bytes() {
    let header = Header {
        spi_r: 2,
        exchange: ExchangeType::Auth.number(),
        flags: flags::RESPONSE,
        message_id: 1,
        ..REQUEST
    };
    let mut message = Vec::new();
    emit_protected(header, 0, Some((2, 3)), 24, &mut message);
    assert_eq!(
        message[16..],
        [53, 0x20, 35, 0x20, 0, 0, 0, 1, 0, 0, 0, 60, 0, 0, 0, 32, 0, 2, 0, 3],
        "after the SPIs"
    );
    let before_iv = message.clone();
    message.extend([7; 24]);
    assert_eq!(
        protected(&message),
        Ok(ProtectedMessage {
            first: 0,
            fragment: Some((2, 3)),
            unsupported: None,
            aad: &before_iv,
            rest: &[7; 24]
        })
    );
    assert!(Header::parse(&message).unwrap().is_response());
}

#[test]
fn a_header_belongs_to_a_message_of_its_length() {
    let message = emit_message(REQUEST, &[]);
    assert_eq!(Header::parse(&message), Ok(Header { length: 28, ..REQUEST }));
    assert_eq!(Header::parse(&message[..27]), Err(Malformed::Truncated));
    assert_eq!(Header::parse(&[&message[..], &[0]].concat()), Err(Malformed::Length));
    assert_eq!(Header::parse(&[]), Err(Malformed::Truncated));
}

#[test]
fn exchanges_have_numbers() {
    let known: Vec<u8> = (0..=255).filter(|n| ExchangeType::from_number(*n).is_some()).collect();
    assert_eq!(known, [34, 35, 36, 37, 43, 44]);
    assert!(known.iter().all(|n| ExchangeType::from_number(*n).unwrap().number() == *n));
}

#[test]
fn notifies_have_names_and_errors_differ_from_statuses() {
    assert_eq!(notify::name(notify::COOKIE2), Some("COOKIE2"));
    assert_eq!(notify::name(8192), None);
    assert!(notify::is_error(notify::STATE_NOT_FOUND) && notify::is_error(16383));
    assert!(!notify::is_error(notify::INITIAL_CONTACT));
}

#[test]
fn unknown_payloads_are_skipped_unless_critical() {
    let body = |flags| [[200, 0, 0, 6, 1, 2].as_slice(), &[43, flags, 0, 5, 9], &[0, 0, 0, 4]].concat();
    let known = Payload::Vendor(&[1, 2]);
    let empty = Payload::Vendor(&[]);
    assert_eq!(parse(kind::VENDOR, &body(0)).unwrap(), [known.clone(), Payload::Unknown(200), empty.clone()]);
    assert_eq!(parse(kind::VENDOR, &body(0x7f)).unwrap(), [known, Payload::Unknown(200), empty]);
    assert_eq!(parse(kind::VENDOR, &body(0x80)), Err(Malformed::Critical(200)));
    // The bit means nothing on a payload that we know.
    assert_eq!(parse(kind::VENDOR, &[0, 0x80, 0, 4]).unwrap(), [Payload::Vendor(&[])]);
}

#[test]
fn a_transform_with_unknown_attributes_is_never_chosen() {
    let transform = |attributes: &[u8]| {
        let mut body = vec![];
        part::emit_part(&mut body, [0, 0], |out| {
            part::emit_part(out, [0, 0], |out| {
                out.extend([1, 1, 0, 1]);
                part::emit_part(out, [0, 0], |out| {
                    out.extend([1, 0, 0, 20]);
                    out.extend_from_slice(attributes);
                });
            });
        });
        match &parse(kind::SA, &body)?[..] {
            [Payload::Sa(proposals)] => Ok(proposals[0].transforms[0]),
            other => panic!("{other:?}"),
        }
    };
    let key_bits = [0x80, 14, 0, 128];
    let known = Transform { kind: 1, id: 20, key_bits: Some(128) };
    assert_eq!(transform(&key_bits), Ok(known));
    let unknown = Transform { id: Transform::UNKNOWN, ..known };
    assert_eq!(transform(&[key_bits, [0x80, 15, 0, 1]].concat()), Ok(unknown), "another type");
    assert_eq!(transform(&[key_bits, [0x80, 14, 1, 0]].concat()), Ok(unknown), "two lengths");
    let long = Transform { key_bits: None, ..unknown };
    assert_eq!(transform(&[0, 14, 0, 2, 0, 128]), Ok(long), "a length in the long form");
    assert_eq!(transform(&[0, 14, 0, 3, 0, 128]), Err(Malformed::Truncated));
    assert_eq!(transform(&[0x80, 14, 0]), Err(Malformed::Truncated));
}

#[test]
fn unknown_selectors_are_skipped() {
    let v4 = [7, 6, 0, 16, 0, 80, 0, 90, 10, 0, 0, 1, 10, 0, 0, 9];
    let body = [[0, 0, 0, 32, 2, 0, 0, 0].as_slice(), &[9, 0, 0, 8, 1, 2, 3, 4], &v4].concat();
    let selector = TrafficSelector {
        protocol: 6,
        start_port: 80,
        end_port: 90,
        start: [10, 0, 0, 1].into(),
        end: [10, 0, 0, 9].into(),
    };
    assert_eq!(parse(kind::TS_R, &body).unwrap(), [Payload::TsR(vec![selector])]);
}

#[test]
fn payloads_before_the_encrypted_one_are_authentic() {
    let inner = [Payload::Vendor(b"seen"), Payload::Unknown(200)];
    let mut message = emit_message(REQUEST, &inner);
    let last = message.len() - 4;
    message[last] = kind::SK;
    message.extend([kind::AUTH, 0, 0, 7, 1, 2, 3]);
    let length = message.len() as u8;
    message[HEADER - 1] = length;
    let (aad, rest) = message.split_at(message.len() - 3);
    let found = ProtectedMessage { first: kind::AUTH, fragment: None, unsupported: None, aad, rest };
    assert_eq!(protected(&message), Ok(found));
    let mut critical = message.clone();
    critical[last + 1] = 0x80;
    assert_eq!(protected(&critical).map(|found| found.unsupported), Ok(Some(200)));
    for known in (kind::SA..=kind::EAP).filter(|known| *known != kind::SK) {
        critical[last - 8] = known;
        assert_eq!(protected(&critical).map(|found| found.unsupported), Ok(None), "{known}");
    }
}

#[test]
fn identities_are_kept_as_they_are() {
    let body = [0, 0, 0, 11, 2, 9, 9, 9, b'a', b'.', b'b'];
    let identity = Identity { kind: 2, data: b"a.b".into() };
    assert_eq!(parse(kind::ID_R, &body).unwrap(), [Payload::IdR(identity)]);
}

#[test]
fn reserved_types_of_identities_are_malformed() {
    for (number, taken) in [(0, false), (1, true), (254, true), (255, false)] {
        let body = [0, 0, 0, 9, number, 0, 0, 0, b'a'];
        let parsed = parse(kind::ID_I, &body);
        match taken {
            true => assert!(parsed.is_ok(), "{number}"),
            false => assert_eq!(parsed, Err(Malformed::Identity(number))),
        }
    }
}

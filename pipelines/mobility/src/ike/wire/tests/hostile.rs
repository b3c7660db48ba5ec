//! Bytes that no honest peer sends.

use super::*;
use proptest::prelude::*;

/// A payload of every type.
fn sample() -> Vec<Payload<'static>> {
    let identity = Identity { kind: 2, data: b"gateway.example".into() };
    let transform = |kind, id, key_bits| Transform { kind, id, key_bits };
    let proposal = Proposal {
        number: 1,
        protocol: 3,
        spi: vec![1, 2, 3, 4],
        transforms: vec![transform(1, 20, Some(256)), transform(5, 0, None)],
    };
    let selector = |start: core::net::IpAddr, end| TrafficSelector {
        protocol: 17,
        start_port: 0,
        end_port: 65535,
        start,
        end,
    };
    let v4 = selector([10, 0, 0, 0].into(), [10, 0, 0, 255].into());
    let v6 = selector([0xfd, 0, 0, 0, 0, 0, 0, 1].into(), [0xfd, 0, 0, 0, 0, 0, 0, 2].into());
    let attributes = vec![
        Attribute::Ip4Address(Some([10, 0, 0, 7].into())),
        Attribute::Ip6Address(Some([0xfd, 0, 0, 0, 0, 0, 0, 7].into())),
        Attribute::Ip6Dns(None),
        Attribute::DnsDomain("example".into()),
    ];
    vec![
        Payload::Sa(vec![proposal.clone(), Proposal { number: 2, ..proposal }]),
        Payload::Ke { method: 31, data: &[5; 32] },
        Payload::IdI(identity.clone()),
        Payload::IdR(identity),
        Payload::Cert { encoding: 4, data: &[0x30, 3, 2, 1, 1] },
        Payload::CertReq { encoding: 4, authorities: &[6; 20] },
        Payload::Auth { method: 14, data: &[8; 12] },
        Payload::Nonce(&[9; 16]),
        Payload::Notify(Notify { protocol: 3, spi: &[1, 2, 3, 4], kind: notify::REKEY_SA, data: &[] }),
        Payload::Delete(Delete { protocol: 3, spis: vec![1, 2] }),
        Payload::Vendor(b"vendor"),
        Payload::TsI(vec![v4, v6]),
        Payload::TsR(vec![v6]),
        Payload::Cp(Configuration { kind: 1, attributes }),
        Payload::Eap(&[1, 0, 0, 5, 1]),
        Payload::Unknown(99),
    ]
}

/// Parses a chain of payloads; if that succeeds, checks that it round-trips.
fn read(first: u8, body: &[u8]) -> Option<Malformed> {
    match parse(first, body) {
        Ok(payloads) => {
            let mut again = Vec::new();
            let first = emit(&payloads, &mut again);
            assert!(again.len() <= body.len());
            assert_eq!(parse(first, &again).unwrap(), payloads);
            None
        }
        Err(why) => Some(why),
    }
}

#[test]
fn every_truncation_is_refused() {
    let mut body = Vec::new();
    let first = emit(&sample(), &mut body);
    assert_eq!(read(first, &body), None);
    for len in 0..body.len() {
        assert!(read(first, &body[..len]).is_some(), "{len} of {}", body.len());
    }
    assert_eq!(read(first, &[&body[..], &[0]].concat()), Some(Malformed::Length));
}

/// Each payload alone, with a shorter body of a matching length.
#[test]
fn every_shortened_body_round_trips() {
    for payload in sample() {
        let mut whole = Vec::new();
        let first = emit(&[payload], &mut whole);
        for len in 4..whole.len() {
            let mut cut = whole[..len].to_vec();
            cut[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            read(first, &cut);
        }
    }
}

#[test]
fn every_changed_byte_is_refused_or_round_trips() {
    let mut body = Vec::new();
    let first = emit(&sample(), &mut body);
    let mut refused = 0;
    for at in 0..body.len() {
        let kept = body[at];
        for value in 0..=255 {
            body[at] = value;
            refused += usize::from(read(first, &body).is_some());
        }
        body[at] = kept;
    }
    assert!(refused > 0);
}

#[test]
fn every_change_and_truncation_of_a_protected_message_is_answered() {
    let mut message = Vec::new();
    emit_protected(REQUEST, 0, Some((1, 2)), 20, &mut message);
    message.resize(message.len() + 20, 3);
    for len in 0..message.len() {
        assert!(protected(&message[..len]).is_err());
    }
    for at in 0..message.len() {
        let kept = message[at];
        for value in 0..=255 {
            message[at] = value;
            if let Ok(found) = protected(&message) {
                assert_eq!(found.aad.len() + found.rest.len(), message.len());
            }
        }
        message[at] = kept;
    }
}

fn fragment(number: u16, total: u16) -> Vec<u8> {
    let mut message = Vec::new();
    emit_protected(REQUEST, 0, Some((number, total)), 0, &mut message);
    message
}

#[test]
fn impossible_fragments_are_refused() {
    for (number, total) in [(0, 0), (0, 5), (1, 0), (6, 5)] {
        assert_eq!(protected(&fragment(number, total)), Err(Malformed::Fragment), "{number} of {total}");
    }
    assert_eq!(protected(&fragment(5, 5)).map(|p| p.fragment), Ok(Some((5, 5))));
}

#[test]
fn the_encrypted_payload_is_the_last_and_there_is_one() {
    let mut message = fragment(1, 1);
    message.push(0);
    message[HEADER - 1] += 1;
    assert_eq!(protected(&message), Err(Malformed::Encrypted));
    let clear = emit_message(REQUEST, &[Payload::Vendor(b"clear")]);
    assert_eq!(protected(&clear), Err(Malformed::Encrypted));
    assert_eq!(protected(&emit_message(REQUEST, &[])), Err(Malformed::Encrypted));
    let many = emit_message(REQUEST, &vec![Payload::Vendor(b""); 1000]);
    assert_eq!(protected(&many), Err(Malformed::TooMany));
}

#[test]
fn lists_have_an_end() {
    fn read_one(payload: Payload<'_>) -> Option<Malformed> {
        let mut body = Vec::new();
        let first = emit(&[payload], &mut body);
        read(first, &body)
    }
    let proposals = |count, transforms| {
        let transform = Transform { kind: 1, id: 20, key_bits: None };
        let one = Proposal { number: 1, protocol: 1, spi: vec![], transforms: vec![transform; transforms] };
        read_one(Payload::Sa(vec![one; count]))
    };
    let too_many = Some(Malformed::TooMany);
    assert_eq!((proposals(64, 4), proposals(65, 1), proposals(1000, 1)), (None, too_many, too_many));
    assert_eq!((proposals(1, 255), proposals(2, 128), proposals(2, 129)), (None, None, too_many));

    let selectors = |count| {
        let any = [0; 4].into();
        let one = TrafficSelector { protocol: 0, start_port: 0, end_port: 0, start: any, end: any };
        read_one(Payload::TsI(vec![one; count]))
    };
    assert_eq!((selectors(64), selectors(255)), (None, None), "one byte counts them");

    let attributes = |count| {
        read_one(Payload::Cp(Configuration { kind: 1, attributes: vec![Attribute::Ip4Address(None); count] }))
    };
    assert_eq!((attributes(64), attributes(65), attributes(10_000)), (None, too_many, too_many));

    let spis = |count| read_one(Payload::Delete(Delete { protocol: 3, spis: vec![7; count] }));
    assert_eq!((spis(256), spis(257), spis(10_000)), (None, too_many, too_many));

    let payloads = |count| {
        let mut body = Vec::new();
        let first = emit(&vec![Payload::Vendor(b""); count], &mut body);
        read(first, &body)
    };
    assert_eq!((payloads(64), payloads(65), payloads(1000)), (None, too_many, too_many));
}

#[test]
fn parts_must_agree_with_what_they_are_in() {
    let wrong = |kind, body: &[u8]| {
        let whole = [&[0, 0, 0, body.len() as u8 + 4], body].concat();
        read(kind, &whole).unwrap()
    };
    use Malformed::{Count, Length, Protocol, Range, Truncated};
    assert_eq!(read(kind::VENDOR, &[0, 0, 0, 3]), Some(Length), "shorter than its own header");
    assert_eq!(read(0, &[0]), Some(Length), "bytes after the last payload");
    assert_eq!(read(kind::VENDOR, &[43, 0, 0, 4]), Some(Truncated), "none after the last");
    assert_eq!(wrong(kind::NONCE, &[1; 15]), Length);
    assert_eq!(read(kind::NONCE, &[&[0, 0, 1, 5][..], &[1; 257]].concat()), Some(Length));
    assert_eq!(wrong(kind::KE, &[0, 31, 0, 0]), Length);
    assert_eq!(wrong(kind::NOTIFY, &[3, 9, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]), Length);
    assert_eq!(wrong(kind::NOTIFY, &[3, 4, 0, 1, 1, 2, 3]), Truncated);
    assert_eq!(wrong(kind::DELETE, &[1, 4, 0, 1, 1, 2, 3, 4]), Length);
    assert_eq!(wrong(kind::DELETE, &[3, 0, 0, 0]), Length);
    assert_eq!(wrong(kind::DELETE, &[3, 4, 0, 2, 1, 2, 3, 4]), Count);
    assert_eq!(wrong(kind::DELETE, &[3, 4, 0, 1, 1, 2, 3, 4, 5]), Count);
    assert_eq!(wrong(kind::DELETE, &[4, 4, 0, 1, 1, 2, 3, 4]), Protocol(4));
    assert_eq!(wrong(kind::SA, &[2, 0, 0, 8, 1, 1, 0, 0]), Count, "the last says that more follow");
    assert_eq!(wrong(kind::SA, &[0, 0, 0, 8, 1, 1, 3, 0, 1, 2, 3]), Count, "more follow the last");
    assert_eq!(wrong(kind::SA, &[0, 0, 0, 11, 1, 1, 3, 0, 1, 2, 3]), Length, "an SPI of 3 bytes");
    assert_eq!(wrong(kind::SA, &[0, 0, 0, 8, 1, 1, 0, 1]), Truncated, "a transform too few");
    assert_eq!(wrong(kind::SA, &[0, 0, 0, 16, 1, 1, 0, 0, 0, 0, 0, 8, 1, 0, 0, 20]), Count, "one too many");
    assert_eq!(
        wrong(kind::SA, &[0, 0, 0, 16, 1, 1, 0, 1, 3, 0, 0, 8, 1, 0, 0, 20]),
        Count,
        "the last's mark"
    );
    assert_eq!(wrong(kind::SA, &[0, 0, 0, 16, 1, 1, 0, 1, 0, 0, 0, 9, 1, 0, 0, 20]), Truncated);
    let selector =
        |kind, ports: [u8; 4], ends: [u8; 8]| [&[1, 0, 0, 0, kind, 0, 0, 16][..], &ports, &ends].concat();
    let (ports, ends) = ([0, 0, 0xff, 0xff], [10, 0, 0, 1, 10, 0, 0, 1]);
    assert_eq!(wrong(kind::TS_I, &selector(7, ports, [10, 0, 0, 2, 10, 0, 0, 1])), Range);
    assert_eq!(wrong(kind::TS_I, &selector(7, [0, 2, 0, 1], ends)), Range);
    assert_eq!(wrong(kind::TS_I, &selector(8, ports, ends)), Truncated, "IPv6 in the length of IPv4");
    assert_eq!(wrong(kind::TS_I, &[&selector(7, ports, ends)[..], &[0]].concat()), Count);
    assert_eq!(wrong(kind::CP, &[1, 0, 0, 0, 0, 1, 0, 5, 1, 2, 3, 4]), Truncated);
    for kind in [kind::SK, kind::SKF] {
        assert_eq!(wrong(kind, &[0; 40]), Malformed::Encrypted);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_safe(first: u8, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(first, &body);
        let _ = (Header::parse(&body), protected(&body));
    }

    /// Payloads of every type whose own lengths are right, and nothing else is.
    #[test]
    fn any_bodies_are_safe(bodies in proptest::collection::vec((33..54u8, proptest::collection::vec(0..40u8, 0..60)), 1..8)) {
        let kinds = bodies.iter().map(|(kind, _)| *kind).skip(1).chain([0]);
        let mut chain = Vec::new();
        for ((_, body), next) in bodies.iter().zip(kinds) {
            part::emit_part(&mut chain, [next, 0], |out| out.extend(body));
        }
        read(bodies[0].0, &chain);
    }
}

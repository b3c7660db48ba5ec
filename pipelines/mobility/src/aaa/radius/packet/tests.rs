//! Requests and answers, laid out by hand.

use super::{super::attributes::MICROSOFT, *};
use alloc::vec;
use core::net::Ipv6Addr;
use proptest::prelude::*;

const SECRET: &[u8] = b"xyzzy5461";
const REQUEST: [u8; 16] = [0xab; 16];

fn origin(own: &str) -> Origin {
    Origin { connection: "people".into(), local: own.parse().unwrap(), remote: [192, 0, 2, 7].into() }
}

/// Returns a request of alice.
fn request(origin: &Origin) -> AccessRequest<'_> {
    AccessRequest { user_name: b"alice", nas_identifier: "gateway", origin, state: None, eap: &[7] }
}

/// Returns an answer with these attributes; the Message-Authenticator comes first.
fn answer(code: u8, id: u8, attributes: &[(u8, &[u8])], is_authenticated: bool) -> Vec<u8> {
    let mut rest = Vec::new();
    if is_authenticated {
        push(&mut rest, attribute::MESSAGE_AUTHENTICATOR, &[0; 16]).unwrap();
    }
    for (kind, value) in attributes {
        push(&mut rest, *kind, value).unwrap();
    }
    let [high, low] = u16::try_from(HEADER + rest.len()).unwrap().to_be_bytes();
    let start = [code, id, high, low];
    if is_authenticated {
        let tag = message_authenticator(&[&start, &REQUEST, &rest], SECRET);
        rest[2..18].copy_from_slice(&tag);
    }
    let authenticator = Md5::digest([&start[..], &REQUEST, &rest, SECRET].concat());
    [&start[..], &authenticator, &rest].concat()
}

/// Encrypts a key as a server does.
fn seal_key(kind: u8, key: &[u8]) -> Vec<u8> {
    let salt = [0x80, kind];
    let mut plain = [&[u8::try_from(key.len()).unwrap()], key].concat();
    plain.resize(plain.len().next_multiple_of(16), 0);
    let mut sealed = salt.to_vec();
    let mut pad = Md5::digest([SECRET, &REQUEST, &salt].concat());
    for block in plain.chunks(16) {
        let block: Vec<u8> = block.iter().zip(&pad).map(|(byte, pad)| byte ^ pad).collect();
        pad = Md5::digest([SECRET, &block].concat());
        sealed.extend(block);
    }
    let len = u8::try_from(sealed.len() + 2).unwrap();
    [&MICROSOFT[..], &[kind, len], &sealed].concat()
}

#[test]
fn a_request_has_its_authenticator_first_and_eap_in_parts() {
    let (eap, origin) = ([7; 600], origin("203.0.113.1"));
    let request = AccessRequest { state: Some(b"state"), eap: &eap, ..request(&origin) };
    let packet = request.emit(9, &REQUEST, SECRET).unwrap();
    assert_eq!(packet[..4], [1, 9, (packet.len() >> 8) as u8, packet.len() as u8]);
    assert_eq!(packet[4..20], REQUEST);
    let attributes: Vec<(u8, &[u8])> = Attributes(&packet[20..]).collect();
    let lens: Vec<(u8, usize)> = attributes.iter().map(|(kind, value)| (*kind, value.len())).collect();
    assert_eq!(lens[..5], [(80, 16), (1, 5), (32, 7), (6, 4), (61, 4)]);
    assert_eq!(lens[5..9], [(87, 6), (30, 11), (31, 9), (24, 5)]);
    assert_eq!(lens[9..], [(4, 4), (79, 253), (79, 253), (79, 94)]);
    let mut zeroed = packet.clone();
    zeroed[22..38].fill(0);
    assert_eq!(packet[22..38], message_authenticator(&[&zeroed], SECRET));
}

#[test]
fn a_request_that_does_not_fit_is_not_sent() {
    let len = |user: usize, eap: usize| {
        let (user, eap) = (vec![b'a'; user], vec![0; eap]);
        let origin = origin("203.0.113.1");
        let request = AccessRequest { user_name: &user, eap: &eap, ..request(&origin) };
        request.emit(0, &REQUEST, SECRET).map(|packet| packet.len())
    };
    assert!(len(253, 1).is_some());
    assert_eq!(len(254, 1), None);
    assert_eq!(len(0, 1), None);
    let longest = (0..4096).rev().find_map(|eap| len(1, eap)).unwrap();
    assert_eq!((longest, len(1, 60_000)), (MAX_PACKET_LEN, None));
}

#[test]
fn a_request_says_where_the_peer_comes_from() {
    for (own, of_nas) in [
        ("203.0.113.1", (attribute::NAS_IP_ADDRESS, vec![203, 0, 113, 1])),
        (
            "2001:db8::1",
            (attribute::NAS_IPV6_ADDRESS, "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().into()),
        ),
    ] {
        let origin = origin(own);
        let packet = request(&origin).emit(9, &REQUEST, SECRET).unwrap();
        let first = |kind| Attributes(&packet[HEADER..]).first(kind).unwrap();
        assert_eq!(first(of_nas.0), of_nas.1);
        assert_eq!(first(attribute::CALLED_STATION_ID), own.as_bytes());
        assert_eq!(first(attribute::CALLING_STATION_ID), b"192.0.2.7");
        assert_eq!(first(attribute::NAS_PORT_ID), b"people");
    }
}

#[test]
fn an_answer_is_read() {
    let eap = [3, 7, 0, 4];
    let (receive, send) = (seal_key(MPPE_RECV_KEY, &[1; 32]), seal_key(MPPE_SEND_KEY, &[2; 32]));
    let attributes = [
        (attribute::USER_NAME, &b"alice"[..]),
        (attribute::VENDOR_SPECIFIC, &send),
        (attribute::VENDOR_SPECIFIC, &receive),
        (attribute::EAP_MESSAGE, &eap[..1]),
        (attribute::EAP_MESSAGE, &eap[1..]),
        (attribute::STATE, b"s"),
    ];
    let packet = answer(2, 5, &attributes, true);
    let answer = Answer::parse(&packet, 5, &REQUEST, SECRET).unwrap();
    assert_eq!(answer.code, Code::Accept);
    assert_eq!(answer.eap().unwrap(), eap);
    assert_eq!((answer.user_name(), answer.state()), (Some(&b"alice"[..]), Some(&b"s"[..])));
    let msk = answer.msk(&REQUEST, SECRET).unwrap().unwrap();
    assert_eq!(msk[..], [[1; 32], [2; 32]].concat());
}

/// Returns what an answer with these attributes grants.
fn granted(attributes: &[(u8, &[u8])]) -> Result<Grant, AnswerError> {
    let packet = answer(2, 5, attributes, true);
    Answer::parse(&packet, 5, &REQUEST, SECRET).unwrap().grant()
}

#[test]
fn addresses_pools_and_the_time_of_a_session_are_granted() {
    let six: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let whole = [&[0, 128][..], &six.octets()].concat();
    for ip6 in [(attribute::FRAMED_IPV6_ADDRESS, &six.octets()[..]), (attribute::FRAMED_IPV6_PREFIX, &whole)]
    {
        let grant = granted(&[
            (attribute::FRAMED_IP_ADDRESS, &[10, 98, 0, 200]),
            (attribute::FRAMED_IP_ADDRESS, &[10, 98, 0, 201]),
            ip6,
            (attribute::FRAMED_POOL, b"staff"),
            (attribute::FRAMED_IPV6_POOL, b"staff6"),
            (attribute::SESSION_TIMEOUT, &[0, 0, 14, 16]),
        ]);
        let pools = vec![b"staff".to_vec(), b"staff6".to_vec()];
        let ip4 = Some([10, 98, 0, 200].into());
        assert_eq!(
            grant,
            Ok(Grant { ip4, ip6: Some(six), pools, session_timeout: Some(3600), ..Grant::default() })
        );
    }
}

#[test]
fn the_ninth_class_is_left_out() {
    let values: Vec<[u8; 1]> = (0..9).map(|value| [value]).collect();
    let attributes: Vec<(u8, &[u8])> = values.iter().map(|value| (attribute::CLASS, &value[..])).collect();
    assert_eq!(granted(&attributes).unwrap().class, values[..8]);
}

/// Returns a prefix as it stands in an attribute, with all its bytes or only as many as it needs.
fn prefix(address: &str, len: u8, is_whole: bool) -> Vec<u8> {
    let octets = address.parse::<Ipv6Addr>().unwrap().octets();
    let needed = if is_whole { 16 } else { usize::from(len).div_ceil(8) };
    [&[0, len][..], &octets[..needed]].concat()
}

#[test]
fn a_prefix_leaves_the_rest_of_the_address_to_us() {
    for (len, is_whole) in [(64, true), (64, false), (80, false), (127, true)] {
        let value = prefix("2001:db8:0:7::", len, is_whole);
        let grant = granted(&[(attribute::FRAMED_IPV6_PREFIX, &value)]).unwrap();
        let ip6_prefix = Ip6Prefix::new("2001:db8:0:7::".parse().unwrap(), len);
        assert_eq!(grant, Grant { ip6_prefix, ..Grant::default() });
        assert!(grant.has_address());
    }
}

#[test]
fn an_interface_identifier_is_the_rest_of_the_address() {
    let id = [0, 0, 0, 1, 0, 2, 0, 3];
    for (at, len, address) in [
        ("2001:db8:0:7::", 64, "2001:db8:0:7:0:1:2:3"),
        ("2001:db8:0:7:8::", 80, "2001:db8:0:7:8:1:2:3"),
        ("2001:db8:0:7::9", 128, "2001:db8:0:7::9"),
    ] {
        let value = prefix(at, len, true);
        let both = [(attribute::FRAMED_IPV6_PREFIX, &value[..]), (attribute::FRAMED_INTERFACE_ID, &id)];
        let ip6 = Some(address.parse().unwrap());
        assert_eq!(granted(&both), Ok(Grant { ip6, ..Grant::default() }));
    }
    assert_eq!(granted(&[(attribute::FRAMED_INTERFACE_ID, &id)]), Ok(Grant::default()), "of no prefix");
}

#[test]
fn a_prefix_counts_less_than_an_address_and_a_short_one_is_ignored() {
    let six: Ipv6Addr = "2001:db8::7".parse().unwrap();
    for len in [0, 48, 63] {
        let value = prefix("2001:db8::", len, false);
        let short = (attribute::FRAMED_IPV6_PREFIX, &value[..]);
        for more in [None, Some((attribute::FRAMED_INTERFACE_ID, &[7; 8][..]))] {
            let attributes: Vec<_> = [short].into_iter().chain(more).collect();
            let grant = granted(&attributes).unwrap();
            let ignored_prefix = Ip6Prefix::new("2001:db8::".parse().unwrap(), len);
            assert_eq!(grant, Grant { ignored_prefix, ..Grant::default() });
            assert!(!grant.has_address());
        }
        let beside = (attribute::FRAMED_IPV6_ADDRESS, &six.octets()[..]);
        assert_eq!(granted(&[short, beside]), Ok(Grant { ip6: Some(six), ..Grant::default() }));
    }
}

#[test]
fn a_choice_that_the_server_leaves_to_us_is_no_grant() {
    for left in [
        (attribute::FRAMED_IP_ADDRESS, &[255; 4][..]),
        (attribute::FRAMED_IP_ADDRESS, &[255, 255, 255, 254]),
        (attribute::SESSION_TIMEOUT, &[0; 4]),
    ] {
        assert_eq!(granted(&[left]), Ok(Grant::default()), "{left:?}");
    }
}

#[test]
fn attributes_of_a_wrong_length_grant_nothing() {
    let (short, long) = (prefix("2001:db8::", 56, false), [&[0, 64][..], &[0x20_u8; 17]].concat());
    let short = [&[0, 64][..], &short[2..]].concat();
    for bad in [
        (attribute::FRAMED_IP_ADDRESS, &[10, 98, 0][..]),
        (attribute::FRAMED_IPV6_ADDRESS, &[0x20, 1, 0xd, 0xb8]),
        (attribute::FRAMED_IPV6_PREFIX, &[0]),
        (attribute::FRAMED_IPV6_PREFIX, &[0, 128, 0x20, 1]),
        (attribute::FRAMED_IPV6_PREFIX, &[0, 129, 0x20, 1]),
        (attribute::FRAMED_IPV6_PREFIX, &short),
        (attribute::FRAMED_IPV6_PREFIX, &long),
        (attribute::FRAMED_INTERFACE_ID, &[0; 6]),
        (attribute::SESSION_TIMEOUT, &[0, 0, 0, 0, 15]),
    ] {
        assert_eq!(granted(&[bad]), Err(AnswerError::Malformed), "{bad:?}");
    }
}

#[test]
fn keys_shorter_than_an_msk_are_padded_and_a_single_key_is_refused() {
    let keys = [seal_key(MPPE_RECV_KEY, &[1; 16]), seal_key(MPPE_SEND_KEY, &[2; 16])];
    let attributes = keys.each_ref().map(|key| (attribute::VENDOR_SPECIFIC, &key[..]));
    let msk = |attributes: &[(u8, &[u8])]| {
        let packet = answer(2, 5, attributes, true);
        Answer::parse(&packet, 5, &REQUEST, SECRET).unwrap().msk(&REQUEST, SECRET)
    };
    assert_eq!(msk(&attributes).unwrap().unwrap()[..], [&[1; 16][..], &[2; 16], &[0; 32]].concat());
    assert_eq!(msk(&attributes[..1]), Err(AnswerError::Malformed));
    assert_eq!(msk(&[]), Ok(None));
    let cut = &keys[0][..keys[0].len() - 1];
    let cut = [&cut[..5], &[cut[5] - 1], &cut[6..]].concat();
    assert_eq!(msk(&[(attribute::VENDOR_SPECIFIC, &cut), attributes[1]]), Err(AnswerError::Malformed));
}

#[test]
fn only_an_answer_to_this_request_made_with_the_secret_is_accepted() {
    let good = answer(3, 5, &[(attribute::EAP_MESSAGE, &[4, 7, 0, 4])], true);
    let read =
        |packet: &[u8], id, request, secret| Answer::parse(packet, id, request, secret).map(|a| a.code);
    assert_eq!(read(&good, 5, &REQUEST, SECRET), Ok(Code::Reject));
    assert_eq!(read(&good, 6, &REQUEST, SECRET), Err(AnswerError::Other));
    assert_eq!(read(&good, 5, &[0; 16], SECRET), Err(AnswerError::Forged));
    assert_eq!(read(&good, 5, &REQUEST, b"other"), Err(AnswerError::Forged));
    let padded = [&good[..], b"padding"].concat();
    assert_eq!(read(&padded, 5, &REQUEST, SECRET), Ok(Code::Reject));
    // Valid by RFC 2865 alone.
    let bare = answer(2, 5, &[(attribute::USER_NAME, b"alice")], false);
    assert_eq!(read(&bare, 5, &REQUEST, SECRET), Err(AnswerError::Unauthenticated));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(read(&bad, 5, &REQUEST, SECRET).is_err(), "byte {at}");
    }
}

/// RFC 2865 §7.1: the Response Authenticator of its first example is right, only the
/// Message-Authenticator is missing.
#[test]
fn response_authenticators_are_those_of_the_rfc() {
    let request =
        [0x0f, 0x40, 0x3f, 0x94, 0x73, 0x97, 0x80, 0x57, 0xbd, 0x83, 0xd5, 0xcb, 0x98, 0xf4, 0x22, 0x7a];
    let mut accept = [
        0x02, 0x00, 0x00, 0x26, 0x86, 0xfe, 0x22, 0x0e, 0x76, 0x24, 0xba, 0x2a, 0x10, 0x05, 0xf6, 0xbf, 0x9b,
        0x55, 0xe0, 0xb2, 0x06, 0x06, 0x00, 0x00, 0x00, 0x01, 0x0f, 0x06, 0x00, 0x00, 0x00, 0x00, 0x0e, 0x06,
        0xc0, 0xa8, 0x01, 0x03,
    ];
    assert_eq!(Answer::parse(&accept, 0, &request, SECRET).unwrap_err(), AnswerError::Unauthenticated);
    accept[37] ^= 1;
    assert_eq!(Answer::parse(&accept, 0, &request, SECRET).unwrap_err(), AnswerError::Forged);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        attributes in prop::collection::vec(any::<u8>(), 0..300),
        code in prop::sample::select(&[2, 3, 11][..]),
    ) {
        let _ = Answer::parse(&attributes, 5, &REQUEST, SECRET);
        // Attributes that a hostile server made, so that they are not refused for their tag.
        let mut packet = answer(code, 5, &[], true);
        packet.extend(&attributes);
        let attributes = Attributes(&packet[HEADER..]);
        let _ = attributes.check();
        let all = Answer { code: Code::Accept, attributes };
        let _ = (all.eap(), all.state(), all.msk(&REQUEST, SECRET), all.grant());
    }

    #[test]
    fn any_key_is_opened_or_refused(sealed in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Some(key) = open_key(&sealed, &REQUEST, SECRET) {
            prop_assert!(!key.is_empty() && key.len() < sealed.len());
        }
    }
}

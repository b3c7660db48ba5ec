//! Records, attribute by attribute.

use super::{
    super::attributes::{Attributes, Received},
    *,
};
use crate::aaa::origin::Origin;
use alloc::vec;

const SECRET: &[u8] = b"xyzzy5461";

fn account() -> Account {
    let origin =
        Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: [192, 0, 2, 7].into() };
    Account {
        id: "1-7".into(),
        user_name: b"alice".to_vec(),
        origin,
        inner: vec![[10, 98, 0, 7].into(), "2001:db8::7".parse().unwrap()],
        class: vec![b"gold".to_vec(), b"2".to_vec()],
    }
}

fn packet(happening: Happening<'_>, delay: u64) -> Vec<u8> {
    Record::new(happening, 1_800_000_000, "gateway").emit(9, Duration::from_secs(delay), SECRET).unwrap()
}

#[test]
fn a_stop_record_tells_everything() {
    let usage = Usage {
        time: Duration::from_millis(61_500),
        received: (3, (1 << 32) + 5),
        sent: ((1 << 32) + 2, 7 << 32),
    };
    let packet = packet(Happening::Stop(&account(), usage, Cause::LostCarrier), 4);
    let received = Received::parse(&packet).unwrap();
    assert_eq!((received.code(), received.id()), (4, 9));
    assert!(received.is_made_with(&[0; 16], SECRET) && !received.is_made_with(&[0; 16], b"other"));
    let all = Attributes(&packet[20..]);
    let numbers: Vec<_> =
        [40, 45, 46, 47, 48, 42, 43, 52, 53, 49, 41].map(|kind| all.number(kind).unwrap().unwrap()).into();
    assert_eq!(numbers, [2, 1, 61, 3, 2, 5, 0, 1, 7, 2, 4]);
    assert_eq!(all.number(55), Ok(Some(1_800_000_000)), "when it happened");
    for (kind, value) in [
        (44, &b"1-7"[..]),
        (1, b"alice"),
        (32, b"gateway"),
        (4, &[203, 0, 113, 1]),
        (87, b"people"),
        (30, b"203.0.113.1"),
        (31, b"192.0.2.7"),
        (8, &[10, 98, 0, 7]),
        (168, &"2001:db8::7".parse::<core::net::Ipv6Addr>().unwrap().octets()),
    ] {
        assert_eq!(all.all(kind).collect::<Vec<_>>(), [value], "{kind}");
    }
    assert_eq!(all.all(25).collect::<Vec<_>>(), [&b"gold"[..], b"2"], "the server's own, in its order");
}

#[test]
fn a_record_of_the_gateway_names_no_peer() {
    let gateway = Gateway { id: "1", local: "2001:db8::1".parse().unwrap() };
    for (happening, status) in [(Happening::On(gateway), 7), (Happening::Off(gateway), 8)] {
        let packet = packet(happening, 0);
        let kinds: Vec<u8> = Attributes(&packet[20..]).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [40, 44, 55, 32, 95, 41]);
        assert_eq!(Attributes(&packet[20..]).number(40), Ok(Some(status)));
    }
}

#[test]
fn a_record_fits_into_a_packet_whatever_the_server_sent() {
    let class = vec![vec![7; 253]; 100];
    let account = Account { class, user_name: vec![b'a'; 253], ..account() };
    let packet = packet(Happening::Stop(&account, Usage::default(), Cause::NasError), 0);
    assert!(packet.len() <= MAX_PACKET_LEN);
    let all = Attributes(&packet[20..]);
    assert!(all.number(46).unwrap().is_some() && all.number(41).unwrap().is_some());
}

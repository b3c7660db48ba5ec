//! The examples of `docs/siu.md`.

use super::*;

const DOCUMENT: &str = include_str!("../../../../../../docs/siu.md");

/// Returns the bytes of the example with this title.
fn example(title: &str) -> Vec<u8> {
    let (_, behind) = DOCUMENT.split_once(title).expect("the document has the example");
    let block = behind.split("```").nth(1).expect("a block of bytes follows its title");
    let (_, bytes) = block.split_once('\n').expect("they begin on a line of their own");
    let digits: String = bytes.chars().filter(|c| c.is_ascii_hexdigit()).collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn key() -> SharedKey {
    SharedKey { number: 256, secret: (0..32).collect::<Vec<u8>>().into() }
}

#[test]
fn update_is_as_documented() {
    let head = Head { epoch: 0x0102_0304_0506_0708, sequence: 42, run: 0xa1a2_a3a4_a5a6_a7a8 };
    let update = Update {
        lifetime: 600,
        home: Ipv4Addr::new(10, 99, 0, 7).into(),
        old: Ipv4Addr::new(192, 0, 2, 7).into(),
        new: Ipv4Addr::new(198, 51, 100, 7).into(),
        link: b"terminal-7".to_vec(),
        reply: b"reply".to_vec(),
    };
    let bytes = example("### An update");
    assert_eq!(update.emit(head, &key()).unwrap(), bytes);
    assert_eq!(Update::parse(&bytes, &key()), Ok((head, update)));
}

#[test]
fn update_for_ipv6_is_as_documented() {
    let head = Head { epoch: 0, sequence: 1, run: 7 };
    let update = Update {
        lifetime: 0,
        home: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into(),
        old: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 7).into(),
        new: Ipv6Addr::UNSPECIFIED.into(),
        link: vec![],
        reply: vec![],
    };
    let bytes = example("### The end of a registration");
    assert_eq!(update.emit(head, &key()).unwrap(), bytes);
    assert_eq!(Update::parse(&bytes, &key()), Ok((head, update)));
}

#[test]
fn acknowledgement_is_as_documented() {
    let head = Head { epoch: 0x0102_0304_0506_0708, sequence: 42, run: 0xa1a2_a3a4_a5a6_a7a8 };
    let acknowledgement = Acknowledgement { status: Status::Done, next_epoch: 0 };
    let bytes = example("### An acknowledgement");
    assert_eq!(acknowledgement.emit(head, &key()), bytes);
    assert_eq!(Acknowledgement::parse(&bytes, &key()), Ok((head, acknowledgement)));
}

#[test]
fn every_status_is_documented() {
    let (_, rows) = DOCUMENT.split_once("| status | meaning |").unwrap();
    let (rows, _) = rows.split_once("\n\n").unwrap();
    for number in 0..=255 {
        let status = Status::from(number);
        assert_eq!(u8::from(status), number);
        let row = alloc::format!("| {number} | ");
        assert_eq!(rows.contains(&row), !matches!(status, Status::Other(_)), "{status}");
    }
}

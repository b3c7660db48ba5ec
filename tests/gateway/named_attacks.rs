//! Attacks by fragments that have a name: each is counted and bounded, and others' packets pass.

use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal, world::World};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    wire::ip,
};

const SUITE: &str = "aes128gcm16";
const ESP: u8 = ip::protocol::ESP;
const UDP: u8 = ip::protocol::UDP;
const ICMP: u8 = ip::protocol::ICMP;

/// Makes a fragment of a hostile host, over IPv4 or IPv6: `length` bytes at `unit` units of eight.
fn piece(v6: bool, protocol: u8, unit: u16, length: usize, more: bool) -> Vec<u8> {
    // Its first words read as UDP ports of the gateway.
    let mut payload = [0x11, 0x94].repeat(length.div_ceil(2));
    payload.truncate(length);
    if v6 {
        let field = (unit << 3 | u16::from(more)).to_be_bytes();
        let part = [&[protocol, 0][..], &field, &[0, 0, 0, 9], &payload].concat();
        return ip_packet(ip("2001:db8:66::66"), ip("2001:db8:1::1"), ip::protocol::FRAGMENT, &part);
    }
    let mut packet = ip_packet(ip("198.51.100.66"), ip("203.0.113.1"), protocol, &payload);
    packet[4..6].copy_from_slice(&[0, 9]);
    packet[6..8].copy_from_slice(&(unit | if more { 0x2000 } else { 0 }).to_be_bytes());
    let total = packet.len();
    ip::set_total_len(&mut packet, 20, total);
    packet
}

/// Lists what may be the gateway's, over IPv4 and IPv6.
fn ours() -> impl Iterator<Item = (bool, u8)> {
    [false, true].into_iter().flat_map(|v6| [ESP, UDP].map(|protocol| (v6, protocol)))
}

/// Sends `attack` between the two fragments of a good packet, and then another good packet. Both must
/// come out. Returns the drops by reason.
fn between_good_fragments(attack: &[Vec<u8>]) -> Vec<(DropReason, u64)> {
    let mut world = World::new(vec![tunnel(1, suite(SUITE))]);
    world.meet_neighbours();
    let mut good = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let inner = datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300]);
    let [one, two] = &fragments(&good.seal(&inner), 1280, 9)[..] else { panic!("two fragments") };
    world.put(OUTSIDE, one);
    for piece in attack {
        world.send(OUTSIDE, piece);
    }
    world.put(OUTSIDE, two);
    world.put(OUTSIDE, &good.seal(&inner));
    world.settle();
    assert_eq!(world.take(INSIDE), [forwarded(&inner), forwarded(&inner)], "{:?}", world.all_drops());
    assert_eq!(world.take(OUTSIDE), [] as [Vec<u8>; 0], "nothing is answered");
    world.all_drops()
}

#[test]
fn teardrop() {
    for (v6, protocol) in ours() {
        // The second lies within the first, or begins in its middle.
        for second in [piece(v6, protocol, 1, 4, false), piece(v6, protocol, 2, 40, false)] {
            let drops = between_good_fragments(&[piece(v6, protocol, 0, 32, true), second]);
            assert_eq!(drops, [(FragmentOverlap, 2)], "{v6} {protocol}");
        }
    }
}

#[test]
fn ping_of_death() {
    for (v6, protocol) in ours() {
        let attack = [piece(v6, protocol, 8189, 64, false), piece(v6, protocol, 0, 64, true)];
        assert_eq!(between_good_fragments(&attack), [(FragmentLength, 1)], "{v6} {protocol}");
    }
    // ICMP is the host's, which no port leads to here.
    let attack = [piece(false, ICMP, 0, 64, true), piece(false, ICMP, 8189, 64, false)];
    assert_eq!(between_good_fragments(&attack), [(NotForUs, 2)]);
}

#[test]
fn tiny_fragments() {
    for v6 in [false, true] {
        // RFC 1858 §3: the first has too little to see whose it is, and the next one writes over it.
        let drops = between_good_fragments(&[piece(v6, UDP, 0, 8, true), piece(v6, UDP, 0, 16, true)]);
        assert_eq!(drops, [(FragmentOverlap, 2)], "{v6}");
        // Not whole units, and nothing at all.
        let drops = between_good_fragments(&[piece(v6, UDP, 0, 2, true), piece(v6, ESP, 3, 0, true)]);
        assert_eq!(drops, [(FragmentLength, 2)], "{v6}");
        // A packet in more fragments than are kept.
        let many: Vec<_> = (0..180).map(|unit| piece(v6, ESP, unit, 8, unit < 179)).collect();
        let drops = between_good_fragments(&many);
        let crowded = drops.iter().find(|(reason, _)| *reason == FragmentCrowded).unwrap().1;
        assert!(drops.len() == 1 && crowded >= 180 - 128, "{v6} {drops:?}");
    }
}

#[test]
fn fragments_without_end() {
    for v6 in [false, true] {
        let endless: Vec<_> = (0..2000).map(|n| piece(v6, ESP, n % 1500 * 5, 40, true)).collect();
        let drops = between_good_fragments(&endless);
        let dropped: u64 = drops.iter().map(|(_, packets)| packets).sum();
        let only = [FragmentCrowded, FragmentDuplicate, FragmentOverlap];
        assert!(drops.iter().all(|(reason, _)| only.contains(reason)), "{v6} {drops:?}");
        assert!((2000 - 128..=2000).contains(&dropped), "{v6} {drops:?}");
    }
}

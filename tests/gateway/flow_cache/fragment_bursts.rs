//! Fragments of packets to the gateway in many orders and shapes: a gateway that remembers flows, and so takes
//! them out of bursts early, treats them as one does that remembers none.

use super::{
    fragment_pairs::{
        ID, LAST, SIZE, Twins, framed, is_v4, outsides, overlapping, placed, summed, with_byte,
    },
    kind::Kind,
    odd::{cut_to, tagged, uncut, with_class, with_options, with_ttl, with_wrong_header},
};
use proptest::prelude::*;
use wayfarer::{
    gateway::rings::Punt,
    sim::{
        fixtures::OUTSIDE,
        frames::{fragments, udp_packet},
    },
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::Path,
    wire::{
        esp::{IKE_PORT, NON_ESP_MARKER},
        ethernet,
        fragment::{V6_FRAGMENT_HEADER, head_len, payload},
        ip::{self, protocol},
    },
};

/// Returns a frame with padding behind the packet.
fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend([0xee; 46]);
    frame
}

/// Returns a fragment with another last byte.
fn changed(mut fragment: Vec<u8>) -> Vec<u8> {
    *fragment.last_mut().expect("payload") ^= 1;
    fragment
}

/// Makes a burst of the fragments of a packet, or of their frames.
type Arrange = fn([Vec<u8>; 2]) -> Vec<Vec<u8>>;

const BURSTS: [(&str, Arrange); 33] = [
    ("in order", |[first, last]| vec![first, last]),
    ("reversed", |[first, last]| vec![last, first]),
    ("only the first", |[first, _]| vec![first]),
    ("a gap, in reverse", |[first, last]| vec![placed(last, payload(&first).len() + 8, false, ID), first]),
    ("a gap", |[first, last]| {
        let end = payload(&first).len();
        vec![first, placed(last, end + 8, false, ID)]
    }),
    ("an overlap", |[first, last]| {
        let end = payload(&first).len();
        vec![first, placed(last, end - 8, false, ID)]
    }),
    ("more to come", |[first, last]| {
        let end = payload(&first).len();
        vec![first, placed(last, end, true, ID)]
    }),
    ("another identification", |[first, last]| {
        let end = payload(&first).len();
        vec![first, placed(last, end, false, ID + 1)]
    }),
    ("an only fragment", |[first, last]| vec![placed(first, 0, false, ID), last]),
    ("another source", |[first, last]| vec![first, with_byte(last, [15, 23], 99)]),
    ("another protocol", |[first, last]| vec![first, with_byte(last, [9, 40], protocol::TCP)]),
    ("the first twice", |[first, last]| vec![first.clone(), first, last]),
    ("the last twice", |[first, last]| vec![first, last.clone(), last]),
    ("the last before both", |[first, last]| vec![last.clone(), first, last]),
    ("other bytes before both", |[first, last]| vec![changed(last.clone()), first, last]),
    ("the first with other bytes before both", |[first, last]| vec![changed(first.clone()), first, last]),
    ("other bytes behind both", |[first, last]| vec![first, last.clone(), changed(last)]),
    ("both twice", |[first, last]| vec![first.clone(), last.clone(), first, last]),
    ("an overlap before both", |[first, last]| vec![overlapping(&first), first, last]),
    ("an overlap between both", |[first, last]| vec![first.clone(), overlapping(&first), last]),
    ("an overlap behind both", |[first, last]| {
        let overlap = overlapping(&first);
        vec![first, last, overlap]
    }),
    ("congestion on the last", |[first, last]| vec![with_class(first, 2), with_class(last, 3)]),
    ("congestion that must not be", |[first, last]| vec![first, with_class(last, 3)]),
    ("congestion on both", |[first, last]| vec![with_class(first, 3), with_class(last, 3)]),
    ("a class of both", |[first, last]| vec![with_class(first, 0x28), with_class(last, 0x28)]),
    ("a class of the first", |[first, last]| vec![with_class(first, 0x28), last]),
    ("options of the first", |[first, last]| vec![with_options(first), last]),
    ("options of the last", |[first, last]| vec![first, with_options(last)]),
    ("options of both", |[first, last]| vec![with_options(first), with_options(last)]),
    ("no hops left", |[first, last]| vec![with_ttl(first, 1), with_ttl(last, 1)]),
    ("a wrong header", |[first, last]| vec![first, with_wrong_header(last)]),
    ("nothing in the last", |[first, last]| {
        let end = head_len(&last);
        vec![first, cut_to(last, end)]
    }),
    ("a first one of odd length", |[first, last]| {
        let end = first.len() - 1;
        vec![cut_to(first, end), last]
    }),
];

const FRAMES: [(&str, Arrange); 9] = [
    ("padding behind the last", |[first, last]| vec![first, padded(last)]),
    ("padding behind both", |[first, last]| vec![padded(first), padded(last)]),
    ("a priority of the last", |[first, last]| vec![first, tagged(last, 0)]),
    ("a priority of both", |[first, last]| vec![tagged(first, 0), tagged(last, 0)]),
    ("another station's", |[first, mut last]| {
        last[5] ^= 1;
        vec![first, last]
    }),
    ("another station's first one", |[mut first, last]| {
        first[5] ^= 1;
        vec![first, last]
    }),
    ("a group's", |pair| {
        pair.map(|mut frame| {
            frame[0] |= 1;
            frame
        })
        .into()
    }),
    ("the EtherType of the other version", |pair| {
        pair.map(|mut frame| {
            let is_v4 = frame[12..14] == ethernet::IPV4.to_be_bytes();
            let other = if is_v4 { ethernet::IPV6 } else { ethernet::IPV4 };
            frame[12..14].copy_from_slice(&other.to_be_bytes());
            frame
        })
        .into()
    }),
    ("a part of a frame", |[first, mut last]| {
        last.truncate(last.len() - 1);
        vec![first, last]
    }),
];

/// Sends the frames that `arrange` makes of two fragments, of which the last carries `last` bytes, and then
/// other packets. Returns the reasons of all drops.
fn check(
    kind: Kind,
    last: usize,
    what: &str,
    arrange: impl FnOnce([Vec<u8>; 2]) -> Vec<Vec<u8>>,
) -> Vec<DropReason> {
    let mut twins = Twins::new(kind);
    let pair = twins.pair(SIZE, last, ID);
    twins.send(&arrange(pair), what);
    let sealed = twins.seal(64);
    let [one, two] = twins.pair(SIZE, LAST, 100);
    let (out, drops) = twins.send(&[sealed, one, two].map(|packet| framed(&packet)), what);
    assert_eq!(out.len(), 2, "{kind:?}, behind {what}: {drops:?}");
    drops.into_iter().map(|(reason, _)| reason).collect()
}

#[test]
fn fragments_in_every_order_and_shape_have_the_same_fate_as_without_remembered_flows() {
    let mut reasons = vec![];
    for kind in outsides() {
        for (what, arrange) in BURSTS {
            let arrange = |pair| arrange(pair).iter().map(|packet| framed(packet)).collect::<Vec<_>>();
            reasons.extend(check(kind, LAST, what, arrange));
        }
        for ((what, arrange), last) in FRAMES.into_iter().flat_map(|shape| [(shape, 8), (shape, LAST)]) {
            reasons.extend(check(kind, last, what, |pair| arrange(pair.map(|packet| framed(&packet)))));
        }
    }
    for reason in [
        FragmentDuplicate,
        FragmentEcn,
        FragmentLength,
        FragmentOverlap,
        ForeignMac,
        IpChecksum,
        IpTotalLength,
        IpVersion,
        NotForUs,
        OuterOptions,
        ReplayDuplicate,
    ] {
        assert!(reasons.contains(&reason), "{reason:?} did not occur: {reasons:?}");
    }
}

#[test]
fn ike_in_two_fragments_reaches_the_slow_path_in_one_piece() {
    for kind in outsides() {
        let mut twins = Twins::new(kind);
        let Path { local, remote, .. } = kind.path(1, false);
        let marked = [&NON_ESP_MARKER[..], &[7; SIZE]].concat();
        for (port, message) in [(IKE_PORT, &marked[NON_ESP_MARKER.len()..]), (4500, &marked[..])] {
            let packet = udp_packet(remote, local, (port, port), message);
            let pair: Vec<_> = fragments(&packet, 800, ID).iter().map(|piece| framed(piece)).collect();
            let whole = if is_v4(&packet) { uncut(packet, ID) } else { packet };
            let punted = [(OUTSIDE as u16, Punt::Control, whole)];
            let (out, drops) = twins.send(&pair, "a pair of IKE");
            assert_eq!((pair.len(), out, drops), (2, vec![], vec![]), "{kind:?}, {port}");
            assert!(twins.punted == punted, "{kind:?}, {port}: {:?}", twins.punted);
            // The same before ESP.
            let sealed = twins.pair(SIZE, LAST, ID + 1).map(|packet| framed(&packet));
            let (out, drops) = twins.send(&[&pair[..], &sealed].concat(), "IKE and ESP");
            assert_eq!((out.len(), drops), (1, vec![]), "{kind:?}, {port}");
            assert!(twins.punted == punted, "{kind:?}, {port}: {:?}", twins.punted);
        }
    }
}

/// Puts a header with an option of this type before what was cut to two fragments of IPv6.
fn with_options_behind([mut first, mut last]: [Vec<u8>; 2], option: u8) -> [Vec<u8>; 2] {
    const BEHIND: usize = ip::V6_HEADER + V6_FRAGMENT_HEADER;
    let next_header = std::mem::replace(&mut first[ip::V6_HEADER], protocol::DESTINATION);
    first.splice(BEHIND..BEHIND, [next_header, 0, option, 4, 0, 0, 0, 0]);
    last[ip::V6_HEADER] = protocol::DESTINATION;
    let end = payload(&first).len();
    [summed(first), placed(last, end, false, ID)]
}

/// An option that must be understood (RFC 8200 §4.2).
const STRANGE: u8 = 0x41;
const PADDING: u8 = 1;

const BEHIND_OPTIONS: [(&str, u8, Arrange); 3] = [
    ("in order", PADDING, |[first, last]| vec![first, last]),
    ("reversed", PADDING, |[first, last]| vec![last, first]),
    ("a strange option", STRANGE, |[first, last]| vec![first, last]),
];

#[test]
fn options_behind_a_fragment_header_are_those_of_the_packet() {
    for kind in outsides().into_iter().filter(|kind| kind.path(1, false).local.is_ipv6()) {
        let mut twins = Twins::new(kind);
        for (what, option, arrange) in BEHIND_OPTIONS {
            let pair = arrange(with_options_behind(twins.pair(SIZE, LAST, ID), option));
            let frames: Vec<_> = pair.iter().map(|packet| framed(packet)).collect();
            let (out, drops) = twins.send(&frames, what);
            if option == STRANGE {
                assert_eq!((out, drops), (vec![], vec![(OuterOptions, 1)]), "{kind:?}, {what}");
            } else {
                assert_eq!((out.len(), drops), (1, vec![]), "{kind:?}, {what}");
                assert!(out[0].ends_with(&kind.arrived(&kind.up(1, SIZE))), "{kind:?}, {what}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Checks the same for fragments of several packets in any order and number, in any bursts.
    #[test]
    fn any_fragments_have_the_same_fate_as_without_remembered_flows(
        outside in 0usize..4,
        order in prop::collection::vec((0usize..9, prop::bool::weighted(0.2)), 1..24),
    ) {
        let mut twins = Twins::new(outsides()[outside]);
        let [first, last] = twins.pair(SIZE, LAST, ID);
        let [other_first, other_last] = twins.pair(SIZE - 40, LAST, ID);
        let [third_first, third_last] = twins.pair(SIZE, LAST, ID + 1);
        let overlap = overlapping(&first);
        let whole = twins.seal(64);
        let elsewhere = with_byte(first.clone(), [15, 23], 99);
        let others = [other_first, other_last, third_first, third_last, overlap, whole, elsewhere];
        let packets = [first, last].into_iter().chain(others);
        let frames: Vec<_> = packets.map(|packet| framed(&packet)).collect();
        let mut burst = vec![];
        for (at, is_end) in order {
            burst.push(frames[at].clone());
            if is_end {
                twins.send(&std::mem::take(&mut burst), "a burst");
            }
        }
        twins.send(&burst, "the last burst");
    }
}

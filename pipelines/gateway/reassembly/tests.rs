use super::{
    group::{AT_ONCE, PATIENCE},
    *,
};
use crate::{gateway::input_port::from_link, sim::frames::udp_packet};
use proptest::prelude::*;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};
use wayfarer_dataplane::{
    pool::Pool,
    wire::{
        fragment::{self, Cutter},
        ip::{self, V4_HEADER, V6_HEADER},
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// A worker's reassembly and its frames.
struct Bench {
    pool: Pool,
    reassembly: Reassembly,
    start: Moment,
    dropped: Vec<DropReason>,
}

impl Bench {
    fn new(frames: usize) -> Self {
        let reassembly = Reassembly::new(frames);
        let pool = Pool::new(frames, 2048).unwrap();
        Self { pool, reassembly, start: Moment::now(), dropped: vec![] }
    }

    /// Adds a fragment after this time; returns the packet if that completes it.
    fn add(&mut self, after: Duration, fragment: &[u8]) -> Option<Vec<u8>> {
        self.add_from(Sender::Wire, after, fragment)
    }

    /// Does the same for a fragment of this sender.
    fn add_from(&mut self, sender: Sender, after: Duration, fragment: &[u8]) -> Option<Vec<u8>> {
        let Self { pool, reassembly, start, dropped } = self;
        let mut packet = pool.take().unwrap();
        packet.fill(256, fragment).unwrap();
        let header = IpHeader::parse(fragment).unwrap();
        let mut fragments = Fragments::new();
        let out = &mut fragments;
        let whole = reassembly.add(*start + after, packet, &header, sender, out, &mut |packet, reason| {
            dropped.push(reason);
            pool.give(packet);
        })?;
        let mut joined = vec![0; usize::from(u16::MAX)];
        let length = whole.join(&fragments, &mut joined).unwrap();
        assert_eq!(whole.join(&fragments, &mut vec![0; length - 1]), None);
        joined.truncate(length);
        let removed = fragment::head_len(fragments[0].data()) - header_len(&joined);
        let fits = length + fragments[0].headroom() + removed <= 2048;
        let (first, later) = fragments.split_first_mut().unwrap();
        assert_eq!(whole.join_in_first(first, later.iter().map(Packet::data)).is_some(), fits);
        assert!(!fits || fragments[0].data() == joined, "both ways make the same packet");
        fragments.drain(..).for_each(|packet| pool.give(packet));
        Some(joined)
    }

    fn held(&self) -> usize {
        self.pool.capacity() - self.pool.available()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.reassembly.drain().for_each(|packet| self.pool.give(packet));
        assert_eq!(self.held(), 0, "a frame is lost");
    }
}

fn header_len(packet: &[u8]) -> usize {
    IpHeader::parse(packet).unwrap().header_len()
}

fn source(n: u8, v6: bool) -> IpAddr {
    if v6 { IpAddr::from([0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 1]) } else { IpAddr::from([10, 1, n, 1]) }
}

fn destination(v6: bool) -> IpAddr {
    if v6 { IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]) } else { IpAddr::from([203, 0, 113, 1]) }
}

/// Returns a datagram of `length` bytes, and its fragments of at most `mtu` bytes.
fn cut(n: u8, v6: bool, id: u16, length: usize, mtu: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let payload: Vec<u8> = (0..length).map(|at| (at / 8) as u8 ^ n ^ id as u8).collect();
    let mut packet = udp_packet(source(n, v6), destination(v6), (4500, 4500), &payload);
    if !v6 {
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] = 0;
        let total = packet.len();
        ip::set_total_len(&mut packet, V4_HEADER, total);
    }
    let header = IpHeader::parse(&packet).unwrap();
    let cutter = match v6 {
        true => Cutter::v6(&packet, &header, mtu, id.into()),
        false => Cutter::v4(&packet, &header, mtu),
    };
    let pieces = cutter.unwrap().map(|piece| {
        let mut bytes = vec![0; piece.len()];
        piece.write(&mut bytes);
        bytes
    });
    let pieces = pieces.collect();
    (packet, pieces)
}

/// Makes an IPv4 fragment of `units` units of eight bytes `byte` at this unit.
fn fragment(id: u16, at: usize, units: usize, more: bool, byte: u8) -> Vec<u8> {
    let mut packet = vec![0; V6_HEADER];
    let len = ip::emit(&mut packet, source(1, false), destination(false), ip::protocol::UDP, units * 8);
    packet.truncate(len);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&(at as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
    packet.extend(vec![byte; units * 8]);
    ip::set_total_len(&mut packet, len, len + units * 8);
    packet
}

proptest! {
    #[test]
    fn interleaved_packets_come_out_whole_in_any_order_and_with_duplicates(
        packets in prop::collection::vec((0u8..3, any::<bool>(), 300usize..6000, 200usize..1500), 1..5),
        order in any::<u64>(),
        twice in any::<u64>(),
    ) {
        let mut bench = Bench::new(1024);
        let mut random = crate::sim::random::Random(order | 1);
        let mut expected = vec![];
        let mut wire = vec![];
        for (id, (source, v6, length, mtu)) in (1..).zip(packets) {
            let (whole, pieces) = cut(source, v6, id, length, mtu);
            if pieces.len() < 2 || pieces.len() > 14 {
                continue;
            }
            expected.push(whole);
            wire.extend(pieces);
        }
        for at in (1..wire.len()).rev() {
            wire.swap(at, random.index(at + 1));
        }
        let mut out = vec![];
        for (index, piece) in wire.iter().enumerate() {
            let joined = bench.add(Duration::ZERO, piece);
            // A copy of a packet's last fragment would begin another packet.
            if joined.is_none() && twice >> (index % 64) & 1 == 1 {
                prop_assert_eq!(bench.add(SECOND, piece), None);
                prop_assert_eq!(bench.dropped.pop(), Some(DropReason::FragmentDuplicate));
            }
            out.extend(joined);
        }
        out.sort();
        expected.sort();
        prop_assert!(out == expected, "{} of {}", out.len(), expected.len());
        prop_assert_eq!((&bench.dropped[..], bench.held()), (&[][..], 0));
    }

    /// Compares with a model that writes each byte down.
    #[test]
    fn hostile_fragments_are_refused_as_a_model_refuses_them(
        fragments in prop::collection::vec((0u16..2, 0usize..6, 1usize..4, any::<bool>(), 0u8..2), 1..40),
    ) {
        #[derive(Default)]
        struct Datagram {
            bytes: BTreeMap<usize, u8>,
            end: Option<usize>,
            arrived: Vec<(usize, usize, bool, u8)>,
            refused: bool,
        }
        let mut bench = Bench::new(1024);
        let mut model: BTreeMap<u16, Datagram> = BTreeMap::new();
        let (mut given, mut joined_fragments) = (0, 0);
        for (id, at, units, more, byte) in fragments {
            given += 1;
            let out = bench.add(Duration::ZERO, &fragment(id, at, units, more, byte));
            let datagram = model.entry(id).or_default();
            let (range, is_same) = (at..at + units, datagram.arrived.contains(&(at, units, more, byte)));
            let contradicts = range.clone().any(|unit| datagram.bytes.contains_key(&unit))
                || datagram.end.is_some_and(|end| range.end > end || (!more && end != range.end))
                || (!more && datagram.bytes.keys().any(|unit| *unit >= range.end));
            if datagram.refused || (contradicts && !is_same) {
                datagram.refused = true;
                prop_assert_eq!((out, bench.dropped.last()), (None, Some(&DropReason::FragmentOverlap)));
                continue;
            }
            if is_same {
                prop_assert_eq!((out, bench.dropped.last()), (None, Some(&DropReason::FragmentDuplicate)));
                continue;
            }
            datagram.arrived.push((at, units, more, byte));
            datagram.bytes.extend(range.clone().map(|unit| (unit, byte)));
            if !more {
                datagram.end = Some(range.end);
            }
            let is_complete = datagram.end == Some(datagram.bytes.len());
            prop_assert_eq!(out.is_some(), is_complete);
            if let Some(out) = out {
                let bytes: Vec<u8> = datagram.bytes.values().flat_map(|byte| [*byte; 8]).collect();
                prop_assert_eq!(&out[V4_HEADER..], &bytes[..]);
                joined_fragments += datagram.arrived.len();
                model.remove(&id);
            }
        }
        prop_assert_eq!(bench.held() + bench.dropped.len() + joined_fragments, given);
    }
}

#[test]
fn other_fragments_of_a_refused_packet_are_refused_too() {
    let mut bench = Bench::new(1024);
    assert_eq!(bench.add(Duration::ZERO, &fragment(1, 0, 2, true, 1)), None);
    assert_eq!(bench.add(SECOND, &fragment(1, 1, 2, true, 1)), None);
    assert_eq!(bench.add(SECOND, &fragment(1, 0, 2, true, 1)), None);
    assert_eq!(bench.add(2 * SECOND, &fragment(1, 2, 1, false, 1)), None);
    assert_eq!((&bench.dropped[..], bench.held()), (&[DropReason::FragmentOverlap; 4][..], 0));
    // Later, the identification is free again.
    assert_eq!(bench.add(PATIENCE + SECOND, &fragment(1, 0, 2, true, 1)), None);
    assert!(bench.add(PATIENCE + SECOND, &fragment(1, 2, 1, false, 1)).is_some());
}

#[test]
fn fragments_that_take_too_long_are_dropped() {
    let mut bench = Bench::new(1024);
    bench.add(Duration::ZERO, &fragment(1, 0, 1, true, 1));
    bench.add(PATIENCE, &fragment(1, 1, 1, true, 1));
    assert_eq!(bench.held(), 2);
    let Bench { reassembly, pool, dropped, start, .. } = &mut bench;
    reassembly.expire(*start + PATIENCE + SECOND, &mut |packet, reason| {
        dropped.push(reason);
        pool.give(packet);
    });
    assert_eq!((bench.held(), &bench.dropped[..]), (0, &[DropReason::FragmentTimeout; 2][..]));
}

#[test]
fn impossible_lengths_are_refused() {
    let mut bench = Bench::new(1024);
    let mut odd = fragment(1, 0, 2, true, 1);
    odd.truncate(V4_HEADER + 15);
    ip::set_total_len(&mut odd, V4_HEADER, V4_HEADER + 15);
    let mut empty = fragment(1, 4, 0, false, 1);
    empty[6..8].copy_from_slice(&[0, 4]);
    ip::set_total_len(&mut empty, V4_HEADER, V4_HEADER);
    // The ping of death: 65528 bytes and more behind a header.
    let beyond = fragment(1, 0x1fff, 2, false, 1);
    for bad in [odd, empty, beyond] {
        assert_eq!(bench.add(Duration::ZERO, &bad), None);
        assert_eq!(bench.dropped.pop(), Some(DropReason::FragmentLength));
    }
    assert_eq!(bench.held(), 0);
    // The longest packet is none of these.
    for (at, take) in (0..8189).step_by(220).map(|at| (at, 220.min(8189 - at))) {
        let out = bench.add(Duration::ZERO, &fragment(2, at, take, at + take < 8189, 1));
        assert_eq!(out.map(|out| out.len()), (at + take == 8189).then_some(V4_HEADER + 65_512));
    }
}

#[test]
fn congestion_marks_survive_or_drop_the_packet() {
    let joined = |marks: [u8; 3]| {
        let mut bench = Bench::new(1024);
        let mut pieces =
            [fragment(1, 0, 1, true, 1), fragment(1, 1, 1, true, 1), fragment(1, 2, 1, false, 1)];
        let mut out = None;
        for (piece, mark) in pieces.iter_mut().zip(marks) {
            ip::set_traffic_class(piece, 46 << 2 | mark);
            out = bench.add(Duration::ZERO, piece).map(|out| IpHeader::parse(&out).unwrap().traffic_class);
        }
        out.ok_or(bench.dropped.clone())
    };
    assert_eq!(joined([2, 2, 2]), Ok(46 << 2 | 2));
    assert_eq!(joined([0, 0, 0]), Ok(46 << 2));
    assert_eq!(joined([2, 3, 2]), Ok(46 << 2 | 3));
    assert_eq!(joined([1, 1, 3]), Ok(46 << 2 | 3));
    assert_eq!(joined([2, 3, 0]), Err(vec![DropReason::FragmentEcn; 3]));
}

#[test]
fn memory_is_bounded_and_a_network_takes_no_other_networks_room() {
    // All networks are in one group.
    let mut bench = Bench::new(GROUP * SHARE);
    assert_eq!((bench.reassembly.groups.len(), bench.reassembly.limit), (1, GROUP));
    let pieces = |n, id| cut(n, false, id, 2000, 1500).1;
    assert_eq!(bench.add(Duration::ZERO, &pieces(9, 1)[0]), None);
    for id in 0..1000u16 {
        assert_eq!(bench.add(SECOND, &pieces(1, id)[0]), None);
    }
    assert!((GROUP - GROUP / AT_ONCE..=GROUP).contains(&bench.held()), "{}", bench.held());
    assert_eq!(bench.dropped, vec![DropReason::FragmentCrowded; 1001 - bench.held()]);
    // The other network's packet is still there, although it is the oldest, and a new one finds room.
    assert!(bench.add(SECOND, &pieces(9, 1)[1]).is_some());
    assert!(pieces(8, 2).iter().map(|piece| bench.add(SECOND, piece)).any(|out| out.is_some()));
}

#[test]
fn packet_that_makes_room_for_its_own_last_fragment_does_not_come_out_in_part() {
    for fragments in [2, 3, GROUP, GROUP + 1] {
        let mut bench = Bench::new(GROUP * SHARE);
        let last = fragments - 1;
        for at in 1..fragments {
            assert_eq!(bench.add(Duration::ZERO, &fragment(1, at, 1, at < last, 1)), None);
        }
        for n in 10..10 + (GROUP as u8).saturating_sub(last as u8) {
            assert_eq!(bench.add(Duration::ZERO, &cut(n, false, 1, 2000, 1500).1[0]), None);
        }
        let out = bench.add(Duration::ZERO, &fragment(1, 0, 1, true, 1));
        let whole = out.map(|packet| packet.len());
        assert!(whole.is_none_or(|length| length == V4_HEADER + 8 * fragments), "{fragments}: {whole:?}");
        // Two fragments that are all of their packet need no room.
        assert_eq!(whole.is_some(), fragments == 2);
    }
}

/// Puts this many destination options of eight bytes behind the IPv6 header of a packet.
fn with_options(packet: &[u8], count: usize) -> Vec<u8> {
    const DESTINATION: u8 = ip::protocol::DESTINATION;
    let mut out = packet[..V6_HEADER].to_vec();
    let kind = std::mem::replace(&mut out[6], DESTINATION);
    for left in (0..count).rev() {
        out.extend([if left == 0 { kind } else { DESTINATION }, 0, 1, 4, 0, 0, 0, 0]);
    }
    out.extend(&packet[V6_HEADER..]);
    let total = out.len();
    ip::set_total_len(&mut out, V6_HEADER, total);
    out
}

/// RFC 791 §3.1 has options that are not in every fragment, and RFC 8200 §4.5 has only the first one's
/// headers count.
#[test]
fn packet_has_the_headers_of_its_first_fragment() {
    let mut bench = Bench::new(1024);
    let (mut v4, _) = cut(1, false, 7, 3000, 1400);
    // A timestamp, which is not copied, and router alert, which is.
    v4.splice(V4_HEADER..V4_HEADER, [68, 4, 5, 0, 0x94, 4, 0, 0]);
    v4[0] = 0x47;
    let total = v4.len();
    ip::set_total_len(&mut v4, V4_HEADER + 8, total);
    let pieces = Cutter::v4(&v4, &IpHeader::parse(&v4).unwrap(), 1400).unwrap().map(|piece| {
        let mut bytes = vec![0; piece.len()];
        piece.write(&mut bytes);
        bytes
    });
    let pieces: Vec<_> = pieces.collect();
    let (v6, v6_pieces) = cut(1, true, 7, 3000, 1400);
    let v6_pieces: Vec<_> =
        v6_pieces.iter().zip([2, 1, 3]).map(|(piece, n)| with_options(piece, n)).collect();
    for (whole, pieces) in [(v4, pieces), (with_options(&v6, 2), v6_pieces)] {
        for first in 0..pieces.len() {
            let order = pieces.iter().cycle().skip(first).take(pieces.len());
            let out: Vec<_> = order.filter_map(|piece| bench.add(Duration::ZERO, piece)).collect();
            assert!(pieces.len() == 3 && out == [whole.clone()], "{first} {:?}", bench.dropped);
        }
    }
    assert_eq!((bench.held(), &bench.dropped[..]), (0, &[][..]));
}

#[test]
fn fragment_behind_too_many_headers_is_refused() {
    let mut bench = Bench::new(1024);
    let (_, pieces) = cut(1, true, 7, 3000, 1400);
    let mut long = with_options(&pieces[0], 2);
    // The first header has 256 bytes now.
    long[V6_HEADER + 1] = 31;
    long.splice(V6_HEADER + 8..V6_HEADER + 8, [0; 248]);
    let total = long.len();
    ip::set_total_len(&mut long, V6_HEADER, total);
    assert_eq!(bench.add(Duration::ZERO, &long), None);
    assert_eq!((bench.held(), &bench.dropped[..]), (0, &[DropReason::FragmentHeaders][..]));
}

#[test]
fn nobody_adds_to_the_packet_of_another_sender() {
    const OWN: Sender = Sender::Sa(Spi(0x1001));
    let mut bench = Bench::new(1024);
    let (whole, pieces) = cut(1, false, 7, 2000, 1400);
    assert_eq!(bench.add_from(OWN, Duration::ZERO, &pieces[0]), None);
    let [port, link] = [0, from_link(7)].map(Sender::Port);
    for sender in [Sender::Wire, port, link, Sender::Sa(Spi(0x1002)), Sender::Host] {
        assert_eq!(bench.add_from(sender, Duration::ZERO, &pieces[1]), None);
    }
    assert!(bench.add_from(OWN, Duration::ZERO, &pieces[1]) == Some(whole.clone()));
    // Nor do other ports and links add to what one brings.
    assert_eq!(bench.add_from(Sender::Port(1), Duration::ZERO, &pieces[0]), None);
    assert!(bench.add_from(port, Duration::ZERO, &pieces[0]) == Some(whole));
}

/// A peer may have all addresses there are.
#[test]
fn peer_has_one_group_for_all_of_its_addresses() {
    for (sender, expected) in [(Sender::Sa(Spi(0x1001)), 0..=GROUP), (Sender::Wire, GROUP + 1..=8 * GROUP)] {
        let mut bench = Bench::new(8 * GROUP * SHARE);
        for n in 0..=255 {
            for id in 0..4 {
                assert_eq!(bench.add_from(sender, Duration::ZERO, &cut(n, false, id, 2000, 1500).1[0]), None);
            }
        }
        assert!(expected.contains(&bench.held()), "{sender:?} {}", bench.held());
    }
    // In that group, the address that has most gives way first.
    let mut bench = Bench::new(8 * GROUP * SHARE);
    let peer = Sender::Sa(Spi(0x1001));
    let (whole, pieces) = cut(9, false, 1, 2000, 1500);
    assert_eq!(bench.add_from(peer, Duration::ZERO, &pieces[0]), None);
    for id in 0..1000 {
        assert_eq!(bench.add_from(peer, SECOND, &cut(1, false, id, 2000, 1500).1[0]), None);
    }
    assert!(bench.add_from(peer, SECOND, &pieces[1]) == Some(whole));
}

#[test]
fn groups_hold_a_quarter_of_the_frames_together() {
    for frames in [8, 100, 512, 16_384] {
        let reassembly = Reassembly::new(frames);
        let most = reassembly.groups.len() * reassembly.limit;
        assert!((1..=frames / SHARE).contains(&most), "{most} of {frames}");
    }
}

/// Whoever sends from a network must not choose which SA it shares a group with.
#[test]
fn hash_of_an_sa_is_not_that_of_the_network_with_its_number() {
    let network = Address::from(IpAddr::from([198, 51, 100, 7]));
    let reassembly = Reassembly::new(1024);
    let [wire, sa] =
        [Sender::Wire, Sender::Sa(Spi(0x00c6_3364))].map(|sender| reassembly.network(network, sender).0);
    assert_ne!(wire, sa);
}

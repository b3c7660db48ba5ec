use super::*;
use crate::{
    clock::{SimulatedClock, WorkerClock},
    gateway::{
        counters::WorkerCounters,
        reassembly::{Fragments, GROUP},
        rings::Rings,
        tables::{Hop, Settings},
    },
    sim::frames::{fragments, ip_packet, udp_packet},
};
use proptest::prelude::*;
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer_dataplane::{
    pool::Pool,
    table::{Prefix, Writer},
};

/// Bytes of a frame.
const FRAME: usize = 2048;
const FRAMES: usize = 1024;
const HEADROOM: usize = 256;

/// What a worker has when a fragment comes.
struct Bench {
    io: Io,
    tables: Tables,
    reader: Reader,
    clock: SimulatedClock,
    /// Makes the tables' changes, and must live as long as they.
    _writer: Writer,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Returns an address of the gateway and one of a peer.
fn ends(v6: bool) -> [IpAddr; 2] {
    (if v6 { ["2001:db8::1", "2001:db8:1::2"] } else { ["192.0.2.1", "198.51.100.2"] }).map(ip)
}

impl Bench {
    fn new() -> Self {
        let settings = Settings {
            ports: Box::default(),
            encap_ports: Box::new([4500]),
            siu_port: None,
            home_agent: None,
            host: None,
            mss_clamp: false,
            discards: false,
            nats: Box::default(),
        };
        let mut writer = Writer::new();
        let reader = writer.reader();
        let tables = Tables::new(&writer, 16, settings);
        for v6 in [false, true] {
            tables.routes.insert(&mut writer, Prefix::host(ends(v6)[0]), Hop::Local);
        }
        let (pool, rings) = (Pool::new(FRAMES, FRAME).unwrap(), Arc::new(Rings::new(FRAME, 0)));
        let mut io = Io::new(vec![], vec![], pool, Arc::new(WorkerCounters::new(0)), rings).unwrap();
        let clock = SimulatedClock::start();
        io.use_clock(WorkerClock::Simulated(clock.clone()));
        Self { io, tables, reader, clock, _writer: writer }
    }

    /// Returns a packet that came by port 0.
    fn packet(&mut self, bytes: &[u8]) -> Packet {
        let mut packet = self.io.take().unwrap();
        packet.fill(HEADROOM, bytes).unwrap();
        packet.set_port(0);
        packet
    }

    fn add(&mut self, packet: Packet) -> Added {
        add(packet, &self.tables, &self.reader, &mut self.io)
    }

    /// Adds a fragment. Returns what became of it, and the packet that it completes.
    fn give(&mut self, bytes: &[u8]) -> (&'static str, Vec<u8>) {
        let packet = self.packet(bytes);
        let (what, packet) = match self.add(packet) {
            Added::Left(packet) => ("left", packet),
            Added::Taken => return ("kept", vec![]),
            Added::Whole(packet) => ("whole", packet),
        };
        let data = packet.data().to_vec();
        self.io.free(packet);
        (what, if what == "whole" { data } else { vec![] })
    }

    /// Adds a fragment that came by `port` as `reassembly` does, with `both` only if this module leaves it alone.
    /// Returns the packet that it completes.
    fn receive(&mut self, bytes: &[u8], port: u16, both: bool) -> Option<Vec<u8>> {
        let mut packet = self.packet(bytes);
        packet.set_port(port);
        if both {
            packet = match self.add(packet) {
                Added::Left(packet) => packet,
                Added::Taken => return None,
                Added::Whole(packet) => {
                    let data = packet.data().to_vec();
                    self.io.free(packet);
                    return Some(data);
                }
            }
        }
        let header = IpHeader::parse(bytes).unwrap();
        let mut all = Fragments::new();
        let whole = self.io.reassemble(packet, &header, &mut all)?;
        let mut room = vec![0; usize::from(u16::MAX)];
        let length = whole.join(&all, &mut room).unwrap();
        all.drain(..).for_each(|fragment| self.io.free(fragment));
        room.truncate(length);
        Some(room)
    }

    /// Returns the number of fragments that wait, that of packets that were consumed, and all drops.
    fn state(&self) -> (u64, u64, Vec<(DropReason, u64)>) {
        let counters = self.io.counters();
        self.io.report();
        let drops = DropReason::ALL.iter().map(|&reason| (reason, counters.drops.of(reason)));
        (counters.waiting.value(), counters.consumed.value(), drops.filter(|(_, count)| *count > 0).collect())
    }
}

/// Returns a packet to the gateway of ESP, or of UDP to `port`, and its two fragments.
fn pair(v6: bool, port: Option<u16>, id: u16) -> (Vec<u8>, [Vec<u8>; 2]) {
    let [local, remote] = ends(v6);
    let mut packet = match port {
        None => ip_packet(remote, local, protocol::ESP, &[7; 1200]),
        Some(port) => udp_packet(remote, local, (999, port), &[7; 1200]),
    };
    if !v6 {
        ip::allow_fragments(&mut packet, V4_HEADER, id);
    }
    let pieces = fragments(&packet, 800, id);
    (packet, pieces.try_into().expect("two fragments"))
}

#[test]
fn two_fragments_of_esp_or_ike_are_joined_in_either_order() {
    for (v6, port) in [false, true].into_iter().flat_map(|v6| [None, Some(500), Some(4500)].map(|p| (v6, p)))
    {
        let mut bench = Bench::new();
        for (id, is_reversed) in [(1, false), (2, true)] {
            let (packet, mut both) = pair(v6, port, id);
            if is_reversed {
                both.reverse();
            }
            // A short frame has padding behind its packet.
            both[1].extend([0xee; 9]);
            both[0].extend([0xdd; 9]);
            assert_eq!(bench.give(&both[0]).0, "kept", "{v6} {port:?}");
            assert_eq!((bench.state().0, bench.state().2), (1, vec![]));
            let (what, joined) = bench.give(&both[1]);
            assert!(joined == packet, "{v6} {port:?} {id}: {what}");
            assert_eq!((bench.state().0, bench.state().2), (0, vec![]));
        }
    }
}

#[test]
fn other_fragments_are_left_alone() {
    for v6 in [false, true] {
        let [local, remote] = ends(v6);
        let only =
            Piece { id: 2, sender: 2, port: 0, at: 0, parts: 1, bytes: 8, more: false, byte: 0, class: 0 }
                .packet(v6);
        let others = [
            ("a whole packet", pair(v6, None, 1).0),
            ("the only fragment", only),
            ("TCP", fragments(&ip_packet(remote, local, protocol::TCP, &[7; 1200]), 800, 1).swap_remove(0)),
        ];
        let mut bench = Bench::new();
        for (what, packet) in others {
            assert_eq!(bench.give(&packet).0, "left", "{v6}, {what}");
        }
        assert_eq!((bench.state().0, bench.state().2), (0, vec![]));
    }
}

#[test]
fn last_fragment_waits_for_the_other_way_unless_the_two_are_a_packet_for_the_gateway() {
    for v6 in [false, true] {
        let after_first = |port, prepare: fn(&mut Bench)| {
            let mut bench = Bench::new();
            let [first, last] = pair(v6, port, 1).1;
            assert_eq!(bench.give(&first).0, "kept");
            prepare(&mut bench);
            let waiting = bench.state();
            let what = bench.give(&last).0;
            assert!(what == "whole" || bench.state().0 == waiting.0, "{what}");
            what
        };
        assert_eq!(after_first(Some(4500), |_| {}), "whole");
        assert_eq!(after_first(Some(9), |_| {}), "left", "another program's port");
        let wait = |bench: &mut Bench| {
            bench.io.flush();
            bench.clock.advance(Duration::from_secs(16));
        };
        assert_eq!(after_first(None, wait), "left", "the first one is too old");
    }
}

#[test]
fn packets_of_three_fragments_are_left_to_the_other_way() {
    for v6 in [false, true] {
        let (packet, _) = pair(v6, None, 1);
        let pieces = fragments(&packet, 600, 1);
        let mut bench = Bench::new();
        assert_eq!(pieces.len(), 3);
        assert_eq!(bench.give(&pieces[0]).0, "kept");
        assert_eq!(bench.give(&pieces[2]).0, "left", "a gap");
        assert_eq!(bench.receive(&pieces[2], 0, false), None);
        assert_eq!(bench.give(&pieces[1]).0, "left", "two others wait");
        assert!(bench.receive(&pieces[1], 0, false) == Some(packet), "{v6}");
    }
}

#[test]
fn full_group_leaves_fragments_to_those_that_make_room() {
    let mut bench = Bench::new();
    let kept = (0..).take_while(|&id| bench.give(&pair(false, None, id).1[0]).0 == "kept").count();
    assert_eq!((kept, bench.state().0), (GROUP, GROUP as u64));
}

#[test]
fn fragments_that_came_by_two_ports_are_left_to_the_other_way() {
    let mut bench = Bench::new();
    let (_, [first, last]) = pair(false, None, 1);
    assert_eq!(bench.give(&first).0, "kept");
    let mut packet = bench.packet(&last);
    packet.set_port(1);
    let Added::Left(packet) = bench.add(packet) else { panic!("a packet of two ports") };
    bench.io.free(packet);
}

/// A fragment of any kind.
#[derive(Clone, Debug)]
struct Piece {
    /// The number of the packet, which says its protocol and UDP port too.
    id: u8,
    /// The number of its sender, in one network, and of the port that it comes by.
    sender: u8,
    port: u16,
    /// Where it begins, and its length, in parts of so many bytes.
    at: usize,
    parts: usize,
    bytes: usize,
    more: bool,
    byte: u8,
    class: u8,
}

/// Bytes of a part: the smallest fragments, and so many that a frame holds no more than three parts.
const PARTS: [usize; 2] = [8, 520];

fn any_piece() -> impl Strategy<Value = Piece> {
    let identity = (0u8..3, prop::sample::select(vec![2u8, 2, 3]), prop::sample::select(vec![0u16, 0, 0, 1]));
    let class = prop::sample::select(vec![0u8, 0, 0, 0, 2, 3]);
    (identity, (0usize..4, 1usize..4, prop::sample::select(&PARTS)), any::<bool>(), 0u8..2, class).prop_map(
        |((id, sender, port), (at, parts, bytes), more, byte, class)| Piece {
            id,
            sender,
            port,
            at,
            parts,
            bytes,
            more,
            byte,
            class,
        },
    )
}

impl Piece {
    fn packet(&self, v6: bool) -> Vec<u8> {
        let (local, offset) = (ends(v6)[0], (self.at * self.bytes) as u16);
        let remote = ip(&format!("{}{}", if v6 { "2001:db8:1::" } else { "198.51.100." }, self.sender));
        let mut payload = vec![self.byte; self.parts * self.bytes];
        if self.at == 0 {
            let port = if self.id == 0 { 4500_u16 } else { 9 };
            payload[2..4].copy_from_slice(&port.to_be_bytes());
        }
        let protocol = if self.id < 2 { protocol::UDP } else { protocol::ESP };
        let mut packet = if v6 {
            let mut behind = vec![protocol, 0, 0, 0, 0, 0, 0, self.id];
            behind[2..4].copy_from_slice(&(offset | u16::from(self.more)).to_be_bytes());
            behind.extend(payload);
            ip_packet(remote, local, protocol::FRAGMENT, &behind)
        } else {
            let mut packet = ip_packet(remote, local, protocol, &payload);
            packet[4..6].copy_from_slice(&[0, self.id]);
            packet[6..8].copy_from_slice(&(offset >> 3 | u16::from(self.more) << 13).to_be_bytes());
            packet
        };
        ip::set_traffic_class(&mut packet, self.class);
        let length = packet.len();
        ip::set_total_len(&mut packet, V4_HEADER, length);
        packet
    }
}

proptest! {
    /// Both ways together do the same as the longer one alone, whose own tests compare it with a model.
    #[test]
    fn any_fragments_have_the_same_fate_as_by_the_longer_way_alone(
        v6 in any::<bool>(),
        pieces in prop::collection::vec(any_piece(), 1..120),
    ) {
        let [mut both, mut one] = [(); 2].map(|()| Bench::new());
        for piece in pieces {
            let bytes = piece.packet(v6);
            let results = [both.receive(&bytes, piece.port, true), one.receive(&bytes, piece.port, false)];
            prop_assert_eq!(&results[0], &results[1]);
            prop_assert_eq!(both.state(), one.state());
        }
    }
}

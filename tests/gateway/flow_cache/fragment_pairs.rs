//! Packets that come in two fragments: those of a remembered SA take the short way.

use super::{
    gateway::{GATEWAY6, SERVERS, Spec, TestGateway, prefix, server, server6},
    kind::Kind,
    known::Known,
    odd::uncut,
    ports::{HOST, MACS, Ports, STATIONS},
};
use std::slice;
use wayfarer::{
    gateway::{
        nat::{mapping::Mapping, table::Nat},
        policy::Action,
        tables::{Hop, PortSettings, Settings},
    },
    sim::{
        fixtures::*,
        frames::{forwarded, fragments, frame, ip_packet, udp_packet},
        lone_worker::{LoneWorker, Punted},
        terminal::Terminal,
    },
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::{Encap, Mode, Path},
    table::Prefix,
    wire::{
        Address,
        fragment::V6_FRAGMENT_HEADER,
        ip::{self, protocol},
    },
};

/// The identification of fragments.
pub(super) const ID: u16 = 7;
/// Length of an inner packet's payload, which leaves multiples of eight bytes to both fragments.
pub(super) const SIZE: usize = 1200;
/// Length of what the last fragment carries, in bytes.
pub(super) const LAST: usize = 488;

/// Two gateways with the tunnel of terminal 1, which get the same. Only the second one remembers flows, and
/// does so already.
pub(super) struct Twins {
    kind: Kind,
    gateways: [TestGateway; 2],
    terminal: Terminal,
    /// What both handed to the slow path of the last burst.
    pub(super) punted: Vec<Punted>,
}

impl Twins {
    pub(super) fn new(kind: Kind) -> Self {
        let spec = kind.spec(1);
        Self::of(kind, |flow_cache| TestGateway::on(kind.ports(), flow_cache, false, slice::from_ref(&spec)))
    }

    /// Does the same with gateways that `make` makes, which remember as many flows as it is given.
    fn of(kind: Kind, make: impl Fn(usize) -> TestGateway) -> Self {
        let (gateways, terminal) = ([0, 64].map(make), kind.spec(1).terminal());
        let mut this = Self { kind, gateways, terminal, punted: vec![] };
        // The first packet shows its SA, the second its destination.
        for _ in 0..2 {
            let sealed = this.seal(64);
            this.send(&[framed(&sealed)], "a packet to be learnt from");
        }
        this
    }

    /// Seals a packet from the terminal with a payload of `size` bytes.
    pub(super) fn seal(&mut self, size: usize) -> Vec<u8> {
        self.kind.seal(&mut self.terminal, &self.kind.up(1, size))
    }

    /// Does the same, and cuts it in two fragments, of which the last carries `last` bytes, or up to seven
    /// more.
    pub(super) fn pair(&mut self, size: usize, last: usize, id: u16) -> [Vec<u8>; 2] {
        let sealed = self.seal(size);
        let header = if is_v4(&sealed) { 0 } else { V6_FRAGMENT_HEADER };
        let pieces = fragments(&sealed, sealed.len() + header - last, id);
        pieces.try_into().expect("two fragments")
    }

    /// Sends frames from outside to both gateways in one burst. Returns the frames that come out at the
    /// terminal's partner, and all drops so far, which are the same of both.
    pub(super) fn send(&mut self, frames: &[Vec<u8>], what: &str) -> (Vec<Vec<u8>>, Vec<(DropReason, u64)>) {
        let [without, mut with] = self.gateways.each_mut().map(|gateway| {
            frames.iter().for_each(|frame| gateway.put_frame(OUTSIDE, frame));
            // This asserts that each packet was counted once.
            gateway.settle();
            let out: Vec<_> = gateway.all_ports().map(|port| gateway.take(port)).collect();
            let (punted, events) = (gateway.worker.take_punted(), gateway.worker.take_events());
            let counters = &gateway.worker.counters;
            let counts = [&counters.received, &counters.opened, &counters.consumed, &counters.sent];
            (out, gateway.drops(), counts.map(|counter| counter.value()), punted, events)
        });
        let lengths = |out: &[Vec<Vec<u8>>]| -> Vec<Vec<usize>> {
            out.iter().map(|frames| frames.iter().map(Vec::len).collect()).collect()
        };
        let shown = [&without, &with].map(|all| format!("{:?} {:?} {:?}", lengths(&all.0), all.1, all.2));
        assert!(without == with, "{:?}, {what}: {}, not {}", self.kind, shown[0], shown[1]);
        self.punted = with.3;
        (with.0.swap_remove(self.kind.port()), with.1)
    }

    /// Returns how many packets have taken the short way.
    fn hits(&self) -> u64 {
        self.gateways[1].worker.counters.flow_hits.value()
    }
}

/// Returns the kinds of tunnels to a server that differ outside: IPv4 and IPv6, plain and in UDP.
pub(super) fn outsides() -> Vec<Kind> {
    let is_usual_inside =
        |kind: &Kind| kind.mode == Mode::Tunnel && !kind.is_host && kind.header_len() == ip::V4_HEADER;
    Kind::all().into_iter().filter(is_usual_inside).collect()
}

/// Returns whether a packet is IPv4.
pub(super) fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// Returns the frame of a packet from outside.
pub(super) fn framed(packet: &[u8]) -> Vec<u8> {
    frame(MACS[OUTSIDE], STATIONS[OUTSIDE], packet)
}

/// Returns a fragment of the packet `id` from `offset` on, behind which there is `more` or not.
pub(super) fn placed(mut fragment: Vec<u8>, offset: usize, more: bool, id: u16) -> Vec<u8> {
    let offset = offset as u16;
    if is_v4(&fragment) {
        fragment[4..6].copy_from_slice(&id.to_be_bytes());
        fragment[6..8].copy_from_slice(&(offset >> 3 | u16::from(more) << 13).to_be_bytes());
    } else {
        fragment[42..44].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
        fragment[44..48].copy_from_slice(&u32::from(id).to_be_bytes());
    }
    summed(fragment)
}

/// Returns a fragment with another byte: at `v4` of IPv4, or at `v6` of IPv6.
pub(super) fn with_byte(mut fragment: Vec<u8>, [v4, v6]: [usize; 2], byte: u8) -> Vec<u8> {
    let at = if is_v4(&fragment) { v4 } else { v6 };
    fragment[at] = byte;
    summed(fragment)
}

/// Returns a packet with the right checksum in its header.
pub(super) fn summed(mut packet: Vec<u8>) -> Vec<u8> {
    let length = packet.len();
    ip::set_total_len(&mut packet, ip::V4_HEADER, length);
    packet
}

/// Returns a fragment of the same packet as `first` that overlaps both others.
pub(super) fn overlapping(first: &[u8]) -> Vec<u8> {
    placed(first.to_vec(), 8, true, ID)
}

#[test]
fn pair_takes_the_short_way_and_becomes_the_same_as_a_whole_packet() {
    for kind in Kind::all() {
        let mut twins = Twins::new(kind);
        let hits = twins.hits();
        let sealed = twins.seal(SIZE);
        // In transport mode, the outer header is that of what comes out.
        let sealed = if is_v4(&sealed) { uncut(sealed, ID) } else { sealed };
        let (whole, drops) = twins.send(&[framed(&sealed)], "a whole packet");
        assert_eq!((whole.len(), twins.hits()), (1, hits + 1), "{kind:?}: {drops:?}");
        for (n, last, padding) in [(2, LAST, 0), (3, 8, 0), (4, 8, 46)] {
            let mut frames = twins.pair(SIZE, last, ID).map(|packet| framed(&packet));
            frames[1].resize(frames[1].len() + padding, 0xee);
            let (joined, drops) = twins.send(&frames, "a pair");
            assert!(joined == whole, "{kind:?}, {last} and {padding} bytes: {drops:?}");
            assert_eq!(twins.hits(), hits + n, "{kind:?}, {last} and {padding} bytes");
        }
        if kind.mode == Mode::Tunnel {
            assert!(whole[0].ends_with(&kind.arrived(&kind.up(1, SIZE))), "{kind:?}");
        }
        // Many in one burst.
        let pieces: Vec<_> = (0..12).flat_map(|n| twins.pair(SIZE - n, LAST, ID)).collect();
        let frames: Vec<_> = pieces.iter().map(|piece| framed(piece)).collect();
        let (joined, drops) = twins.send(&frames, "many pairs");
        let lengths: Vec<_> = joined.iter().map(|frame| whole[0].len() - frame.len()).collect();
        assert!(lengths.into_iter().eq(0..12), "{kind:?}: {drops:?}");
        assert_eq!((twins.hits(), drops), (hits + 4 + 12, vec![]), "{kind:?}");
    }
}

/// Orders of the fragments of four packets: numbers below 4 are the first ones, those from 4 on the last ones.
/// Beside each, the order in which packets get complete.
const SPREAD: [([usize; 8], [usize; 4]); 7] = [
    ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3]),
    ([0, 1, 2, 3, 7, 6, 5, 4], [3, 2, 1, 0]),
    ([0, 1, 5, 4, 2, 3, 6, 7], [1, 0, 2, 3]),
    ([0, 1, 4, 2, 5, 3, 6, 7], [0, 1, 2, 3]),
    ([0, 1, 5, 2, 6, 3, 7, 4], [1, 2, 3, 0]),
    ([4, 0, 5, 1, 6, 2, 7, 3], [0, 1, 2, 3]),
    ([4, 5, 6, 7, 1, 0, 2, 3], [1, 0, 2, 3]),
];

#[test]
fn fragments_of_several_packets_in_a_burst_are_joined_in_every_order() {
    for (kind, (order, complete)) in Kind::all().into_iter().flat_map(|kind| SPREAD.map(|at| (kind, at))) {
        let mut twins = Twins::new(kind);
        let hits = twins.hits();
        let pairs: Vec<_> = (0..4).map(|n| twins.pair(SIZE - n, LAST, ID + n as u16)).collect();
        let frames: Vec<_> = order.iter().map(|&at| framed(&pairs[at % 4][at / 4])).collect();
        let (joined, drops) = twins.send(&frames, "pairs among one another");
        let longest = joined.iter().map(Vec::len).max().unwrap_or_default();
        let numbers = joined.iter().map(|frame| longest - frame.len());
        assert!(numbers.eq(complete), "{kind:?}, {order:?}: {drops:?}");
        assert_eq!((twins.hits(), drops), (hits + 4, vec![]), "{kind:?}, {order:?}");
    }
}

#[test]
fn packets_between_two_fragments_leave_before_the_joined_one() {
    for kind in Kind::all() {
        let mut twins = Twins::new(kind);
        let hits = twins.hits();
        let [first, last] = twins.pair(SIZE, LAST, ID);
        let [one, two] = [64, 65].map(|size| twins.seal(size));
        let frames = [first, one, two, last].map(|packet| framed(&packet));
        let (out, drops) = twins.send(&frames, "packets between two fragments");
        let lengths: Vec<_> = out.iter().map(Vec::len).collect();
        assert!(lengths.len() == 3 && lengths.is_sorted(), "{kind:?}: {lengths:?} {drops:?}");
        assert_eq!((twins.hits(), drops), (hits + 3, vec![]), "{kind:?}");
    }
}

#[test]
fn pair_in_two_bursts_takes_the_short_way() {
    for kind in Kind::all() {
        let mut twins = Twins::new(kind);
        let hits = twins.hits();
        // A worker takes 32 frames at once.
        let mut packets: Vec<_> = (0..31).map(|_| twins.seal(64)).collect();
        packets.extend((0..3).flat_map(|_| twins.pair(SIZE, LAST, ID)));
        let frames: Vec<_> = packets.iter().map(|packet| framed(packet)).collect();
        let (out, drops) = twins.send(&frames, "a pair in two bursts");
        assert_eq!((out.len(), drops), (34, vec![]), "{kind:?}");
        assert_eq!(twins.hits(), hits + 34, "{kind:?}");
    }
}

#[test]
fn pair_is_not_joined_once_its_address_is_no_longer_the_gateways() {
    for kind in outsides() {
        let mut twins = Twins::new(kind);
        let (hits, own) = (twins.hits(), Prefix::host(kind.path(1, false).local));
        let [first, last] = twins.pair(SIZE, LAST, ID).map(|packet| framed(&packet));
        twins.send(&[first], "a first fragment");
        twins.gateways.iter_mut().for_each(|gateway| gateway.route(own, None));
        let (out, _) = twins.send(slice::from_ref(&last), "the last one to somebody else");
        assert_eq!((out, twins.hits()), (vec![], hits), "{kind:?}");
        twins.gateways.iter_mut().for_each(|gateway| gateway.route(own, Some(Hop::Local)));
        let (out, _) = twins.send(&[last], "the last one to the gateway again");
        assert_eq!(out.len(), 1, "{kind:?}");
    }
}

#[test]
fn pair_that_no_frame_holds_is_opened_and_its_sender_hears_of_the_size_that_passes() {
    for kind in outsides() {
        let mut twins = Twins::new(kind);
        let pair = twins.pair(1900, 900, ID).map(|packet| framed(&packet));
        let (out, drops) = twins.send(&pair, "a long pair");
        assert_eq!((out, drops), (vec![], vec![(TooBig, 1)]), "{kind:?}");
        let [without, with] = twins.gateways.each_ref().map(|gateway| gateway.worker.counters.opened.value());
        assert_eq!((without, with), (3, 3), "{kind:?}");
    }
}

#[test]
fn pair_is_not_joined_past_another_fragment_of_its_packet() {
    #[derive(Clone, Copy, Debug)]
    enum Overlap {
        Earlier,
        Before,
        Between,
    }
    use Overlap::*;
    let all = |kind| [Earlier, Before, Between].map(|overlap| (kind, overlap));
    for (kind, place) in outsides().into_iter().flat_map(all) {
        let mut twins = Twins::new(kind);
        let hits = twins.hits();
        let [first, last] = twins.pair(SIZE, LAST, ID);
        let stranger = with_byte(first.clone(), [15, 23], 99);
        let [overlap, first, last, stranger] =
            [overlapping(&first), first, last, stranger].map(|packet| framed(&packet));
        let (out, drops) = match place {
            Earlier => {
                twins.send(&[overlap], "an overlap");
                twins.send(&[first, last], "a pair behind it")
            }
            Before => twins.send(&[overlap, first, last], "an overlap and a pair"),
            Between => twins.send(&[first, stranger, overlap, last], "an overlap in a pair"),
        };
        assert_eq!((out, drops), (vec![], vec![(FragmentOverlap, 3)]), "{kind:?} {place:?}");
        assert_eq!(twins.hits(), hits, "{kind:?} {place:?}");
    }
}

#[test]
fn pairs_that_are_not_the_gateways_leave_as_they_came() {
    for v6 in [false, true] {
        let (here, own) = if v6 { (server6(0), GATEWAY6) } else { (server(0), GATEWAY) };
        let [there, outside] =
            (if v6 { ["2001:db8:2::77", "2001:db8:2::99"] } else { ["198.51.100.77", "192.0.2.99"] }).map(ip);
        let mut gateway = TestGateway::on(Ports::WithHost, 64, false, &[]);
        gateway.set_policy(Prefix::host(there), Some(Action::Bypass));
        let through = [
            ip_packet(here, there, protocol::ESP, &[7; SIZE]),
            udp_packet(here, there, (4500, 4500), &[7; SIZE]),
        ];
        for packet in through {
            let pieces = fragments(&packet, 800, ID);
            let passed =
                pieces.iter().map(|piece| frame(STATIONS[OUTSIDE], MACS[OUTSIDE], &forwarded(piece)));
            let expected: Vec<_> = passed.collect();
            assert_eq!(expected.len(), 2);
            assert!(gateway.exchange(INSIDE, &pieces, OUTSIDE) == expected, "{v6}: {:?}", gateway.drops());
        }
        let pieces = fragments(&udp_packet(outside, own, (999, 9), &[7; SIZE]), 800, ID);
        let to_host: Vec<_> = pieces.iter().map(|piece| frame(STATIONS[HOST], MACS[HOST], piece)).collect();
        assert!(gateway.exchange(OUTSIDE, &pieces, HOST) == to_host, "{v6}: {:?}", gateway.drops());
        assert_eq!(gateway.drops(), []);
    }
}

#[test]
fn packets_of_a_flow_do_not_overtake_a_first_fragment_that_is_forwarded() {
    let mut known = Known::new();
    let pieces = fragments(&uncut(Known::down(SIZE), ID), 800, ID);
    let [first, last] = pieces.try_into().expect("two fragments");
    let out = known.gateway.exchange(INSIDE, &[first, Known::down(64), last], OUTSIDE);
    let lengths: Vec<_> = out.iter().map(Vec::len).collect();
    let [first, between, last] = lengths[..] else { panic!("{lengths:?} {:?}", known.gateway.drops()) };
    assert!(first > last && last > between, "{lengths:?}");
}

/// Makes a gateway with a tunnel, and a NAT that has mapped these UDP ports of the gateway's address to the
/// same ports of server 1.
fn with_nat(flow_cache: usize, spec: &Spec, udp_ports: [u16; 2]) -> TestGateway {
    let mut gateway = TestGateway::new(flow_cache, false, &[]);
    let [first, last] = udp_ports;
    let settings = Settings {
        ports: [OUTSIDE, INSIDE]
            .map(|port| PortSettings::new(MACS[port], 1500, false, port == OUTSIDE))
            .into(),
        encap_ports: Box::new([4500]),
        siu_port: None,
        home_agent: None,
        host: None,
        mss_clamp: true,
        discards: false,
        nats: Box::new([Nat {
            port: OUTSIDE as u16,
            address: Address::from(GATEWAY).bits() as u32,
            ports: first..=last,
            inside: Box::new([prefix(SERVERS)]),
        }]),
    };
    gateway.worker = LoneWorker::new(settings, 64, flow_cache);
    gateway.route(Prefix::host(GATEWAY), Some(Hop::Local));
    gateway.route(prefix(SERVERS), Some(Hop::Port { port: INSIDE as u16, mac: STATIONS[INSIDE] }));
    gateway.set_policy(Prefix::host(server(1)), Some(Action::Bypass));
    gateway.install(spec);
    let LoneWorker { tables, writer, .. } = &mut gateway.worker;
    for port in udp_ports {
        let inside = (Address::from(server(1)), port);
        tables.nat.insert(writer, Mapping::new(0, protocol::UDP, inside, port, 0));
    }
    gateway
}

/// A configuration gives no NAT a UDP port of the gateway's own, but if one had it, the NAT would come first
/// for fragments.
#[test]
fn pair_to_a_port_of_a_nat_is_translated_in_two_pieces() {
    let udp_ports = [4500, 20_500];
    for kind in outsides().into_iter().filter(|kind| kind.path(1, false).local == GATEWAY) {
        let mut twins = Twins::of(kind, |flow_cache| with_nat(flow_cache, &kind.spec(1), udp_ports));
        let Path { local, remote, encap } = kind.path(1, false);
        for port in udp_ports {
            let pieces = |to| fragments(&udp_packet(remote, to, (999, port), &[7; SIZE]), 800, ID);
            let frames: Vec<_> = pieces(local).iter().map(|piece| framed(piece)).collect();
            let (out, drops) = twins.send(&frames, "a pair to a NAT");
            let inside = pieces(server(1));
            let expected =
                inside.iter().map(|piece| frame(STATIONS[INSIDE], MACS[INSIDE], &forwarded(piece)));
            assert!(out.len() == 2 && out.into_iter().eq(expected), "{kind:?}, {port}: {drops:?}");
        }
        // ESP without UDP has no port, and is opened.
        let hits = twins.hits();
        let pair = twins.pair(SIZE, LAST, ID).map(|packet| framed(&packet));
        let (out, drops) = twins.send(&pair, "a sealed pair");
        let expected = if encap == Encap::None { (1, 1) } else { (2, 0) };
        assert_eq!((out.len(), twins.hits() - hits), expected, "{kind:?}: {drops:?}");
    }
}

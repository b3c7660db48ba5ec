//! NAT of terminals and inner hosts that leave in clear.

mod errors;
mod freed;
mod hairpin;
mod hostile;
mod limits;

use std::{net::IpAddr, time::Duration};
use wayfarer::{
    config::model::{Config, Nat, Policy, PolicyAction},
    control::protocol::{Command, NatView, Outcome, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::{PortRange, Selector},
    wire::{
        checksum,
        ip::{self, IpHeader, protocol},
        tcp::{ACK, SYN},
    },
};

const SUITE: &str = "aes128gcm16";
const OUTER: &str = "203.0.113.1";
const SERVER: &str = "198.51.100.80";
const FIRST: u16 = 20_000;
const LAST: u16 = 20_999;

/// Makes the NAT of these tests.
fn nat(inside: &str) -> Nat {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    Nat {
        inside: vec![inside.parse().unwrap()],
        port: OUTSIDE,
        address: OUTER.parse().unwrap(),
        ports: FIRST..=LAST,
        mappings: 16,
        udp_timeout: minutes(5),
        tcp_timeout: minutes(124),
        tcp_transitory_timeout: minutes(4),
        icmp_timeout: minutes(1),
    }
}

/// Makes the configuration of a gateway for two terminals, all of whose traffic goes through it.
fn terminals(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    for (n, tunnel) in (1..).zip(&mut config.tunnels) {
        tunnel.selectors = vec![selector("0.0.0.0/0", &format!("10.98.0.{n}"))];
    }
    config.nats = vec![nat("10.98.0.0/16")];
    change(&mut config);
    config
}

/// A gateway and two terminals.
struct Bench {
    world: World,
    terminals: [Terminal; 2],
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(World::with(terminals(change), 512))
    }

    fn on(mut world: World) -> Self {
        world.meet_neighbours();
        let terminals = [1, 2].map(|n| Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}")));
        Self { world, terminals }
    }

    /// Sends a packet of terminal `n` through its tunnel, and returns what left in clear.
    fn up(&mut self, n: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        self.tunnelled(n, packet);
        self.world.take(OUTSIDE)
    }

    fn tunnelled(&mut self, n: usize, packet: &[u8]) {
        let sealed = self.terminals[n - 1].seal(packet);
        self.world.send(OUTSIDE, &sealed);
    }

    /// Sends a packet from outside, and returns what terminal `n` got.
    fn down(&mut self, n: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        self.world.send(OUTSIDE, packet);
        self.received(n)
    }

    fn received(&mut self, n: usize) -> Vec<Vec<u8>> {
        let out = self.world.take(OUTSIDE);
        out.iter().filter_map(|packet| self.terminals[n - 1].try_open(packet)).map(|open| open.2).collect()
    }

    /// Sends a packet of terminal `n`, and returns its port outside.
    fn port_of(&mut self, n: usize, packet: &[u8]) -> Option<u16> {
        self.up(n, packet).first().map(|out| ends(out).1)
    }

    fn show(&mut self) -> NatView {
        match self.world.ask(Command::Show { what: View::Nat }).outcome {
            Outcome::Result(Reply::Nat(mut all)) => all.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Returns how many packets were dropped for this reason, by workers and the slow path.
    fn drops(&mut self, reason: DropReason) -> u64 {
        self.world.slow_drops(reason) + self.world.drops(reason)
    }
}

/// Makes a NAT of terminals and of hosts in clear.
fn with_hosts_in_clear() -> Bench {
    let bypass = |local, remote| Policy { action: PolicyAction::Bypass, selector: selector(local, remote) };
    Bench::with(|config| {
        config.policies = vec![bypass("10.99.0.0/24", "0.0.0.0/0"), bypass("0.0.0.0/0", "10.99.0.0/24")];
        config.nats[0].inside.push("10.99.0.0/24".parse().unwrap());
    })
}

/// Returns the source, its port or the identifier, and the destination of a packet whose checksums must
/// be right.
#[track_caller]
fn ends(packet: &[u8]) -> (String, u16, String) {
    let header = IpHeader::parse(packet).unwrap();
    let payload = header.payload(packet);
    let pseudo = match header.protocol {
        protocol::ICMP => 0,
        number => checksum::pseudo_header(header.src, header.dst, number, payload.len()),
    };
    assert_eq!(checksum::finish(checksum::add(pseudo, payload)), 0, "{packet:x?}");
    let at = if header.protocol == protocol::ICMP { 4 } else { 0 };
    let port = u16::from_be_bytes([payload[at], payload[at + 1]]);
    (header.src.to_string(), port, header.dst.to_string())
}

/// Makes a TCP segment.
fn segment(src: &str, dst: &str, ports: (u16, u16), flags: u8) -> Vec<u8> {
    segment_with(src, dst, ports, flags, &[])
}

/// Makes a TCP segment with options, whose length is a multiple of four bytes.
fn segment_with(src: &str, dst: &str, ports: (u16, u16), flags: u8, options: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() as u8 / 4;
    let (from, to) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    let mut segment = [&from[..], &to, &[0; 8], &[words << 4, flags], &[9; 6], options].concat();
    segment[16..18].fill(0);
    let (src, dst) = (ip(src), ip(dst));
    let pseudo = checksum::pseudo_header(src, dst, protocol::TCP, segment.len());
    let sum = checksum::finish(checksum::add(pseudo, &segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip_packet(src, dst, protocol::TCP, &segment)
}

/// Makes an ICMP message with this type, and these bytes behind the checksum.
fn icmp(src: &str, dst: &str, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], rest].concat();
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip_packet(ip(src), ip(dst), protocol::ICMP, &message)
}

fn ping(src: &str, dst: &str, id: u16) -> Vec<u8> {
    icmp(src, dst, 8, &[&id.to_be_bytes()[..], &[0, 1], b"ping"].concat())
}

fn pong(src: &str, dst: &str, id: u16) -> Vec<u8> {
    icmp(src, dst, 0, &[&id.to_be_bytes()[..], &[0, 1], b"ping"].concat())
}

/// A query to the server from a terminal's port, and the server's answer to a port outside.
fn udp(n: usize, port: u16) -> Vec<u8> {
    datagram(&format!("10.98.0.{n}"), SERVER, (port, 53), b"query")
}

fn answer(to: u16) -> Vec<u8> {
    datagram(SERVER, OUTER, (53, to), b"answer")
}

/// The time of a host, and the answer to a question for it (RFC 792).
fn timestamps(src: &str, dst: &str, kind: u8, id: u16) -> Vec<u8> {
    icmp(src, dst, kind, &[&id.to_be_bytes()[..], &[0, 1], &[7; 12]].concat())
}

/// A packet out, and what makes its answer to an address and a port.
type Pair<'a> = (Vec<u8>, &'a dyn Fn(&str, u16) -> Vec<u8>);

#[test]
fn tcp_udp_and_icmp_queries_pass_both_ways() {
    let mut bench = Bench::new();
    let pairs: [Pair<'_>; 4] = [
        (segment("10.98.0.1", SERVER, (5000, 443), SYN), &|to, port| {
            segment(SERVER, to, (443, port), SYN | ACK)
        }),
        (udp(1, 5000), &|to, port| datagram(SERVER, to, (53, port), b"answer")),
        (ping("10.98.0.1", SERVER, 5000), &|to, id| pong(SERVER, to, id)),
        (timestamps("10.98.0.1", SERVER, 13, 5000), &|to, id| timestamps(SERVER, to, 14, id)),
    ];
    for (sent, answer) in pairs {
        let out = bench.up(1, &sent);
        assert_eq!(out.len(), 1, "{:?}", bench.world.all_drops());
        let (src, port, dst) = ends(&out[0]);
        assert_eq!((&src[..], &dst[..], out[0][8]), (OUTER, SERVER, 63));
        assert!((FIRST..=LAST).contains(&port) && port % 2 == 0, "{port}: within the range, the same parity");
        let got = bench.down(1, &answer(OUTER, port));
        assert_eq!(got, [forwarded(&answer("10.98.0.1", 5000))], "{:?}", bench.world.all_drops());
    }
    assert_eq!(bench.world.all_drops(), []);
    let view = bench.show();
    assert_eq!((view.mappings, view.users[0].mappings, &view.users[0].address[..]), (3, 3, "10.98.0.1"));
    assert_eq!((view.free_tcp, view.free_udp, view.free_icmp), (999, 999, 999));
}

/// RFC 4787 §4.1, §4.2 and §5.
#[test]
fn mapping_and_filtering_are_independent_of_the_endpoint_and_ports_are_kept() {
    let mut bench = Bench::new();
    assert_eq!(bench.port_of(1, &udp(1, 20_500)), Some(20_500), "a port of the range is kept");
    assert!(bench.port_of(2, &udp(2, 20_500)).is_some_and(|port| port != 20_500 && port % 2 == 0));
    let elsewhere = datagram("10.98.0.1", "198.51.100.81", (20_500, 123), b"time?");
    assert_eq!(bench.port_of(1, &elsewhere), Some(20_500), "one mapping for all destinations");
    let tcp = segment("10.98.0.1", SERVER, (20_500, 443), SYN);
    assert_eq!(bench.port_of(1, &tcp), Some(20_500), "each protocol has its own ports");
    let anybody = datagram("192.0.2.200", OUTER, (7, 20_500), b"hello");
    assert_eq!(bench.down(1, &anybody).len(), 1, "anybody may answer");
    assert_eq!(bench.show().mappings, 3);
}

#[test]
fn fragments_are_translated_once_their_packet_is_complete() {
    for length in [1600, 5000] {
        for turn in [0, 1] {
            let mut bench = Bench::new();
            let payload: Vec<u8> = (0..length).map(|at| (at / 8) as u8).collect();
            // The first one makes the mapping, the second one uses it.
            for id in [7, 8] {
                let sent = datagram("10.98.0.1", SERVER, (5000, 53), &payload);
                let mut pieces = fragments(&sent, 1400, id);
                pieces.rotate_left(turn);
                let sealed: Vec<_> = pieces.iter().map(|piece| bench.terminals[0].seal(piece)).collect();
                sealed.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
                bench.world.settle();
                let out = joined(bench.world.take(OUTSIDE));
                assert_eq!(out.len(), 1, "{length} {:?}", bench.world.all_drops());
                let (src, port, _) = ends(&out[0]);
                assert_eq!((&src[..], &out[0][28..]), (OUTER, &payload[..]));

                let mut pieces = fragments(&datagram(SERVER, OUTER, (53, port), &payload), 1500, id);
                pieces.rotate_left(turn);
                pieces.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
                bench.world.settle();
                let got = joined(bench.received(1));
                assert_eq!(got.len(), 1, "{length} {:?}", bench.world.all_drops());
                let (src, _, dst) = ends(&got[0]);
                assert_eq!((&src[..], &dst[..], &got[0][28..]), (SERVER, "10.98.0.1", &payload[..]));
            }
            assert_eq!(bench.world.all_drops(), []);
        }
    }
}

/// What hosts send to the UDP ports of IKE and ESP of others is not the gateway's.
#[test]
fn fragments_of_hosts_leave_as_they_came_whatever_port_they_are_for() {
    for port in [53, 500, 4500] {
        let mut bench = with_hosts_in_clear();
        let sent = |payload: &[u8]| datagram("10.99.0.7", SERVER, (5000, port), payload);
        bench.world.send(INSIDE, &sent(b"makes the mapping"));
        assert_eq!(bench.world.take(OUTSIDE).len(), 1, "{:?}", bench.world.all_drops());
        let pieces = fragments(&sent(&[3; 1400]), 800, 7);
        pieces.iter().for_each(|piece| bench.world.send(INSIDE, piece));
        let out = bench.world.take(OUTSIDE);
        let lengths = |packets: &[Vec<u8>]| packets.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(&out), lengths(&pieces), "{port}: {:?}", bench.world.all_drops());
    }
}

/// RFC 4301 §7: the terminal's tunnel is for one of its ports.
#[test]
fn fragments_pass_through_a_tunnel_for_one_port() {
    let mut bench = Bench::with(|config| {
        let selector = &mut config.tunnels[0].selectors[0];
        selector.protocol = Some(protocol::UDP);
        selector.remote_ports = PortRange { first: 5000, last: 5000 };
    });
    let payload = [7; 2000];
    for id in [7, 8] {
        for piece in fragments(&datagram("10.98.0.1", SERVER, (5000, 53), &payload), 1400, id).iter().rev() {
            bench.tunnelled(1, piece);
        }
        let out = joined(bench.world.take(OUTSIDE));
        assert_eq!(out.len(), 1, "{:?}", bench.world.all_drops());
        let (src, port, _) = ends(&out[0]);
        assert_eq!((&src[..], &out[0][28..]), (OUTER, &payload[..]));
        let pieces = fragments(&datagram(SERVER, OUTER, (53, port), &payload), 1500, id);
        pieces.iter().rev().for_each(|piece| bench.world.put(OUTSIDE, piece));
        bench.world.settle();
        let [sealed] = &joined(bench.world.take(OUTSIDE))[..] else { panic!("one packet") };
        let got = bench.terminals[0].open(sealed).2;
        let (src, _, dst) = ends(&got);
        assert_eq!((&src[..], &dst[..], &got[28..]), (SERVER, "10.98.0.1", &payload[..]));
    }
    assert_eq!(bench.world.all_drops(), []);
}

#[test]
fn fragments_with_options_are_translated() {
    let with_options = |mut packet: Vec<u8>| {
        // A timestamp, which only the first fragment has, and router alert (RFC 2113).
        packet.splice(20..20, [68, 4, 5, 0, 0x94, 4, 0, 0]);
        packet[0] = 0x47;
        let total = packet.len();
        ip::set_total_len(&mut packet, 28, total);
        packet
    };
    let mut bench = Bench::new();
    for turn in [0, 1] {
        let sent = with_options(datagram("10.98.0.1", SERVER, (5000, 53), &[7; 2000]));
        let mut pieces = fragments(&sent, 1400, 7);
        pieces.rotate_left(turn);
        pieces.iter().for_each(|piece| bench.tunnelled(1, piece));
        let out = joined(bench.world.take(OUTSIDE));
        assert_eq!((out.len(), &out[0][20..28]), (1, &sent[20..28]), "{:?}", bench.world.all_drops());
        let (src, port, _) = ends(&out[0]);
        assert_eq!(src, OUTER);
        let sent = with_options(datagram(SERVER, OUTER, (53, port), &[7; 2000]));
        let mut pieces = fragments(&sent, 1400, 8);
        pieces.rotate_left(turn);
        pieces.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
        bench.world.settle();
        let got = joined(bench.received(1));
        assert_eq!((got.len(), &got[0][20..28]), (1, &sent[20..28]), "{:?}", bench.world.all_drops());
        assert_eq!(ends(&got[0]).2, "10.98.0.1");
    }
    assert_eq!(bench.world.all_drops(), []);
}

/// The packet of a terminal that cuts after it encrypts.
#[test]
fn packets_longer_than_a_frame_are_translated_too() {
    let mut bench = Bench::new();
    let mut sent = datagram("10.98.0.1", SERVER, (5000, 53), &[3; 5000]);
    ip::allow_fragments(&mut sent, 20, 7);
    for _ in 0..2 {
        let sealed = bench.terminals[0].seal(&sent);
        fragments(&sealed, 1500, 9).iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
        bench.world.settle();
        let out = joined(bench.world.take(OUTSIDE));
        assert_eq!(out.len(), 1, "{:?}", bench.world.all_drops());
        assert_eq!((&ends(&out[0]).0[..], out[0].len()), (OUTER, sent.len()));
    }
    assert_eq!(bench.world.all_drops(), []);
}

/// Two hosts may choose one identification, and their fragments would be joined outside.
#[test]
fn packets_that_may_be_fragmented_get_identifications_of_their_own() {
    let mut bench = Bench::new();
    let mut ids = vec![];
    for n in [1, 2] {
        let sent = datagram(&format!("10.98.0.{n}"), SERVER, (5000, 53), &[n as u8; 1600]);
        for piece in fragments(&sent, 1400, 7) {
            bench.tunnelled(n, &piece);
        }
        let out = bench.world.take(OUTSIDE);
        assert_eq!((out.len(), &out[0][4..6]), (2, &out[1][4..6]));
        ids.push(out[0][4..6].to_vec());
    }
    assert_ne!(ids[0], ids[1]);
    // One that must not be fragmented needs none (RFC 6864 §4.1).
    assert_eq!(bench.up(1, &udp(1, 5000))[0][4..6], udp(1, 5000)[4..6]);
}

/// Makes a gateway whose inner hosts are all in clear.
fn in_clear() -> World {
    in_clear_by(None)
}

/// Makes a gateway whose inner hosts are in clear if they use this protocol.
fn in_clear_by(protocol: Option<u8>) -> World {
    let mut config = config(vec![]);
    config.policies = [("10.99.0.0/24", "0.0.0.0/0"), ("0.0.0.0/0", "10.99.0.0/24")]
        .map(|(local, remote)| Selector { protocol, ..selector(local, remote) })
        .map(|selector| Policy { action: PolicyAction::Bypass, selector })
        .to_vec();
    config.nats = vec![nat("10.99.0.0/24")];
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

#[test]
fn hosts_in_clear_are_translated_too_but_only_by_their_own_port() {
    let mut world = in_clear();
    let sent = datagram("10.99.0.7", SERVER, (5000, 53), b"query");
    world.send(INSIDE, &sent);
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    let (src, port, _) = ends(&out[0]);
    assert_eq!(src, OUTER);
    world.send(OUTSIDE, &answer(port));
    let back = datagram(SERVER, "10.99.0.7", (53, 5000), b"answer");
    assert_eq!(world.take(INSIDE), [forwarded(&back)], "{:?}", world.all_drops());
    // Hosts of the inside that talk to each other stay as they are.
    world.send(INSIDE, &datagram("10.99.0.7", "10.99.0.8", (5000, 53), b"query"));
    let out = world.take(INSIDE);
    assert_eq!(ends(&out[0]).0, "10.99.0.7");
    // Nobody outside makes mappings in their name.
    world.send(OUTSIDE, &datagram("10.99.0.7", SERVER, (5001, 53), b"forged"));
    // Nor do they use those that there are.
    world.send(OUTSIDE, &sent);
    assert_eq!((world.drops(SourcePort), world.take(OUTSIDE).len()), (2, 0));
}

/// The address is also the host's.
#[test]
fn what_is_not_the_nats_stays_the_hosts() {
    let world = World::on(terminals(|_| {}), open_host_ports(512));
    let mut bench = Bench::on(world);
    let port = bench.port_of(1, &udp(1, 20_500)).unwrap();
    let to_host = [
        segment(SERVER, OUTER, (443, 22), SYN),
        segment(SERVER, OUTER, (443, LAST + 1), SYN),
        datagram(SERVER, OUTER, (53, 53), b"query"),
        ping(SERVER, OUTER, port),
        pong(SERVER, OUTER, FIRST - 1),
        // Of the range, but no mapping has it.
        pong(SERVER, OUTER, FIRST + 7),
        icmp(SERVER, OUTER, 3, &[&[0; 4][..], &ping(OUTER, SERVER, FIRST + 7)].concat()),
        icmp(
            SERVER,
            OUTER,
            3,
            &[&[0; 4][..], &datagram(OUTER, SERVER, (LAST + 1, 53), b"of the host")].concat(),
        ),
    ];
    for packet in &to_host {
        bench.world.send(OUTSIDE, packet);
        assert_eq!(bench.world.take(INSIDE), std::slice::from_ref(packet), "{:?}", bench.world.all_drops());
    }
    let pieces = fragments(&datagram(SERVER, OUTER, (53, 53), &[1; 2000]), 1400, 9);
    pieces.iter().for_each(|piece| bench.world.put(OUTSIDE, piece));
    bench.world.settle();
    assert_eq!(bench.world.take(INSIDE), pieces, "{:?}", bench.world.all_drops());
    assert_eq!(bench.down(1, &answer(port)).len(), 1);
    // Unused ports of the range answer nothing, and the host hears nothing of them.
    bench.world.send(OUTSIDE, &answer(port + 1));
    bench.world.send(OUTSIDE, &segment(SERVER, OUTER, (443, port), SYN));
    assert_eq!(
        (bench.drops(NatUnknown), bench.world.out[INSIDE].len(), bench.world.out[OUTSIDE].len()),
        (2, 0, 0)
    );
}

#[test]
fn other_protocols_and_sources_are_not_translated() {
    let mut bench = Bench::with(|config| {
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "10.97.0.2")];
    });
    let gre = ip_packet(ip("10.98.0.1"), ip(SERVER), 47, &[0; 40]);
    assert_eq!((bench.up(1, &gre), bench.drops(NatProtocol)), (vec![], 1));
    let outside = datagram("10.97.0.2", SERVER, (5000, 53), b"query");
    assert_eq!(bench.up(2, &outside), [forwarded(&outside)]);
    // What leaves by another port keeps its source.
    let inside = datagram("10.98.0.1", "10.99.0.7", (5000, 53), b"query");
    bench.tunnelled(1, &inside);
    assert_eq!(bench.world.take(INSIDE), [forwarded(&inside)]);
}

/// Returns the source address of a packet.
fn source(packet: &[u8]) -> IpAddr {
    IpHeader::parse(packet).unwrap().src.into()
}

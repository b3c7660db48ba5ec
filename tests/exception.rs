//! The exception path: what is the kernel's goes to its side of a port, and comes from there, whole and within bounds.

mod world;

use std::time::{Duration, Instant};
use wayfarer::{
    config::model::{Config, Policy, PolicyAction, Remote},
    launch::{Assembly, Exception, OpenPort, Seat, StartError},
    slow_path::neighbours::Stations,
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    pool::Pool,
    port::{
        Mac,
        memory::{self, Wire},
    },
    sa::PortRange,
    wire::{
        arp::{Arp, Operation},
        ethernet::{self, Ethernet},
        ip::{self, protocol},
        nd::Neighbour,
    },
};
use world::*;

const SUITE: &str = "aes128gcm16";
const LLDP: u16 = 0x88cc;
const LLDP_GROUP: Mac = [1, 0x80, 0xc2, 0, 0, 0x0e];

/// The kernel's side of the port `of`, and the kernel's end of it.
fn tap(of: usize, rate: u32, depth: usize) -> (OpenPort, Wire) {
    let (port, wire) = memory::pair(depth, 2048);
    let port = OpenPort {
        name: "kernel".to_owned(),
        kind: "memory".to_owned(),
        device: None,
        mac: GATEWAY[of.min(1)],
        mtu: 1500,
        fills_checksums: false,
        addresses: vec![],
        stations: Stations::Ask,
        is_host: false,
        shared: None,
        exception: Some(Exception { of, rate }),
        monitor: None,
        queues: vec![Box::new(port)],
    };
    (port, wire)
}

/// The kernel's side of the port `of`, with a queue for each of two workers, and the kernel's ends of those.
fn tap_for_two(of: usize) -> (OpenPort, [Wire; 2]) {
    let (mut port, first) = tap(of, 1_000_000, 512);
    let (second, other) = tap(of, 1_000_000, 512);
    port.queues.extend(second.queues);
    (port, [first, other])
}

/// A gateway with two tunnels whose outside has a kernel side, and the kernel's end of that.
fn gateway(rate: u32, depth: usize, change: impl FnOnce(&mut Config)) -> (World, Wire) {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    config.tunnels[0].remote = Remote::At(ip("192.0.2.1"), 0);
    change(&mut config);
    let (mut ports, wires) = open_ports(1, 512);
    let (port, kernel) = tap(OUTSIDE, rate, depth);
    ports.push(port);
    let pool = Pool::new(config.gateway.frames, config.gateway.frame_size).unwrap();
    let assembly = Assembly::new(&config, vec![Seat { pool, core: None }], ports).unwrap();
    let wires = wires.into_iter().flatten().collect();
    let out = Default::default();
    let mut world = World { assembly, wires, now: Duration::ZERO, answer_neighbours: true, out };
    world.meet_neighbours();
    received(&kernel);
    (world, kernel)
}

fn received(wire: &Wire) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| wire.receive(<[u8]>::to_vec)).collect()
}

/// What the kernel gets of `frame`, which comes in by `port`.
fn at_kernel(world: &mut World, kernel: &Wire, port: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(world.wires[port].send(frame));
    world.settle();
    received(kernel)
}

/// What leaves by the outside of `frame`, which the kernel sends.
fn from_kernel(world: &mut World, kernel: &Wire, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(kernel.send(frame));
    world.settle();
    assert_eq!(received(kernel), Vec::<Vec<u8>>::new(), "nothing comes back");
    std::mem::take(&mut world.out[OUTSIDE])
}

/// `packet` from the station outside.
fn outside(packet: &[u8]) -> Vec<u8> {
    frame(GATEWAY[OUTSIDE], STATION[OUTSIDE], packet)
}

/// `packet` from the kernel to the station outside.
fn inside_out(packet: &[u8]) -> Vec<u8> {
    frame(STATION[OUTSIDE], GATEWAY[OUTSIDE], packet)
}

fn ethertype(dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER];
    Ethernet { dst, src: STATION[OUTSIDE], ethertype }.emit(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

fn lldp() -> Vec<u8> {
    ethertype(LLDP_GROUP, LLDP, b"\x02\x07\x04\x02\0\0\0\0\x20\0\0")
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let arp = Arp {
        operation: Operation::Request,
        sender_mac: STATION[OUTSIDE],
        sender: sender.into(),
        target_mac: [0; 6],
        target: target.into(),
    };
    arp.frame(ethernet::BROADCAST)
}

fn solicitation() -> Vec<u8> {
    let target = "2001:db8:1::77".parse().unwrap();
    let ask = Neighbour { solicitation: true, target, mac: Some(STATION[OUTSIDE]), solicited: false };
    ask.frame(STATION[OUTSIDE], "2001:db8:1::fe".parse().unwrap(), [0x33, 0x33, 0xff, 0, 0, 0x77], target)
}

/// An IP packet of any protocol.
fn packet(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    let length = ip::emit(&mut packet, ip(src), ip(dst), protocol, payload.len());
    packet.truncate(length);
    packet.extend_from_slice(payload);
    packet
}

fn ospf(src: &str) -> Vec<u8> {
    let hello = packet(src, "224.0.0.5", 89, &[2; 44]);
    frame([1, 0, 0x5e, 0, 0, 5], STATION[OUTSIDE], &hello)
}

/// `frame` in as many VLANs as `tags` names.
fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|id| [0x81, 0, 0, *id]);
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

#[test]
fn what_is_the_kernels_reaches_it_byte_for_byte() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let ssh = packet("192.0.2.9", "203.0.113.1", protocol::TCP, &[0x16; 20]);
    let mut padded = outside(&ssh);
    padded.extend_from_slice(b"padding");
    let mut fragment = datagram("192.0.2.9", "203.0.113.1", (1, 4500), &[7; 64]);
    fragment[7] = 8;
    ip::set_total_len(&mut fragment, 20, 92);
    for sent in [
        arp([203, 0, 113, 254], [203, 0, 113, 77]),
        solicitation(),
        ospf("203.0.113.254"),
        frame([0x33, 0x33, 0, 0, 0, 1], STATION[OUTSIDE], &packet("fe80::1", "ff02::1", 58, &[134; 16])),
        frame(ethernet::BROADCAST, STATION[OUTSIDE], &datagram("0.0.0.0", "255.255.255.255", (68, 67), b"?")),
        lldp(),
        ethertype(GATEWAY[OUTSIDE], 0x8864, &[0x11; 1500]),
        tagged(&outside(&ssh), &[7]),
        outside(&ssh),
        padded,
        outside(&packet("192.0.2.9", "203.0.113.1", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
        outside(&datagram("2001:db8:2::9", "2001:db8:1::1", (9, 22), b"by IPv6")),
        outside(&datagram("192.0.2.9", "10.99.0.1", (9, 22), b"to an address of another port")),
        outside(&datagram("fe80::9", "fe80::1:1", (547, 546), b"DHCPv6")),
        outside(&packet("2001:db8:1::fe", "fe80::1:1", protocol::ESP, &[9; 40])),
        outside(&datagram("192.0.2.9", "169.254.1.1", (1, 4500), &[9; 40])),
        outside(&fragment),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &sent), [sent], "{:?}", world.all_drops());
    }
    assert_eq!(world.all_drops(), []);
    assert_eq!(world.out, [const { Vec::<Vec<u8>>::new() }; 2]);
    // Who asks for the gateway is answered by the slow path as ever; the kernel hears of it too.
    let ask = arp([203, 0, 113, 254], [203, 0, 113, 1]);
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &ask), [ask]);
    let answer = Arp::parse(&world.out[OUTSIDE][0][ethernet::HEADER..]).unwrap();
    assert_eq!((answer.operation, answer.sender_mac), (Operation::Reply, GATEWAY[OUTSIDE]));
}

#[test]
fn what_is_the_gateways_does_not() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    let sealed = outside(&terminal.seal(&up));
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &sealed).len(), 0);
    assert_eq!(world.take(INSIDE), [forwarded(&up)]);
    let mut unknown = terminal.wrap(&[0x55; 60]);
    unknown[20..24].copy_from_slice(&[9; 4]);
    terminal.port = Some(4500);
    let keepalive = terminal.wrap(&[0xff]);
    terminal.port = Some(500);
    terminal.gateway_port = 500;
    let ike = terminal.wrap(&[0; 28]);
    let passing = datagram("198.51.100.1", "198.51.100.2", (1, 2), b"passing by");
    let loopback = datagram("198.51.100.1", "127.0.0.1", (1, 2), b"to nobody");
    let mut foreign = outside(&passing);
    foreign[5] ^= 1;
    let mut lie = outside(&passing);
    lie[ethernet::HEADER + 10] ^= 1;
    for (frame, reason) in [
        (outside(&unknown), Some(UnknownSpi)),
        (outside(&keepalive), Some(Keepalive)),
        (outside(&ike), None),
        (outside(&passing), Some(NoPolicy)),
        (outside(&loopback), Some(Martian)),
        (foreign, Some(ForeignMac)),
        (lie, Some(IpChecksum)),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0, "{reason:?}");
        assert!(reason.is_none_or(|reason| world.drops(reason) == 1), "{reason:?}: {:?}", world.all_drops());
    }
    assert_eq!(world.all_drops().len(), 6);
    assert_eq!(world.slow_drops(NoKeyExchange), 1, "the message of IKE went to the slow path");
}

#[test]
fn what_a_tunnel_brings_for_the_gateway_itself_does_not() {
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1")]
    });
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let inner = terminal.seal(&datagram("10.98.0.1", "203.0.113.1", (1, 22), b"ssh, by the tunnel"));
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &outside(&inner)).len(), 0);
    assert_eq!((world.all_drops(), world.counters().opened.value()), (vec![(NotForUs, 1)], 1));
}

#[test]
fn a_port_without_a_kernel_side_drops_what_it_always_dropped() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let host = frame(GATEWAY[INSIDE], STATION[INSIDE], &datagram("10.99.0.7", "10.99.0.1", (9, 22), b"ssh"));
    let by_link = frame(GATEWAY[INSIDE], STATION[INSIDE], &datagram("fe80::9", "fe80::1", (9, 22), b"ssh"));
    for (frame, reason) in
        [(lldp(), UnknownEthertype), (ospf("10.99.0.9"), Multicast), (host, NotForUs), (by_link, Martian)]
    {
        assert_eq!(at_kernel(&mut world, &kernel, INSIDE, &frame).len(), 0);
        assert_eq!(world.drops(reason), 1);
    }
    let asks = arp([10, 99, 0, 9], [10, 99, 0, 77]);
    assert_eq!(at_kernel(&mut world, &kernel, INSIDE, &asks).len(), 0);
    assert_eq!(world.all_drops().len(), 4);
}

#[test]
fn the_kernel_gets_nothing_in_clear_that_a_tunnel_should_have_brought() {
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1"), selector("::/0", "::/0")];
    });
    let spoofed = outside(&datagram("10.98.0.1", "203.0.113.1", (1, 22), b"as if from the terminal"));
    let by_link = outside(&datagram("10.98.0.1", "169.254.1.1", (1, 22), b"as if from the terminal"));
    let priority = [&[0][..], &[0, 0], &[0; 9]].map(|tags| tagged(&spoofed, tags));
    let frames = [spoofed.clone()].into_iter().chain(priority).chain([ospf("10.98.0.1"), by_link]);
    for (count, frame) in (1..).zip(frames) {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0);
        assert_eq!(world.all_drops(), [(Unprotected, count)]);
    }
    // Tags that are more than anybody looks through, or cut short, or around what is no IP packet.
    for (frame, reason) in [
        (tagged(&spoofed, &[1, 2, 3]), UnknownEthertype),
        (tagged(&spoofed, &[0])[..17].to_vec(), RuntFrame),
        (tagged(&spoofed, &[0])[..30].to_vec(), IpTruncated),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0);
        assert_eq!(world.drops(reason), 1, "{:?}", world.all_drops());
    }
    // Neighbours are found even where a tunnel is for everything.
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &solicitation()), [solicitation()]);
}

#[test]
fn what_the_kernel_sends_leaves_byte_for_byte_and_the_gateway_reads_none_of_it() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let punted = world.counters().punted.value();
    let ssh = packet("203.0.113.1", "192.0.2.9", protocol::TCP, &[0x16; 20]);
    let mut padded = inside_out(&ssh);
    padded.extend_from_slice(b"padding");
    // As the gateway would answer, were it on a wire.
    let mut asks_gateway = arp([203, 0, 113, 9], [203, 0, 113, 1]);
    asks_gateway[ethernet::HEADER + 7] = 2;
    for sent in [
        asks_gateway,
        ospf("203.0.113.1"),
        lldp(),
        ethertype([9; 6], LLDP, &[]),
        inside_out(&ssh),
        padded,
        tagged(&inside_out(&ssh), &[1, 2]),
        inside_out(&datagram("2001:db8:1::1", "2001:db8:2::9", (22, 9), &[6; 1400])),
    ] {
        assert_eq!(from_kernel(&mut world, &kernel, &sent), [sent], "{:?}", world.all_drops());
    }
    assert_eq!((world.all_drops(), world.counters().punted.value()), (vec![], punted));
}

#[test]
fn the_kernel_cannot_send_in_clear_what_policy_protects() {
    let https = |remote: &str| wayfarer_dataplane::sa::Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 443, last: 443 },
        ..selector("0.0.0.0/0", remote)
    };
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1"), selector("::/0", "::/0")];
        config.tunnels[1].selectors = vec![https("10.98.0.0/24"), selector("0.0.0.0/0", "10.98.0.2")];
        config.tunnels[1].hard_time = Some(Duration::from_secs(10));
        let policy = |action, remote| Policy { action, selector: selector("0.0.0.0/0", remote) };
        config.policies =
            vec![policy(PolicyAction::Discard, "10.97.0.0/24"), policy(PolicyAction::Bypass, "10.97.0.9")];
    });
    world.pass(Duration::from_secs(11));
    world.out = Default::default();
    let to = |dst: &str| inside_out(&datagram("203.0.113.1", dst, (22, 9), b"in clear"));
    let mut later = datagram("203.0.113.1", "10.98.0.77", (22, 9), &[0; 64]);
    later[7] = 8;
    ip::set_total_len(&mut later, 20, 92);
    let mut lie = to("192.0.2.9");
    lie[ethernet::HEADER + 10] ^= 1;
    let mut version = to("192.0.2.9");
    version[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    let by_ipv6 = inside_out(&datagram("2001:db8:1::1", "2001:db8:2::9", (22, 9), b"in clear"));
    for (frame, reason) in [
        (to("10.98.0.1"), Unprotected),
        (tagged(&to("10.98.0.1"), &[0]), Unprotected),
        (tagged(&to("10.98.0.1"), &[1, 2]), Unprotected),
        (tagged(&to("10.98.0.1"), &[1, 2, 3]), UnknownEthertype),
        (by_ipv6, Unprotected),
        // Its SA is over, and it is still not for the clear.
        (to("10.98.0.2"), Unprotected),
        (inside_out(&later), FragmentPorts),
        (to("10.97.0.1"), Discard),
        (lie, IpChecksum),
        (version, IpVersion),
        (to("192.0.2.9")[..30].to_vec(), IpTruncated),
    ] {
        let before = world.drops(reason);
        assert_eq!(from_kernel(&mut world, &kernel, &frame).len(), 0, "{reason:?}");
        assert_eq!(world.drops(reason), before + 1, "{:?}", world.all_drops());
    }
    for sent in [to("10.97.0.9"), to("192.0.2.9"), to("10.98.0.77"), solicitation()] {
        assert!(kernel.send(&sent));
        let (worker, _) = &mut world.assembly.workers[0];
        worker.turn();
        assert_eq!(received(&world.wires[OUTSIDE]), [sent]);
    }
}

#[test]
fn runts_from_either_side_are_counted_and_go_nowhere() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let lldp = lldp();
    for length in 0..ethernet::HEADER {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &lldp[..length]).len(), 0);
        assert_eq!(from_kernel(&mut world, &kernel, &lldp[..length]).len(), 0);
        assert_eq!(world.all_drops(), [(RuntFrame, 2 * (length as u64 + 1))]);
    }
    let bare = &lldp[..ethernet::HEADER];
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, bare), [bare]);
}

#[test]
fn a_flood_reaches_the_kernel_at_its_rate_and_disturbs_nobody() {
    const FLOOD: u64 = 100_000;
    const RATE: f64 = 5000.0;
    let began = Instant::now();
    let (mut world, kernel) = gateway(RATE as u32, 4096, |_| {});
    let down = frame(GATEWAY[INSIDE], STATION[INSIDE], &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
    let hello = inside_out(&packet("203.0.113.1", "192.0.2.9", protocol::ICMP, &[0; 8]));
    let kinds =
        [lldp(), ospf("203.0.113.254"), outside(&datagram("192.0.2.9", "203.0.113.1", (9, 22), b"?"))];
    let (mut admitted, mut sealed, mut answers) = (0, 0, 0);
    for sent in (0..FLOOD).step_by(64) {
        for n in (sent..FLOOD).take(64) {
            assert!(world.wires[OUTSIDE].send(&kinds[n as usize % kinds.len()]));
        }
        assert!(world.wires[INSIDE].send(&down) && kernel.send(&hello));
        // One turn for each burst: the worker is never idle.
        world.assembly.workers[0].0.turn();
        for out in received(&world.wires[OUTSIDE]) {
            if out == hello { answers += 1 } else { sealed += 1 }
        }
        admitted += received(&kernel).len() as u64;
        if sent % 6400 == 0 {
            world.assembly.slow_path.turn(world.now);
        }
    }
    let bursts = FLOOD.div_ceil(64);
    assert!(answers + 32 > bursts, "a busy worker turns to the kernel's side too: {answers}");
    world.settle();
    // Of the segment's own traffic, and of the host's.
    let possible = 2.0 * (2.0 * RATE / 10.0 + RATE * began.elapsed().as_secs_f64());
    admitted += received(&kernel).len() as u64;
    answers += world.out[OUTSIDE].iter().filter(|frame| **frame == hello).count() as u64;
    assert_eq!(admitted + world.drops(ExceptionLimit), FLOOD);
    assert_eq!(world.all_drops(), [(ExceptionLimit, FLOOD - admitted)]);
    assert!((RATE as u64 / 10..=possible as u64).contains(&admitted), "{admitted} of {possible}");
    assert_eq!((sealed, answers), (bursts, bursts));
}

#[test]
fn a_flood_of_either_kind_leaves_the_other_its_rate() {
    let host = outside(&datagram("192.0.2.9", "203.0.113.1", (9, 22), b"?"));
    let hello = ospf("203.0.113.254");
    let asks = arp([203, 0, 113, 254], [203, 0, 113, 77]);
    for (flood, others) in [(&host, [&hello, &asks, &lldp()]), (&hello, [&host; 3])] {
        let (mut world, kernel) = gateway(1, 512, |_| {});
        for _ in 0..200 {
            at_kernel(&mut world, &kernel, OUTSIDE, flood);
        }
        assert!(world.drops(ExceptionLimit) > 100);
        for frame in others {
            assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, frame), std::slice::from_ref(frame));
        }
    }
}

#[test]
fn a_flood_of_neighbour_frames_is_held_to_the_rate_too() {
    let began = Instant::now();
    let (mut world, kernel) = gateway(1, 512, |_| {});
    let (mut admitted, mut refused) = (0, 0);
    for host in 0..200 {
        let frame = arp([203, 0, 113, 254], [203, 0, 113, host]);
        match at_kernel(&mut world, &kernel, OUTSIDE, &frame).len() {
            0 => refused += 1,
            _ => admitted += 1,
        }
    }
    // Meeting the neighbours took one of what there was.
    let possible = 32 + began.elapsed().as_secs();
    assert!((31..=possible).contains(&admitted), "{admitted} of {possible}");
    assert_eq!(refused, world.drops(ExceptionLimit));
}

#[test]
fn a_full_ring_to_the_kernel_loses_its_frames_alone() {
    let (mut world, kernel) = gateway(1_000_000, 4, |_| {});
    (0..20).for_each(|_| assert!(world.wires[OUTSIDE].send(&lldp())));
    world.put(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down"));
    world.settle();
    assert_eq!((received(&kernel).len(), world.all_drops()), (4, vec![(TxRingFull, 16)]));
    assert_eq!(world.take(OUTSIDE).len(), 1);
}

#[test]
fn no_frame_is_lost_to_the_pool() {
    let (mut world, kernel) = gateway(1, 4, |_| {});
    let free = |world: &mut World| {
        world.assembly.workers[0].0.run(&std::sync::atomic::AtomicBool::new(true));
        world.counters().free_frames.value()
    };
    let before = free(&mut world);
    for _ in 0..100 {
        for frame in [lldp(), arp([203, 0, 113, 9], [203, 0, 113, 77]), outside(&[]), ospf("10.98.0.1")] {
            assert!(world.wires[OUTSIDE].send(&frame) && kernel.send(&frame));
        }
        world.settle();
    }
    assert_eq!(free(&mut world), before);
}

#[test]
fn only_a_port_without_addresses_can_be_the_kernels_side_of_one_other() {
    let refused = |change: fn(&mut Vec<OpenPort>)| {
        let (mut ports, _wires) = open_ports(1, 4);
        ports.push(tap(OUTSIDE, 1, 4).0);
        change(&mut ports);
        let pool = Pool::new(8, 2048).unwrap();
        let built = Assembly::new(&config(vec![]), vec![Seat { pool, core: None }], ports);
        matches!(built, Err(StartError::Exception { port }) if port == "kernel")
    };
    assert!(!refused(|_| {}));
    assert!(!refused(|ports| ports.push(tap(INSIDE, 1, 4).0)));
    assert!(refused(|ports| ports.push(tap(OUTSIDE, 1, 4).0)), "two sides of one port");
    assert!(refused(|ports| ports.push(tap(2, 1, 4).0)), "a side of a side");
    assert!(refused(|ports| ports.push(tap(3, 1, 4).0)), "a side of itself");
    assert!(refused(|ports| ports.push(tap(usize::MAX, 1, 4).0)), "a side of none");
    assert!(refused(|ports| ports[2].is_host = true));
    assert!(refused(|ports| ports[2].addresses = ports[0].addresses.clone()));
}

#[test]
fn every_worker_has_a_way_of_its_own_between_each_port_and_its_side() {
    let (mut ports, wires) = open_ports(2, 512);
    let (taps, kernel): (Vec<_>, Vec<_>) = [OUTSIDE, INSIDE].map(tap_for_two).into_iter().unzip();
    ports.extend(taps);
    let config = config(vec![tunnel(1, suite(SUITE))]);
    let seat = || Seat { pool: Pool::new(512, 2048).unwrap(), core: None };
    let mut assembly = Assembly::new(&config, vec![seat(), seat()], ports).unwrap();
    let turn = |assembly: &mut Assembly| {
        while assembly.workers.iter_mut().fold(false, |busy, (worker, _)| worker.turn() | busy) {}
    };
    let source = |port, worker| format!("192.0.2.{}", 1 + 2 * port + worker);
    let each = || [OUTSIDE, INSIDE].into_iter().flat_map(|port| [0, 1].map(|worker| (port, worker)));
    let own = ["203.0.113.1", "10.99.0.1"];
    let ssh = |port: usize, worker: usize| {
        let length = 20 + 100 * port + 10 * worker;
        let packet = packet(&source(port, worker), own[port], protocol::TCP, &vec![0x16; length]);
        frame(GATEWAY[port], STATION[port], &packet)
    };
    let hello = |port: usize, worker: usize| ospf(&source(port, worker));
    let answer = |port: usize, worker: usize| {
        let packet = packet(own[port], &source(port, worker), protocol::TCP, &vec![0x61; 99 + worker]);
        frame(STATION[port], GATEWAY[port], &packet)
    };
    for (port, worker) in each() {
        assert!(
            wires[port][worker].send(&ssh(port, worker)) && wires[port][worker].send(&hello(port, worker))
        );
        assert!(kernel[port][worker].send(&answer(port, worker)));
    }
    turn(&mut assembly);
    for (port, worker) in each() {
        assert_eq!(received(&kernel[port][worker]), [ssh(port, worker), hello(port, worker)]);
        assert_eq!(received(&wires[port][worker]), [answer(port, worker)]);
    }
    for worker in &assembly.handles {
        assert!(DropReason::ALL.iter().all(|&reason| worker.counters.drops.of(reason) == 0));
    }
}

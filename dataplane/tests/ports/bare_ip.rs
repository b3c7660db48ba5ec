//! Devices without Ethernet, which carry bare IP packets: here TUN devices.

use crate::{
    frames::{ESP, FRAGMENT, ICMP, ICMPV6, TCP, UDP, ethernet, ip, joined, ports, tcp},
    traffic::{self, Worker},
    world::{RawSocket, Tun, World, wait_for},
};
use std::net::IpAddr;
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        classifier::Rules,
        link_layer::{FAR_MAC, OWN_MAC},
        open::{self, Driver, Kind, OpenDevice, Request, SharedDevice},
    },
    wire::checksum,
};

const LOCAL: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
const FRAMES: usize = 256;
/// The header of a packet that is finished.
const SINGLE: [u8; 10] = [0; 10];

fn open(world: &World, kind: Kind, workers: usize) -> (OpenDevice, Vec<Pool>) {
    let rules = Rules {
        local: LOCAL.map(|a| a.parse().unwrap()).to_vec(),
        udp_ports: vec![500, 4500],
        ..Rules::default()
    };
    let request = Request { device: "tun0", kind, rules, tap_mtu: 1500 };
    let mut pools: Vec<_> = (0..workers).map(|_| Pool::new(FRAMES, 2048).unwrap()).collect();
    (world.gw(|| open::open(&request, &mut pools).unwrap()), pools)
}

/// Opens `tun0` for one worker.
fn worker(world: &World) -> (Worker, SharedDevice) {
    let (mut opened, mut pools) = open(world, Kind::AfPacket, 1);
    ((opened.ports.remove(0), pools.remove(0)), opened.shared.unwrap())
}

fn packet(to: &str, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    ip(to.parse::<IpAddr>().unwrap(), protocol, payload)
}

/// An ICMP error reaches the kernel and the slow path.
#[test]
fn slow_path_hears_of_smaller_mtus() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let (_worker, shared) = worker(&world);
    let (_, mut quoted) = packet("192.0.2.1", ESP, &[0; 16]);
    quoted[12..16].copy_from_slice(&[198, 51, 100, 1]);
    let error = [&[3, 4, 0, 0, 0, 0, 0x05, 0x78][..], &quoted].concat();
    let (_, error) = packet(LOCAL[0], ICMP, &error);
    tun.send(SINGLE, &packet(LOCAL[0], UDP, &ports(53, b"x")).1);
    tun.send(SINGLE, &error);
    let mut room = [0; 2048];
    assert_eq!(wait_for("the error", || shared.too_big.recv(&mut room).map(<[u8]>::to_vec)), error);
}

#[test]
fn packets_get_a_made_up_header_and_lose_it_again() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let (mut opened, mut pools) = open(&world, Kind::Auto, 1);
    assert_eq!((opened.driver, opened.mac, opened.station), (Driver::AfPacketIp, OWN_MAC, Some(FAR_MAC)));
    assert_eq!(opened.driver.to_string(), "af_packet (bare IP)");
    assert!(opened.shared.as_ref().is_some_and(|shared| shared.neighbours.is_none()));
    assert_eq!((opened.monitor.state().mac, opened.monitor.state().is_up), (None, true));
    let reasons: Vec<_> = opened.passed_over.iter().map(|(_, why)| why.to_string()).collect();
    assert_eq!(reasons, ["tun0: AF_XDP needs Ethernet, but this device carries bare IP packets"]);
    let (port, pool) = (&mut *opened.ports[0], &mut pools[0]);
    for length in [20, 500, 1452] {
        for to in ["192.0.2.1", "2001:db8:2::1"] {
            let (ethertype, packet) = packet(to, UDP, &ports(9, &vec![7; length]));
            tun.send(SINGLE, &packet);
            let mut burst = traffic::receive(port, pool);
            assert_eq!(
                (burst.len(), burst[0].data()),
                (1, &ethernet(OWN_MAC, FAR_MAC, ethertype, &packet)[..])
            );
            burst[0].data_mut()[..12].copy_from_slice(&[FAR_MAC, OWN_MAC].concat());
            port.tx(pool, &mut burst);
            assert!(burst.is_empty());
            assert_eq!(wait_for("the packet to return", || tun.try_recv()), packet);
        }
    }
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.rx_bytes), (stats.tx_packets, stats.tx_bytes));
    assert_eq!((stats.tx_errors, stats.rx_errors, pool.available()), (0, 0, FRAMES));
}

#[test]
fn frames_that_are_not_ip_are_refused_and_counted() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let ((mut port, mut pool), _shared) = worker(&world);
    let (ethertype, sound) = packet("192.0.2.1", UDP, &ports(9, b"sound"));
    let mut burst = Burst::new();
    let arp = ethernet([0xff; 6], OWN_MAC, 0x0806, &[1; 46]);
    for frame in [&arp[..], &ethernet(FAR_MAC, OWN_MAC, ethertype, &sound), &arp, &[0; 10]] {
        let mut packet = pool.take().unwrap();
        packet.fill(256, frame).unwrap();
        burst.push(packet);
    }
    port.tx(&mut pool, &mut burst);
    assert_eq!(wait_for("the packet", || tun.try_recv()), sound);
    assert_eq!((burst.len(), port.stats().tx_packets, port.stats().tx_errors), (0, 1, 3));
    assert_eq!((tun.try_recv(), pool.available()), (None, FRAMES));
}

/// What a gateway's port and the host's kernel receive from `tun0`.
struct Receivers {
    tun: Tun,
    worker: Worker,
    kernel: [RawSocket; 2],
    sent: u8,
}

impl Receivers {
    /// Has the device receive a packet with a unique number at its end. Returns whether it is the
    /// gateway's; otherwise it is the kernel's.
    fn is_gateways(&mut self, (_, mut packet): (u16, Vec<u8>)) -> bool {
        self.sent += 1;
        packet.push(self.sent);
        self.tun.send(SINGLE, &packet);
        let is_it = |bytes: &[u8]| bytes.ends_with(&packet[packet.len() - 21..]);
        wait_for("somebody to get the packet", || {
            let (port, pool) = &mut self.worker;
            let mut burst = Burst::new();
            port.rx(pool, &mut burst);
            let is_gateways = burst.iter().any(|packet| is_it(packet.data()));
            pool.give_all(&mut burst);
            let mut kernels = self.kernel.iter().flat_map(|kernel| std::iter::from_fn(|| kernel.try_recv()));
            let is_kernels = kernels.any(|bytes| is_it(&bytes));
            assert!(!(is_gateways && is_kernels));
            (is_gateways || is_kernels).then_some(is_gateways)
        })
    }
}

#[test]
fn ip_header_decides_whose_a_packet_is() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let (worker, shared) = worker(&world);
    let kernel = [libc::ETH_P_IP, libc::ETH_P_IPV6].map(|protocol| world.kernel("tun0", protocol));
    let mut all = Receivers { tun, worker, kernel, sent: 0 };
    let esp = [0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    for (local, foreign, group) in
        [(LOCAL[0], "192.0.2.1", "224.0.0.5"), (LOCAL[1], "2001:db8:2::1", "ff02::5")]
    {
        for (to, protocol, payload, is_gateways) in [
            (local, ESP, &esp[..], true),
            (local, UDP, &ports(4500, &esp), true),
            (local, UDP, &ports(53, &esp), false),
            (local, TCP, &tcp(1, b"for the host"), false),
            (foreign, TCP, &tcp(1, b"to be forwarded"), true),
            (group, UDP, &ports(4500, &esp), false),
        ] {
            assert_eq!(all.is_gateways(packet(to, protocol, payload)), is_gateways, "{to} {protocol}");
        }
    }
    let fragment = |protocol| [&[protocol, 0, 0, 1, 0, 0, 0, 7], &esp[..]].concat();
    assert!(all.is_gateways(packet(LOCAL[1], FRAGMENT, &fragment(ESP))));
    assert!(!all.is_gateways(packet(LOCAL[1], FRAGMENT, &fragment(ICMPV6))));
    shared.classifier.remove_local(LOCAL[0].parse().unwrap()).unwrap();
    assert!(all.is_gateways(packet(LOCAL[0], TCP, &tcp(1, b"no longer the host's"))));
}

#[test]
fn joined_packets_are_cut() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let ((mut port, mut pool), _shared) = worker(&world);
    for (to, kind, header) in [("192.0.2.1", 1, 20), ("2001:db8:2::1", 4, 40)] {
        let payload: Vec<u8> = (0..20_000u32).map(|n| (n / 3) as u8).collect();
        let (ethertype, whole) = packet(to, TCP, &tcp(1, &payload));
        tun.send(joined(kind, 1000, header), &whole);
        let mut received: Vec<u8> = vec![];
        while received.len() < payload.len() {
            let mut burst = traffic::receive(&mut *port, &mut pool);
            for packet in burst.iter() {
                assert_eq!(packet.data()[..14], ethernet(OWN_MAC, FAR_MAC, ethertype, &[]));
                received.extend(&packet.data()[14 + usize::from(header) + 20..]);
            }
            pool.give_all(&mut burst);
        }
        assert_eq!(received, payload);
    }
    assert_eq!((port.stats().rx_packets, pool.available()), (40, FRAMES));
}

#[test]
fn joined_packets_that_are_not_what_they_say_are_counted() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let ((mut port, mut pool), _shared) = worker(&world);
    // Less than a slot of the ring, and more.
    for (count, length) in [(1, 1500), (2, 20_000)] {
        let (_, good) = packet("192.0.2.1", TCP, &tcp(1, &vec![7; length]));
        // A fragment, another protocol, and a TCP header that is too short.
        for (at, value) in [(6, 0x20), (9, UDP), (32, 0x40)] {
            let mut bad = good.clone();
            bad[at] = value;
            bad[10..12].fill(0);
            let sum = checksum::of(&bad[..20]);
            bad[10..12].copy_from_slice(&sum.to_be_bytes());
            tun.send(joined(1, 1000, 20), &bad);
        }
        tun.send(joined(1, 1000, 20), &good);
        let mut received = 0;
        while received < length.div_ceil(1000) {
            let mut burst = traffic::receive(&mut *port, &mut pool);
            received += burst.len();
            pool.give_all(&mut burst);
        }
        assert_eq!((received, port.stats().rx_errors), (length.div_ceil(1000), 3 * count));
    }
    assert_eq!((port.stats().rx_oversize, pool.available()), (0, FRAMES));
}

#[test]
fn flows_are_spread_over_two_workers() {
    let world = World::new(0, 1);
    let tun = world.tun("tun0");
    let (opened, pools) = open(&world, Kind::AfPacket, 2);
    let mut workers: Vec<Worker> = opened.ports.into_iter().zip(pools).collect();
    let mut received = [0; 2];
    for flow in 0..200 {
        tun.send(SINGLE, &packet("192.0.2.1", UDP, &ports(flow, b"flow")).1);
        wait_for("a worker to get it", || {
            let before: u32 = received.iter().sum();
            for ((port, pool), received) in workers.iter_mut().zip(&mut received) {
                let mut burst = Burst::new();
                port.rx(pool, &mut burst);
                *received += burst.len() as u32;
                pool.give_all(&mut burst);
            }
            (received.iter().sum::<u32>() > before).then_some(())
        });
    }
    assert!(received.iter().all(|count| *count > 20), "{received:?}");
}

#[test]
fn af_xdp_is_refused_in_one_line() {
    let world = World::new(0, 1);
    let _tun = world.tun("tun0");
    let request = Request { device: "tun0", kind: Kind::AfXdp, rules: Rules::default(), tap_mtu: 1500 };
    let error = world.gw(|| open::open(&request, &mut [Pool::new(16, 2048).unwrap()])).err().unwrap();
    assert_eq!(error.to_string(), "tun0: AF_XDP needs Ethernet, but this device carries bare IP packets");
}

//! Packet sockets.

use crate::{
    frames::{self, SCTP, TCP, UDP, ethernet, ip, joined, numbered, ports, tcp, unfinished},
    traffic::{self, Worker},
    world::{RawSocket, World, wait_for},
};
use std::sync::Arc;
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Port, PortError,
        af_packet::AfPacketPort,
        classifier::{Classifier, Rules},
        device::Device,
    },
};

const FRAMES: usize = 1024;

fn open(world: &World, queues: usize) -> (Device, Vec<Worker>) {
    world.gw(|| {
        let device = Device::find("gw0").unwrap();
        let classifier = Arc::new(Classifier::packet(&device, &Rules::default()).unwrap());
        let ports = AfPacketPort::open(&device, queues, 2048, &classifier).unwrap();
        let pool = || Pool::new(FRAMES, 2048).unwrap();
        (device, ports.into_iter().map(|p| (Box::new(p) as _, pool())).collect())
    })
}

fn peer(world: &World) -> RawSocket {
    world.peer("peer0")
}

#[test]
fn frames_cross_byte_for_byte() {
    let world = World::new(1, 1);
    let (device, mut ports) = open(&world, 1);
    let (port, pool) = &mut ports[0];
    traffic::round_trip(&mut **port, pool, device.mac(), &peer(&world));
    assert_eq!(pool.available(), FRAMES);
}

#[test]
fn nothing_is_lost_or_doubled_under_back_pressure() {
    let world = World::new(1, 1);
    let (device, mut ports) = open(&world, 1);
    traffic::echo(&mut ports, device.mac(), &peer(&world), 10_000, 200);
    assert_eq!(ports[0].1.available(), FRAMES);
}

#[test]
fn flows_are_spread_over_two_workers() {
    let world = World::new(1, 2);
    let (device, mut ports) = open(&world, 2);
    traffic::echo(&mut ports, device.mac(), &peer(&world), 10_000, 200);
    let received: Vec<_> = ports.iter().map(|(port, _)| port.stats().rx_packets).collect();
    assert_eq!(received.iter().sum::<u64>(), 10_000);
    assert!(received.iter().all(|n| *n > 1000), "{received:?}");
}

#[test]
fn a_full_ring_is_counted_as_missed() {
    let world = World::new(1, 1);
    let (device, mut ports) = open(&world, 1);
    let peer = peer(&world);
    let (port, pool) = &mut ports[0];
    let mut sent = 0;
    wait_for("the ring to overflow", || {
        peer.send(&numbered(device.mac(), peer.mac, 9, sent, 60));
        sent += 1;
        (port.stats().rx_missed > 0).then_some(())
    });
    assert!(sent > 4096);
    // The content of the ring is whole and in order.
    let mut expected = 0;
    while expected < 4096 {
        let mut burst = traffic::receive(&mut **port, pool);
        for packet in burst.iter() {
            assert_eq!(packet.data(), numbered(device.mac(), peer.mac, 9, expected, 60));
            expected += 1;
        }
        pool.give_all(&mut burst);
    }
}

#[test]
fn frames_that_do_not_fit_are_counted() {
    let world = World::new(1, 1);
    world.in_gw("ip link set gw0 mtu 9000");
    world.in_peer("ip link set peer0 mtu 9000");
    let (device, mut ports) = open(&world, 1);
    let peer = peer(&world);
    let (port, pool) = &mut ports[0];
    for (number, len) in [(1, 4000), (2, 1793), (3, 1792)] {
        peer.send(&numbered(device.mac(), peer.mac, 9, number, len));
    }
    let mut burst = traffic::receive(&mut **port, pool);
    assert_eq!((burst.len(), burst[0].len()), (1, 1792));
    pool.give_all(&mut burst);
    let stats = port.stats();
    assert_eq!((stats.rx_oversize, stats.rx_errors, pool.available()), (2, 0, FRAMES));
}

#[test]
fn packets_stay_while_the_device_is_down_and_the_port_says_so() {
    let world = World::new(1, 1);
    let (device, mut ports) = open(&world, 1);
    let mac = peer(&world).mac;
    let (port, pool) = &mut ports[0];
    // Without a carrier, and switched off.
    for is_own in [false, true] {
        let set = |state: &str| match is_own {
            true => world.in_gw(&format!("ip link set gw0 {state}")),
            false => world.in_peer(&format!("ip link set peer0 {state}")),
        };
        let (mut burst, mut packet) = (Burst::new(), pool.take().unwrap());
        packet.fill(256, &numbered(mac, device.mac(), 9, 1, 60)).unwrap();
        burst.push(packet);
        assert!(!port.is_down(), "{is_own}");
        set("down");
        port.tx(pool, &mut burst);
        assert_eq!(burst.len(), 1, "{is_own}");
        wait_for("the kernel to say so", || port.is_down().then_some(()));
        set("up");
        wait_for("the device to be up", || (!port.is_down()).then_some(()));
        port.tx(pool, &mut burst);
        assert_eq!((burst.len(), port.refused()), (0, 0), "{is_own}");
    }
    assert_eq!(pool.available(), FRAMES);
}

/// Has the peer's kernel leave segmentation to its device, as it does by default.
fn joining_peer(world: &World) -> RawSocket {
    world.in_peer("ethtool -K peer0 tx on tso on gso on tx-udp-segmentation on");
    world.joining_peer("peer0")
}

/// Receives `count` packets, in bursts.
fn receive(port: &mut dyn Port, pool: &mut Pool, count: usize) -> Vec<Vec<u8>> {
    let mut all = vec![];
    while all.len() < count {
        let mut burst = traffic::receive(port, pool);
        all.extend(burst.iter().map(|packet| packet.data().to_vec()));
        pool.give_all(&mut burst);
    }
    all
}

#[test]
fn joined_frames_are_cut() {
    let world = World::new(1, 1);
    let (device, mut workers) = open(&world, 1);
    let peer = joining_peer(&world);
    let (port, pool) = &mut workers[0];
    let payload: Vec<u8> = (0..40_000u32).map(|n| (n / 7) as u8).collect();
    let frame = |to: &str, protocol, bytes: &[u8]| {
        let (ethertype, packet) = ip(to.parse().unwrap(), protocol, bytes);
        ethernet(device.mac(), peer.mac, ethertype, &packet)
    };
    // More than a burst of them, and less than a slot of the ring.
    for (length, size) in [(40_000, 1448), (40_000, 300), (1000, 400)] {
        for (to, kind, header) in [("192.0.2.1", 1, 34), ("2001:db8::1", 4, 54)] {
            let payload = &payload[..length];
            let whole = frame(to, TCP, &tcp(0xffff_ff00, payload));
            peer.send(&[&joined(kind, size, header)[..], &whole].concat());
            let packets = receive(&mut **port, pool, length.div_ceil(size.into()));
            let header = usize::from(header) + 20;
            assert_eq!(
                packets.iter().flat_map(|packet| &packet[header..]).copied().collect::<Vec<_>>(),
                payload
            );
            let mut sequence = 0xffff_ff00u32;
            for packet in packets {
                assert_eq!(packet[header - 16..header - 12], sequence.to_be_bytes());
                sequence = sequence.wrapping_add((packet.len() - header) as u32);
            }
        }
    }
    for (to, header) in [("192.0.2.1", 34), ("2001:db8::1", 54)] {
        let whole = frame(to, UDP, &ports(9, &payload[..30_000]));
        peer.send(&[&joined(5, 1000, header)[..], &whole].concat());
        let packets = receive(&mut **port, pool, 30);
        for (packet, part) in packets.iter().zip(payload.chunks(1000)) {
            assert_eq!(
                (&packet[usize::from(header) + 8..], packet[usize::from(header) + 4..][..2].to_vec()),
                (part, vec![3, 240])
            );
        }
    }
    let stats = port.stats();
    assert_eq!((stats.rx_errors, stats.rx_oversize, stats.rx_missed, pool.available()), (0, 0, 0, FRAMES));
}

#[test]
fn joined_frames_beyond_the_sockets_buffer_are_counted_as_missed_and_do_no_harm() {
    let world = World::new(1, 1);
    let (device, mut workers) = open(&world, 1);
    let peer = joining_peer(&world);
    let (port, pool) = &mut workers[0];
    let (ethertype, packet) = ip("192.0.2.1".parse().unwrap(), TCP, &tcp(1, &[7; 60_000]));
    let frame = [&joined(1, 1500, 34)[..], &ethernet(device.mac(), peer.mac, ethertype, &packet)].concat();
    const SENT: u64 = 1000;
    (0..SENT).for_each(|_| peer.send(&frame));
    peer.send(&[&[0; 10][..], &numbered(device.mac(), peer.mac, 9, 7, 60)].concat());
    let mut packets = 0;
    wait_for("the frame behind them", || {
        let mut burst = traffic::receive(&mut **port, pool);
        packets += burst.iter().filter(|packet| packet.len() == 1554).count() as u64;
        let is_last =
            burst.iter().any(|packet| packet.data().len() == 60 && frames::number(packet.data()) == 7);
        pool.give_all(&mut burst);
        is_last.then_some(())
    });
    let stats = port.stats();
    assert!(packets > 40 && packets.is_multiple_of(40) && packets < 40 * SENT, "{packets}");
    assert_eq!((packets / 40 + stats.rx_missed, stats.rx_errors, stats.rx_oversize), (SENT, 0, 0));
    assert_eq!(pool.available(), FRAMES);
}

#[test]
fn too_long_a_frame_does_not_block_later_ones() {
    let world = World::new(1, 1);
    let (device, mut ports) = open(&world, 1);
    let peer = peer(&world);
    let (port, pool) = &mut ports[0];
    let mut burst = Burst::new();
    for (number, len) in [(1, 100), (2, 1700), (3, 100)] {
        let mut packet = pool.take().unwrap();
        packet.fill(256, &numbered(peer.mac, device.mac(), 9, number, len)).unwrap();
        burst.push(packet);
    }
    port.tx(pool, &mut burst);
    assert!(burst.is_empty());
    for number in [1, 3] {
        let frame = wait_for("a frame", || peer.try_recv());
        assert_eq!(frame, numbered(peer.mac, device.mac(), 9, number, 100));
    }
    assert_eq!((port.stats().tx_packets, port.stats().tx_errors, pool.available()), (2, 1, FRAMES));
}

#[test]
fn partial_checksums_of_a_local_sender_are_completed() {
    let world = World::new(1, 1);
    world.in_peer("ethtool -K peer0 tx on");
    world.in_peer("ip addr add 10.0.0.2/24 dev peer0");
    let (device, mut ports) = open(&world, 1);
    let mac = device.mac().map(|b| format!("{b:02x}")).join(":");
    world.in_peer(&format!("ip neigh add 10.0.0.1 lladdr {mac} dev peer0"));
    let (port, pool) = &mut ports[0];
    world.in_peer("bash -c echo${IFS}hello>/dev/udp/10.0.0.1/9");
    let mut burst = traffic::receive(&mut **port, pool);
    let packet = &burst[0].data()[14..];
    assert_eq!(packet[9], 17);
    // RFC 768: the sum over pseudo-header and datagram is all ones.
    let pseudo = [&packet[12..20], &[0, 17], &packet[24..26]].concat();
    let mut covered = packet[20..].to_vec();
    covered.resize(covered.len().next_multiple_of(2), 0);
    let mut sum: u32 = [pseudo, covered]
        .concat()
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    assert_eq!(sum, 0xffff);
    pool.give_all(&mut burst);
}

/// The kernel leaves the CRC32c of its own SCTP to a veth in the same way (RFC 9260 §6.8).
#[test]
fn checksums_of_sctp_that_are_left_to_the_device_are_completed() {
    let world = World::new(1, 1);
    let (device, mut workers) = open(&world, 1);
    let peer = joining_peer(&world);
    let (port, pool) = &mut workers[0];
    let begun = [0x13, 0x88, 0x96, 0x0c, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
    let mut whole = begun;
    whole[8..12].copy_from_slice(&[0x87, 0x00, 0xc8, 0xe5]);
    for (to, header) in [("192.0.2.1", 34), ("2001:db8::1", 54)] {
        let (ethertype, packet) = ip(to.parse().unwrap(), SCTP, &begun);
        let frame = ethernet(device.mac(), peer.mac, ethertype, &packet);
        peer.send(&[&unfinished(header, 8)[..], &frame].concat());
        let packets = receive(&mut **port, pool, 1);
        assert_eq!((packets.len(), &packets[0][usize::from(header)..]), (1, &whole[..]), "{to}");
    }
    assert_eq!((port.stats().rx_errors, pool.available()), (0, FRAMES));
}

#[test]
fn ports_can_be_reopened_repeatedly() {
    let world = World::new(1, 2);
    for _ in 0..10 {
        let (device, mut ports) = open(&world, 2);
        traffic::echo(&mut ports, device.mac(), &peer(&world), 100, 50);
    }
}

#[test]
fn a_missing_device_is_named() {
    let world = World::new(1, 1);
    let error = world.gw(|| Device::find("eth7").unwrap_err());
    assert!(matches!(error, PortError::NoDevice { .. }), "{error}");
    assert_eq!(error.to_string(), "no device named \"eth7\"");
}

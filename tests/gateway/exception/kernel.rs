//! A gateway whose outside port has a kernel's side, and frames from the wire and the kernel.

use wayfarer::sim::{fixtures::*, frames::*, world::World};
use wayfarer::{
    config::model::{Config, Remote},
    launch::{Exception, OpenPort},
    slow_path::neighbours::Stations,
};
use wayfarer_dataplane::{
    port::{
        Mac,
        memory::{self, Wire},
    },
    wire::{
        arp::{Arp, Operation},
        ethernet::{self, Ethernet},
        nd::Neighbour,
    },
};

pub(super) const SUITE: &str = "aes128gcm16";
pub(super) const LLDP: u16 = 0x88cc;
pub(super) const LLDP_GROUP: Mac = [1, 0x80, 0xc2, 0, 0, 0x0e];

/// Makes the kernel's side of port `of`, and the wire to the kernel.
pub(super) fn tap(of: usize, rate: u32, depth: usize) -> (OpenPort, Wire) {
    let (port, wire) = memory::pair(depth, 2048);
    let port = OpenPort {
        name: "kernel".to_owned(),
        exception: Some(Exception { of, rate }),
        ..bare_port(of.min(1), Stations::Ask, vec![Box::new(port)])
    };
    (port, wire)
}

/// Makes the kernel's side of port `of` with a queue for each of two workers, and the wires to the
/// kernel.
pub(super) fn tap_for_two(of: usize) -> (OpenPort, [Wire; 2]) {
    let (mut port, first) = tap(of, 1_000_000, 512);
    let (second, other) = tap(of, 1_000_000, 512);
    port.queues.extend(second.queues);
    (port, [first, other])
}

/// Makes a gateway with two tunnels whose outside has a kernel's side, and the wire to the kernel.
pub(super) fn gateway(rate: u32, depth: usize, change: impl FnOnce(&mut Config)) -> (World, Wire) {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    config.tunnels[0].remote = Remote::At(ip("192.0.2.1"), 0);
    change(&mut config);
    let (mut ports, wires) = open_ports(1, 512);
    let (port, kernel) = tap(OUTSIDE, rate, depth);
    ports.push(port);
    let mut world = World::on(config, (ports, wires));
    world.meet_neighbours();
    received(&kernel);
    (world, kernel)
}

pub(super) fn received(wire: &Wire) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| wire.receive(<[u8]>::to_vec)).collect()
}

/// Sends `frame` to `port`, and returns the frames that the kernel gets.
pub(super) fn at_kernel(world: &mut World, kernel: &Wire, port: usize, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(world.wires[port].send(frame));
    world.settle();
    received(kernel)
}

/// Sends `frame` from the kernel, and returns the frames that leave by the outside.
pub(super) fn from_kernel(world: &mut World, kernel: &Wire, frame: &[u8]) -> Vec<Vec<u8>> {
    assert!(kernel.send(frame));
    world.settle();
    assert_eq!(received(kernel), Vec::<Vec<u8>>::new(), "nothing comes back");
    std::mem::take(&mut world.out[OUTSIDE])
}

/// Makes the frame of `packet` from the station outside.
pub(super) fn outside(packet: &[u8]) -> Vec<u8> {
    to_gateway(OUTSIDE, packet)
}

/// Makes the frame of `packet` from the kernel to the station outside.
pub(super) fn inside_out(packet: &[u8]) -> Vec<u8> {
    frame(STATION_MAC[OUTSIDE], GATEWAY_MAC[OUTSIDE], packet)
}

pub(super) fn ethertype(dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER];
    Ethernet { dst, src: STATION_MAC[OUTSIDE], ethertype }.emit(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

pub(super) fn lldp() -> Vec<u8> {
    ethertype(LLDP_GROUP, LLDP, b"\x02\x07\x04\x02\0\0\0\0\x20\0\0")
}

pub(super) fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let arp = Arp {
        operation: Operation::Request,
        sender_mac: STATION_MAC[OUTSIDE],
        sender: sender.into(),
        target_mac: [0; 6],
        target: target.into(),
    };
    arp.frame(ethernet::BROADCAST)
}

pub(super) fn solicitation() -> Vec<u8> {
    let target = "2001:db8:1::77".parse().unwrap();
    let request = Neighbour { solicitation: true, target, mac: Some(STATION_MAC[OUTSIDE]), solicited: false };
    request.frame(
        STATION_MAC[OUTSIDE],
        "2001:db8:1::fe".parse().unwrap(),
        [0x33, 0x33, 0xff, 0, 0, 0x77],
        target,
    )
}

/// Makes an IP packet of any protocol.
pub(super) fn packet(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_packet(ip(src), ip(dst), protocol, payload)
}

pub(super) fn ospf(src: &str) -> Vec<u8> {
    let hello = packet(src, "224.0.0.5", 89, &[2; 44]);
    frame([1, 0, 0x5e, 0, 0, 5], STATION_MAC[OUTSIDE], &hello)
}

/// Inserts a VLAN tag into `frame` for each of `tags`.
pub(super) fn tagged(frame: &[u8], tags: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = tags.iter().flat_map(|id| [0x81, 0, 0, *id]);
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

//! Packets in fragments to a host that shares its NIC: each reaches whom it is for, also if a later
//! fragment overtakes the first.

use super::{
    closed::{self, bind, drain},
    lab::wait_for,
};
use std::net::IpAddr;
use wayfarer_dataplane::{
    port::{Mac, device::Device, neighbour_socket::NeighbourSocket},
    wire::{
        ethernet::{self, Ethernet},
        fragment::Cutter,
        ip::{self, IpHeader, protocol},
        udp,
    },
};

const COUNT: u16 = 5;
/// The UDP port of a program of the host.
const PROGRAM: u16 = 7000;
const ESP_IN_UDP: u16 = 4500;

/// Returns the frames of a UDP datagram in fragments with this identification.
fn fragments([to, from]: [Mac; 2], [src, dst]: [IpAddr; 2], port: u16, id: u16) -> Vec<Vec<u8>> {
    let length = udp::HEADER + 1200;
    let mut packet = vec![0x55; ip::V6_HEADER + length];
    let start = ip::emit(&mut packet, src, dst, protocol::UDP, length);
    packet.truncate(start + length);
    udp::Udp { src_port: 4500, dst_port: port, length, checksum: 0 }.emit(&mut packet[start..]);
    udp::set_checksum(&mut packet[start..], src, dst);
    let header = IpHeader::parse(&packet).unwrap();
    let cutter = if header.is_ipv4() {
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].fill(0);
        Cutter::v4(&packet, &header, 576)
    } else {
        Cutter::v6(&packet, &header, 576, id.into())
    };
    let frame = |piece: wayfarer_dataplane::wire::fragment::Piece<'_>| {
        let mut frame = vec![0; ethernet::HEADER + piece.len()];
        let ethertype = if src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        Ethernet { dst: to, src: from, ethertype }.emit(&mut frame);
        piece.write(&mut frame[ethernet::HEADER..]);
        frame
    };
    cutter.unwrap().map(frame).collect()
}

/// Checks that the gateway gets all ESP in UDP and a program of the host all of its datagrams, in every
/// order of their fragments, and that the kernel answers nothing to what is the gateway's.
pub(crate) fn fragments_reach_whom_they_are_for_in_any_order(kind: &str) {
    let lab = closed::lab();
    let config = closed::config(kind);
    let gateway = lab.gateway("gw", &config);
    let find = |space, name| lab.enter(space, || Device::find(name).unwrap());
    let own = find("core", "k1");
    let wire = lab.enter("core", || NeighbourSocket::open(&own).unwrap());
    let macs = [find("gw", "g0").mac(), own.mac()];
    let answers = || lab.counted("gw", "Icmp", "OutDestUnreachs") + lab.counted("gw", "Udp", "NoPorts");
    let before = answers();
    let mut sent = 0;
    for (src, dst) in [("192.0.2.254", "192.0.2.1"), ("2001:db8:a::fe", "2001:db8:a::1")] {
        let program = bind(&lab, "gw", dst, PROGRAM);
        let ends = [src, dst].map(|address| address.parse().unwrap());
        // How far the fragments are turned.
        for turned in 0..3 {
            for number in 0..COUNT {
                let id = 16 * turned + number;
                for port in [ESP_IN_UDP, PROGRAM] {
                    let mut frames = fragments(macs, ends, port, 2 * id + u16::from(port == PROGRAM));
                    assert_eq!(frames.len(), 3);
                    frames.rotate_left(turned.into());
                    frames.iter().for_each(|frame| wire.send(frame).unwrap());
                }
            }
            sent += u64::from(COUNT);
            wait_for("the gateway's packets", || (gateway.dropped("UnknownSpi") == sent).then_some(()));
            let mut received = 0;
            wait_for("the host's datagrams", || {
                received += drain(&program);
                (received == usize::from(COUNT)).then_some(())
            });
        }
    }
    assert_eq!(answers(), before);
}

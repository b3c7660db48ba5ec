//! The division of the packets of a NAT, whose address is the host's too.

use crate::{
    classifier::{
        LIKE_LOCAL4, LOCAL4, LOCAL6, Listener, Open,
        Receiver::{Gateway, Kernel},
        af_packet, af_xdp,
    },
    frames::{ICMP, TCP, UDP, ethernet, ip, ports},
    world::World,
};
use std::net::{IpAddr, Ipv4Addr};

const SCTP: u8 = 132;

fn whole_table(open: Open) {
    let world = World::new(1, 1);
    let mut listener = Listener::open(&world, open);
    let (own, from) = (listener.mac, listener.peer.mac);
    for (id, is_used) in [(20_000, true), (29_999, true), (20_001, true), (20_001, false)] {
        listener.classifier.set_ping(LOCAL4.parse().unwrap(), id, is_used).unwrap();
    }
    let to = |destination: &str, protocol, payload: &[u8]| {
        let (ethertype, packet) = ip(destination.parse::<IpAddr>().unwrap(), protocol, payload);
        ethernet(own, from, ethertype, &packet)
    };
    let fragment = |mut frame: Vec<u8>, field: [u8; 2]| {
        frame[20..22].copy_from_slice(&field);
        frame
    };
    let options = |mut frame: Vec<u8>| {
        frame[14] = 0x46;
        frame.splice(34..34, [1, 1, 1, 0]);
        frame
    };
    let (dns, rest) = (ports(53, b"x"), b"a later part".to_vec());
    // Type, identifier, and the rest of an ICMP message.
    let icmp =
        |kind: u8, id: u16, rest: &[u8]| [&[kind, 0, 0, 0][..], &id.to_be_bytes(), &[0, 1], rest].concat();
    let error = |kind: u8, quote: &[u8]| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], quote].concat();
    let sent_by = |source: &str, protocol, payload: &[u8]| {
        let (_, mut packet) = ip("192.0.2.1".parse().unwrap(), protocol, payload);
        packet[12..16].copy_from_slice(&source.parse::<Ipv4Addr>().unwrap().octets());
        packet
    };
    let quoted = |source: &str, protocol, port: u16| {
        sent_by(source, protocol, &[&port.to_be_bytes()[..], &[1, 187, 0, 0, 0, 0]].concat())
    };
    let nat = ports(20_000, b"x");
    let table = [
        ("TCP to a NAT's port", Gateway, to(LOCAL4, TCP, &ports(20_000, b"x"))),
        ("UDP to a NAT's port", Gateway, to(LOCAL4, UDP, &ports(29_999, b"x"))),
        ("UDP to a NAT's port behind IP options", Gateway, options(to(LOCAL4, UDP, &nat))),
        ("TCP below a NAT's ports", Kernel, to(LOCAL4, TCP, &ports(19_999, b"x"))),
        ("UDP above a NAT's ports", Kernel, to(LOCAL4, UDP, &ports(30_000, b"x"))),
        ("UDP to a NAT's port over IPv6", Kernel, to(LOCAL6, UDP, &nat)),
        ("UDP to a NAT's port, IPv6 that ends as its address", Kernel, to(LIKE_LOCAL4, UDP, &nat)),
        ("SCTP to a NAT's port", Kernel, to(LOCAL4, SCTP, &nat)),
        ("TCP to a NAT's port, first fragment", Gateway, fragment(to(LOCAL4, TCP, &nat), [0x20, 0])),
        ("TCP to a NAT's port, later fragment", Gateway, fragment(to(LOCAL4, TCP, &rest), [0, 9])),
        ("UDP to a NAT's port, first fragment", Gateway, fragment(to(LOCAL4, UDP, &nat), [0x20, 0])),
        ("UDP to a NAT's port, later fragment", Gateway, fragment(to(LOCAL4, UDP, &rest), [0, 9])),
        ("TCP to another port, first fragment", Kernel, fragment(to(LOCAL4, TCP, &dns), [0x20, 0])),
        ("TCP to another port, later fragment", Kernel, fragment(to(LOCAL4, TCP, &rest), [0, 9])),
        ("echo reply to a NAT", Gateway, to(LOCAL4, ICMP, &icmp(0, 20_000, b"x"))),
        ("timestamp reply to a NAT", Gateway, to(LOCAL4, ICMP, &icmp(14, 29_999, b"x"))),
        ("echo reply to the host", Kernel, to(LOCAL4, ICMP, &icmp(0, 30_000, b"x"))),
        ("echo reply that no NAT waits for any more", Kernel, to(LOCAL4, ICMP, &icmp(0, 20_001, b"x"))),
        (
            "echo reply that no NAT waits for, first fragment",
            Kernel,
            fragment(to(LOCAL4, ICMP, &icmp(0, 20_002, b"x")), [0x20, 0]),
        ),
        (
            "echo reply that no NAT waits for, later fragment",
            Kernel,
            fragment(to(LOCAL4, ICMP, &rest), [0, 9]),
        ),
        ("echo request", Kernel, to(LOCAL4, ICMP, &icmp(8, 20_000, b"x"))),
        (
            "echo reply to a NAT, first fragment",
            Gateway,
            fragment(to(LOCAL4, ICMP, &icmp(0, 20_000, b"x")), [0x20, 0]),
        ),
        ("echo reply to a NAT, later fragment", Gateway, fragment(to(LOCAL4, ICMP, &rest), [0, 9])),
        ("error about a NAT's TCP", Gateway, to(LOCAL4, ICMP, &error(11, &quoted(LOCAL4, TCP, 20_000)))),
        ("error about a NAT's UDP", Gateway, to(LOCAL4, ICMP, &error(3, &quoted(LOCAL4, UDP, 29_999)))),
        (
            "error about a NAT's ping",
            Gateway,
            to(LOCAL4, ICMP, &error(3, &sent_by(LOCAL4, ICMP, &icmp(8, 20_000, b"")))),
        ),
        (
            "error about a ping of the host, with an identifier of a NAT's range",
            Kernel,
            to(LOCAL4, ICMP, &error(3, &sent_by(LOCAL4, ICMP, &icmp(8, 20_001, b"")))),
        ),
        ("error about the host's TCP", Kernel, to(LOCAL4, ICMP, &error(3, &quoted(LOCAL4, TCP, 19_999)))),
        (
            "error about the host's ping",
            Kernel,
            to(LOCAL4, ICMP, &error(3, &sent_by(LOCAL4, ICMP, &icmp(8, 30_000, b"")))),
        ),
        ("error about another's TCP", Kernel, to(LOCAL4, ICMP, &error(3, &quoted("192.0.2.1", TCP, 20_000)))),
        (
            "error about a NAT's TCP, cut",
            Kernel,
            to(LOCAL4, ICMP, &error(3, &quoted(LOCAL4, TCP, 20_000)[..22])),
        ),
        (
            "error about a NAT's TCP, first fragment",
            Kernel,
            fragment(to(LOCAL4, ICMP, &error(11, &quoted(LOCAL4, TCP, 20_000))), [0x20, 0]),
        ),
        ("error about a NAT's TCP, later fragment", Kernel, fragment(to(LOCAL4, ICMP, &rest), [0, 9])),
        ("redirect", Kernel, to(LOCAL4, ICMP, &error(5, &quoted(LOCAL4, TCP, 20_000)))),
    ];
    for (name, receiver, frame) in table {
        assert_eq!(listener.receiver_of(frame), receiver, "{name}");
    }
    for protocol in [TCP, UDP, ICMP] {
        let mut overtaking = fragment(to(LOCAL4, protocol, &rest), [0, 9]);
        overtaking[18..20].copy_from_slice(&[7, protocol]);
        assert_eq!(listener.receivers_of(overtaking, 2), [Gateway, Kernel], "{protocol}");
    }
}

#[test]
fn xdp_in_the_driver() {
    whole_table(|device, rules, pool| af_xdp(device, rules, pool, true));
}

#[test]
fn xdp_in_the_kernel() {
    whole_table(|device, rules, pool| af_xdp(device, rules, pool, false));
}

#[test]
fn tcx_beside_af_packet() {
    whole_table(af_packet);
}

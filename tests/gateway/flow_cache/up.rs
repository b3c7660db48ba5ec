//! Packets from terminals to servers and to the host, and others from outside.

use super::{
    gateway::{GATEWAY6, inner_host, inner_host6, server, server6},
    odd::*,
    ports::{HOST, STATIONS},
    traffic::{Peer, SIZES, Traffic},
    varied::{TERMINALS, is_counted},
};
use std::{collections::BTreeSet, net::IpAddr};
use wayfarer::sim::{fixtures::*, frames::*};
use wayfarer_dataplane::{
    sa::Mode,
    wire::{
        arp::{Arp, Operation},
        ethernet,
        fragment::V6_FRAGMENT_HEADER,
        icmp::Problem,
        ip::{self, IpHeader, protocol},
        tcp, udp,
    },
};

/// Sealed packets of a terminal that may be replayed.
const RECENT: usize = 8;

/// The kind of an outer packet of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    Plain,
    Other,
    Noise,
}

impl Traffic {
    pub(super) fn send_from_terminals(
        &mut self,
        until: usize,
        is_strict: bool,
        frames: &mut Vec<(usize, Vec<u8>)>,
    ) {
        let mut used = BTreeSet::new();
        while frames.len() < until {
            let n = self.random.index(TERMINALS as usize);
            if self.random.percent(10) {
                frames.push((OUTSIDE, self.in_clear(n)));
            }
            if !used.insert(n) {
                continue;
            }
            let kind = match self.random.below(100) {
                0..75 => Outer::Plain,
                75..95 => Outer::Other,
                _ => Outer::Noise,
            };
            let packets = if kind == Outer::Noise { 1 } else { 1 + self.random.below(5) };
            // The host may send ESP to the gateway as well as anybody.
            let port = if self.random.percent(4) { HOST } else { OUTSIDE };
            for _ in 0..packets {
                let made = self.outer(n, kind, port, is_strict);
                frames.extend(made.into_iter().map(|frame| (port, frame)));
            }
        }
    }

    /// Makes the frames of the next outer packet of terminal `n`, which come by `port`.
    fn outer(&mut self, n: usize, kind: Outer, port: usize, is_strict: bool) -> Vec<Vec<u8>> {
        let (payload, next_header) = match self.peers[n].spec.mode {
            Mode::Tunnel => self.inner_packet(n, is_strict),
            Mode::Transport => self.host_payload(n),
        };
        let (mac, station, id) = (self.macs[port], STATIONS[port], self.serial as u16);
        let Self { random, peers, .. } = self;
        let Peer { terminal, recent, .. } = &mut peers[n];
        terminal.seq += if random.percent(5) { 1 + random.below(100) } else { 1 };
        let mut packet = terminal.seal_as(&payload, next_header, terminal.seq);
        let is_v4 = terminal.address.is_ipv4();
        let header = if is_v4 { ip::V4_HEADER } else { ip::V6_HEADER };
        let whole = |packet: &[u8]| frame(mac, station, packet);
        match kind {
            Outer::Plain => {
                let (at, length) = (random.index(packet.len() - 50) + 50, packet.len());
                match random.below(100) {
                    0..3 => packet[at] ^= 1 << random.index(8),
                    3..5 => packet = cut_to(packet, header + 8 + random.index(length - header - 8)),
                    5..15 => packet = with_class(packet, random.next() as u8),
                    15..20 => packet = with_ttl(packet, 2 + random.below(254) as u8),
                    20..22 => packet = with_wrong_header(packet),
                    _ => {}
                }
                let mut frame = whole(&packet);
                if random.percent(5) {
                    frame.extend([0xee; 6]);
                }
                if recent.len() == RECENT {
                    recent.remove(0);
                }
                recent.push(frame.clone());
                let again = random.percent(6).then(|| recent[random.index(recent.len())].clone());
                [frame].into_iter().chain(again).collect()
            }
            Outer::Other => match random.below(5) {
                0 => vec![whole(&with_ttl(packet, 1))],
                1 => vec![whole(&with_options(packet))],
                2 => vec![tagged(whole(&packet), 0)],
                3 if terminal.port.is_some() => {
                    // Bytes behind the datagram do not belong to it.
                    packet.extend([0xee; 4]);
                    let length = packet.len();
                    ip::set_total_len(&mut packet, ip::V4_HEADER, length);
                    vec![whole(&packet)]
                }
                _ => {
                    let half = (packet.len() - header) / 2;
                    // Over IPv6, each has a header that says that it is one.
                    let headers = header + if is_v4 { 0 } else { V6_FRAGMENT_HEADER };
                    let pieces = fragments(&packet, headers + half.next_multiple_of(8), id);
                    pieces.iter().map(|piece| whole(piece)).collect()
                }
            },
            Outer::Noise => {
                // A fragment would wait for the others. Only an IPv4 header says so there.
                vec![noisy(whole(&packet), &[20, 21], random)]
            }
        }
    }

    /// Makes the next packet in a tunnel of terminal `n`, and its next header.
    fn inner_packet(&mut self, n: usize, is_strict: bool) -> (Vec<u8>, u8) {
        let other = self.random.index(TERMINALS as usize);
        let is_open = !is_strict && !is_counted(&self.peers[other].spec) && other != n;
        let kind = if self.random.percent(65) { 0 } else { self.random.below(20) };
        let (is_v6, is_to_host) = (self.random.percent(35), self.random.percent(8));
        // Another tunnel may have to cut what is longer.
        let is_for_other = matches!(kind, 15 | 16) && is_open;
        let size = self.random.index(if is_v6 && is_for_other { 3 } else { SIZES.len() });
        let size = if kind == 3 && !self.may_cut(size) { 0 } else { size };
        let payload = self.payload(size);
        let id = self.serial as u16;
        let host = if self.random.percent(80) { 1 } else { self.random.below(4) as u32 };
        let of = |n: usize, host| match is_v6 {
            true => inner_host6(n as u32, host),
            false => inner_host(n as u32, host),
        };
        let server_number = self.random.below(4) as u32;
        let src = of(n, host);
        let dst = match (is_v6, is_to_host) {
            (true, true) => GATEWAY6,
            (true, false) => server6(server_number),
            (false, true) => GATEWAY,
            (false, false) => server(server_number),
        };
        let ports = ([1001, 1002, 2500][self.random.index(3)], 53);
        let datagram = || udp_packet(src, dst, ports, &payload);
        let packet = match kind {
            1 | 2 => tcp_packet(src, dst, ports, tcp::ACK, &payload),
            3 if !is_v6 => uncut(datagram(), id),
            4 => with_class(datagram(), self.random.next() as u8),
            5 => with_ttl(datagram(), id as u8 & 1),
            6 => tcp_packet(src, dst, ports, tcp::SYN, &payload),
            7 => ping(src, dst, &payload),
            8 => {
                let quoted = udp_packet(dst, src, (ports.1, ports.0), &payload);
                let from = if is_v6 || self.random.percent(50) { src } else { ip("10.98.200.1") };
                error_about(&quoted, from, Problem::TimeExceeded)
            }
            9 if !is_v6 => {
                let long = udp_packet(src, dst, ports, &[&payload[..], &[0; 300][..]].concat());
                fragments(&long, 200, id).swap_remove(usize::from(id & 1))
            }
            10 => with_options(datagram()),
            11 => with_wrong_header(datagram()),
            12 => ip_packet(src, dst, 47, &payload),
            13 => udp_packet(of(n + 1, 1), dst, ports, &payload),
            14 => udp_packet(src, ip(if is_v6 { "fd00:97::1" } else { "10.97.0.1" }), ports, &payload),
            15 | 16 if is_open => udp_packet(src, of(other, 1), ports, &payload),
            17 => return (payload, protocol::NONE),
            18 => return (datagram(), protocol::UDP),
            19 => return (payload, protocol::IPV4),
            _ => datagram(),
        };
        let next_header = if packet[0] >> 4 == 6 { protocol::IPV6 } else { protocol::IPV4 };
        (packet, next_header)
    }

    /// Makes the next payload of terminal `n` in transport mode, and its protocol.
    fn host_payload(&mut self, n: usize) -> (Vec<u8>, u8) {
        let kind = if self.random.percent(65) { 0 } else { self.random.below(12) };
        let size = self.random.index(SIZES.len());
        let payload = self.payload(size);
        let ports = ([1001, 1002, 2500][self.random.index(3)], 53);
        let (src, dst) = (self.peers[n].terminal.address, self.peers[n].terminal.gateway);
        let datagram = || udp_packet(src, dst, ports, &payload);
        let mut packet = match kind {
            1 | 2 => tcp_packet(src, dst, ports, tcp::ACK, &payload),
            3 => tcp_packet(src, dst, ports, tcp::SYN, &payload),
            4 => ping(src, dst, &payload),
            5 => ip_packet(src, dst, 47, &payload),
            6 => return (payload, protocol::NONE),
            7 => return (datagram(), if src.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 }),
            // Ports only, or less.
            8 => return (payload[..3].to_vec(), protocol::UDP),
            9 => return (payload[..12].to_vec(), protocol::TCP),
            10 => {
                let quoted = udp_packet(dst, src, (ports.1, ports.0), &payload);
                error_about(&quoted, src, Problem::TimeExceeded)
            }
            _ => datagram(),
        };
        let header = IpHeader::parse(&packet).expect("an IP packet");
        if kind == 11 {
            // Without a checksum.
            packet[header.header_len() + 6..header.header_len() + 8].fill(0);
        }
        (packet[header.header_len()..].to_vec(), header.protocol)
    }

    /// Makes a frame that comes from outside in clear.
    fn in_clear(&mut self, n: usize) -> Vec<u8> {
        let payload = self.payload(1);
        let (stranger, own, router, server, inner): (_, _, _, _, IpAddr) = match self.random.percent(30) {
            true => {
                let ends = ["2001:db8:2::200", "2001:db8:2::fe"].map(ip);
                (ends[0], GATEWAY6, ends[1], server6(0), inner_host6(n as u32, 1))
            }
            false => {
                let ends = ["192.0.2.200", "192.0.2.254"].map(ip);
                (ends[0], GATEWAY, ends[1], server(0), inner_host(n as u32, 1))
            }
        };
        let to_gateway = |port, payload: &[u8]| udp_packet(stranger, own, (999, port), payload);
        let packet = match self.random.below(11) {
            0 => udp_packet(stranger, server, (1, 2), &payload),
            1 => udp_packet(inner, server, (1001, 53), &payload),
            2 => to_gateway(9, &payload),
            3 => to_gateway(4500, &[0xff]),
            4 => to_gateway(500, &payload),
            5 => to_gateway(4500, &[&[0; 4][..], &payload[..]].concat()),
            6 => {
                let sealed = ip_packet(own, stranger, protocol::ESP, &payload);
                error_about(&sealed, router, Problem::TooBig { mtu: 1300 })
            }
            7 => ping(stranger, own, &payload),
            8 => {
                let mut datagram = to_gateway(4500, &payload);
                // A length that is not its own.
                let header = if own.is_ipv4() { ip::V4_HEADER } else { ip::V6_HEADER };
                let at = header + udp::HEADER - 4;
                datagram[at..at + 2].copy_from_slice(&7_u16.to_be_bytes());
                datagram
            }
            9 => {
                // In transport mode, a tunnel is for these.
                let path = self.peers[n].spec.path;
                udp_packet(path.remote, path.local, (1001, 53), &payload)
            }
            _ => {
                let request = Arp {
                    operation: Operation::Request,
                    sender_mac: STATION_MAC[OUTSIDE],
                    sender: [192, 0, 2, 200].into(),
                    target_mac: [0; 6],
                    target: [203, 0, 113, 1].into(),
                };
                return request.frame(ethernet::BROADCAST);
            }
        };
        frame(self.macs[OUTSIDE], STATION_MAC[OUTSIDE], &packet)
    }
}

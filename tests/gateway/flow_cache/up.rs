//! Packets from terminals to servers, and others from outside.

use super::{
    gateway::{inner, inner_host, inner6, server, server6},
    odd::*,
    traffic::{Peer, SIZES, Traffic},
    varied::{TERMINALS, is_counted},
};
use std::collections::BTreeSet;
use wayfarer::sim::{fixtures::*, frames::*};
use wayfarer_dataplane::wire::{
    arp::{Arp, Operation},
    ethernet,
    icmp::Problem,
    ip::{self, protocol},
    tcp, udp,
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
            for _ in 0..packets {
                let made = self.outer(n, kind, is_strict);
                frames.extend(made.into_iter().map(|frame| (OUTSIDE, frame)));
            }
        }
    }

    /// Makes the frames of the next outer packet of terminal `n`.
    fn outer(&mut self, n: usize, kind: Outer, is_strict: bool) -> Vec<Vec<u8>> {
        let (payload, next_header) = self.inner_packet(n, is_strict);
        let (mac, station, id) = (self.macs[OUTSIDE], STATION_MAC[OUTSIDE], self.serial as u16);
        let Self { random, peers, .. } = self;
        let Peer { terminal, recent, .. } = &mut peers[n];
        terminal.seq += if random.percent(5) { 1 + random.below(100) } else { 1 };
        let mut packet = terminal.seal_as(&payload, next_header, terminal.seq);
        let is_v4 = terminal.address.is_ipv4();
        let whole = |packet: &[u8]| frame(mac, station, packet);
        match kind {
            Outer::Plain => {
                let (at, length) = (random.index(packet.len() - 50) + 50, packet.len());
                match random.below(100) {
                    0..3 => packet[at] ^= 1 << random.index(8),
                    3..5 if is_v4 => packet = cut_to(packet, 28 + random.index(length - 28)),
                    5..15 => packet = with_class(packet, random.next() as u8),
                    15..20 if is_v4 => packet = with_ttl(packet, 2 + random.below(254) as u8),
                    20..22 if is_v4 => packet[10] ^= 0x55,
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
            Outer::Other if is_v4 => match random.below(5) {
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
                    let half = (packet.len() - ip::V4_HEADER) / 2;
                    let pieces = fragments(&packet, ip::V4_HEADER + half.next_multiple_of(8), id);
                    pieces.iter().map(|piece| whole(piece)).collect()
                }
            },
            Outer::Noise if is_v4 => {
                // A fragment would wait for the others.
                vec![noisy(whole(&packet), &[20, 21], random)]
            }
            Outer::Other | Outer::Noise => vec![whole(&packet)],
        }
    }

    /// Makes the next packet in a tunnel of terminal `n`, and its next header.
    fn inner_packet(&mut self, n: usize, is_strict: bool) -> (Vec<u8>, u8) {
        let other = self.random.index(TERMINALS as usize);
        let is_open = !is_strict && !is_counted(&self.peers[other].spec) && other != n;
        let kind = if self.random.percent(65) { 0 } else { self.random.below(20) };
        let size = self.random.index(SIZES.len());
        let size = if kind == 3 && !self.may_cut(size) { 0 } else { size };
        let payload = self.payload(size);
        let id = self.serial as u16;
        let host = if self.random.percent(80) { 1 } else { self.random.below(4) as u32 };
        let (n, other) = (n as u32, other as u32);
        let (src, dst) = (inner_host(n, host), server(self.random.below(4) as u32));
        let ports = ([1001, 1002, 2500][self.random.index(3)], 53);
        let datagram = || udp_packet(src, dst, ports, &payload);
        let packet = match kind {
            1 | 2 => tcp_packet(src, dst, ports, tcp::ACK, &payload),
            3 => uncut(datagram(), id),
            4 => with_class(datagram(), self.random.next() as u8),
            5 => with_ttl(datagram(), id as u8 & 1),
            6 => tcp_packet(src, dst, ports, tcp::SYN, &payload),
            7 => ping(src, dst, &payload),
            8 => {
                let quoted = udp_packet(dst, src, (ports.1, ports.0), &payload);
                let from = if self.random.percent(50) { src } else { ip("10.98.200.1") };
                error_about(&quoted, from, Problem::TimeExceeded)
            }
            9 => {
                let long = udp_packet(src, dst, ports, &[&payload[..], &[0; 300][..]].concat());
                fragments(&long, 200, id).swap_remove(usize::from(id & 1))
            }
            10 => with_options(datagram()),
            11 => {
                let mut packet = datagram();
                packet[10] ^= 0x55;
                packet
            }
            12 => udp_packet(inner6(n), server6(0), ports, &payload[..payload.len().min(200)]),
            13 => udp_packet(inner(n + 1), dst, ports, &payload),
            14 => udp_packet(src, ip("10.97.0.1"), ports, &payload),
            15 | 16 if is_open => udp_packet(src, inner(other), ports, &payload),
            17 => return (payload, protocol::NONE),
            18 => return (datagram(), protocol::UDP),
            19 => return (payload, protocol::IPV4),
            _ => datagram(),
        };
        let next_header = if packet[0] >> 4 == 6 { protocol::IPV6 } else { protocol::IPV4 };
        (packet, next_header)
    }

    /// Makes a frame that comes from outside in clear.
    fn in_clear(&mut self, n: usize) -> Vec<u8> {
        let payload = self.payload(1);
        let stranger = ip("192.0.2.200");
        let to_gateway = |port, payload: &[u8]| udp_packet(stranger, GATEWAY, (999, port), payload);
        let packet = match self.random.below(10) {
            0 => udp_packet(stranger, server(0), (1, 2), &payload),
            1 => udp_packet(inner(n as u32), server(0), (1001, 53), &payload),
            2 => to_gateway(9, &payload),
            3 => to_gateway(4500, &[0xff]),
            4 => to_gateway(500, &payload),
            5 => to_gateway(4500, &[&[0; 4][..], &payload[..]].concat()),
            6 => {
                let sealed = ip_packet(GATEWAY, stranger, protocol::ESP, &payload);
                error_about(&sealed, ip("192.0.2.254"), Problem::TooBig { mtu: 1300 })
            }
            7 => ping(stranger, GATEWAY, &payload),
            8 => {
                let mut datagram = to_gateway(4500, &payload);
                // A length that is not its own.
                let at = ip::V4_HEADER + udp::HEADER - 4;
                datagram[at..at + 2].copy_from_slice(&7_u16.to_be_bytes());
                datagram
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

//! Packets from servers to terminals.

use super::{
    gateway::{inner, inner_host, inner6, server, server6},
    odd::*,
    traffic::{SIZES, Traffic},
    varied::{TERMINALS, is_counted},
};
use std::collections::BTreeMap;
use wayfarer::sim::{fixtures::*, frames::*};
use wayfarer_dataplane::{
    sa::Selector,
    wire::{ethernet, icmp::Problem, ip::protocol, tcp},
};

/// The kind of the packets of a flow from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Udp,
    Tcp,
    Marked,
    Padded,
    Uncut,
    LastHop,
    Syn,
    Ping,
    Error,
    Fragment,
    Options,
    WrongSum,
    Cut,
    Stranger,
    ForeignMac,
    Group,
    Priority,
    OtherVlan,
    V6,
    Gre,
    Sctp,
    Dhcp,
    ToGateway,
    Noise,
}

impl Down {
    const PLAIN: [Self; 4] = [Self::Udp, Self::Tcp, Self::Marked, Self::Padded];
    const OTHER: [Self; 20] = [
        Self::Uncut,
        Self::LastHop,
        Self::Syn,
        Self::Ping,
        Self::Error,
        Self::Fragment,
        Self::Options,
        Self::WrongSum,
        Self::Cut,
        Self::Stranger,
        Self::ForeignMac,
        Self::Group,
        Self::Priority,
        Self::OtherVlan,
        Self::V6,
        Self::Gre,
        Self::Sctp,
        Self::Dhcp,
        Self::ToGateway,
        Self::Noise,
    ];
}

/// A flow from a server. All of its packets are of one kind and one length.
#[derive(Clone, Copy, Debug)]
struct Flow {
    n: u32,
    host: u32,
    server: u32,
    kind: Down,
    size: usize,
    port: u16,
}

impl Traffic {
    pub(super) fn send_from_servers(
        &mut self,
        until: usize,
        is_strict: bool,
        frames: &mut Vec<(usize, Vec<u8>)>,
    ) {
        let mut only = BTreeMap::new();
        while frames.len() < until {
            let n = self.random.below(TERMINALS.into()) as u32;
            let spec = &self.peers[n as usize].spec;
            let is_single = is_strict || is_counted(spec);
            let is_cut_outside = spec.outer_fragments || spec.selectors.iter().any(Selector::has_ports);
            let kind = match self.random.percent(70) {
                true => Down::PLAIN[self.random.index(Down::PLAIN.len())],
                false => Down::OTHER[self.random.index(Down::OTHER.len())],
            };
            // What is changed at random may be for another tunnel.
            let kind = if is_single && kind == Down::Noise { Down::Udp } else { kind };
            let flow = Flow {
                n,
                host: if self.random.percent(80) { 1 } else { self.random.below(4) as u32 },
                server: if self.random.percent(60) { 0 } else { self.random.below(4) as u32 },
                kind,
                size: self.random.index(SIZES.len()),
                port: [1001, 1002, 2500][self.random.index(3)],
            };
            let flow = if is_single { *only.entry(n).or_insert(flow) } else { flow };
            let may_be_cut = flow.kind == Down::Uncut || is_cut_outside;
            if may_be_cut && !self.may_cut(flow.size) {
                continue;
            }
            let copies = if may_be_cut { 1 } else { 1 + self.random.below(3) };
            for _ in 0..copies {
                frames.push((INSIDE, self.frame_of(&flow)));
            }
        }
    }

    /// Makes the next frame of a flow.
    fn frame_of(&mut self, flow: &Flow) -> Vec<u8> {
        let Flow { n, host, kind, size, .. } = *flow;
        let payload = self.payload(size);
        let id = self.serial as u16;
        let (src, dst) = (server(flow.server), inner_host(n, host));
        // They tell kinds and lengths apart.
        let ports = (2000 + kind as u16 * 16 + size as u16, flow.port);
        let datagram = || udp_packet(src, dst, ports, &payload);
        let mac = self.macs[INSIDE];
        let station = STATION_MAC[INSIDE];
        let packet = match kind {
            Down::Udp | Down::Padded | Down::ForeignMac | Down::Group | Down::Priority | Down::OtherVlan => {
                datagram()
            }
            Down::Tcp => tcp_packet(src, dst, ports, tcp::ACK, &payload),
            Down::Marked => with_class(datagram(), self.random.next() as u8),
            Down::Uncut => uncut(datagram(), id),
            Down::LastHop => with_ttl(datagram(), id as u8 & 1),
            Down::Syn => tcp_packet(src, dst, ports, tcp::SYN, &payload),
            Down::Ping => ping(src, dst, &payload),
            Down::Error => {
                let quoted = udp_packet(dst, src, (ports.1, ports.0), &payload);
                error_about(&quoted, server(200), Problem::TimeExceeded)
            }
            Down::Fragment => {
                let whole = udp_packet(src, dst, ports, &[&payload[..], &[0; 300][..]].concat());
                fragments(&whole, 200, id).swap_remove(usize::from(id & 1))
            }
            Down::Options => with_options(datagram()),
            Down::WrongSum => {
                let mut packet = datagram();
                packet[10] ^= 0x55;
                packet
            }
            Down::Cut => {
                let mut packet = datagram();
                packet.pop();
                packet
            }
            Down::Stranger => {
                let strangers = [ip("192.0.2.200"), inner(n), inner(n + 1), ip("127.0.0.1"), ip("240.0.0.1")];
                let nowhere =
                    [ip("10.97.0.1"), ip("169.254.0.9"), ip("224.0.0.5"), ip("192.0.2.9"), ip("0.0.0.7")];
                match flow.port {
                    1001 => udp_packet(strangers[size % 5], dst, ports, &payload),
                    _ => udp_packet(src, nowhere[size % 5], ports, &payload),
                }
            }
            Down::V6 => {
                udp_packet(server6(flow.server), inner6(n), ports, &payload[..payload.len().min(200)])
            }
            Down::Gre => ip_packet(src, dst, 47, &payload),
            Down::Sctp => {
                let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                ip_packet(src, dst, protocol::SCTP, &[&ports[..], &payload[..]].concat())
            }
            Down::Dhcp => udp_packet(src, dst, (67, 68), &payload),
            Down::ToGateway => udp_packet(src, GATEWAY, (ports.0, 4500), &payload),
            Down::Noise => {
                // A flow of its own, whose destination and ports stay.
                let packet = udp_packet(src, dst, (0x9cee, id | 0x8000), &payload);
                let kept: Vec<_> = (30..38).collect();
                return noisy(frame(mac, station, &packet), &kept, &mut self.random);
            }
        };
        match kind {
            Down::ForeignMac => frame([2, 0, 0, 0, 0xf, 0xf], station, &packet),
            Down::Group => frame(ethernet::BROADCAST, station, &packet),
            Down::Priority => tagged(frame(mac, station, &packet), 0),
            Down::OtherVlan => tagged(frame(mac, station, &packet), 5),
            Down::Padded => [frame(mac, station, &packet), vec![0xee; 18]].concat(),
            _ => frame(mac, station, &packet),
        }
    }
}

//! Packets to terminals, from servers and from the host's own stack.

use super::{
    gateway::{GATEWAY6, Spec, inner, inner_host, inner_host6, server, server6},
    odd::*,
    ports::{HOST, STATIONS},
    traffic::{SIZES, Traffic, is_short},
    varied::{TERMINALS, is_counted},
};
use std::{collections::BTreeMap, net::IpAddr};
use wayfarer::sim::{fixtures::*, frames::*, random::Random};
use wayfarer_dataplane::{
    sa::{Mode, Selector},
    wire::{ethernet, icmp::Problem, ip::protocol, tcp},
};

/// The kind of the packets of a flow to a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Udp,
    Tcp,
    Marked,
    Padded,
    LastHop,
    Syn,
    Ping,
    Options,
    WrongHeader,
    Cut,
    ForeignMac,
    Group,
    Priority,
    OtherVlan,
    Gre,
    Sctp,
    Dhcp,
    Stranger,
    Uncut,
    Error,
    Fragment,
    ToGateway,
    Noise,
}

impl Down {
    const PLAIN: [Self; 4] = [Self::Udp, Self::Tcp, Self::Marked, Self::Padded];
    /// Those that are made of both families, by servers and the host.
    const OTHER: [Self; 13] = [
        Self::LastHop,
        Self::Syn,
        Self::Ping,
        Self::Options,
        Self::WrongHeader,
        Self::Cut,
        Self::ForeignMac,
        Self::Group,
        Self::Priority,
        Self::OtherVlan,
        Self::Gre,
        Self::Sctp,
        Self::Dhcp,
    ];
    /// Those that only servers make, of IPv4.
    const OF_SERVERS: [Self; 6] =
        [Self::Stranger, Self::Uncut, Self::Error, Self::Fragment, Self::ToGateway, Self::Noise];

    /// Draws a kind for packets between `ends`.
    fn draw(ends: Ends, random: &mut Random) -> Self {
        match random.below(100) {
            0..70 => Self::PLAIN[random.index(Self::PLAIN.len())],
            70..90 if ends == Ends::V4 => {
                let all = [&Self::OTHER[..], &Self::OF_SERVERS[..]].concat();
                all[random.index(all.len())]
            }
            _ => Self::OTHER[random.index(Self::OTHER.len())],
        }
    }
}

/// The ends of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// A server and the inner address of a terminal.
    V4,
    V6,
    /// The host, and the inner address of a terminal. In transport mode, the outer one.
    Host,
    Host6,
}

impl Ends {
    /// Draws the ends of a flow through the tunnel of `spec`.
    fn draw(spec: &Spec, random: &mut Random) -> Self {
        match random.below(100) {
            _ if spec.mode == Mode::Transport && spec.path.remote.is_ipv4() => Self::Host,
            _ if spec.mode == Mode::Transport => Self::Host6,
            0..60 => Self::V4,
            60..88 => Self::V6,
            88..95 => Self::Host,
            _ => Self::Host6,
        }
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::V6 | Self::Host6)
    }

    /// Returns the port by which packets come.
    fn port(self) -> usize {
        if matches!(self, Self::Host | Self::Host6) { HOST } else { INSIDE }
    }
}

/// A flow to a terminal. All of its packets are of one kind and one length.
#[derive(Clone, Copy, Debug)]
struct Flow {
    n: u32,
    ends: Ends,
    host: u32,
    server: u32,
    kind: Down,
    size: usize,
    port: u16,
}

impl Flow {
    /// Returns source and destination of packets through the tunnel of `spec`.
    fn addresses(&self, spec: &Spec) -> (IpAddr, IpAddr) {
        let Self { n, host, .. } = *self;
        match self.ends {
            Ends::V4 => (server(self.server), inner_host(n, host)),
            Ends::V6 => (server6(self.server), inner_host6(n, host)),
            _ if spec.mode == Mode::Transport => (spec.path.local, spec.path.remote),
            Ends::Host => (GATEWAY, inner_host(n, host)),
            Ends::Host6 => (GATEWAY6, inner_host6(n, host)),
        }
    }
}

impl Traffic {
    pub(super) fn send_to_terminals(
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
            let ends = Ends::draw(spec, &mut self.random);
            let kind = Down::draw(ends, &mut self.random);
            // What is changed at random may be for another tunnel.
            let kind = if is_single && kind == Down::Noise { Down::Udp } else { kind };
            let flow = Flow {
                n,
                ends,
                host: if self.random.percent(80) { 1 } else { self.random.below(4) as u32 },
                server: if self.random.percent(60) { 0 } else { self.random.below(4) as u32 },
                kind,
                size: self.random.index(SIZES.len()),
                port: [1001, 1002, 2500][self.random.index(3)],
            };
            let flow = if is_single { *only.entry(n).or_insert(flow) } else { flow };
            // Outer packets of IPv6 ones are cut if those are not longer than every path takes.
            let may_be_cut = flow.kind == Down::Uncut || is_cut_outside || flow.ends.is_v6();
            if may_be_cut && !self.may_cut(flow.size) {
                continue;
            }
            let is_alone = flow.kind == Down::Uncut || is_cut_outside || !is_short(flow.size);
            let copies = if may_be_cut && is_alone { 1 } else { 1 + self.random.below(3) };
            for _ in 0..copies {
                frames.push((flow.ends.port(), self.frame_of(&flow)));
            }
        }
    }

    /// Makes the next frame of a flow.
    fn frame_of(&mut self, flow: &Flow) -> Vec<u8> {
        let Flow { n, kind, size, .. } = *flow;
        let payload = self.payload(size);
        let id = self.serial as u16;
        let (src, dst) = flow.addresses(&self.peers[n as usize].spec);
        // They tell kinds and lengths apart.
        let ports = (2000 + kind as u16 * 16 + size as u16, flow.port);
        let datagram = || udp_packet(src, dst, ports, &payload);
        let port = flow.ends.port();
        let (mac, station) = (self.macs[port], STATIONS[port]);
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
            Down::WrongHeader => with_wrong_header(datagram()),
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

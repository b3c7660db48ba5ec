//! Kinds of tunnels, and of the flows through them.

use super::{
    gateway::{GATEWAY6, Spec, inner, inner6, path, server, server6},
    odd::ping,
    ports::{HOST, Ports},
};
use std::net::IpAddr;
use wayfarer::sim::{
    fixtures::*,
    frames::{forwarded, udp_packet},
    terminal::Terminal,
};
use wayfarer_dataplane::{
    sa::{Encap, Mode, Path},
    wire::ip::{self, protocol},
};

/// Bytes that ESP adds before and behind a payload, without padding (RFC 4303 §2): SPI and number, IV, pad
/// length and next header, ICV of AES-GCM-16.
const ESP: usize = 8 + 8 + 2 + 16;

/// A kind of tunnel, and of the flows through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) mode: Mode,
    is_v6: bool,
    is_outer_v6: bool,
    has_udp: bool,
    /// `true` if the terminal talks to the gateway's host, not to a server.
    pub(super) is_host: bool,
}

impl Kind {
    /// IPv4 in IPv4, between a terminal and a server.
    pub(super) const USUAL: Self =
        Self { mode: Mode::Tunnel, is_v6: false, is_outer_v6: false, has_udp: false, is_host: false };

    /// Returns all kinds.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![];
        for (is_v6, has_udp) in [(false, false), (false, true), (true, false), (true, true)] {
            for is_outer_v6 in [false, true] {
                all.push(Self { is_v6, is_outer_v6, has_udp, ..Self::USUAL });
            }
            all.push(Self { is_v6, is_outer_v6: !is_v6, has_udp, is_host: true, ..Self::USUAL });
            all.push(Self { mode: Mode::Transport, is_v6, is_outer_v6: is_v6, has_udp, is_host: true });
        }
        all
    }

    /// Returns whether sealed packets have a UDP checksum.
    pub(super) fn has_checksum(self) -> bool {
        self.is_outer_v6 && self.has_udp
    }

    /// Returns the ports that a gateway with such tunnels needs.
    pub(super) fn ports(self) -> Ports {
        if self.is_host { Ports::WithHost } else { Ports::Two }
    }

    /// Returns the port at which the terminal's partner is.
    pub(super) fn port(self) -> usize {
        if self.is_host { HOST } else { INSIDE }
    }

    /// Returns the path to terminal `n`, or another one if it `has_moved`. In transport mode, its address
    /// stays.
    pub(super) fn path(self, n: u32, has_moved: bool) -> Path {
        let family = if self.is_outer_v6 { 2 } else { 0 };
        let has_udp = self.has_udp || (has_moved && self.mode == Mode::Transport);
        let remote = 40_000 + u16::from(has_moved);
        let encap = if has_udp { Encap::Udp { local: 4500, remote } } else { Encap::None };
        let address = if self.mode == Mode::Tunnel { family + u32::from(has_moved) } else { family };
        path(n, address, encap)
    }

    /// Returns the addresses of the terminal's partner, and of terminal `n`.
    pub(super) fn ends(self, n: u32) -> (IpAddr, IpAddr) {
        let here = match (self.is_host, self.is_v6) {
            (true, false) => GATEWAY,
            (true, true) => GATEWAY6,
            (false, false) => server(0),
            (false, true) => server6(0),
        };
        let there = match (self.mode, self.is_v6) {
            (Mode::Transport, _) => self.path(n, false).remote,
            (Mode::Tunnel, false) => inner(n),
            (Mode::Tunnel, true) => inner6(n),
        };
        (here, there)
    }

    /// Returns the network of the terminal's partner, and of all terminals.
    pub(super) fn networks(self) -> (&'static str, &'static str) {
        let here = match (self.is_host, self.is_v6) {
            (true, false) => "203.0.113.0/24",
            (true, true) => "2001:db8:1::/64",
            (false, false) => "10.99.0.0/24",
            (false, true) => "fd00:99::/64",
        };
        let there = match (self.mode, self.is_v6) {
            (Mode::Transport, false) => "192.0.2.0/24",
            (Mode::Transport, true) => "2001:db8:2::/64",
            (Mode::Tunnel, false) => "10.98.0.0/16",
            (Mode::Tunnel, true) => "fd00:98::/64",
        };
        (here, there)
    }

    /// Returns the network of the peers' outer addresses.
    pub(super) fn outer_network(self) -> &'static str {
        if self.is_outer_v6 { "2001:db8:2::/48" } else { "192.0.2.0/24" }
    }

    /// Returns the parameters of the tunnel of terminal `n`, for packets of the partner's network.
    pub(super) fn spec(self, n: u32) -> Spec {
        let path = self.path(n, false);
        let usual = match self.mode {
            Mode::Tunnel => Spec { path, ..Spec::new(n) },
            Mode::Transport => Spec::transport(n, path),
        };
        let selectors = vec![selector(self.networks().0, &self.ends(n).1.to_string())];
        Spec { selectors, ..usual }
    }

    /// Returns a packet to terminal 1 with a payload of `size` bytes.
    pub(super) fn down(self, size: usize) -> Vec<u8> {
        let (here, there) = self.ends(1);
        udp_packet(here, there, (53, 1001), &vec![7; size])
    }

    /// Returns a packet from terminal `n` with a payload of `size` bytes.
    pub(super) fn up(self, n: u32, size: usize) -> Vec<u8> {
        let (here, there) = self.ends(n);
        udp_packet(there, here, (1001, 53), &vec![7; size])
    }

    /// Returns a packet to terminal `n` that always takes the whole way.
    pub(super) fn ping(self, n: u32) -> Vec<u8> {
        let (here, there) = self.ends(n);
        ping(here, there, b"")
    }

    /// Seals a packet from a terminal.
    pub(super) fn seal(self, terminal: &mut Terminal, packet: &[u8]) -> Vec<u8> {
        match self.mode {
            Mode::Tunnel => terminal.seal(packet),
            Mode::Transport => {
                terminal.seq += 1;
                terminal.seal_as(&packet[self.header_len()..], protocol::UDP, terminal.seq)
            }
        }
    }

    /// Returns what a terminal finds in the sealed packet that carries `packet` to it.
    pub(super) fn opened(self, packet: &[u8]) -> Vec<u8> {
        match self.mode {
            Mode::Tunnel => forwarded(packet),
            Mode::Transport => packet[self.header_len()..].to_vec(),
        }
    }

    /// Returns what a terminal's partner gets of `packet`. The way to the host is no hop.
    pub(super) fn arrived(self, packet: &[u8]) -> Vec<u8> {
        if self.is_host { packet.to_vec() } else { forwarded(packet) }
    }

    /// Returns the length of the headers of packets to and from terminals, in bytes.
    pub(super) fn header_len(self) -> usize {
        if self.is_v6 { ip::V6_HEADER } else { ip::V4_HEADER }
    }

    /// Returns the length of the longest packet to a terminal that fits an outer one of `mtu` bytes, of which
    /// ESP fills a multiple of four (RFC 4303 §2.4).
    pub(super) fn longest(self, mtu: usize) -> usize {
        let ip = if self.is_outer_v6 { ip::V6_HEADER } else { ip::V4_HEADER };
        let headers = ip + if self.has_udp { 8 } else { 0 };
        let payload = (mtu - headers - ESP + 2) / 4 * 4 - 2;
        if self.mode == Mode::Transport { ip + payload } else { payload }
    }
}

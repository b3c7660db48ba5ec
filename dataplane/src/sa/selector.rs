//! Traffic selectors (RFC 4301 §4.4.1.1).

use crate::{
    table::Prefix,
    wire::{
        Address, be16, icmp,
        ip::{Fragment, IpHeader, protocol},
    },
};

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// Returns whether `port` is within the range. A packet without ports is only within
    /// [`PortRange::ANY`].
    #[inline]
    fn admits(self, port: Option<u16>) -> bool {
        self == Self::ANY || port.is_some_and(|p| (self.first..=self.last).contains(&p))
    }
}

/// How specific the operator's configuration is about the addresses of a selector: the lengths of
/// the prefixes written there, in bits. It orders rules (RFC 4301 §4.4.1). A peer may negotiate
/// longer prefixes (RFC 7296 §2.9), which do not change the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Length of the prefix on this side.
    pub local: u8,
    /// Length of the prefix on the peer's side.
    pub remote: u8,
    /// `true` if the addresses on the peer's side are fewer than in the configuration. Then rules
    /// of shorter prefixes may come first.
    pub is_narrowed: bool,
}

/// The packets that an SA or a policy covers, seen from the gateway: `local` is this side, `remote`
/// the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Addresses on this side.
    pub local: Prefix,
    /// Addresses on the peer's side.
    pub remote: Prefix,
    /// Upper-layer protocol. `None` means any.
    pub protocol: Option<u8>,
    /// Ports on this side.
    pub local_ports: PortRange,
    /// Ports on the peer's side.
    pub remote_ports: PortRange,
    /// The order of the selector among others.
    pub rank: Rank,
}

/// The fields of a packet that selectors compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// Source and destination port, if the packet shows them.
    pub ports: Option<(u16, u16)>,
    /// `true` if it is a later fragment, which hides its ports and, over IPv6, possibly its
    /// protocol.
    pub is_later_fragment: bool,
}

impl Flow {
    /// Returns the flow of `packet`, whose header is `header`.
    #[inline(always)]
    pub fn of(header: &IpHeader, packet: &[u8]) -> Self {
        let has_ports = has_ports(header.protocol) && header.fragment != Fragment::Later;
        let payload = header.payload(packet);
        let ports = (has_ports && payload.len() >= 4).then(|| (be16(payload, 0), be16(payload, 2)));
        let is_later_fragment = header.fragment == Fragment::Later;
        Self { src: header.src, dst: header.dst, protocol: header.protocol, ports, is_later_fragment }
    }

    /// Returns what the later fragments of a packet show of its flow for sure. `header` is that of any of its
    /// fragments. Those of IPv6 do not show the protocol, because what they name does not count (RFC 8200
    /// §4.5).
    pub fn of_later(header: &IpHeader) -> Self {
        let protocol = if header.is_ipv4() { header.protocol } else { protocol::FRAGMENT };
        Self { src: header.src, dst: header.dst, protocol, ports: None, is_later_fragment: true }
    }

    /// Returns whether `packet`, whose header is `header`, is a first fragment that is too short to show its
    /// ports, or the type of ICMP.
    pub fn is_cut_short(header: &IpHeader, packet: &[u8]) -> bool {
        let flow = Self::of(header, packet);
        let lacks_ports = flow.ports.is_none() && has_ports(flow.protocol);
        let lacks_type = flow.is_icmp() && header.payload(packet).is_empty();
        header.fragment == Fragment::First && (lacks_ports || lacks_type)
    }

    /// Returns whether the packet with this header is of the same flow, apart from ports.
    #[inline(always)]
    pub fn is_in(&self, header: &IpHeader) -> bool {
        self.src == header.src
            && self.dst == header.dst
            && self.protocol == header.protocol
            && self.is_later_fragment == (header.fragment == Fragment::Later)
    }

    /// Returns whether the packet is ICMP or ICMPv6.
    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        matches!(self.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// Returns the flow that the ICMP error `packet` stands for: that of packets to the sender of
    /// the one that it quotes (RFC 4301 §6.2). Returns `None` if `packet` is no error, quotes too
    /// little, or is not for that sender.
    pub fn returned_by(header: &IpHeader, packet: &[u8]) -> Option<Self> {
        let (quoted, bytes) = icmp::quoted(header, packet)?;
        Some(Self::of(&quoted, bytes).reversed()).filter(|back| back.dst == header.dst)
    }

    /// Returns the flow in the other direction.
    #[inline]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.map(|(s, d)| (d, s)), ..self }
    }
}

/// Returns whether packets of this protocol have ports.
#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

impl Selector {
    /// Returns a selector exactly as configured, for every protocol and port.
    pub fn configured(local: Prefix, remote: Prefix) -> Self {
        Self {
            local,
            remote,
            protocol: None,
            local_ports: PortRange::ANY,
            remote_ports: PortRange::ANY,
            rank: Rank { local: local.length(), remote: remote.length(), is_narrowed: false },
        }
    }

    /// Returns whether the selector compares ports.
    pub fn has_ports(&self) -> bool {
        [self.local_ports, self.remote_ports] != [PortRange::ANY; 2]
    }

    /// Returns whether the selector covers a packet from this side to the peer's. An inbound packet
    /// is tested with its [`Flow::reversed`].
    #[inline]
    pub fn covers(&self, outbound: &Flow) -> bool {
        self.remote.contains(outbound.dst) && self.covers_from(outbound)
    }

    /// Returns whether the selector covers a packet from the peer's side to this one:
    /// [`Selector::covers`] of its [`Flow::reversed`].
    #[inline(always)]
    pub fn covers_inbound(&self, inbound: &Flow) -> bool {
        self.local.contains(inbound.dst)
            && self.remote.contains(inbound.src)
            && self.protocol.is_none_or(|p| p == inbound.protocol)
            && self.local_ports.admits(inbound.ports.map(|(_, d)| d))
            && self.remote_ports.admits(inbound.ports.map(|(s, _)| s))
    }

    /// Returns the same as [`Selector::covers`], if `remote` is known to contain the destination.
    #[inline(always)]
    pub fn covers_from(&self, outbound: &Flow) -> bool {
        self.local.contains(outbound.src)
            && self.protocol.is_none_or(|p| p == outbound.protocol)
            && self.local_ports.admits(outbound.ports.map(|(s, _)| s))
            && self.remote_ports.admits(outbound.ports.map(|(_, d)| d))
    }

    /// Returns whether it cannot be known if the selector covers `outbound`, because it is a later
    /// fragment that hides what the selector compares (RFC 4301 §7).
    #[inline(always)]
    pub fn cannot_tell(&self, outbound: &Flow) -> bool {
        outbound.is_later_fragment && self.covers_if_shown(outbound) && !self.covers(outbound)
    }

    /// Returns whether the selector would cover `outbound` if its ports, and its protocol behind
    /// extension headers, matched.
    fn covers_if_shown(&self, outbound: &Flow) -> bool {
        let hidden_protocol = protocol::is_extension(outbound.protocol);
        self.local.contains(outbound.src)
            && self.remote.contains(outbound.dst)
            && (hidden_protocol || self.protocol.is_none_or(|p| p == outbound.protocol))
    }
}

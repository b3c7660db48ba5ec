//! Traffic selectors (RFC 4301 §4.4.1.1).

use crate::{
    table::Prefix,
    wire::{
        Address, be16,
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

    /// Returns whether `port` is within. A packet without ports is within [`PortRange::ANY`] only.
    #[inline]
    fn admits(self, port: Option<u16>) -> bool {
        self == Self::ANY || port.is_some_and(|p| (self.first..=self.last).contains(&p))
    }
}

/// How closely the operator's configuration speaks of the addresses of a selector: the bits of the
/// prefixes written there. It orders rules (RFC 4301 §4.4.1). A peer may negotiate longer prefixes
/// (RFC 7296 §2.9), which do not change the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Of the addresses on this side.
    pub local: u8,
    /// Of the addresses on the peer's side.
    pub remote: u8,
    /// Whether the addresses on the peer's side are fewer than the configuration's: then rules of
    /// shorter prefixes may come first.
    pub is_narrowed: bool,
}

/// What an SA or a policy covers, seen from the gateway: `local` is this side, `remote` the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Addresses on this side.
    pub local: Prefix,
    /// Addresses on the peer's side.
    pub remote: Prefix,
    /// Upper-layer protocol; `None` means any.
    pub protocol: Option<u8>,
    /// Ports on this side.
    pub local_ports: PortRange,
    /// Ports on the peer's side.
    pub remote_ports: PortRange,
    /// What orders it among others.
    pub rank: Rank,
}

/// What selectors look at in a packet.
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
    /// Whether it is a later fragment, which hides its ports, and over IPv6 maybe its protocol.
    pub is_later_fragment: bool,
}

impl Flow {
    /// Returns the flow of `packet`, whose header is `header`.
    #[inline(always)]
    pub fn of(header: &IpHeader, packet: &[u8]) -> Self {
        let has_ports = matches!(header.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
            && header.fragment != Fragment::Later;
        let payload = header.payload(packet);
        let ports = (has_ports && payload.len() >= 4).then(|| (be16(payload, 0), be16(payload, 2)));
        let is_later_fragment = header.fragment == Fragment::Later;
        Self { src: header.src, dst: header.dst, protocol: header.protocol, ports, is_later_fragment }
    }

    /// Returns whether it is the flow of `header`'s packet too, but for ports.
    #[inline(always)]
    pub fn is_in(&self, header: &IpHeader) -> bool {
        self.src == header.src
            && self.dst == header.dst
            && self.protocol == header.protocol
            && self.is_later_fragment == (header.fragment == Fragment::Later)
    }

    /// Returns the same flow seen the other way round.
    #[inline]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.map(|(s, d)| (d, s)), ..self }
    }
}

impl Selector {
    /// Makes a selector that the configuration has as it stands, for every protocol and port.
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

    /// Returns whether a packet from this side to the peer's is covered. An inbound packet is
    /// tested with its [`Flow::reversed`].
    #[inline]
    pub fn covers(&self, outbound: &Flow) -> bool {
        self.remote.contains(outbound.dst) && self.covers_from(outbound)
    }

    /// Returns whether a packet from the peer's side to this one is covered: [`Selector::covers`]
    /// of its [`Flow::reversed`].
    #[inline(always)]
    pub fn covers_inbound(&self, inbound: &Flow) -> bool {
        self.local.contains(inbound.dst)
            && self.remote.contains(inbound.src)
            && self.protocol.is_none_or(|p| p == inbound.protocol)
            && self.local_ports.admits(inbound.ports.map(|(_, d)| d))
            && self.remote_ports.admits(inbound.ports.map(|(s, _)| s))
    }

    /// [`Selector::covers`], if it is known that `remote` contains the destination.
    #[inline(always)]
    pub fn covers_from(&self, outbound: &Flow) -> bool {
        self.local.contains(outbound.src)
            && self.protocol.is_none_or(|p| p == outbound.protocol)
            && self.local_ports.admits(outbound.ports.map(|(s, _)| s))
            && self.remote_ports.admits(outbound.ports.map(|(_, d)| d))
    }

    /// Returns whether nobody can tell if it covers `outbound`: a later fragment that hides what
    /// the selector asks for (RFC 4301 §7).
    #[inline(always)]
    pub fn cannot_tell(&self, outbound: &Flow) -> bool {
        outbound.is_later_fragment && self.covers_if_shown(outbound) && !self.covers(outbound)
    }

    /// Returns whether it would cover `outbound` if ports, and a protocol behind extension headers,
    /// were the right ones.
    fn covers_if_shown(&self, outbound: &Flow) -> bool {
        let hidden_protocol =
            matches!(outbound.protocol, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION);
        self.local.contains(outbound.src)
            && self.remote.contains(outbound.dst)
            && (hidden_protocol || self.protocol.is_none_or(|p| p == outbound.protocol))
    }
}

//! The keys of flows, and what is remembered of a flow.

use super::{
    super::tables::{Hop, Tables},
    ways::Entry,
};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Endpoint, Flow, InboundSa, OutboundSa, Spi},
    table::{Reader, Remembered, Stamp},
    wire::{Address, plain::PlainV4},
};

/// A flow of packets from this side: source and destination, then ports, protocol and input port, all as
/// in the packet, the first byte lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutboundKey {
    addresses: u64,
    rest: u64,
}

/// The ESP packets of an SA: destination and SPI as in the packet, then the offset of ESP in the frame and
/// the input port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InboundKey {
    dst_spi: u64,
    rest: u64,
}

/// The destination of packets out of tunnels, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InnerKey(pub u32);

impl OutboundKey {
    #[inline(always)]
    pub(super) fn new(header: PlainV4, ports: u32, port: u16) -> Self {
        let rest = u64::from(ports) | u64::from(header.protocol()) << 32 | u64::from(port) << 48;
        Self { addresses: header.addresses, rest }
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.addresses, self.rest]
    }

    /// Returns the input port.
    pub(super) fn port(self) -> u16 {
        (self.rest >> 48) as u16
    }

    /// Returns the flow.
    pub(super) fn flow(self) -> Flow {
        let address = |bits: u64| Address::v4((bits as u32).swap_bytes());
        let udp_port = |bits: u64| (bits as u16).swap_bytes();
        Flow {
            src: address(self.addresses),
            dst: address(self.addresses >> 32),
            protocol: (self.rest >> 32) as u8,
            ports: Some((udp_port(self.rest), udp_port(self.rest >> 16))),
            is_later_fragment: false,
        }
    }
}

impl InboundKey {
    #[inline(always)]
    pub(super) fn new(header: PlainV4, spi: [u8; 4], esp_at: usize, port: u16) -> Self {
        let dst = header.addresses >> 32;
        let rest = esp_at as u64 | u64::from(port) << 48;
        Self { dst_spi: dst | u64::from(u32::from_le_bytes(spi)) << 32, rest }
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.dst_spi, self.rest]
    }

    pub(super) fn dst(self) -> Address {
        Address::v4((self.dst_spi as u32).swap_bytes())
    }

    pub(super) fn spi(self) -> Spi {
        Spi(((self.dst_spi >> 32) as u32).swap_bytes())
    }
}

impl InnerKey {
    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.0.into(), 0]
    }
}

/// Where a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub port: u16,
    /// The station's MAC address.
    pub mac: Mac,
}

impl Exit {
    /// Stands for none.
    pub(super) const NONE: Self = Self { port: u16::MAX, mac: [0; 6] };

    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        self.port == u16::MAX
    }

    /// Returns the exit of packets to `endpoint`, or none if the short way does not make all that they need.
    pub(super) fn to(endpoint: &Endpoint, tables: &Tables, reader: &Reader) -> Self {
        // UDP over IPv6 may have a checksum.
        let is_plain = endpoint.is_ipv4() || !endpoint.has_udp();
        let hop = tables.routes.find(endpoint.remote(), reader).filter(|_| is_plain);
        Self::of(hop).unwrap_or(Self::NONE)
    }

    /// Returns the exit if `hop` leads to a station.
    pub(super) fn of(hop: Option<&Hop>) -> Option<Self> {
        match hop {
            Some(&Hop::Port { port, mac }) => Some(Self { port, mac }),
            _ => None,
        }
    }
}

/// The SA of a flow, and the way to its peer.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct OutboundEntry {
    pub key: OutboundKey,
    /// None if packets take the whole way.
    pub sa: Remembered<OutboundSa, 6>,
    /// None if packets take the whole way for now.
    pub exit: Exit,
}

/// An SA of the gateway; none if packets take the whole way.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct InboundEntry {
    pub key: InboundKey,
    pub sa: Remembered<InboundSa, 3>,
    /// Source address and UDP ports of the last packet.
    pub from: u64,
    /// The tag of its path; 0 before the first packet.
    pub tag: u64,
}

/// The way to a destination that no rule of policy is for.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct InnerEntry {
    pub key: InnerKey,
    pub stamp: Stamp<4>,
    /// `None` if packets take the whole way.
    pub exit: Option<Exit>,
}

const _: () = assert!(size_of::<OutboundEntry>() == 64 && size_of::<InboundEntry>() == 64);
const _: () = assert!(size_of::<InnerEntry>() == 64);

impl Entry for OutboundEntry {
    type Key = OutboundKey;
    const NONE: Self =
        Self { key: OutboundKey { addresses: 0, rest: 0 }, sa: Remembered::NONE, exit: Exit::NONE };

    #[inline(always)]
    fn key(&self) -> OutboundKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.sa.is_current(reader)
    }

    fn is_refusal(&self) -> bool {
        self.sa.is_nothing()
    }
}

impl OutboundEntry {
    /// Returns whether the answer still holds, although something has changed. The peer may have moved.
    pub(super) fn renew(&mut self, tables: &Tables, reader: &Reader) -> bool {
        if !self.sa.renew(reader) {
            return false;
        }
        let endpoint = self.sa.get(&tables.policies, reader).and_then(|sa| sa.endpoint(reader));
        self.exit = endpoint.map_or(Exit::NONE, |to| Exit::to(to, tables, reader));
        true
    }
}

impl Entry for InboundEntry {
    type Key = InboundKey;
    const NONE: Self =
        Self { key: InboundKey { dst_spi: 0, rest: 0 }, sa: Remembered::NONE, from: 0, tag: 0 };

    #[inline(always)]
    fn key(&self) -> InboundKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.sa.is_current(reader)
    }

    fn is_refusal(&self) -> bool {
        self.sa.is_nothing()
    }
}

impl Entry for InnerEntry {
    type Key = InnerKey;
    const NONE: Self = Self { key: InnerKey(0), stamp: Stamp::NONE, exit: None };

    #[inline(always)]
    fn key(&self) -> InnerKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.stamp.is_current(reader)
    }

    fn is_refusal(&self) -> bool {
        self.exit.is_none()
    }
}

//! The keys of flows: 16 bytes for either family. Of IPv6 addresses a key has a hash, and the addresses
//! themselves are compared besides.

use wayfarer_dataplane::{
    sa::{Flow, Spi},
    wire::{
        Address, ethernet,
        ip::{V4_HEADER, V6_HEADER},
    },
};

/// Source and destination of an IPv6 packet, as in the packet.
pub(super) type V6Ends = [u8; 32];
/// The destination of an IPv6 packet, as in the packet.
pub(super) type V6Destination = [u8; 16];

/// The offset of both addresses in the frame of an IPv6 packet.
const V6_ADDRESSES: usize = ethernet::HEADER + 8;

/// Returns the addresses of the IPv6 packet in a frame, or zeros if the frame does not have both, which is
/// no plain packet's.
#[inline]
pub(super) fn v6_ends(frame: &[u8]) -> V6Ends {
    frame.get(V6_ADDRESSES..).and_then(|from| from.first_chunk()).copied().unwrap_or_default()
}

/// Returns the destination of both addresses.
#[inline]
pub(super) fn v6_destination(ends: &V6Ends) -> V6Destination {
    ends.last_chunk().copied().unwrap_or_default()
}

/// Returns source and destination as addresses.
#[inline]
pub(super) fn v6_addresses(ends: &V6Ends) -> (Address, Address) {
    let src = ends.first_chunk().copied().unwrap_or_default();
    (v6_address(src), v6_address(v6_destination(ends)))
}

#[inline]
fn v6_address(octets: [u8; 16]) -> Address {
    // No plain packet has an IPv4-mapped one.
    Address::v6(octets).unwrap_or(Address::UNSPECIFIED)
}

/// A flow of packets from this side: of IPv4, source and destination as in the packet, of IPv6, their hash;
/// then ports as in the packet, the first byte lowest; then protocol, family and input port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutboundKey {
    addresses: u64,
    rest: u64,
}

/// The bit that the keys of IPv6 flows have.
const V6: u64 = 1 << 40;

impl OutboundKey {
    /// Stands for no flow.
    pub(super) const NONE: Self = Self { addresses: 0, rest: 0 };

    #[inline(always)]
    pub(super) fn new(addresses: u64, is_ipv4: bool, protocol: u8, ports: u32, port: u16) -> Self {
        let family = if is_ipv4 { 0 } else { V6 };
        let rest = u64::from(ports) | u64::from(protocol) << 32 | family | u64::from(port) << 48;
        Self { addresses, rest }
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.addresses, self.rest]
    }

    #[inline(always)]
    pub(super) fn is_ipv4(self) -> bool {
        self.rest & V6 == 0
    }

    /// Returns the length of the packets' headers in bytes.
    #[inline(always)]
    pub(super) fn header_len(self) -> usize {
        if self.is_ipv4() { V4_HEADER } else { V6_HEADER }
    }

    /// Returns the protocol of the packets' payload.
    pub(super) fn protocol(self) -> u8 {
        (self.rest >> 32) as u8
    }

    /// Returns the input port.
    pub(super) fn port(self) -> u16 {
        (self.rest >> 48) as u16
    }

    /// Returns source and destination, those of `ends` if the flow is IPv6.
    fn addresses(self, ends: &V6Ends) -> (Address, Address) {
        let address = |bits: u64| Address::v4((bits as u32).swap_bytes());
        match self.is_ipv4() {
            true => (address(self.addresses), address(self.addresses >> 32)),
            false => v6_addresses(ends),
        }
    }

    /// Returns the destination, that of `ends` if the flow is IPv6.
    pub(super) fn dst(self, ends: &V6Ends) -> Address {
        self.addresses(ends).1
    }

    /// Returns the flow, with the addresses of `ends` if it is IPv6.
    pub(super) fn flow(self, ends: &V6Ends) -> Flow {
        let ((src, dst), protocol) = (self.addresses(ends), self.protocol());
        Flow { src, dst, protocol, ports: Some(split_ports(self.rest as u32)), is_later_fragment: false }
    }
}

/// The ESP packets of an SA: of IPv4, the destination as in the packet, of IPv6, its hash; then the SPI as in
/// the packet, the offset of ESP in the frame, and the input port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InboundKey {
    dst_spi: u64,
    rest: u64,
}

impl InboundKey {
    /// Stands for no SA.
    pub(super) const NONE: Self = Self { dst_spi: 0, rest: 0 };

    #[inline(always)]
    pub(super) fn new(dst: u32, spi: [u8; 4], esp_at: usize, port: u16) -> Self {
        let rest = esp_at as u64 | u64::from(port) << 48;
        Self { dst_spi: u64::from(dst) | u64::from(u32::from_le_bytes(spi)) << 32, rest }
    }

    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.dst_spi, self.rest]
    }

    /// Returns whether the outer packets are IPv4: ESP begins where an IPv6 header would not have ended.
    #[inline(always)]
    pub(super) fn is_ipv4(self) -> bool {
        usize::from(self.rest as u16) < ethernet::HEADER + V6_HEADER
    }

    /// Returns the input port.
    pub(super) fn port(self) -> u16 {
        (self.rest >> 48) as u16
    }

    /// Returns the destination, which is `v6` if the outer packets are IPv6.
    pub(super) fn dst(self, v6: &V6Destination) -> Address {
        match self.is_ipv4() {
            true => Address::v4((self.dst_spi as u32).swap_bytes()),
            false => v6_address(*v6),
        }
    }

    pub(super) fn spi(self) -> Spi {
        Spi(((self.dst_spi >> 32) as u32).swap_bytes())
    }
}

/// The destination of packets out of SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InnerKey(pub Address);

impl InnerKey {
    #[inline(always)]
    pub(super) fn words(self) -> [u64; 2] {
        [self.0.bits() as u64, (self.0.bits() >> 64) as u64]
    }
}

/// Returns source and destination port, of which `ports` are as in the packet, the first byte lowest.
#[inline(always)]
pub(super) fn split_ports(ports: u32) -> (u16, u16) {
    ((ports as u16).swap_bytes(), ((ports >> 16) as u16).swap_bytes())
}

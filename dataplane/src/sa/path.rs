//! The path to a peer: the only thing that changes when a terminal moves.

use super::{Overhead, Spi};
use crate::{
    prefetch,
    wire::{
        Address, be16, be32, checksum,
        ip::{self, V4_HEADER},
        udp,
    },
};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    sync::LazyLock,
};

/// The encapsulation of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// ESP directly in IP, protocol 50.
    None,
    /// UDP (RFC 3948).
    Udp {
        /// The gateway's port.
        local: u16,
        /// The peer's port, as the gateway sees it.
        remote: u16,
    },
}

/// Outer addresses of both ends, and the encapsulation between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The gateway's address.
    pub local: IpAddr,
    /// The peer's address, as the gateway sees it.
    pub remote: IpAddr,
    /// The encapsulation of ESP.
    pub encap: Encap,
}

impl Path {
    /// Returns a number that differs between paths; see [`InboundSa::seen_on`](super::InboundSa::seen_on).
    pub fn tag(&self) -> u64 {
        tag(self.local.into(), self.remote.into(), self.encap)
    }

    /// Returns the length of the headers before ESP in bytes: IP, and UDP if the path has it.
    pub fn outer_len(&self) -> usize {
        let ip = if self.local.is_ipv4() { V4_HEADER } else { ip::V6_HEADER };
        let udp = if self.encap == Encap::None { 0 } else { udp::HEADER };
        ip + udp
    }

    /// Returns both ends as text, the gateway's first: addresses, with their UDP ports if the path
    /// has them.
    pub fn ends(&self) -> [String; 2] {
        match self.encap {
            Encap::None => [self.local, self.remote].map(|address| address.to_string()),
            Encap::Udp { local, remote } => {
                [(self.local, local), (self.remote, remote)].map(|end| SocketAddr::from(end).to_string())
            }
        }
    }

    /// Returns whether both addresses have the same family.
    pub fn is_consistent(&self) -> bool {
        self.local.is_ipv4() == self.remote.is_ipv4()
    }
}

impl fmt::Display for Path {
    /// Writes the encapsulation and both ends, like `udp:203.0.113.1:4500-192.0.2.7:1025`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encap = if self.encap == Encap::None { "esp" } else { "udp" };
        let [local, remote] = self.ends();
        write!(f, "{encap}:{local}-{remote}")
    }
}

/// Returns a number that differs between paths, as far as 64 bits can. Never 0. It is seeded, so
/// that nobody outside can make two paths with the same tag.
#[inline]
pub(super) fn tag(local: Address, remote: Address, encap: Encap) -> u64 {
    static SEEDS: LazyLock<[u64; 3]> = LazyLock::new(|| {
        let random = RandomState::new();
        [1, 2, 3].map(|n: u64| random.hash_one(n))
    });
    let encap = match encap {
        Encap::None => 0,
        Encap::Udp { local, remote } => 1 << 32 | u64::from(local) << 16 | u64::from(remote),
    };
    let [a, b, c] = *SEEDS;
    let halves = |address: Address| (address.bits() as u64, (address.bits() >> 64) as u64);
    let (near, far) = (halves(local), halves(remote));
    fold(near.0 ^ far.0.rotate_left(16) ^ a, fold(near.1 ^ encap ^ b, far.1 ^ c) | 1) | 1
}

/// Returns the two halves of a product, mixed.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Length of the longest template in bytes: IPv6, UDP, SPI.
const TEMPLATE: usize = ip::V6_HEADER + udp::HEADER + 4;

/// Length of the headers of IPv4 in bytes: IP, UDP, SPI.
const V4_HEADERS: usize = V4_HEADER + udp::HEADER + 4;

/// A path as prepared headers: IP, UDP if the path has it, SPI. One cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Endpoint {
    /// Lengths are zero. The field of an IPv4 checksum holds the folded sum of the words that never
    /// change.
    template: [u8; TEMPLATE],
    ip_len: NonZeroU8,
    outer_len: u8,
    payload_limit: u16,
    mtu: u16,
}

const _: () = assert!(size_of::<Option<Endpoint>>() == prefetch::LINE);

impl Endpoint {
    /// Makes the headers of `path` for an SA with `spi`, whose suite adds `overhead` and whose
    /// outer packets have at most `mtu` bytes.
    ///
    /// # Panics
    /// Panics if the addresses are of two families; see [`Path::is_consistent`].
    pub fn new(path: Path, spi: Spi, overhead: Overhead, mtu: u16) -> Self {
        let (local, remote) = (path.local.to_canonical(), path.remote.to_canonical());
        let path = Path { local, remote, ..path };
        let mut template = [0; TEMPLATE];
        let protocol = match path.encap {
            Encap::None => ip::protocol::ESP,
            Encap::Udp { .. } => ip::protocol::UDP,
        };
        let ip_len = ip::emit(&mut template, path.local, path.remote, protocol, 0);
        if path.local.is_ipv4() {
            template[2..8].fill(0);
            template[10..12].fill(0);
            let sum = !checksum::of(&template[..ip_len]);
            template[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let mut outer_len = ip_len;
        if let Encap::Udp { local, remote } = path.encap {
            let header = udp::Udp { src_port: local, dst_port: remote, length: 0, checksum: 0 };
            header.emit(&mut template[ip_len..]);
            outer_len += udp::HEADER;
        }
        template[outer_len..outer_len + 4].copy_from_slice(&spi.0.to_be_bytes());
        let ip_len = NonZeroU8::new(ip_len as u8).expect("an IP header has bytes");
        let payload_limit = overhead.payload_limit(outer_len, mtu.into()) as u16;
        Self { template, ip_len, outer_len: outer_len as u8, payload_limit, mtu }
    }

    /// Returns the path, read back from its headers.
    pub fn path(&self) -> Path {
        let encap = if self.has_udp() {
            let ports = &self.template[self.ip_len()..];
            Encap::Udp { local: be16(ports, 0), remote: be16(ports, 2) }
        } else {
            Encap::None
        };
        Path { local: self.address_at(12, 8).into(), remote: self.remote().into(), encap }
    }

    /// Returns the peer's address.
    #[inline]
    pub fn remote(&self) -> Address {
        self.address_at(16, 24)
    }

    /// Returns the address at `v4` of an IPv4 header, or at `v6` of an IPv6 one.
    #[inline]
    fn address_at(&self, v4: usize, v6: usize) -> Address {
        match self.is_ipv4() {
            true => Address::v4(be32(&self.template, v4)),
            false => ip::v6_at(&self.template, v6).unwrap_or(Address::UNSPECIFIED),
        }
    }

    /// Returns whether the outer header is IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        self.ip_len() == V4_HEADER
    }

    /// Returns whether ESP travels in UDP.
    #[inline]
    pub fn has_udp(&self) -> bool {
        self.outer_len() != self.ip_len()
    }

    /// Returns the length of the outer IP header in bytes.
    #[inline]
    pub fn ip_len(&self) -> usize {
        usize::from(self.ip_len.get())
    }

    /// Returns the length of the outer headers before ESP in bytes: IP, and UDP if there is one.
    #[inline]
    pub fn outer_len(&self) -> usize {
        usize::from(self.outer_len)
    }

    /// Returns the largest inner packet of a tunnel that fits one outer packet, in bytes.
    #[inline]
    pub fn payload_limit(&self) -> usize {
        usize::from(self.payload_limit)
    }

    /// Returns the longest outer packet in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        usize::from(self.mtu)
    }

    /// Returns the UDP header, if there is one, with a length of zero, and the SPI.
    pub fn behind_ip(&self) -> &[u8] {
        &self.template[self.ip_len()..self.outer_len() + 4]
    }

    /// Writes the outer headers and the SPI to the start of `packet`, which is as long as the outer
    /// packet. The IPv4 identification is `id` if the packet may be fragmented, otherwise 0 (RFC
    /// 6864 §4.1). A UDP checksum is left zero.
    ///
    /// # Panics
    /// Panics if `packet` is shorter than the headers, of IPv4 with UDP.
    #[inline(always)]
    pub fn emit(&self, packet: &mut [u8], traffic_class: u8, dont_fragment: bool, id: u16) {
        if self.is_ipv4() {
            let total = packet.len() as u16;
            let headers = packet.first_chunk_mut().expect("an ESP packet");
            self.emit_v4(headers, total, traffic_class, dont_fragment, id);
        } else {
            self.emit_v6(packet, traffic_class);
        }
    }

    /// Writes the headers in a few stores at fixed places. A checksum over bytes just written would wait
    /// for them.
    #[inline(always)]
    fn emit_v4(&self, h: &mut [u8; V4_HEADERS], total: u16, traffic_class: u8, dont_fragment: bool, id: u16) {
        const DONT_FRAGMENT: u16 = 0x4000;
        const SPI_AT: usize = V4_HEADER + udp::HEADER;
        let (id, flags) = if dont_fragment { (0, DONT_FRAGMENT) } else { (id, 0) };
        let fixed = be16(&self.template, 10);
        let words = [fixed, traffic_class.into(), total, id, flags].map(u64::from);
        let sum = checksum::finish(words.iter().sum());
        let first = u64::from(self.template[0]) << 56
            | u64::from(traffic_class) << 48
            | u64::from(total) << 32
            | u64::from(id) << 16
            | u64::from(flags);
        let second = u32::from(be16(&self.template, 8)) << 16 | u32::from(sum);
        h[..8].copy_from_slice(&first.to_be_bytes());
        h[8..12].copy_from_slice(&second.to_be_bytes());
        h[12..V4_HEADER].copy_from_slice(&self.template[12..V4_HEADER]);
        if self.has_udp() {
            h[V4_HEADER..V4_HEADER + 4].copy_from_slice(&self.template[V4_HEADER..V4_HEADER + 4]);
            let length = u32::from(total.wrapping_sub(V4_HEADER as u16)) << 16;
            h[V4_HEADER + 4..SPI_AT].copy_from_slice(&length.to_be_bytes());
            h[SPI_AT..].copy_from_slice(&self.template[SPI_AT..V4_HEADERS]);
        } else {
            h[V4_HEADER..V4_HEADER + 4].copy_from_slice(&self.template[V4_HEADER..V4_HEADER + 4]);
        }
    }

    #[inline(never)]
    fn emit_v6(&self, packet: &mut [u8], traffic_class: u8) {
        let (total, outer_len) = (packet.len(), self.outer_len());
        packet[..outer_len + 4].copy_from_slice(&self.template[..outer_len + 4]);
        ip::set_traffic_class(packet, traffic_class);
        ip::set_total_len(packet, ip::V6_HEADER, total);
        if self.has_udp() {
            let length = (total - ip::V6_HEADER) as u16;
            packet[ip::V6_HEADER + 4..ip::V6_HEADER + 6].copy_from_slice(&length.to_be_bytes());
        }
    }
}

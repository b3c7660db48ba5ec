//! The way to a peer: what changes when a terminal moves, and nothing else does.

use super::Spi;
use crate::{
    prefetch,
    wire::{Address, be16, be32, esp, ip, udp},
};
use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    num::NonZeroU8,
    sync::LazyLock,
};

/// What ESP travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// IP itself, protocol 50.
    None,
    /// UDP (RFC 3948).
    Udp {
        /// The gateway's port.
        local: u16,
        /// The peer's port, as the gateway sees it.
        remote: u16,
    },
}

/// Both ends' outer addresses and the encapsulation between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The gateway's address.
    pub local: IpAddr,
    /// The peer's address, as the gateway sees it.
    pub remote: IpAddr,
    /// What ESP travels in.
    pub encap: Encap,
}

impl Path {
    /// See [`tag`].
    pub(super) fn tag(&self) -> u64 {
        tag(self.local.into(), self.remote.into(), self.encap)
    }

    /// Whether both addresses are of one family.
    pub fn is_consistent(&self) -> bool {
        self.local.is_ipv4() == self.remote.is_ipv4()
    }
}

/// A number that differs between paths, as far as 64 bits can; never 0. Seeded, so that nobody outside can make two paths
/// agree.
#[inline]
pub(super) fn tag(local: Address, remote: Address, encap: Encap) -> u64 {
    static SEED: LazyLock<foldhash::fast::RandomState> = LazyLock::new(Default::default);
    let encap = match encap {
        Encap::None => 0,
        Encap::Udp { local, remote } => 1 << 32 | u64::from(local) << 16 | u64::from(remote),
    };
    let (local, remote) = (local.bits(), remote.bits());
    let mut hasher = SEED.build_hasher();
    for word in [local as u64, (local >> 64) as u64, remote as u64, (remote >> 64) as u64, encap] {
        hasher.write_u64(word);
    }
    hasher.finish() | 1
}

/// Room for the longest template: IPv6, UDP, SPI.
const TEMPLATE: usize = ip::V6_HEADER + udp::HEADER + 4;

/// A path as headers ready made: IP, UDP where the path has it, SPI. One cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Endpoint {
    template: [u8; TEMPLATE],
    ip_len: NonZeroU8,
    outer_len: u8,
}

const _: () = assert!(size_of::<Option<Endpoint>>() == prefetch::LINE);

impl Endpoint {
    /// Makes the headers of `path` for an SA with `spi`.
    ///
    /// # Panics
    /// If the addresses are of two families; see [`Path::is_consistent`].
    pub fn new(path: Path, spi: Spi) -> Self {
        let mut template = [0; TEMPLATE];
        let protocol = match path.encap {
            Encap::None => ip::protocol::ESP,
            Encap::Udp { .. } => ip::protocol::UDP,
        };
        let ip_len = ip::emit(&mut template, path.local, path.remote, protocol, 0);
        let mut outer_len = ip_len;
        if let Encap::Udp { local, remote } = path.encap {
            let header = udp::Udp { src_port: local, dst_port: remote, length: 0, checksum: 0 };
            header.emit(&mut template[ip_len..]);
            outer_len += udp::HEADER;
        }
        template[outer_len..outer_len + 4].copy_from_slice(&spi.0.to_be_bytes());
        let ip_len = NonZeroU8::new(ip_len as u8).expect("an IP header has bytes");
        Self { template, ip_len, outer_len: outer_len as u8 }
    }

    /// The path, read back from its headers.
    pub fn path(&self) -> Path {
        let encap = if self.has_udp() {
            let ports = &self.template[self.ip_len()..];
            Encap::Udp { local: be16(ports, 0), remote: be16(ports, 2) }
        } else {
            Encap::None
        };
        Path { local: self.address_at(12, 8).into(), remote: self.remote().into(), encap }
    }

    /// The peer's address.
    #[inline]
    pub fn remote(&self) -> Address {
        self.address_at(16, 24)
    }

    /// The address at `v4` of an IPv4 header, or at `v6` of an IPv6 one.
    #[inline]
    fn address_at(&self, v4: usize, v6: usize) -> Address {
        match self.is_ipv4() {
            true => Address::v4(be32(&self.template, v4)),
            false => ip::v6_at(&self.template, v6).unwrap_or(Address::UNSPECIFIED),
        }
    }

    /// Whether the outer header is IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        self.ip_len() == ip::V4_HEADER
    }

    /// Whether ESP travels in UDP.
    #[inline]
    pub fn has_udp(&self) -> bool {
        self.outer_len() != self.ip_len()
    }

    /// Bytes of the outer IP header.
    #[inline]
    pub fn ip_len(&self) -> usize {
        usize::from(self.ip_len.get())
    }

    /// Bytes of the outer headers before ESP: IP, and UDP where there is one.
    #[inline]
    pub fn outer_len(&self) -> usize {
        usize::from(self.outer_len)
    }

    /// The outer headers and the SPI, to be copied in front of a packet; lengths and checksums are still zero or
    /// those of an empty packet.
    #[inline]
    pub fn template(&self) -> &[u8] {
        &self.template[..self.outer_len() + 4]
    }

    /// The largest payload that fits in an outer packet of `mtu` bytes, when ESP adds `iv + icv` bytes and aligns to
    /// `align`; 0 where nothing fits.
    pub fn payload_limit(outer_len: usize, mtu: usize, iv_icv: usize, align: usize) -> usize {
        let space = mtu.saturating_sub(outer_len + esp::HEADER + iv_icv);
        (space & !(align - 1)).saturating_sub(esp::TRAILER)
    }
}

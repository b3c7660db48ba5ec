//! Ports of IKE, and how each side tells whether a NAT is on the way (RFC 7296 §2.23).

use super::wire::{Malformed, Payload, notify};
use crate::{
    crypto::{Crypto, Random},
    path::{Addresses, Nat},
};
use alloc::{boxed::Box, vec::Vec};
use core::net::{IpAddr, SocketAddr};

/// Port of IKE without NAT (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// Port of IKE and ESP in UDP (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

/// The NAT_DETECTION notifies of a message: both ends of its path as its sender sees them, as
/// hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatDetection {
    /// The sender's end. One with several addresses may name each.
    sources: Box<[[u8; 20]]>,
    /// The receiver's.
    destinations: Box<[[u8; 20]]>,
}

impl NatDetection {
    /// Returns what we say of a message that goes by `addresses`.
    pub fn new(crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> Self {
        let hash = |end| nat_detection(crypto, spis[0], spis[1], end);
        Self { sources: [hash(addresses.local)].into(), destinations: [hash(addresses.remote)].into() }
    }

    /// Has it say that we are somewhere else than we are, so that the peer uses UDP on every path.
    pub fn feign(&mut self, random: &dyn Random) {
        self.sources.iter_mut().for_each(|source| random.fill(source));
    }

    /// Reads the notifies of a message; `None` if it says nothing of one end or the other.
    ///
    /// # Errors
    /// If one is no SHA-1 hash.
    pub fn read(payloads: &[Payload<'_>]) -> Result<Option<Self>, Malformed> {
        let all = |kind| {
            let of_kind = payloads.iter().filter_map(move |payload| match payload {
                Payload::Notify(n) if n.kind == kind => Some(n.data),
                _ => None,
            });
            let hashes = of_kind.map(|data| data.try_into().map_err(|_| Malformed::Length));
            // It is kept for as long as a peer is half open.
            hashes.collect::<Result<Box<[_]>, _>>()
        };
        let sources = all(notify::NAT_DETECTION_SOURCE_IP)?;
        let destinations = all(notify::NAT_DETECTION_DESTINATION_IP)?;
        let is_whole = !sources.is_empty() && !destinations.is_empty();
        Ok(is_whole.then_some(Self { sources, destinations }))
    }

    /// Returns its payloads.
    pub fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let sources = self.sources.iter();
        let destinations = self.destinations.iter();
        sources
            .map(|hash| Payload::notify(notify::NAT_DETECTION_SOURCE_IP, hash))
            .chain(destinations.map(|hash| Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, hash)))
    }

    /// Returns the NATs on the path by which it came.
    pub fn nat(&self, crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> Nat {
        let hash = |end| nat_detection(crypto, spis[0], spis[1], end);
        Nat {
            there: !self.sources.contains(&hash(addresses.remote)),
            here: !self.destinations.contains(&hash(addresses.local)),
        }
    }

    /// Returns whether it names both ends of `addresses`, with their ports or IKE's own.
    pub fn names(&self, crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> bool {
        let is_among = |hashes: &[[u8; 20]], end: SocketAddr| {
            [end.port(), IKE_PORT, NAT_T_PORT].into_iter().any(|port| {
                let end = SocketAddr::new(end.ip(), port);
                hashes.contains(&nat_detection(crypto, spis[0], spis[1], end))
            })
        };
        is_among(&self.sources, addresses.remote) && is_among(&self.destinations, addresses.local)
    }

    /// Returns the bytes of memory beside its own.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.sources) + size_of_val(&*self.destinations)
    }
}

/// Returns the data of a NAT_DETECTION notify: SHA-1 of SPIs, address and port (RFC 7296 §2.23).
pub fn nat_detection(crypto: &dyn Crypto, spi_i: u64, spi_r: u64, end: SocketAddr) -> [u8; 20] {
    let port = end.port().to_be_bytes();
    crypto.sha1(&[&spi_i.to_be_bytes(), &spi_r.to_be_bytes(), &octets(end.ip()), &port])
}

/// Returns the 4 or 16 octets of an address.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

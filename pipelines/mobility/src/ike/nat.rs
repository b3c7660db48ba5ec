//! IKE's ports, NAT detection (RFC 7296 §2.23), and paths that no NAT may change (RFC 4555 §3.9).

use super::wire::{self, Malformed, Payload, notify};
use crate::{
    crypto::{Crypto, Random},
    path::{Addresses, Nat},
};
use alloc::{boxed::Box, vec::Vec};
use core::net::{IpAddr, SocketAddr};

/// The port of IKE without a NAT (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// The port of IKE and ESP in UDP (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

/// The NAT_DETECTION notifies of a message: hashes of both ends of its path as the sender sees
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatDetection {
    /// Hashes of the sender's end. A sender with several addresses may include each.
    sources: Box<[[u8; 20]]>,
    /// Hashes of the receiver's end.
    destinations: Box<[[u8; 20]]>,
}

impl NatDetection {
    /// Returns the notifies for a message that is sent by `addresses`.
    pub fn new(crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> Self {
        let hash = |end| nat_detection(crypto, spis[0], spis[1], end);
        Self { sources: [hash(addresses.local)].into(), destinations: [hash(addresses.remote)].into() }
    }

    /// Replaces the hashes of our end with random ones, so that the peer uses UDP on every path.
    pub fn randomize_source(&mut self, random: &dyn Random) {
        self.sources.iter_mut().for_each(|source| random.fill(source));
    }

    /// Parses the notifies of a message; returns `None` if those of one end or both are missing.
    ///
    /// # Errors
    /// Fails if a notify is not a SHA-1 hash.
    pub fn read(payloads: &[Payload<'_>]) -> Result<Option<Self>, Malformed> {
        let all = |kind| {
            let of_kind = payloads.iter().filter_map(move |payload| match payload {
                Payload::Notify(n) if n.kind == kind => Some(n.data),
                _ => None,
            });
            let hashes = of_kind.map(|data| data.try_into().map_err(|_| Malformed::Length));
            // These are kept for as long as a peer is half open, so no spare capacity.
            hashes.collect::<Result<Box<[_]>, _>>()
        };
        let sources = all(notify::NAT_DETECTION_SOURCE_IP)?;
        let destinations = all(notify::NAT_DETECTION_DESTINATION_IP)?;
        let is_whole = !sources.is_empty() && !destinations.is_empty();
        Ok(is_whole.then_some(Self { sources, destinations }))
    }

    /// Returns the notifies as payloads.
    pub fn payloads(&self) -> impl Iterator<Item = Payload<'_>> {
        let sources = self.sources.iter();
        let destinations = self.destinations.iter();
        sources
            .map(|hash| Payload::notify(notify::NAT_DETECTION_SOURCE_IP, hash))
            .chain(destinations.map(|hash| Payload::notify(notify::NAT_DETECTION_DESTINATION_IP, hash)))
    }

    /// Returns the NATs on the path by which the message came.
    pub fn nat(&self, crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> Nat {
        let hash = |end| nat_detection(crypto, spis[0], spis[1], end);
        Nat {
            remote: !self.sources.contains(&hash(addresses.remote)),
            local: !self.destinations.contains(&hash(addresses.local)),
        }
    }

    /// Returns the hash of the receiver's end, as the sender sees it. Only the first counts.
    pub(super) fn destination(&self) -> Option<[u8; 20]> {
        self.destinations.first().copied()
    }

    /// Returns true if the hashes match both ends of `addresses`, with their ports or IKE's own.
    pub fn matches(&self, crypto: &dyn Crypto, spis: [u64; 2], addresses: Addresses) -> bool {
        let is_among = |hashes: &[[u8; 20]], end: SocketAddr| {
            [end.port(), IKE_PORT, NAT_T_PORT].into_iter().any(|port| {
                let end = SocketAddr::new(end.ip(), port);
                hashes.contains(&nat_detection(crypto, spis[0], spis[1], end))
            })
        };
        is_among(&self.sources, addresses.remote) && is_among(&self.destinations, addresses.local)
    }

    /// Returns the heap memory in bytes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.sources) + size_of_val(&*self.destinations)
    }
}

/// The NO_NATS_ALLOWED notify: both ends of the path of a message, as its sender sees them. The
/// receiver refuses the message if it sees others (RFC 4555 §3.9, §4.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNatsAllowed {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
}

impl NoNatsAllowed {
    /// Returns the notify for a message from one end to the other.
    pub fn new(from: SocketAddr, to: SocketAddr) -> Self {
        let [from, to] = [from, to].map(|end| (end.ip(), end.port()));
        Self { from, to }
    }

    /// Parses the notify of a message, if it is there.
    ///
    /// # Errors
    /// Fails if its data is not two addresses of one family and two ports.
    pub fn read(payloads: &[Payload<'_>]) -> Result<Option<Self>, Malformed> {
        let parse = |data: &[u8]| {
            let (addresses, &[a, b, c, d]) = data.split_last_chunk()?;
            let [from, to] = address_pair(addresses)?;
            let port = |high, low| u16::from_be_bytes([high, low]);
            Some(Self { from: (from, port(a, b)), to: (to, port(c, d)) })
        };
        let data = wire::notified(payloads, notify::NO_NATS_ALLOWED);
        data.map(|data| parse(data).ok_or(Malformed::Length)).transpose()
    }

    /// Returns the notification data.
    pub fn data(self) -> Vec<u8> {
        let Self { from, to } = self;
        let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
        [octets(from.0), octets(to.0), ports].concat()
    }

    /// Returns true if nothing changed the message on its way here, where it came by `addresses`.
    pub fn matches(self, addresses: Addresses) -> bool {
        self == Self::new(addresses.remote, addresses.local)
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

/// Parses two addresses of one family, one after the other.
pub(super) fn address_pair(octets: &[u8]) -> Option<[IpAddr; 2]> {
    match (octets.as_chunks::<4>(), octets.as_chunks::<16>()) {
        (([first, second], []), _) => Some([(*first).into(), (*second).into()]),
        (_, ([first, second], [])) => Some([(*first).into(), (*second).into()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn no_nats_allowed_has_the_addresses_before_the_ports() {
        let ends = |text: [&str; 2]| text.map(|end| end.parse::<SocketAddr>().unwrap());
        let v4 = vec![192, 0, 2, 7, 203, 0, 113, 1, 0x11, 0x94, 0x01, 0xf4];
        let [a, b] = ["2001:db8::7", "2001:db8::1"].map(|a| octets(a.parse().unwrap()));
        let v6 = [a, b, vec![0x11, 0x94, 0x01, 0xf4]].concat();
        for (ends, data) in [
            (ends(["192.0.2.7:4500", "203.0.113.1:500"]), v4),
            (ends(["[2001:db8::7]:4500", "[2001:db8::1]:500"]), v6),
        ] {
            let [from, to] = ends;
            let sent = NoNatsAllowed::new(from, to);
            assert_eq!(sent.data(), data);
            let read = |data| NoNatsAllowed::read(&[Payload::notify(notify::NO_NATS_ALLOWED, data)]);
            assert_eq!(read(&data), Ok(Some(sent)));
            for length in (0..data.len()).filter(|length| *length != 12) {
                assert_eq!(read(&data[..length]), Err(Malformed::Length), "{length}");
            }
            assert!(sent.matches(Addresses { local: to, remote: from }));
            assert!(!sent.matches(Addresses { local: from, remote: to }));
        }
        assert_eq!(NoNatsAllowed::read(&[]), Ok(None));
    }
}

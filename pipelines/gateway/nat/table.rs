//! The NATs, and the mappings that workers read and the slow path changes.

use super::mapping::Mapping;
use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, Ordering::Relaxed},
    },
};
use wayfarer_dataplane::{
    table::{Map, Prefix, Reader, Writer},
    wire::{
        Address,
        ip::{IpHeader, protocol},
        translate::{End, Side},
    },
};

/// The number of protocols, each of which has all ports: TCP, UDP and ICMP.
const PROTOCOLS: usize = 3;

/// NAT of packets that leave by one port.
#[derive(Clone, Debug)]
pub struct Nat {
    /// Index of the port that packets leave by.
    pub port: u16,
    /// The IPv4 address outside.
    pub address: u32,
    /// The ports outside, and identifiers of ICMP queries.
    pub ports: RangeInclusive<u16>,
    /// Sources that are translated.
    pub inside: Box<[Prefix]>,
}

impl Nat {
    fn is_inside(&self, address: Address) -> bool {
        self.inside.iter().any(|prefix| prefix.contains(address))
    }
}

/// The key of a mapping: NAT, protocol and port, and for packets from inside also the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key(u64);

impl Key {
    fn outside(nat: u8, protocol: u8, port: u16) -> Self {
        Self(u64::from(nat) << 24 | u64::from(protocol) << 16 | u64::from(port))
    }

    fn inside(nat: u8, protocol: u8, address: Address, port: u16) -> Self {
        Self(u64::from(address.bits() as u32) << 32 | Self::outside(nat, protocol, port).0)
    }
}

/// All NATs and their mappings.
#[derive(Debug)]
pub struct NatTables {
    nats: Box<[Nat]>,
    by_inside: Map<Key, Arc<Mapping>>,
    by_outside: Map<Key, Arc<Mapping>>,
    /// Seconds since the gateway's start, as the slow path has set them last.
    now: AtomicU32,
    next_id: AtomicU16,
}

impl NatTables {
    /// Makes the tables of these NATs, without mappings.
    pub fn new(writer: &Writer, nats: &[Nat]) -> Self {
        let most = nats.iter().map(|nat| PROTOCOLS * nat.ports.len()).sum();
        Self {
            nats: nats.into(),
            by_inside: Map::new(writer, most),
            by_outside: Map::new(writer, most),
            now: AtomicU32::new(0),
            next_id: AtomicU16::new(0),
        }
    }

    /// Returns the NAT with this index.
    pub fn nat(&self, index: u8) -> &Nat {
        &self.nats[usize::from(index)]
    }

    /// Returns the index of the NAT of packets from `source` that leave by `port`.
    pub fn of_source(&self, port: u16, source: Address) -> Option<u8> {
        self.position(|nat| nat.port == port && nat.is_inside(source))
    }

    /// Returns the index of the NAT that has an end's address and port outside.
    pub fn at(&self, end: &End) -> Option<u8> {
        self.position(|nat| Address::v4(nat.address) == end.address && nat.ports.contains(&end.port))
    }

    /// Returns whether a NAT has this address outside.
    #[inline]
    pub fn has_address(&self, address: Address) -> bool {
        self.nats.iter().any(|nat| Address::v4(nat.address) == address)
    }

    /// Returns whether a packet, which shows its ports, is to a port of a NAT, or about one from
    /// there. ICMP's identifiers are a NAT's while it uses them, because the host chooses its own
    /// ones from all.
    pub fn is_for(&self, header: &IpHeader, packet: &[u8], reader: &Reader) -> bool {
        let is_used = |end: &End| {
            let nat = self.at(end)?;
            let is_ping = end.protocol == protocol::ICMP;
            Some(!is_ping || self.by_outside(nat, protocol::ICMP, end.port, reader).is_some())
        };
        End::of(header, packet, Side::Destination).is_ok_and(|end| is_used(&end) == Some(true))
    }

    fn position(&self, is_it: impl Fn(&Nat) -> bool) -> Option<u8> {
        self.nats.iter().position(is_it).map(|index| index as u8)
    }

    /// Returns the mapping of an inner end.
    #[inline]
    pub fn by_inside<'r>(&'r self, nat: u8, end: &End, reader: &'r Reader) -> Option<&'r Mapping> {
        let key = Key::inside(nat, end.protocol, end.address, end.port);
        self.by_inside.get(&key, reader).map(|mapping| &**mapping)
    }

    /// Returns the mapping of a port outside.
    #[inline]
    pub fn by_outside<'r>(
        &'r self,
        nat: u8,
        protocol: u8,
        port: u16,
        reader: &'r Reader,
    ) -> Option<&'r Mapping> {
        self.by_outside.get(&Key::outside(nat, protocol, port), reader).map(|mapping| &**mapping)
    }

    /// Adds a mapping.
    pub fn insert(&self, writer: &mut Writer, mapping: Mapping) {
        let mapping = Arc::new(mapping);
        let Mapping { nat, protocol, inside, inside_port, outside_port, .. } = *mapping;
        self.by_outside.insert(writer, Key::outside(nat, protocol, outside_port), mapping.clone());
        self.by_inside.insert(writer, Key::inside(nat, protocol, inside, inside_port), mapping);
    }

    /// Removes the mapping of a port outside with this inner end.
    pub fn remove(
        &self,
        writer: &mut Writer,
        (nat, protocol): (u8, u8),
        outside_port: u16,
        (inside, inside_port): (Address, u16),
    ) {
        self.by_inside.remove(writer, &Key::inside(nat, protocol, inside, inside_port));
        self.by_outside.remove(writer, &Key::outside(nat, protocol, outside_port));
    }

    /// Returns the time in seconds since the gateway's start.
    #[inline]
    pub fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// Sets the time.
    pub fn set_now(&self, seconds: u32) {
        if self.now() != seconds {
            self.now.store(seconds, Relaxed);
        }
    }

    /// Returns an identification for a packet that may be fragmented. Several hosts share the
    /// address, so their own ones may meet (RFC 6864 §5.3.1).
    pub fn new_id(&self) -> u16 {
        self.next_id.fetch_add(1, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_dataplane::wire::ip;

    fn end(address: &str, port: u16) -> End {
        let mut packet = [0; 28];
        let src: std::net::Ipv4Addr = address.parse().unwrap();
        ip::emit(&mut packet, src, src, protocol::UDP, 8);
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        End::of(&IpHeader::parse(&packet).unwrap(), &packet, Side::Source).unwrap()
    }

    #[test]
    fn mappings_are_found_by_both_ends_of_their_own_nat_only() {
        let mut writer = Writer::new();
        let reader = writer.reader();
        let nat = |port, ports| Nat {
            port,
            address: u32::from_be_bytes([203, 0, 113, 1]),
            ports,
            inside: ["10.98.0.0/16".parse().unwrap()].into(),
        };
        let tables = NatTables::new(&writer, &[nat(0, 1000..=1999), nat(3, 2000..=2999)]);
        let inner = end("10.98.0.7", 5000);
        assert_eq!([0, 1, 3].map(|port| tables.of_source(port, inner.address)), [Some(0), None, Some(1)]);
        assert_eq!(tables.of_source(0, end("10.99.0.7", 1).address), None);
        let at = |port| tables.at(&end("203.0.113.1", port));
        assert_eq!([999, 1000, 2999, 3000].map(at), [None, Some(0), Some(1), None]);
        assert!(tables.at(&end("203.0.113.2", 1000)).is_none() && !tables.has_address(inner.address));

        tables.insert(&mut writer, Mapping::new(1, protocol::UDP, (inner.address, 5000), 2000, 0));
        let found = |nat, end: &End| tables.by_inside(nat, end, &reader).map(|found| found.outside_port);
        assert_eq!((found(1, &inner), found(0, &inner)), (Some(2000), None));
        assert_eq!((found(1, &end("10.98.0.8", 5000)), found(1, &end("10.98.0.7", 5001))), (None, None));
        let outside = |nat, protocol| tables.by_outside(nat, protocol, 2000, &reader).is_some();
        assert!(outside(1, protocol::UDP) && !outside(0, protocol::UDP) && !outside(1, protocol::TCP));
        tables.remove(&mut writer, (1, protocol::UDP), 2000, (inner.address, 5000));
        assert!(found(1, &inner).is_none() && !outside(1, protocol::UDP));
    }
}

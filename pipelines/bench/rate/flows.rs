//! The flows of UDP datagrams, and which of them each frame belongs to.

use super::stamp;
use std::net::{IpAddr, Ipv6Addr};
use wayfarer_dataplane::{
    sa::PortRange,
    table::Prefix,
    wire::{
        checksum,
        ip::{self, protocol},
        udp::{self, Udp},
    },
};

/// The destination port, if it may be any: discard (RFC 863).
const DISCARD: u16 = 9;
/// The first source port, if it may be any.
const FIRST_PORT: u16 = 1024;
/// Bytes of the headers of IPv6 and UDP, which are the longest.
const HEADERS: usize = ip::V6_HEADER + udp::HEADER;
/// The most addresses of a prefix that are used.
const ADDRESSES: u128 = 1 << 32;

/// The addresses and ports of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
}

impl Ends {
    /// Returns the flow in the other direction.
    pub(super) fn reversed(self) -> Self {
        let Self { src, dst, src_port, dst_port } = self;
        Self { src: dst, dst: src, src_port: dst_port, dst_port: src_port }
    }
}

/// The addresses and ports that flows may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) src: Prefix,
    pub(super) dst: Prefix,
    pub(super) src_ports: PortRange,
    pub(super) dst_ports: PortRange,
}

impl Space {
    /// Returns the number of different flows.
    pub(super) fn len(&self) -> u64 {
        let ports = u128::from(self.first_port().1);
        u64::try_from(u128::from(self.pairs()) * ports).unwrap_or(u64::MAX)
    }

    /// Returns flow number `index`, counted from 0. Each one has other addresses than the one before it,
    /// as far as the prefixes have several, and so on until all pairs had their turn. Then they have the
    /// next source port.
    pub(super) fn flow(&self, index: u64) -> Ends {
        let address = |prefix| {
            let (first, count) = addresses(prefix);
            Ipv6Addr::from_bits(first + u128::from(index % count)).to_canonical()
        };
        let (first, count) = self.first_port();
        let port = (index / self.pairs()) % u64::from(count);
        let dst_ports = self.dst_ports;
        let is_open = (dst_ports.first..=dst_ports.last).contains(&DISCARD);
        Ends {
            src: address(self.src),
            dst: address(self.dst),
            src_port: first + port as u16,
            dst_port: if is_open { DISCARD } else { dst_ports.first },
        }
    }

    /// Returns the number of pairs of addresses that [`Space::flow`] takes in turn.
    fn pairs(&self) -> u64 {
        common_multiple(addresses(self.src).1, addresses(self.dst).1)
    }

    /// Returns the first source port and how many there are. Well-known ones are used only if there are
    /// no others.
    fn first_port(&self) -> (u16, u32) {
        let PortRange { first, last } = self.src_ports;
        let first = if last >= FIRST_PORT { first.max(FIRST_PORT) } else { first };
        (first, u32::from(last - first) + 1)
    }
}

/// Returns the first address for hosts in a prefix, as a number, and how many there are: without those
/// of IPv4's network and broadcast, and IPv6's routers (RFC 4291 §2.6.1).
fn addresses(prefix: Prefix) -> (u128, u64) {
    let (first, last) = prefix.span();
    let all: u8 = if prefix.is_ipv4() { 32 } else { 128 };
    let (first, last) = match (all - prefix.length(), prefix.is_ipv4()) {
        (0 | 1, _) => (first, last),
        (_, true) => (first + 1, last - 1),
        (_, false) => (first + 1, last),
    };
    (first, (last - first).min(ADDRESSES - 1) as u64 + 1)
}

/// Returns the smallest number that both numbers, which are not 0, divide; or the largest one there is.
fn common_multiple(a: u64, b: u64) -> u64 {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).saturating_mul(b)
}

/// The headers of one flow, ready but for lengths and checksums.
#[derive(Clone, Debug)]
struct Headers {
    bytes: [u8; HEADERS],
    /// The sum of what the UDP checksum covers in them, without lengths.
    sum: u64,
}

/// Flows of one family, at least one.
#[derive(Clone, Debug)]
pub(super) struct Flows {
    flows: Vec<Headers>,
    /// Bytes of an IP header.
    ip_header: usize,
}

impl Flows {
    /// Makes the flows with these ends, which are all of one family.
    pub(super) fn new(ends: impl IntoIterator<Item = Ends>) -> Self {
        let mut ip_header = 0;
        let headers = |Ends { src, dst, src_port, dst_port }| {
            let mut bytes = [0; HEADERS];
            ip_header = ip::emit(&mut bytes, src, dst, protocol::UDP, udp::HEADER);
            Udp { src_port, dst_port, length: 0, checksum: 0 }.emit(&mut bytes[ip_header..]);
            let addresses = checksum::pseudo_header(src, dst, protocol::UDP, 0);
            Headers { bytes, sum: checksum::add(addresses, &bytes[ip_header..][..udp::HEADER]) }
        };
        Self { flows: ends.into_iter().map(headers).collect(), ip_header }
    }

    /// Returns the number of flows.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns whether the packets are IPv6.
    pub(super) fn is_ipv6(&self) -> bool {
        self.ip_header == ip::V6_HEADER
    }

    /// Writes a packet of flow `index` that fills `packet`: headers, the stamp, and zeros.
    pub(super) fn emit(&self, index: usize, stamp: &[u8; stamp::LEN], packet: &mut [u8]) {
        let Headers { bytes, sum } = &self.flows[index];
        let (total, headers) = (packet.len(), self.ip_header + udp::HEADER);
        packet[..headers].copy_from_slice(&bytes[..headers]);
        packet[headers..headers + stamp::LEN].copy_from_slice(stamp);
        packet[headers + stamp::LEN..].fill(0);
        ip::set_total_len(packet, self.ip_header, total);
        let length = total - self.ip_header;
        // The length counts twice, because the pseudo-header has it too, and zeros do not count.
        let sum = checksum::finish(checksum::add(sum + 2 * length as u64, stamp));
        // A computed 0 is sent as ffff (RFC 768).
        let sum = if sum == 0 { u16::MAX } else { sum };
        let udp = &mut packet[self.ip_header..headers];
        udp[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Decides which flow and which of the sizes in turn each frame of a stream has. Sizes have exactly
/// their shares, and every flow gets all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    flows: u64,
    sizes: u64,
    cycle: u64,
}

impl Order {
    /// Makes the order of so many flows and sizes, at least one of each.
    pub(super) fn new(flows: usize, sizes: usize) -> Self {
        let (flows, sizes) = (flows as u64, sizes as u64);
        Self { flows, sizes, cycle: common_multiple(flows, sizes) }
    }

    /// Returns the indices of flow and size of frame `number`.
    pub(super) fn of(&self, number: u64) -> (usize, usize) {
        // After each cycle the flows go on by one. Otherwise a flow would have the same sizes for ever if
        // both numbers have a common divisor.
        let flow = (number + number / self.cycle) % self.flows;
        (flow as usize, (number % self.sizes) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};
    use wayfarer_dataplane::wire::ip::IpHeader;

    fn space(src: &str, dst: &str) -> Space {
        let prefix = |text: &str| text.parse().unwrap();
        Space { src: prefix(src), dst: prefix(dst), src_ports: PortRange::ANY, dst_ports: PortRange::ANY }
    }

    #[test]
    fn flows_differ_until_all_had_their_turn() {
        for (src, dst, ports, expected) in [
            ("198.18.0.1", "198.19.0.1", (0, 65535), 64512),
            ("198.18.0.0/29", "198.19.0.0/30", (2000, 2004), 6 * 5),
            ("198.18.0.0/31", "198.19.0.0/29", (7, 7), 6),
            ("2001:2::/125", "2001:2:0:8000::/126", (80, 81), 21 * 2),
        ] {
            let mut space = space(src, dst);
            space.src_ports = PortRange { first: ports.0, last: ports.1 };
            let (src, dst) = (space.src, space.dst);
            assert_eq!(space.len(), expected, "{space:?}");
            let all: HashSet<_> = (0..expected).map(|index| space.flow(index)).collect();
            assert_eq!(all.len() as u64, expected, "{space:?}");
            assert_eq!(space.flow(expected), space.flow(0));
            assert!(all.iter().all(|ends| src.contains(ends.src) && dst.contains(ends.dst)));
            assert!(all.iter().all(|ends| (ports.0..=ports.1).contains(&ends.src_port)));
            let neighbours = |index| [space.flow(index).dst, space.flow(index + 1).dst];
            assert!(dst.length() == 32 || neighbours(3)[0] != neighbours(3)[1]);
        }
        let wide = space("10.0.0.0/8", "fd00::/8");
        assert!(wide.len() > 1 << 40);
        let first = space("10.0.0.0/8", "10.1.0.0/16").flow(0);
        assert_eq!(first.src, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((first.src_port, first.dst_port), (FIRST_PORT, DISCARD));
    }

    #[test]
    fn packets_are_valid_in_both_families_and_directions() {
        let stamp = [0xf7; stamp::LEN];
        for (src, dst) in [("198.18.0.0/16", "198.19.0.0/16"), ("2001:2::/64", "2001:2:0:8000::/64")] {
            let space = space(src, dst);
            let ends = [space.flow(5), space.flow(77).reversed()];
            let flows = Flows::new(ends);
            assert_eq!((flows.len(), flows.is_ipv6()), (2, src.contains(':')));
            for (index, ends) in ends.into_iter().enumerate() {
                for length in [66, 67, 1500] {
                    let mut packet = vec![0xaa; length];
                    flows.emit(index, &stamp, &mut packet);
                    let header = IpHeader::parse(&packet).unwrap();
                    assert_eq!((header.total_len(), header.protocol), (length, protocol::UDP));
                    assert_eq!((header.src.into(), header.dst.into()), (ends.src, ends.dst));
                    let datagram = header.payload(&packet);
                    let udp = Udp::parse(datagram).unwrap();
                    assert_eq!((udp.src_port, udp.dst_port), (ends.src_port, ends.dst_port));
                    assert_eq!(udp.length, datagram.len());
                    let mut checked = datagram.to_vec();
                    udp::set_checksum(&mut checked, ends.src, ends.dst);
                    assert_eq!(checked, datagram, "{length}");
                    assert_eq!(datagram[udp::HEADER..][..stamp::LEN], stamp);
                    assert!(datagram[udp::HEADER + stamp::LEN..].iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn sizes_have_exactly_their_shares_and_every_flow_has_all_of_them() {
        for flows in [1, 2, 5, 11, 12, 24, 30] {
            let order = Order::new(flows, 12);
            let (mut sizes, mut pairs, mut each) = ([0; 12], HashSet::new(), BTreeMap::new());
            let frames = 12 * 12 * flows as u64;
            for number in 0..frames {
                let (flow, size) = order.of(number);
                sizes[size] += 1;
                pairs.insert((flow, size));
                *each.entry(flow).or_insert(0) += 1;
            }
            assert_eq!(sizes, [frames / 12; 12], "{flows}");
            assert_eq!(pairs.len(), 12 * flows, "{flows}");
            assert!(each.len() == flows && each.values().all(|frames| *frames == 144), "{flows}: {each:?}");
        }
    }
}

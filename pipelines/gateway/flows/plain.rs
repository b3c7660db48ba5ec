//! Tells plain packets, which may be of a flow that is remembered, from others.

use super::{
    super::{
        keyed_hash::KeyedHash,
        outbound::{MAX_HEADERS, MAX_TRAILER},
        tables::Tables,
    },
    key::{InboundKey, OutboundKey, V6Ends, v6_destination, v6_ends},
    order::HeldFlows,
};
use wayfarer_dataplane::{
    packet::Packet,
    wire::{
        esp, ethernet,
        ip::{V4_HEADER, V6_HEADER, protocol},
        plain::{MIN_TRANSPORT, PlainHeader, PlainV4, PlainV6},
        udp,
    },
};

/// Lengths of the shortest frames that are looked at, in bytes.
const MIN_V4: usize = ethernet::HEADER + V4_HEADER + MIN_TRANSPORT;
const MIN_V6: usize = ethernet::HEADER + V6_HEADER + MIN_TRANSPORT;

/// A plain packet: one that is to be forwarded, or that is for somebody here, or ESP.
pub(super) struct Plain<H> {
    pub header: H,
    /// Source and destination port as in the packet, the first byte lowest. 0 for ESP without UDP.
    pub ports: u32,
    pub esp: Option<EspHeader>,
    pub addresses: KeyAddresses,
}

/// The header of ESP, and where it is in the frame.
#[derive(Clone, Copy)]
pub(super) struct EspHeader {
    at: usize,
    /// As in the packet.
    spi: [u8; 4],
    /// The low half of the sequence number.
    seq: u32,
}

impl<H: PlainHeader> Plain<H> {
    /// Returns what the header says besides the flow.
    #[inline(always)]
    pub(super) fn shape(&self) -> Shape {
        Shape {
            total_len: self.header.total_len() as u16,
            traffic_class: self.header.traffic_class(),
            dont_fragment: self.header.dont_fragment(),
        }
    }

    /// Returns the flow of a packet that is not ESP, which came by `port`.
    #[inline(always)]
    pub(super) fn outbound_key(&self, port: u16) -> OutboundKey {
        let is_ipv4 = H::LENGTH == V4_HEADER;
        OutboundKey::new(self.addresses.both, is_ipv4, self.header.protocol(), self.ports, port)
    }

    /// Returns the SA of a packet with this ESP, which came by `port`, and where ESP is in the frame.
    #[inline(always)]
    pub(super) fn inbound_key(&self, esp: EspHeader, port: u16) -> (InboundKey, EspPlace) {
        let EspHeader { at, spi, seq } = esp;
        let key = InboundKey::new(self.addresses.dst, spi, at, port);
        (key, EspPlace { at: at as u16, seq, udp_ports: self.ports })
    }
}

/// What the header of a plain packet says besides its flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Length of the packet in bytes.
    pub total_len: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub dont_fragment: bool,
}

/// Where ESP is in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct EspPlace {
    /// Offset in the frame.
    pub at: u16,
    /// Low half of the sequence number.
    pub seq: u32,
    /// Source and destination UDP port as in the packet, the first byte lowest. 0 without UDP.
    pub udp_ports: u32,
}

/// The addresses of an outer packet as they are in keys.
#[derive(Clone, Copy)]
pub(super) struct KeyAddresses {
    /// Source and destination as in the packet, the first byte lowest, or a hash of those of IPv6.
    pub both: u64,
    /// The destination as in the packet, the first byte lowest, or a hash of that of IPv6.
    pub dst: u32,
}

/// Tells the plain packets of one port from others.
pub(super) struct Sorter<'t> {
    pub port: u16,
    /// The port's own MAC address, in the upper bits.
    mac: u64,
    /// The first UDP port of ESP as in a packet, the first byte lowest, if there is any, and the others.
    encap_port: Option<u16>,
    other_encap_ports: &'t [u16],
    hash: &'t KeyedHash,
}

impl<'t> Sorter<'t> {
    pub(super) fn new(port: u16, tables: &'t Tables, hash: &'t KeyedHash) -> Self {
        let [a, b, c, d, e, f] = tables.settings.ports[usize::from(port)].mac.get();
        let mac = u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        let (encap_port, other_encap_ports) = match tables.settings.encap_ports.split_first() {
            Some((first, others)) => (Some(first.swap_bytes()), others),
            None => (None, &[][..]),
        };
        Self { port, mac, encap_port, other_encap_ports, hash }
    }

    /// Returns the packet in a frame, if it is a plain one of IPv4.
    #[inline(always)]
    pub(super) fn read_v4(&self, packet: &Packet) -> Option<Plain<PlainV4>> {
        let h = packet.data().first_chunk::<MIN_V4>()?;
        if !self.is_own(h, ethernet::IPV4) {
            return None;
        }
        let header = PlainV4::read(h[ethernet::HEADER..].first_chunk()?, packet.is_verified())?;
        let addresses = KeyAddresses { both: header.addresses, dst: (header.addresses >> 32) as u32 };
        self.read(packet, header, addresses)
    }

    /// Returns the packet in a frame, if it is a plain one of IPv6.
    #[inline(never)]
    pub(super) fn read_v6(&self, packet: &Packet) -> Option<Plain<PlainV6>> {
        let h = packet.data().first_chunk::<MIN_V6>()?;
        if !self.is_own(h, ethernet::IPV6) {
            return None;
        }
        let (header, ends) = (PlainV6::read(h[ethernet::HEADER..].first_chunk()?)?, v6_ends(h));
        let dst = self.hash.of_v6(&v6_destination(&ends)) as u32;
        self.read(packet, header, KeyAddresses { both: self.v6_key(&ends), dst })
    }

    /// Returns what stands for IPv6 addresses in keys.
    fn v6_key(&self, ends: &V6Ends) -> u64 {
        self.hash.of_v6(ends)
    }

    /// Returns whether a frame is for the port's own MAC address, and has this EtherType.
    #[inline(always)]
    fn is_own(&self, h: &[u8], ethertype: u16) -> bool {
        let to = u64::from_be_bytes(std::array::from_fn(|i| h[i])) >> 16 << 16;
        to == self.mac && [h[12], h[13]] == ethertype.to_be_bytes()
    }

    /// Returns the packet in a frame that has a plain `header`, if the rest of it is plain.
    #[inline(always)]
    fn read<H: PlainHeader>(&self, packet: &Packet, header: H, addresses: KeyAddresses) -> Option<Plain<H>> {
        let frame = packet.data();
        // Room to seal it in any way.
        if packet.headroom() < MAX_HEADERS || packet.tailroom() < MAX_TRAILER {
            return None;
        }
        let (at, total_len) = (ethernet::HEADER + H::LENGTH, header.total_len());
        if total_len > frame.len() - ethernet::HEADER || header.hop_limit() <= 1 {
            return None;
        }
        let (mut ports, mut esp_at) = (0, Some(at));
        if header.protocol() != protocol::ESP {
            let payload = frame.get(at..)?;
            ports = header.ports(payload)?;
            esp_at = None;
            if header.protocol() == protocol::UDP && self.is_encap_port((ports >> 16) as u16) {
                let length = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
                if length != total_len - H::LENGTH {
                    return None;
                }
                esp_at = Some(at + udp::HEADER);
            }
        }
        let mut esp = None;
        if let Some(at) = esp_at {
            let [a, b, c, d, seq @ ..] = *frame.get(at..)?.first_chunk::<{ esp::HEADER }>()?;
            // The first of the reserved SPIs is the mark of IKE.
            if [a, b, c] == [0; 3] || ethernet::HEADER + total_len < at + esp::HEADER {
                return None;
            }
            esp = Some(EspHeader { at, spi: [a, b, c, d], seq: u32::from_be_bytes(seq) });
        }
        Some(Plain { header, ports, esp, addresses })
    }

    /// Returns whether ESP comes to this UDP port, which is as in the packet, the first byte lowest.
    #[inline(always)]
    fn is_encap_port(&self, port: u16) -> bool {
        let is = |own: &u16| own.swap_bytes() == port;
        Some(port) == self.encap_port
            || (!self.other_encap_ports.is_empty() && self.other_encap_ports.iter().any(is))
    }

    /// Returns the addresses of the IP packet in a frame as in [`KeyAddresses::both`], if there is one.
    pub(super) fn addresses(&self, packet: &Packet) -> Option<u64> {
        const V4_ADDRESSES: usize = ethernet::HEADER + 12;
        let frame = packet.data();
        match ethertype(frame)? {
            ethernet::IPV4 => Some(u64::from_le_bytes(*frame.get(V4_ADDRESSES..)?.first_chunk()?)),
            ethernet::IPV6 => Some(self.v6_key(&v6_ends(frame))),
            _ => None,
        }
    }

    /// Holds the flows that a frame which is not plain may belong to.
    pub(super) fn hold_flow(&self, packet: &Packet, held: &mut HeldFlows<u64>) {
        match self.addresses(packet) {
            Some(addresses) => held.hold(addresses),
            None if matches!(ethertype(packet.data()), None | Some(ethernet::ARP)) => {}
            None => held.hold_all(),
        }
    }
}

/// Returns the EtherType of a frame, if it has one.
fn ethertype(frame: &[u8]) -> Option<u16> {
    let [.., a, b] = frame.first_chunk::<{ ethernet::HEADER }>()?;
    Some(u16::from_be_bytes([*a, *b]))
}

//! Tells plain packets, which may be of a flow that is remembered, from others.

use super::{
    super::{
        outbound::{MAX_HEADERS, MAX_TRAILER},
        tables::Tables,
    },
    key::{InboundKey, OutboundKey, V6Ends, v6_destination, v6_ends},
    order::HeldFlows,
    ways::Hash,
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

/// A plain packet.
pub(super) struct Plain {
    /// Source and destination as in the packet, the first byte lowest, or a hash of those of IPv6.
    pub addresses: u64,
    pub shape: Shape,
    pub kind: Kind,
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

/// What a plain packet is.
pub(super) enum Kind {
    /// A packet that is to be forwarded, or that is for somebody here.
    Outbound(OutboundKey),
    /// An ESP packet.
    Inbound(InboundKey, EspPlace),
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

/// What of an outer packet's addresses is in keys.
#[derive(Clone, Copy)]
struct KeyAddresses {
    /// See [`Plain::addresses`].
    both: u64,
    /// The destination as in the packet, the first byte lowest, or a hash of that of IPv6.
    dst: u32,
}

/// Tells the plain packets of one port from others.
pub(super) struct Sorter<'t> {
    port: u16,
    /// The port's own MAC address, in the upper bits.
    mac: u64,
    encap_ports: &'t [u16],
    hash: &'t Hash,
}

impl<'t> Sorter<'t> {
    pub(super) fn new(port: u16, tables: &'t Tables, hash: &'t Hash) -> Self {
        let [a, b, c, d, e, f] = tables.settings.ports[usize::from(port)].mac.get();
        Self {
            port,
            mac: u64::from_be_bytes([a, b, c, d, e, f, 0, 0]),
            encap_ports: &tables.settings.encap_ports,
            hash,
        }
    }

    /// Returns what a frame is, if it is a plain packet of IPv4.
    #[inline(always)]
    pub(super) fn sort_v4(&self, packet: &Packet) -> Option<Plain> {
        let h = packet.data().first_chunk::<MIN_V4>()?;
        if !self.is_own(h, ethernet::IPV4) {
            return None;
        }
        let header = PlainV4::read(h[ethernet::HEADER..].first_chunk()?, packet.is_verified())?;
        let dst = (header.addresses >> 32) as u32;
        self.sort(packet, header, || KeyAddresses { both: header.addresses, dst })
    }

    /// Returns what a frame is, if it is a plain packet of IPv6.
    #[inline(never)]
    pub(super) fn sort_v6(&self, packet: &Packet) -> Option<Plain> {
        let h = packet.data().first_chunk::<MIN_V6>()?;
        if !self.is_own(h, ethernet::IPV6) {
            return None;
        }
        let header = PlainV6::read(h[ethernet::HEADER..].first_chunk()?)?;
        self.sort(packet, header, || {
            let ends = v6_ends(h);
            KeyAddresses { both: self.v6_key(&ends), dst: self.hash.of_v6(&v6_destination(&ends)) as u32 }
        })
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

    /// Returns what a packet with a plain `header` is.
    #[inline(always)]
    fn sort<H: PlainHeader>(
        &self,
        packet: &Packet,
        header: H,
        addresses: impl FnOnce() -> KeyAddresses,
    ) -> Option<Plain> {
        let frame = packet.data();
        // Room to seal it in any way.
        if packet.headroom() < MAX_HEADERS || packet.tailroom() < MAX_TRAILER {
            return None;
        }
        let (at, total_len) = (ethernet::HEADER + H::LENGTH, header.total_len());
        if total_len > frame.len() - ethernet::HEADER || header.hop_limit() <= 1 {
            return None;
        }
        let protocol = header.protocol();
        let shape = Shape {
            total_len: total_len as u16,
            traffic_class: header.traffic_class(),
            dont_fragment: header.dont_fragment(),
        };
        if protocol == protocol::ESP {
            return self.esp(frame, addresses(), shape, at, 0);
        }
        let payload = frame.get(at..)?;
        let ports = header.ports(payload)?;
        let to_port = (ports >> 16) as u16;
        if protocol == protocol::UDP && self.encap_ports.iter().any(|own| own.swap_bytes() == to_port) {
            let length = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
            if length != total_len - H::LENGTH {
                return None;
            }
            return self.esp(frame, addresses(), shape, at + udp::HEADER, ports);
        }
        let KeyAddresses { both, .. } = addresses();
        let key = OutboundKey::new(both, H::LENGTH == V4_HEADER, protocol, ports, self.port);
        Some(Plain { addresses: both, shape, kind: Kind::Outbound(key) })
    }

    #[inline(always)]
    fn esp(
        &self,
        frame: &[u8],
        addresses: KeyAddresses,
        shape: Shape,
        at: usize,
        udp_ports: u32,
    ) -> Option<Plain> {
        let [a, b, c, d, seq @ ..] = *frame.get(at..)?.first_chunk::<{ esp::HEADER }>()?;
        let end = ethernet::HEADER + usize::from(shape.total_len);
        // The first of the reserved SPIs is the mark of IKE.
        if [a, b, c] == [0; 3] || end < at + esp::HEADER {
            return None;
        }
        let place = EspPlace { at: at as u16, seq: u32::from_be_bytes(seq), udp_ports };
        let KeyAddresses { both, dst } = addresses;
        let key = InboundKey::new(dst, [a, b, c, d], at, self.port);
        Some(Plain { addresses: both, shape, kind: Kind::Inbound(key, place) })
    }

    /// Holds the flows that a frame which is not plain may belong to, by their addresses as in
    /// [`Plain::addresses`].
    #[inline]
    pub(super) fn hold_flow(&self, packet: &Packet, held: &mut HeldFlows<u64>) {
        const V4_ADDRESSES: usize = 12;
        let frame = packet.data();
        let Some([.., a, b]) = frame.first_chunk::<{ ethernet::HEADER }>() else { return };
        match (
            u16::from_be_bytes([*a, *b]),
            frame.get(ethernet::HEADER + V4_ADDRESSES..).and_then(|h| h.first_chunk()),
        ) {
            (ethernet::IPV4, Some(addresses)) => held.hold(u64::from_le_bytes(*addresses)),
            (ethernet::IPV6, _) => held.hold(self.v6_key(&v6_ends(frame))),
            (ethernet::ARP, _) => {}
            _ => held.hold_all(),
        }
    }
}

//! Tells plain packets, which may be of a flow that is remembered, from others.

use super::{
    super::{
        outbound::{MAX_HEADERS, MAX_TRAILER},
        tables::Tables,
    },
    entry::{InboundKey, OutboundKey},
    order::HeldFlows,
};
use wayfarer_dataplane::{
    packet::Packet,
    wire::{
        esp, ethernet,
        ip::{V4_HEADER, protocol},
        plain::{MIN_TRANSPORT, PlainV4},
        udp,
    },
};

/// Length of the shortest frame that is looked at, in bytes.
const MIN_FRAME: usize = ethernet::HEADER + V4_HEADER + MIN_TRANSPORT;

/// A plain packet.
pub(super) struct Plain {
    pub header: PlainV4,
    pub kind: Kind,
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

/// Tells the plain packets of one port from others.
pub(super) struct Sorter<'t> {
    port: u16,
    /// The port's own MAC address, in the upper bits.
    mac: u64,
    encap_ports: &'t [u16],
}

impl<'t> Sorter<'t> {
    pub(super) fn new(port: u16, tables: &'t Tables) -> Self {
        let [a, b, c, d, e, f] = tables.settings.ports[usize::from(port)].mac.get();
        Self {
            port,
            mac: u64::from_be_bytes([a, b, c, d, e, f, 0, 0]),
            encap_ports: &tables.settings.encap_ports,
        }
    }

    /// Returns what a frame is, if it is plain.
    #[inline(always)]
    pub(super) fn sort(&self, packet: &Packet) -> Option<Plain> {
        let frame = packet.data();
        let h = frame.first_chunk::<MIN_FRAME>()?;
        // Room to seal it in any way.
        if packet.headroom() < MAX_HEADERS || packet.tailroom() < MAX_TRAILER {
            return None;
        }
        let to = u64::from_be_bytes(std::array::from_fn(|i| h[i])) >> 16 << 16;
        if to != self.mac || [h[12], h[13]] != ethernet::IPV4.to_be_bytes() {
            return None;
        }
        let (ip, payload) = h[ethernet::HEADER..].split_first_chunk::<V4_HEADER>()?;
        let payload = payload.first_chunk::<MIN_TRANSPORT>()?;
        let header = PlainV4::read(ip, packet.is_verified())?;
        if header.total_len() > frame.len() - ethernet::HEADER || header.hop_limit() <= 1 {
            return None;
        }
        if header.protocol() == protocol::ESP {
            return self.esp(frame, header, ethernet::HEADER + V4_HEADER, 0);
        }
        let ports = header.ports(payload)?;
        let to_port = (ports >> 16) as u16;
        if header.protocol() == protocol::UDP
            && self.encap_ports.iter().any(|own| own.swap_bytes() == to_port)
        {
            let length = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
            if length != header.total_len() - V4_HEADER {
                return None;
            }
            return self.esp(frame, header, ethernet::HEADER + V4_HEADER + udp::HEADER, ports);
        }
        Some(Plain { header, kind: Kind::Outbound(OutboundKey::new(header, ports, self.port)) })
    }

    #[inline(always)]
    fn esp(&self, frame: &[u8], header: PlainV4, at: usize, udp_ports: u32) -> Option<Plain> {
        let [a, b, c, d, seq @ ..] = *frame.get(at..)?.first_chunk::<{ esp::HEADER }>()?;
        let end = ethernet::HEADER + header.total_len();
        // The first of the reserved SPIs is the mark of IKE.
        if [a, b, c] == [0; 3] || end < at + esp::HEADER {
            return None;
        }
        let place = EspPlace { at: at as u16, seq: u32::from_be_bytes(seq), udp_ports };
        let key = InboundKey::new(header, [a, b, c, d], at, self.port);
        Some(Plain { header, kind: Kind::Inbound(key, place) })
    }
}

/// Holds the flows that a frame which is not plain may belong to, by their addresses as in
/// [`PlainV4::addresses`].
#[inline]
pub(super) fn hold_flow(packet: &Packet, held: &mut HeldFlows<u64>) {
    const ADDRESSES: usize = 12;
    let frame = packet.data();
    let Some([.., a, b]) = frame.first_chunk::<{ ethernet::HEADER }>() else { return };
    match (
        u16::from_be_bytes([*a, *b]),
        frame.get(ethernet::HEADER + ADDRESSES..).and_then(|h| h.first_chunk()),
    ) {
        (ethernet::IPV4, Some(addresses)) => held.hold(u64::from_le_bytes(*addresses)),
        // Their packets are not plain either.
        (ethernet::ARP | ethernet::IPV6, _) => {}
        _ => held.hold_all(),
    }
}

//! From a packet to its ESP form: everything but sequence number and cryptography (RFC 4303 §3.3, RFC 4301 §5.1.2).

use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Df, Endpoint, Mode, OutboundSa},
    wire::{
        esp,
        ip::{self, IpHeader, protocol},
        udp,
    },
};

/// Where the parts of an encapsulated packet are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    ip_len: u16,
    esp_at: u16,
}

impl Layout {
    fn new(ip_len: usize, esp_at: usize) -> Self {
        Self { ip_len: ip_len as u16, esp_at: esp_at as u16 }
    }

    /// Bytes of the outer IP header.
    #[inline]
    pub fn ip_len(self) -> usize {
        usize::from(self.ip_len)
    }

    /// Offset of the ESP header.
    #[inline]
    pub fn esp_at(self) -> usize {
        usize::from(self.esp_at)
    }
}

/// Bytes of the IP packet that one SA can carry in one outer packet of its MTU, when it goes to `endpoint`.
#[inline]
pub fn payload_limit(sa: &OutboundSa, endpoint: &Endpoint, header: &IpHeader) -> usize {
    let suite = sa.key.suite();
    let crypto = suite.iv_len() + suite.icv_len();
    match sa.mode {
        Mode::Tunnel => Endpoint::payload_limit(endpoint.outer_len(), sa.mtu(), crypto, suite.align()),
        Mode::Transport => {
            let outer = header.header_len() + endpoint.outer_len() - endpoint.ip_len();
            header.header_len() + Endpoint::payload_limit(outer, sa.mtu(), crypto, suite.align())
        }
    }
}

/// Wraps the IP packet in `packet`: outer headers, ESP header (sequence number still open), room for the IV, padding,
/// trailer, room for the ICV.
///
/// # Errors
/// `NoHeadroom` where the frame has no room for that.
#[inline]
pub fn encapsulate(
    packet: &mut Packet,
    header: &IpHeader,
    sa: &OutboundSa,
    endpoint: &Endpoint,
) -> Result<Layout, DropReason> {
    match sa.mode {
        Mode::Tunnel => tunnel(packet, header, sa, endpoint),
        Mode::Transport => transport(packet, header, sa, endpoint),
    }
    .ok_or(DropReason::NoHeadroom)
}

fn tunnel(packet: &mut Packet, header: &IpHeader, sa: &OutboundSa, endpoint: &Endpoint) -> Option<Layout> {
    let next_header = if header.src.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 };
    let payload = packet.len();
    let padded = payload.max(tfc_length(sa, endpoint));
    packet.set_len(padded)?;
    packet.data_mut()[payload..].fill(0);
    pad(packet, 0, sa, next_header)?;
    let esp_at = endpoint.outer_len();
    packet.push_front(esp_at + esp::HEADER + sa.key.suite().iv_len())?;
    let data = packet.data_mut();
    let template = endpoint.template();
    data[..template.len()].copy_from_slice(template);
    let dscp = sa.marking.dscp.map_or(header.traffic_class & !super::decapsulate::ECN, |dscp| dscp << 2);
    // ECN is always copied: RFC 6040 §4.1, normal mode.
    ip::set_traffic_class(data, dscp | header.traffic_class & super::decapsulate::ECN);
    if endpoint.is_ipv4() {
        let df = match sa.marking.df {
            Df::Copy => header.dont_fragment,
            Df::Set => true,
            Df::Clear => false,
        };
        data[6] = if df { 0x40 } else { 0 };
    }
    Some(Layout::new(endpoint.ip_len(), esp_at))
}

/// The length to which inner packets are padded: as configured, but never beyond the MTU.
#[inline]
fn tfc_length(sa: &OutboundSa, endpoint: &Endpoint) -> usize {
    if sa.tfc() == 0 {
        return 0;
    }
    let suite = sa.key.suite();
    let crypto = suite.iv_len() + suite.icv_len();
    sa.tfc().min(Endpoint::payload_limit(endpoint.outer_len(), sa.mtu(), crypto, suite.align()))
}

fn transport(packet: &mut Packet, header: &IpHeader, sa: &OutboundSa, endpoint: &Endpoint) -> Option<Layout> {
    pad(packet, header.header_len(), sa, header.protocol)?;
    let udp_len = endpoint.outer_len() - endpoint.ip_len();
    let added = udp_len + esp::HEADER + sa.key.suite().iv_len();
    packet.push_front(added)?;
    let data = packet.data_mut();
    data.copy_within(added..added + header.header_len(), 0);
    let esp_at = header.header_len() + udp_len;
    data[header.protocol_at()] = if endpoint.has_udp() { protocol::UDP } else { protocol::ESP };
    data[header.header_len()..esp_at + 4].copy_from_slice(&endpoint.template()[endpoint.ip_len()..]);
    Some(Layout::new(header.header_len(), esp_at))
}

/// Appends padding, trailer and room for the ICV to a packet whose ESP payload begins at `from`.
fn pad(packet: &mut Packet, from: usize, sa: &OutboundSa, next_header: u8) -> Option<()> {
    let suite = sa.key.suite();
    let end = packet.len();
    let tail = esp::padding(end - from, suite.align()) + esp::TRAILER;
    packet.set_len(end + tail + suite.icv_len())?;
    esp::emit_trailer(&mut packet.data_mut()[end..end + tail], next_header);
    Some(())
}

/// Fills in what follows from the sequence number: ESP header, IPv4 identification; and lengths and checksums of the
/// outer headers, but for a UDP checksum, which covers the ciphertext.
#[inline]
pub fn number(packet: &mut Packet, layout: Layout, sa: &OutboundSa, seq: u64) {
    let total = packet.len();
    let data = packet.data_mut();
    esp::emit_header(&mut data[layout.esp_at()..], sa.spi.0, seq);
    if layout.esp_at() != layout.ip_len() {
        let length = (total - layout.ip_len()) as u16;
        data[layout.ip_len() + 4..layout.ip_len() + 6].copy_from_slice(&length.to_be_bytes());
    }
    let fragmentable = data[0] >> 4 == 4 && data[6] & 0x40 == 0;
    if fragmentable && sa.mode == Mode::Tunnel {
        data[4..6].copy_from_slice(&(seq as u16).to_be_bytes());
    }
    ip::set_total_len(data, layout.ip_len(), total);
}

/// Writes the UDP checksum over the ciphertext where the path wants one: never over IPv4 (RFC 3948 §2.1).
#[inline]
pub fn checksum(packet: &mut Packet, layout: Layout, sa: &OutboundSa) {
    let data = packet.data_mut();
    if layout.esp_at() != layout.ip_len()
        && data[0] >> 4 == 6
        && sa.marking.udp6_checksum
        && let Ok(header) = IpHeader::parse(data)
    {
        udp::set_checksum(&mut data[layout.ip_len()..], header.src, header.dst);
    }
}

//! Encapsulation of packets in ESP, except for sequence number and cryptography (RFC 4303 §3.3, RFC
//! 4301 §5.1.2).

use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Endpoint, Mode, OutboundSa},
    wire::{
        esp,
        ip::{self, IpHeader, protocol},
        udp,
    },
};

/// The MTU of Ethernet in bytes: the longest inner packet for which outer packets are cut, so that
/// inner hosts need no smaller MTU than they are used to.
const ETHERNET_MTU: usize = 1500;

/// The layout of an encapsulated packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    ip_len: u16,
    esp_at: u16,
}

impl Layout {
    /// The layout of ESP in UDP over IPv6 without extension headers.
    pub(super) const UDP_OVER_V6: Self =
        Self { ip_len: ip::V6_HEADER as u16, esp_at: (ip::V6_HEADER + udp::HEADER) as u16 };

    fn new(ip_len: usize, esp_at: usize) -> Self {
        Self { ip_len: ip_len as u16, esp_at: esp_at as u16 }
    }

    /// Returns the length of the outer IP header, in bytes.
    #[inline]
    pub fn ip_len(self) -> usize {
        usize::from(self.ip_len)
    }

    /// Returns the offset of the ESP header, in bytes.
    #[inline]
    pub fn esp_at(self) -> usize {
        usize::from(self.esp_at)
    }
}

/// The header of a packet that stays before ESP in transport mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptHeader {
    /// Its length in bytes, with options or extension headers.
    pub(super) length: usize,
    /// The offset of the byte that names the protocol.
    pub(super) protocol_at: usize,
    /// The protocol of the payload.
    pub(super) protocol: u8,
}

impl KeptHeader {
    /// Returns a header without options or extension headers.
    pub(super) fn plain(is_ipv4: bool, protocol: u8) -> Self {
        match is_ipv4 {
            true => Self { length: ip::V4_HEADER, protocol_at: ip::V4_PROTOCOL_AT, protocol },
            false => Self { length: ip::V6_HEADER, protocol_at: ip::V6_PROTOCOL_AT, protocol },
        }
    }
}

impl From<&IpHeader> for KeptHeader {
    #[inline]
    fn from(header: &IpHeader) -> Self {
        let (length, protocol_at) = (header.header_len(), header.protocol_at());
        Self { length, protocol_at, protocol: header.protocol }
    }
}

/// Returns the longest IP packet with a header of `header_len` bytes, in bytes, that one SA can carry in
/// one outer packet to `endpoint`.
#[inline]
pub fn payload_limit(sa: &OutboundSa, endpoint: &Endpoint, header_len: usize) -> usize {
    match sa.mode {
        Mode::Tunnel => endpoint.payload_limit(),
        Mode::Transport => {
            let outer = header_len + endpoint.outer_len() - endpoint.ip_len();
            header_len + sa.overhead.payload_limit(outer, endpoint.mtu())
        }
    }
}

/// Returns the longest IP packet, in bytes, that one SA carries to `endpoint` without cutting it: in
/// one outer packet, or in one that is cut into fragments instead (RFC 2473 §7).
pub fn whole_limit(sa: &OutboundSa, endpoint: &Endpoint, header: &IpHeader) -> usize {
    let limit = payload_limit(sa, endpoint, header.header_len());
    // In transport mode, packets are cut only after they are sealed (RFC 4303 §3.3.4). In tunnel mode, the
    // peer's selectors of ports would refuse all inner fragments but the first.
    if !header.dont_fragment && (sa.mode == Mode::Transport || sa.selects_ports) {
        return usize::from(u16::MAX);
    }
    // Of IPv6, only headers without extensions are cut.
    if sa.mode == Mode::Transport && !header.is_ipv4() && header.has_options() {
        return limit;
    }
    if sa.outer_fragments {
        limit.max(ETHERNET_MTU)
    } else if header.is_ipv4() {
        limit
    } else {
        limit.max(ip::V6_MIN_MTU)
    }
}

/// Wraps the IP packet in `packet`: makes room for the outer headers, the ESP header, the IV and
/// the ICV, and adds padding and trailer. In transport mode the IP header stays, and lacks only
/// lengths and fields that depend on the sequence number.
///
/// # Errors
/// `NoHeadroom` if the frame has too little room.
#[inline]
pub fn encapsulate(
    packet: &mut Packet,
    header: &IpHeader,
    sa: &OutboundSa,
    endpoint: &Endpoint,
) -> Result<Layout, DropReason> {
    match sa.mode {
        Mode::Tunnel => tunnel(packet, header, sa, endpoint),
        Mode::Transport => transport(packet, header.into(), sa, endpoint),
    }
    .ok_or(DropReason::NoHeadroom)
}

/// Wraps an IP packet without next header as a dummy packet (RFC 4303 §2.6). In tunnel mode, only its
/// payload stays.
///
/// # Errors
/// `NoHeadroom` if the frame has too little room.
pub fn dummy(
    packet: &mut Packet,
    header: &IpHeader,
    sa: &OutboundSa,
    endpoint: &Endpoint,
) -> Result<Layout, DropReason> {
    let wrapped = match sa.mode {
        Mode::Tunnel => {
            packet.pull_front(header.header_len()).and_then(|()| wrap(packet, protocol::NONE, sa, endpoint))
        }
        Mode::Transport => transport(packet, header.into(), sa, endpoint),
    };
    wrapped.ok_or(DropReason::NoHeadroom)
}

#[inline]
fn tunnel(packet: &mut Packet, header: &IpHeader, sa: &OutboundSa, endpoint: &Endpoint) -> Option<Layout> {
    let next_header = if header.is_ipv4() { protocol::IPV4 } else { protocol::IPV6 };
    if sa.tfc() > packet.len() {
        lengthen(packet, sa, endpoint)?;
    }
    wrap(packet, next_header, sa, endpoint)
}

/// Wraps a payload in tunnel mode.
#[inline]
fn wrap(packet: &mut Packet, next_header: u8, sa: &OutboundSa, endpoint: &Endpoint) -> Option<Layout> {
    pad(packet, 0, sa, next_header)?;
    let esp_at = endpoint.outer_len();
    packet.push_front(esp_at + esp::HEADER + sa.overhead.iv())?;
    Some(Layout::new(endpoint.ip_len(), esp_at))
}

/// Pads an inner packet to the configured length, but never beyond the MTU (RFC 4303 §2.7).
#[cold]
fn lengthen(packet: &mut Packet, sa: &OutboundSa, endpoint: &Endpoint) -> Option<()> {
    let payload = packet.len();
    packet.set_len(payload.max(sa.tfc().min(endpoint.payload_limit())))?;
    packet.data_mut()[payload..].fill(0);
    Some(())
}

/// Wraps the payload of the IP packet in `packet`, whose header stays.
pub(super) fn transport(
    packet: &mut Packet,
    header: KeptHeader,
    sa: &OutboundSa,
    endpoint: &Endpoint,
) -> Option<Layout> {
    let KeptHeader { length, protocol_at, protocol } = header;
    pad(packet, length, sa, protocol)?;
    let udp_len = endpoint.outer_len() - endpoint.ip_len();
    let added = udp_len + esp::HEADER + sa.overhead.iv();
    packet.push_front(added)?;
    let data = packet.data_mut();
    data.copy_within(added..added + length, 0);
    let esp_at = length + udp_len;
    data[protocol_at] = if endpoint.has_udp() { protocol::UDP } else { protocol::ESP };
    data[length..esp_at + 4].copy_from_slice(endpoint.behind_ip());
    Some(Layout::new(length, esp_at))
}

/// Appends padding, trailer and room for the ICV to a packet whose ESP payload begins at `from`.
#[inline]
fn pad(packet: &mut Packet, from: usize, sa: &OutboundSa, next_header: u8) -> Option<()> {
    let end = packet.len();
    let tail = esp::padding(end - from, sa.overhead.align()) + esp::TRAILER;
    packet.set_len(end + tail + sa.overhead.icv())?;
    let behind = &mut packet.data_mut()[end..];
    match behind.first_chunk_mut() {
        Some(space) if tail <= space.len() => esp::emit_short_trailer(space, tail, next_header),
        _ => esp::emit_trailer(&mut behind[..tail], next_header),
    }
    Some(())
}

/// Writes the headers that depend on the sequence number: the ESP header and the outer headers. A
/// UDP checksum comes later, because it covers the ciphertext.
#[inline]
pub fn number(
    packet: &mut Packet,
    header: &IpHeader,
    layout: Layout,
    sa: &OutboundSa,
    endpoint: &Endpoint,
    seq: u64,
) {
    let data = packet.data_mut();
    match sa.mode {
        Mode::Tunnel => emit_outer(data, header.traffic_class, header.dont_fragment, sa, endpoint, seq),
        Mode::Transport => emit_lengths(data, layout),
    }
    esp::emit_sequence(&mut data[layout.esp_at()..], seq);
}

/// Writes the lengths of the packet that fills `packet` to its outer headers, which stayed before ESP.
pub(super) fn emit_lengths(packet: &mut [u8], layout: Layout) {
    let total = packet.len();
    if layout.esp_at() != layout.ip_len() {
        let length = (total - layout.ip_len()) as u16;
        packet[layout.ip_len() + 4..layout.ip_len() + 6].copy_from_slice(&length.to_be_bytes());
    }
    ip::set_total_len(packet, layout.ip_len(), total);
}

/// Writes the outer headers of a tunnel to the start of `packet`. `traffic_class` and `dont_fragment` are
/// those of the inner packet.
#[inline(always)]
pub(super) fn emit_outer(
    packet: &mut [u8],
    traffic_class: u8,
    dont_fragment: bool,
    sa: &OutboundSa,
    endpoint: &Endpoint,
    seq: u64,
) {
    let (class, df) = (sa.outer_class(traffic_class), sa.outer_dont_fragment(dont_fragment));
    endpoint.emit(packet, class, df, sa.identification(seq) as u16);
}

/// Writes the UDP checksum over the ciphertext if the path needs one: never over IPv4 (RFC 3948
/// §2.1). Prepares it only for a port that fills in checksums itself.
#[inline]
pub fn checksum(packet: &mut Packet, layout: Layout, sa: &OutboundSa, port_fills: impl FnOnce() -> bool) {
    let data = packet.data_mut();
    if layout.esp_at() != layout.ip_len()
        && data[0] >> 4 == 6
        && sa.has_udp6_checksum()
        && let Ok(header) = IpHeader::parse(data)
    {
        let datagram = &mut data[layout.ip_len()..];
        // The device expects the datagram right behind an IPv6 header.
        if layout.ip_len() == ip::V6_HEADER && port_fills() {
            udp::begin_checksum(datagram, datagram.len(), header.src, header.dst);
            packet.leave_checksum();
        } else {
            udp::set_checksum(datagram, header.src, header.dst);
        }
    }
}

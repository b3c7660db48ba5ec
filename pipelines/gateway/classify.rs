//! Classifies received frames: ESP for the gateway, messages for the slow path, packets to be
//! forwarded.

use super::{
    rings::Punt,
    tables::{Hop, Settings, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    port::Mac,
    table::Reader,
    wire::{
        Address, FormatError, dhcp, esp,
        ethernet::{self, Ethernet},
        extension,
        fragment::Part,
        icmp,
        ip::{Fragment, IpHeader, protocol},
        udp::{self, Udp},
    },
};

/// The UDP port of home agents (RFC 5944 §3.3).
pub const REGISTRATION_PORT: u16 = 434;

/// The class of a frame. After classification, the packet's data is the IP packet without Ethernet
/// header and padding, except for `Neighbour`, which keeps the whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// ESP to one of the gateway's addresses, at this offset in the packet: behind the IP header or
    /// a UDP header.
    Esp(u16),
    /// A packet to be forwarded.
    Forward,
    /// A packet to a home address whose terminal is elsewhere.
    Home,
    /// A packet to a port of a NAT, or about one from there.
    Nat,
    /// A packet for the host's own stack: to an address of the gateway or the host, to a station of the
    /// segment that it came from, or from a DHCP server to the port's MAC address. The value is the
    /// number of padding bytes that followed it in its frame.
    Host(u16),
    /// ARP or neighbour discovery, for the slow path.
    Neighbour,
    /// An IKE message, for the slow path.
    Control,
}

/// The reason why a frame has no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclassified {
    /// It is to be dropped for this reason.
    Drop(DropReason),
    /// It is a packet to one of the gateway's own addresses that is, or may be, the gateway's, and is a
    /// fragment or has options. Only the first fragment shows whose a UDP datagram is, or a packet whose
    /// protocol stands behind IPv6 extension headers.
    Fragment,
}

impl From<DropReason> for Unclassified {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Returns the class of the frame in `packet`, and reads its IP header into `header`.
///
/// # Errors
/// The reason why the frame has no class.
#[inline(always)]
pub fn classify(
    packet: &mut Packet,
    header: &mut IpHeader,
    tables: &Tables,
    reader: &Reader,
) -> Result<Class, Unclassified> {
    let frame = Ethernet::parse(packet.data()).map_err(|_| DropReason::RuntFrame)?;
    let to_group = ethernet::is_group(frame.dst);
    if !to_group && frame.dst != mac_of(packet, tables) {
        return Err(DropReason::ForeignMac.into());
    }
    match frame.ethertype {
        ethernet::ARP => return Ok(Class::Neighbour),
        ethernet::IPV4 | ethernet::IPV6 => {}
        _ => return Err(DropReason::UnknownEthertype.into()),
    }
    header.read_received(&packet.data()[ethernet::HEADER..], packet.is_verified()).map_err(ip_format)?;
    if header.is_ipv4() != (frame.ethertype == ethernet::IPV4) {
        return Err(DropReason::IpVersion.into());
    }
    if is_neighbour_discovery(header, &packet.data()[ethernet::HEADER..]) {
        return Ok(Class::Neighbour);
    }
    if to_group || header.is_to_group() {
        return Err(DropReason::Multicast.into());
    }
    packet.pull_front(ethernet::HEADER).ok_or(DropReason::RuntFrame)?;
    let padding = packet.len().saturating_sub(header.total_len()) as u16;
    packet.set_len(header.total_len()).ok_or(DropReason::IpTotalLength)?;
    match tables.routes.find(header.dst, reader) {
        Some(Hop::Local) => local(packet, padding, header, tables, reader),
        // This includes ESP and IKE: the gateway's SAs are for its own addresses, and the host may
        // have other SAs.
        Some(Hop::Host) => Ok(Class::Host(padding)),
        _ if !header.is_forwardable() && header.dst.is_link_local() => Ok(Class::Host(padding)),
        // The host has no such address yet.
        _ if dhcp::has_ports(header, packet.data())
            && dhcp::is_to_client(header, packet.data(), mac_of(packet, tables)) =>
        {
            Ok(Class::Host(padding))
        }
        _ if tables.may_be_away(header.dst) => match tables.care_of(header.dst, reader) {
            Some(_) => Ok(Class::Home),
            None if tables.is_nowhere(header.dst, reader) => Err(DropReason::NoBinding.into()),
            None => Ok(Class::Forward),
        },
        _ => Ok(Class::Forward),
    }
}

/// Returns the MAC address of the port that a packet came by.
#[inline(always)]
fn mac_of(packet: &Packet, tables: &Tables) -> Mac {
    tables.settings.ports[usize::from(packet.port())].mac.get()
}

/// Returns the class of a packet to one of the gateway's own addresses. `padding` bytes followed it in
/// its frame.
///
/// # Errors
/// The reason why it has no class.
#[inline(always)]
fn local(
    packet: &mut Packet,
    padding: u16,
    header: &mut IpHeader,
    tables: &Tables,
    reader: &Reader,
) -> Result<Class, Unclassified> {
    if header.protocol == protocol::ESP && header.fragment == Fragment::Whole && !header.has_options() {
        return Ok(Class::Esp(header.header_len() as u16));
    }
    local_not_plain(packet, padding, header, tables, reader)
}

/// Does the same as [`local`] for a packet that is not plain ESP.
#[inline(never)]
fn local_not_plain(
    packet: &mut Packet,
    padding: u16,
    header: &mut IpHeader,
    tables: &Tables,
    reader: &Reader,
) -> Result<Class, Unclassified> {
    match header.protocol {
        protocol::ESP => Err(Unclassified::Fragment),
        protocol::UDP if header.fragment == Fragment::Whole => {
            let udp = Udp::parse(header.payload(packet.data())).map_err(|_| DropReason::UdpLength)?;
            udp_local(packet, padding, header, udp, (tables, reader))
        }
        protocol::UDP => Err(Unclassified::Fragment),
        _ if hides_protocol(header, packet.data()) => Err(Unclassified::Fragment),
        _ => other_local(packet, padding, header, tables, reader),
    }
}

/// Returns whether a fragment is of an IPv6 packet whose later ones do not show the upper-layer protocol.
fn hides_protocol(header: &IpHeader, packet: &[u8]) -> bool {
    header.fragment != Fragment::Whole
        && !header.is_ipv4()
        && Part::read(header, packet).is_some_and(|part| protocol::is_extension(part.protocol))
}

/// Returns the class of a whole packet to one of the gateway's own addresses, whatever stands before its
/// upper layer. Only what a receiver may skip may stand before ESP and IKE.
///
/// # Errors
/// The reason for its drop.
pub fn whole(
    packet: &mut Packet,
    header: &mut IpHeader,
    tables: &Tables,
    reader: &Reader,
) -> Result<Class, DropReason> {
    let has_strange_options = header.has_options() && !extension::may_be_skipped(header, packet.data());
    match header.protocol {
        protocol::ESP if has_strange_options => Err(DropReason::OuterOptions),
        protocol::ESP => Ok(Class::Esp(header.header_len() as u16)),
        protocol::UDP => match Udp::parse(header.payload(packet.data())) {
            Ok(udp) if !is_ours(udp.dst_port, tables) => Ok(other_whole(packet, 0, header, tables, reader)),
            Ok(_) if has_strange_options => Err(DropReason::OuterOptions),
            Ok(udp) => own_datagram(packet, header, udp),
            Err(_) => Err(DropReason::UdpLength),
        },
        _ => Ok(other_whole(packet, 0, header, tables, reader)),
    }
}

fn other_whole(packet: &Packet, padding: u16, header: &IpHeader, tables: &Tables, reader: &Reader) -> Class {
    if tables.nat.is_for(header, packet.data(), reader) { Class::Nat } else { Class::Host(padding) }
}

/// Returns the class of a packet to one of the gateway's own addresses that is neither ESP nor IKE.
#[inline(never)]
fn other_local(
    packet: &Packet,
    padding: u16,
    header: &IpHeader,
    tables: &Tables,
    reader: &Reader,
) -> Result<Class, Unclassified> {
    match header.fragment {
        _ if !tables.nat.has_address(header.dst) => Ok(Class::Host(padding)),
        Fragment::Whole => Ok(other_whole(packet, padding, header, tables, reader)),
        Fragment::First | Fragment::Later => Err(Unclassified::Fragment),
    }
}

/// Returns the class of an unfragmented UDP datagram to one of the gateway's addresses (RFC 3948
/// §2).
#[inline]
fn udp_local(
    packet: &mut Packet,
    padding: u16,
    header: &mut IpHeader,
    udp: Udp,
    (tables, reader): (&Tables, &Reader),
) -> Result<Class, Unclassified> {
    if !is_ours(udp.dst_port, tables) {
        return other_local(packet, padding, header, tables, reader);
    }
    if header.has_options() {
        return Err(Unclassified::Fragment);
    }
    Ok(own_datagram(packet, header, udp)?)
}

/// Returns the class of an unfragmented UDP datagram to one of the gateway's own ports.
#[inline(always)]
fn own_datagram(packet: &mut Packet, header: &mut IpHeader, udp: Udp) -> Result<Class, DropReason> {
    let esp_at = header.header_len() + udp::HEADER;
    // The datagram may end before its IP packet. The rest does not belong to it.
    let end = header.header_len() + udp.length;
    let payload = packet.data().get(esp_at..end).ok_or(DropReason::UdpLength)?;
    if udp.dst_port == esp::IKE_PORT || payload.starts_with(&esp::NON_ESP_MARKER) {
        return Ok(Class::Control);
    }
    if payload == esp::KEEPALIVE {
        return Err(DropReason::Keepalive);
    }
    packet.set_len(end).ok_or(DropReason::UdpLength)?;
    header.set_cut(end);
    Ok(Class::Esp(esp_at as u16))
}

/// Returns whether the packet to one of the gateway's own addresses whose first fragment is `first` is ESP
/// or IKE for the gateway.
pub fn is_for_gateway(header: &IpHeader, first: &[u8], tables: &Tables) -> bool {
    match (header.protocol, header.payload(first)) {
        (protocol::ESP, _) => true,
        (protocol::UDP, [_, _, high, low, ..]) => is_ours(u16::from_be_bytes([*high, *low]), tables),
        _ => false,
    }
}

/// Returns whether `packet`, which begins with `header`, is an ICMP error that says that ESP, or what
/// was sent from one of the gateway's UDP ports for ESP, was too big.
pub fn is_too_big(header: &IpHeader, packet: &[u8], tables: &Tables) -> bool {
    icmp::is_too_big(header, packet)
        && icmp::quoted(header, packet).is_some_and(|(quoted, bytes)| {
            match (quoted.protocol, quoted.payload(bytes)) {
                (protocol::ESP, _) => true,
                // Where the ports would be is ciphertext.
                (protocol::UDP, _) if quoted.fragment == Fragment::Later => false,
                (protocol::UDP, [high, low, ..]) => {
                    let port = u16::from_be_bytes([*high, *low]);
                    tables.settings.encap_ports.binary_search(&port).is_ok()
                }
                _ => false,
            }
        })
}

/// Returns for what the slow path is to get the whole packet to one of the gateway's own addresses that begins with
/// `header`, if it is a message of Mobile IP or a home agent's update.
#[inline]
pub fn mobility_message(header: &IpHeader, packet: &[u8], tables: &Tables) -> Option<Punt> {
    let Settings { siu_port, home_agent, .. } = &tables.settings;
    if (siu_port.is_none() && home_agent.is_none())
        || header.protocol != protocol::UDP
        || header.fragment != Fragment::Whole
    {
        return None;
    }
    let port = u16::from_be_bytes(*header.payload(packet).get(2..)?.first_chunk()?);
    let agent = home_agent.as_ref().map(|agent| Address::from(agent.address));
    match port {
        _ if *siu_port == Some(port) => Some(Punt::Update),
        REGISTRATION_PORT if agent == Some(header.dst) => Some(Punt::Registration),
        _ => None,
    }
}

/// Returns our SPI in the IKE message in `packet`, an IP packet that begins with `header` (RFC 7296
/// §3.1).
pub fn ike_spi(packet: &[u8], header: &IpHeader) -> Option<u64> {
    let datagram = header.payload(packet);
    let datagram = datagram.get(..Udp::parse(datagram).ok()?.length)?;
    let marker =
        if datagram.get(2..4)? == esp::IKE_PORT.to_be_bytes() { 0 } else { esp::NON_ESP_MARKER.len() };
    let message = datagram.get(udp::HEADER + marker..)?;
    let from_initiator = message.get(19)? & 0x08 != 0;
    let at = if from_initiator { 8 } else { 0 };
    message.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

fn is_ours(udp_port: u16, tables: &Tables) -> bool {
    udp_port == esp::IKE_PORT || tables.settings.encap_ports.binary_search(&udp_port).is_ok()
}

/// Returns whether `packet`, whose header is `header`, is a neighbour solicitation or advertisement
/// (RFC 4861 §7.1).
pub(super) fn is_neighbour_discovery(header: &IpHeader, packet: &[u8]) -> bool {
    header.protocol == protocol::ICMPV6
        && !header.is_ipv4()
        && header.hop_limit == 255
        && header.fragment != Fragment::Later
        && matches!(header.payload(packet).first(), Some(135 | 136))
}

/// Returns the drop reason for a malformed IP header outside ESP.
pub(super) fn ip_format(why: FormatError) -> DropReason {
    match why {
        FormatError::Version => DropReason::IpVersion,
        FormatError::HeaderLength => DropReason::IpHeaderLength,
        FormatError::TotalLength => DropReason::IpTotalLength,
        FormatError::Checksum => DropReason::IpChecksum,
        FormatError::Truncated => DropReason::IpTruncated,
        FormatError::Field => DropReason::Martian,
    }
}

//! DHCP (RFC 2131), as far as a gateway must know what is for the host's own client.

use super::ip::{Fragment, IpHeader, protocol};
use crate::port::Mac;

/// The ports of what servers send to clients, as a UDP header begins.
pub(crate) const PORTS: [u8; 4] = [0, 67, 0, 68];
/// The offset of the client's MAC address (`chaddr`) from the UDP header, in bytes.
pub(crate) const CLIENT_MAC: usize = 8 + 28;

/// Returns whether `packet`, which begins with `header`, has the ports of a DHCP server and a client.
#[inline(always)]
pub fn has_ports(header: &IpHeader, packet: &[u8]) -> bool {
    let datagram = packet.get(header.header_len()..);
    header.protocol == protocol::UDP && datagram.and_then(|bytes| bytes.first_chunk()) == Some(&PORTS)
}

/// Returns whether packets with these source and destination UDP ports may be from a DHCP server to a
/// client.
pub fn are_ports((src, dst): (u16, u16)) -> bool {
    u32::from(src) << 16 | u32::from(dst) == u32::from_be_bytes(PORTS)
}

/// Returns whether `packet`, which begins with `header` and [`has_ports`] of DHCP, is from a server to the
/// client with this MAC address. It may be sent to an address that the client does not have yet (RFC
/// 2131 §4.1).
#[cold]
pub fn is_to_client(header: &IpHeader, packet: &[u8], mac: Mac) -> bool {
    header.fragment == Fragment::Whole
        && header.payload(packet).get(CLIENT_MAC..).is_some_and(|client| client.starts_with(&mac))
}

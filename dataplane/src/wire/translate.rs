//! Translation of an end of an IPv4 packet to another address and port (RFC 3022 §4), in the packet
//! and in what an ICMP error quotes (RFC 5508 §4). Checksums are updated, not computed anew (RFC
//! 1624), so that a wrong one stays wrong.

use super::{
    Address, be16, checksum, icmp,
    ip::{Fragment, IpHeader, protocol},
    put16,
};

/// Types of ICMP queries: echo and timestamp (RFC 792).
const QUERIES: [u8; 2] = [8, 13];
/// Types of the replies to them.
const REPLIES: [u8; 2] = [0, 14];

const TCP_HEADER: usize = 20;
/// Length of the headers of UDP and ICMP.
const SHORT_HEADER: usize = 8;

// Offsets in headers.
const IP_ID: usize = 4;
const IP_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const ICMP_CHECKSUM: usize = 2;
const ICMP_ID: usize = 4;

/// An end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }

    /// Returns the offset of the address in an IPv4 header.
    fn address_at(self) -> usize {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    /// Returns the offset of the port in a header of TCP or UDP.
    fn port_at(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 2,
        }
    }
}

/// A reason why a packet has no end that could be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untranslatable {
    /// It is neither TCP, UDP, an ICMP query or its reply in the right direction, nor an ICMP error.
    Protocol,
    /// It does not show its whole upper-layer header.
    Short,
    /// It is an ICMP error that does not show an end of the packet that it quotes, or is not for that
    /// packet's sender.
    Quote,
}

/// An end of a packet, by which it is translated. That of an ICMP error is the same host's end of the
/// packet that it quotes, which went in the other direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// TCP, UDP or ICMP.
    pub protocol: u8,
    /// The address.
    pub address: Address,
    /// The port, or the identifier of an ICMP query.
    pub port: u16,
    side: Side,
    /// Bytes of the quoted packet in an ICMP error; 0 in other packets.
    quoted: u16,
}

impl End {
    /// Reads the end of `packet`, which begins with `header`, on this side. The packet is whole, or a
    /// first fragment.
    ///
    /// # Errors
    /// See [`Untranslatable`].
    pub fn of(header: &IpHeader, packet: &[u8], side: Side) -> Result<Self, Untranslatable> {
        if !header.is_ipv4() || header.fragment == Fragment::Later {
            return Err(Untranslatable::Protocol);
        }
        if icmp::is_error(header, packet) {
            return Self::quoted(header, packet, side).ok_or(Untranslatable::Quote);
        }
        let payload = header.payload(packet);
        let least = if header.protocol == protocol::TCP { TCP_HEADER } else { SHORT_HEADER };
        if payload.len() < least {
            return Err(Untranslatable::Short);
        }
        Self::plain(header, payload, side).ok_or(Untranslatable::Protocol)
    }

    /// Returns the end of a packet with this header and the payload of at least eight bytes.
    fn plain(header: &IpHeader, payload: &[u8], side: Side) -> Option<Self> {
        let port = match (header.protocol, side) {
            (protocol::TCP | protocol::UDP, _) => be16(payload, side.port_at()),
            (protocol::ICMP, Side::Source) if QUERIES.contains(&payload[0]) => be16(payload, ICMP_ID),
            (protocol::ICMP, Side::Destination) if REPLIES.contains(&payload[0]) => be16(payload, ICMP_ID),
            _ => return None,
        };
        let address = match side {
            Side::Source => header.src,
            Side::Destination => header.dst,
        };
        Some(Self { protocol: header.protocol, address, port, side, quoted: 0 })
    }

    fn quoted(header: &IpHeader, packet: &[u8], side: Side) -> Option<Self> {
        let (quoted, bytes) = icmp::quoted(header, packet)?;
        if quoted.fragment == Fragment::Later {
            return None;
        }
        let end = Self::plain(&quoted, quoted.payload(bytes), side.other())?;
        // A router anywhere may send an error, but it sends it to the sender of the quoted packet.
        let fits = side == Side::Source || end.address == header.dst;
        fits.then_some(Self { side, quoted: bytes.len() as u16, ..end })
    }

    /// Returns whether it was read from the quote of an ICMP error.
    pub fn is_quoted(&self) -> bool {
        self.quoted > 0
    }

    /// Replaces this end, which was read from `packet` and its `header`, by an address and port. The
    /// packet keeps its length.
    pub fn replace(&self, packet: &mut [u8], header: &IpHeader, address: u32, port: u16) {
        let at = header.header_len();
        if self.is_quoted() {
            let change = self.replace_quoted(packet, at + icmp::HEADER, address, port);
            fix(packet, at + ICMP_CHECKSUM, change);
            return replace_address(packet, self.side, address);
        }
        let moved = set_address(packet, self.side.address_at(), address);
        fix(packet, IP_CHECKSUM, moved);
        self.replace_port(packet, at, packet.len(), self.side, moved, port);
    }

    /// Replaces the end of the quoted packet at `at`, and returns the change of all bytes there.
    fn replace_quoted(&self, packet: &mut [u8], at: usize, address: u32, port: u16) -> Change {
        let (end, side) = (at + usize::from(self.quoted), self.side.other());
        let moved = set_address(packet, at + side.address_at(), address);
        let summed = fix(packet, at + IP_CHECKSUM, moved);
        let payload = at + usize::from(packet[at] & 0xf) * 4;
        let rest = self.replace_port(packet, payload, end, side, moved, port);
        moved.and(summed).and(rest)
    }

    /// Replaces the port, or the identifier, in the upper-layer header at `at` of `packet`, which ends
    /// at `end`. Corrects its checksum, if that is there, also by the change of the address, `moved`.
    /// Returns the change of the header.
    fn replace_port(
        &self,
        packet: &mut [u8],
        at: usize,
        end: usize,
        side: Side,
        moved: Change,
        port: u16,
    ) -> Change {
        let (port_at, checksum_at) = match self.protocol {
            protocol::TCP => (at + side.port_at(), at + TCP_CHECKSUM),
            protocol::UDP => (at + side.port_at(), at + UDP_CHECKSUM),
            _ => (at + ICMP_ID, at + ICMP_CHECKSUM),
        };
        let changed = set(packet, port_at, port);
        if checksum_at + 2 > end {
            return changed;
        }
        changed.and(match self.protocol {
            // ICMP sums no addresses.
            protocol::ICMP => fix(packet, checksum_at, changed),
            protocol::UDP => fix_udp(packet, checksum_at, moved.and(changed)),
            _ => fix(packet, checksum_at, moved.and(changed)),
        })
    }
}

/// Replaces the address on this side of the IPv4 packet at the start of `packet`, which was already
/// parsed, for example of a later fragment.
pub fn replace_address(packet: &mut [u8], side: Side, address: u32) {
    let moved = set_address(packet, side.address_at(), address);
    fix(packet, IP_CHECKSUM, moved);
}

/// Replaces the identification of the IPv4 packet at the start of `packet`, which was already parsed.
pub fn set_identification(packet: &mut [u8], id: u16) {
    let change = set(packet, IP_ID, id);
    fix(packet, IP_CHECKSUM, change);
}

/// What the sum of some words changed by, in one's complement.
#[derive(Clone, Copy, Debug, Default)]
struct Change(u64);

impl Change {
    fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Writes a word, and returns the change (RFC 1624 §3, equation 3).
fn set(packet: &mut [u8], at: usize, value: u16) -> Change {
    let old = be16(packet, at);
    put16(packet, at, value);
    Change(u64::from(!old) + u64::from(value))
}

fn set_address(packet: &mut [u8], at: usize, address: u32) -> Change {
    set(packet, at, (address >> 16) as u16).and(set(packet, at + 2, address as u16))
}

/// Corrects the checksum at `at` by the change of what it covers, and returns its own change.
fn fix(packet: &mut [u8], at: usize, change: Change) -> Change {
    let sum = checksum::finish(u64::from(!be16(packet, at)) + change.0);
    set(packet, at, sum)
}

/// Does the same as [`fix`] for UDP: 0 stands for no checksum, and a computed 0 is sent as ffff (RFC
/// 768).
fn fix_udp(packet: &mut [u8], at: usize, change: Change) -> Change {
    if be16(packet, at) == 0 {
        return Change::default();
    }
    let sum = checksum::finish(u64::from(!be16(packet, at)) + change.0);
    set(packet, at, if sum == 0 { 0xffff } else { sum })
}

#[cfg(test)]
mod tests;

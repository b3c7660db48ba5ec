//! The tunnels of Mobile IP over IPv4: IP in IP (RFC 2003), minimal encapsulation (RFC 2004) and GRE (RFC 2784).
//!
//! ```text
//! IP in IP   │ outer IPv4 │ packet ……………………………………………………… │
//! GRE        │ outer IPv4 │ GRE │ packet ……………………………………………… │
//! minimal    │ its IPv4 header, to the other end │ the rest of its own │ payload │
//! ```

use super::{
    Address, FormatError, be16, be32, checksum, ethernet,
    ip::{self, Fragment, IpHeader, V4_HEADER, V4_PROTOCOL_AT, V6_MIN_MTU, protocol},
    put16,
};
use std::{net::Ipv4Addr, ops::Range};

/// Length of a GRE header without a checksum, in bytes.
const GRE_HEADER: usize = 4;
/// Length of a minimal header in bytes, without and with the source.
const MINIMAL: [usize; 2] = [8, 12];
/// The bit of a minimal header that says that the source is in it.
const HAS_SOURCE: u8 = 0x80;
/// The bits of a traffic class that are not ECN (RFC 3168 §5).
const DSCP: u8 = 0xfc;

/// How a packet is put into another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// IP in IP (RFC 2003), and IPv6 in IPv4 (RFC 4213 §3).
    IpInIp,
    /// Minimal encapsulation (RFC 2004), for whole IPv4 packets only.
    Minimal,
    /// GRE (RFC 2784), without checksum.
    Gre,
}

/// The ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The end that wraps packets.
    pub src: Ipv4Addr,
    /// The end that unwraps them.
    pub dst: Ipv4Addr,
}

impl Encapsulation {
    /// Returns the encapsulation that this protocol of an IPv4 header stands for.
    pub fn of_protocol(protocol: u8) -> Option<Self> {
        match protocol {
            protocol::IPV4 | protocol::IPV6 => Some(Self::IpInIp),
            protocol::MINIMAL => Some(Self::Minimal),
            protocol::GRE => Some(Self::Gre),
            _ => None,
        }
    }

    /// Returns by how many bytes it makes a packet with this `header` longer, if it is sent from `src`; `None` if it
    /// cannot carry the packet: that would be too long, or minimal encapsulation has no room for what a fragment or
    /// an IPv6 packet is.
    pub fn overhead(self, header: &IpHeader, src: Ipv4Addr) -> Option<usize> {
        let overhead = match self {
            Self::IpInIp => V4_HEADER,
            Self::Gre => V4_HEADER + GRE_HEADER,
            Self::Minimal if !header.is_ipv4() || header.fragment != Fragment::Whole => return None,
            Self::Minimal => MINIMAL[usize::from(header.src != Address::from(src))],
        };
        (header.total_len() + overhead <= usize::from(u16::MAX)).then_some(overhead)
    }

    /// Wraps the packet with this `header` that follows the first [`Encapsulation::overhead`] bytes of `bytes`. Returns
    /// the length of the outer packet in bytes, behind which others may follow.
    ///
    /// A tunnel is one hop, so the caller has decremented the hop limit before, if it forwards the packet (RFC 2003
    /// §3.1). Routers may cut an outer packet if the inner one may be cut, or is IPv6 and no longer than every link must
    /// take (RFC 4213 §3.2). Then `id` must not come again soon (RFC 6864 §4.2); a minimal one keeps the packet's own.
    /// The outer ECN field is 0, since the other end may not know it (RFC 6040 §4.1, compatibility mode).
    ///
    /// Panics if `bytes` is shorter than that, or the packet is one that cannot be carried.
    pub fn wrap(self, bytes: &mut [u8], header: &IpHeader, ends: Ends, id: u16) -> usize {
        let overhead = self.overhead(header, ends.src).expect("the packet can be carried");
        let length = overhead + header.total_len();
        let bytes = &mut bytes[..length];
        let outer_protocol = match self {
            Self::Minimal => {
                wrap_minimal(bytes, overhead, header, ends);
                return length;
            }
            Self::Gre => protocol::GRE,
            Self::IpInIp if header.is_ipv4() => protocol::IPV4,
            Self::IpInIp => protocol::IPV6,
        };
        if self == Self::Gre {
            put16(bytes, V4_HEADER, 0);
            put16(bytes, V4_HEADER + 2, if header.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 });
        }
        ip::emit(bytes, ends.src, ends.dst, outer_protocol, length - V4_HEADER);
        let may_be_cut = match header.is_ipv4() {
            true => !header.dont_fragment,
            false => header.total_len() <= V6_MIN_MTU,
        };
        if may_be_cut {
            ip::allow_fragments(bytes, V4_HEADER, id);
        }
        ip::set_traffic_class(bytes, header.traffic_class & DSCP);
        length
    }

    /// Unwraps the packet that begins with `outer` at the start of `bytes`. Returns where in `bytes` the packet inside
    /// is. Whether that is well formed, and may come by this tunnel, is not checked; and the caller has yet to carry
    /// the outer ECN field over to it (RFC 6040 §4.2).
    ///
    /// # Errors
    /// [`FormatError`] if a header of the tunnel is malformed, `outer` is a fragment or not IPv4, or the packet inside
    /// is of another version than the tunnel says. Nothing was changed then.
    pub fn unwrap(self, bytes: &mut [u8], outer: &IpHeader) -> Result<Range<usize>, FormatError> {
        if !outer.is_ipv4() || outer.fragment != Fragment::Whole {
            return Err(FormatError::Field);
        }
        let payload = outer.payload(bytes);
        let (header, version) = match self {
            Self::IpInIp if outer.protocol == protocol::IPV4 => (0, 4),
            Self::IpInIp => (0, 6),
            Self::Gre => read_gre(payload)?,
            Self::Minimal => return unwrap_minimal(bytes, outer),
        };
        match payload.get(header).ok_or(FormatError::Truncated)? >> 4 {
            found if found == version => Ok(outer.header_len() + header..outer.total_len()),
            _ => Err(FormatError::Version),
        }
    }
}

/// Returns the length in bytes of the GRE header at the start of `bytes`, and the version of IP that follows it (RFC
/// 2784 §2).
fn read_gre(bytes: &[u8]) -> Result<(usize, u8), FormatError> {
    let header = bytes.first_chunk::<GRE_HEADER>().ok_or(FormatError::Truncated)?;
    let (flags, ethertype) = (be16(header, 0), be16(header, 2));
    // Bits of RFC 1701 and other versions.
    let version = match ethertype {
        _ if flags & 0x7c07 != 0 => return Err(FormatError::Field),
        ethernet::IPV4 => 4,
        ethernet::IPV6 => 6,
        _ => return Err(FormatError::Field),
    };
    if flags & 0x8000 == 0 {
        return Ok((GRE_HEADER, version));
    }
    // Checksum and a reserved word.
    if bytes.len() < 2 * GRE_HEADER {
        return Err(FormatError::Truncated);
    }
    if checksum::of(bytes) != 0 {
        return Err(FormatError::Checksum);
    }
    Ok((2 * GRE_HEADER, version))
}

/// Moves the header of the packet behind the first `overhead` bytes to the front, and puts a minimal header behind
/// it (RFC 2004 §3).
fn wrap_minimal(bytes: &mut [u8], overhead: usize, header: &IpHeader, ends: Ends) {
    let at = header.header_len();
    bytes.copy_within(overhead..overhead + at, 0);
    let has_source = overhead == MINIMAL[1];
    let mut minimal = [0; MINIMAL[1]];
    minimal[0] = header.protocol;
    minimal[1] = if has_source { HAS_SOURCE } else { 0 };
    minimal[4..8].copy_from_slice(&bytes[16..20]);
    minimal[8..12].copy_from_slice(&bytes[12..16]);
    let minimal = &mut minimal[..overhead];
    let sum = checksum::of(minimal);
    put16(minimal, 2, sum);
    bytes[at..at + overhead].copy_from_slice(minimal);
    bytes[V4_PROTOCOL_AT] = protocol::MINIMAL;
    bytes[12..16].copy_from_slice(&ends.src.octets());
    bytes[16..20].copy_from_slice(&ends.dst.octets());
    let total = bytes.len();
    ip::set_total_len(bytes, at, total);
}

/// Puts the packet together whose header is spread over the outer and the minimal one. Returns where it is.
fn unwrap_minimal(bytes: &mut [u8], outer: &IpHeader) -> Result<Range<usize>, FormatError> {
    let at = outer.header_len();
    let payload = outer.payload(bytes);
    let [protocol, flags, ..] = *payload.first_chunk::<{ MINIMAL[0] }>().ok_or(FormatError::Truncated)?;
    let has_source = flags & HAS_SOURCE != 0;
    let length = MINIMAL[usize::from(has_source)];
    let minimal = payload.get(..length).ok_or(FormatError::Truncated)?;
    if checksum::of(minimal) != 0 {
        return Err(FormatError::Checksum);
    }
    let dst = be32(minimal, 4);
    let src = has_source.then(|| be32(minimal, 8));
    bytes.copy_within(..at, length);
    let packet = &mut bytes[length..outer.total_len()];
    packet[V4_PROTOCOL_AT] = protocol;
    if let Some(src) = src {
        packet[12..16].copy_from_slice(&src.to_be_bytes());
    }
    packet[16..20].copy_from_slice(&dst.to_be_bytes());
    let total = packet.len();
    ip::set_total_len(packet, at, total);
    Ok(length..outer.total_len())
}

#[cfg(test)]
mod tests;

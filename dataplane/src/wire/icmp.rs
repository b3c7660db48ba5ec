//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors: those that a gateway sends about a packet that it
//! could not forward, and the packets that others' errors quote.

use super::{Address, be16, be32, checksum, ip, put16};
use std::net::IpAddr;

/// Bytes before the quoted packet.
pub(super) const HEADER: usize = 8;
/// Bytes behind the IP header that every error quotes at least (RFC 792).
const LEAST_QUOTED: usize = 8;
/// Most bytes of a quoted packet that are searched for its upper-layer header.
const MOST_READ: usize = 256;

/// ICMPv6 redirect (RFC 4861 §4.5).
const REDIRECT: u8 = 137;

/// The problem with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It is longer than `mtu` bytes and must not be fragmented (RFC 1191 §4, RFC 4443 §3.2).
    TooBig {
        /// The longest packet that would pass, in bytes.
        mtu: u16,
    },
    /// Its hop limit ran out (RFC 792, RFC 4443 §3.3).
    TimeExceeded,
    /// There is no route to its destination (RFC 792, RFC 4443 §3.1).
    Unreachable,
    /// Its next hop does not answer ARP or neighbour discovery (RFC 1812 §5.2.7.1, RFC 4861
    /// §7.2.2).
    HostUnreachable,
}

/// Returns whether `packet` is an ICMP error other than a redirect, which is for the next router
/// only. A later fragment does not show that it is one.
pub fn is_error(header: &ip::IpHeader, packet: &[u8]) -> bool {
    let kind = header.payload(packet).first();
    header.fragment != ip::Fragment::Later
        && match (header.protocol, header.is_ipv4()) {
            (ip::protocol::ICMP, true) => matches!(kind, Some(3 | 4 | 11 | 12)),
            (ip::protocol::ICMPV6, false) => matches!(kind, Some(1..=4)),
            _ => false,
        }
}

/// MTUs of networks, in bytes (RFC 1191 §7).
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// Returns whether `packet` is an ICMP error that says that a packet was too big.
pub fn is_too_big(header: &ip::IpHeader, packet: &[u8]) -> bool {
    is_error(header, packet)
        && match header.is_ipv4() {
            true => header.payload(packet).starts_with(&[3, 4]),
            false => header.payload(packet).starts_with(&[2]),
        }
}

/// Returns the longest packet that passes, in bytes, as `packet` says: an ICMP error that a packet was
/// too big. A router that says nothing has the next smaller plateau (RFC 1191 §5). Returns `None` if
/// `packet` is no such error, or its checksum is wrong.
pub fn reported_mtu(header: &ip::IpHeader, packet: &[u8]) -> Option<u16> {
    let message = header.payload(packet);
    let quoted = message.get(HEADER..HEADER + 4).filter(|_| is_too_big(header, packet))?;
    let v4 = header.is_ipv4();
    let pseudo = || checksum::pseudo_header(header.src, header.dst, header.protocol, message.len());
    let sum = checksum::add(if v4 { 0 } else { pseudo() }, message);
    if checksum::finish(sum) != 0 {
        return None;
    }
    match (v4, be16(message, 6)) {
        (true, 0) => PLATEAUS.into_iter().find(|mtu| *mtu < be16(quoted, 2)),
        (true, mtu) => Some(mtu),
        (false, _) => Some(be32(message, 4).min(u16::MAX.into()) as u16),
    }
}

/// Returns the header of the packet that the ICMP error `packet` quotes, and what is quoted of it.
/// The header's total length is that of the quoted bytes. Returns `None` if `packet` is no error, or
/// quotes less than the IP headers and eight bytes.
///
/// The quoted packet's checksum is not verified, since routers change headers before they quote
/// them.
pub fn quoted<'a>(header: &ip::IpHeader, packet: &'a [u8]) -> Option<(ip::IpHeader, &'a [u8])> {
    if !is_error(header, packet) {
        return None;
    }
    let quote = header.payload(packet).get(HEADER..)?;
    let (ip_len, total) = match (quote.first()? >> 4, header.is_ipv4()) {
        (4, true) => (usize::from(quote[0] & 0xf) * 4, usize::from(be16(quote.get(..4)?, 2))),
        (6, false) => (ip::V6_HEADER, ip::V6_HEADER + usize::from(be16(quote.get(..6)?, 4))),
        _ => return None,
    };
    // Extensions of the error (RFC 4884) follow the quoted packet. Hosts do not mind a total length that
    // leaves no room for what they read.
    let total = if total < ip_len + LEAST_QUOTED { MOST_READ } else { total };
    let quote = &quote[..quote.len().min(total).min(MOST_READ)];
    let mut whole = [0; MOST_READ];
    whole[..quote.len()].copy_from_slice(quote);
    if ip_len < ip::V4_HEADER || ip_len > quote.len() {
        return None;
    }
    ip::set_total_len(&mut whole, ip_len, quote.len());
    let quoted = ip::IpHeader::parse(&whole).ok()?;
    (quote.len() >= quoted.header_len() + LEAST_QUOTED).then_some((quoted, quote))
}

/// Returns whether a sender may be told of a problem with `packet`: never about an ICMP error, a
/// later fragment, or a packet to or from a multicast, broadcast or unspecified address (RFC 1122
/// §3.2.2, RFC 4443 §2.4 e).
pub fn may_answer(header: &ip::IpHeader, packet: &[u8]) -> bool {
    let first = header.payload(packet).first().copied();
    let about_error = match header.protocol {
        ip::protocol::ICMP => !matches!(first, Some(0 | 8 | 13 | 14)),
        ip::protocol::ICMPV6 => first.is_none_or(|kind| kind < 128 || kind == REDIRECT),
        _ => false,
    };
    let no_host = |a: Address| a == Address::UNSPECIFIED || a == Address::v4(0) || a == Address::v4(u32::MAX);
    let no_unicast = |a: Address| a.is_multicast() || no_host(a);
    !about_error
        && header.fragment != ip::Fragment::Later
        && !no_unicast(header.src)
        && !no_unicast(header.dst)
}

/// Returns the whole IP packet that tells `header.src` of `problem`. It comes from `from` and
/// quotes the start of `packet`. Returns `None` if `from` is of the other family.
pub fn error(problem: Problem, from: IpAddr, header: &ip::IpHeader, packet: &[u8]) -> Option<Vec<u8>> {
    let v4 = header.src.is_ipv4();
    if from.is_ipv4() != v4 {
        return None;
    }
    // RFC 1812 §4.3.2.3: up to 576 bytes. RFC 4443 §2.4 c: up to the smallest MTU.
    let (ip_len, limit) = if v4 { (ip::V4_HEADER, 576) } else { (ip::V6_HEADER, ip::V6_MIN_MTU) };
    let quoted = &packet[..header.total_len().min(limit - ip_len - HEADER)];
    let (kind, code, rest) = match (problem, v4) {
        (Problem::TooBig { mtu }, true) => (3, 4, u32::from(mtu)),
        (Problem::TooBig { mtu }, false) => (2, 0, u32::from(mtu)),
        (Problem::TimeExceeded, true) => (11, 0, 0),
        (Problem::TimeExceeded, false) => (3, 0, 0),
        (Problem::Unreachable, true) => (3, 0, 0),
        (Problem::Unreachable, false) => (1, 0, 0),
        (Problem::HostUnreachable, true) => (3, 1, 0),
        (Problem::HostUnreachable, false) => (1, 3, 0),
    };
    let mut out = vec![0; ip_len + HEADER + quoted.len()];
    let protocol = if v4 { ip::protocol::ICMP } else { ip::protocol::ICMPV6 };
    ip::emit(&mut out, from, header.src, protocol, HEADER + quoted.len());
    let m = &mut out[ip_len..];
    m[..2].copy_from_slice(&[kind, code]);
    m[4..8].copy_from_slice(&rest.to_be_bytes());
    m[HEADER..].copy_from_slice(quoted);
    let pseudo = if v4 { 0 } else { checksum::pseudo_header(from, header.src, protocol, m.len()) };
    let sum = checksum::finish(checksum::add(pseudo, m));
    put16(m, 2, sum);
    Some(out)
}

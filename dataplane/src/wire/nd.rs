//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements.

use super::{FormatError, checksum, ethernet, ip, put16};
use crate::port::Mac;
use std::net::{IpAddr, Ipv6Addr};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Length of either message with one link-layer address option, in bytes.
const MESSAGE: usize = 32;

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// `true` if it is a solicitation, which asks, and not an advertisement, which answers.
    pub solicitation: bool,
    /// The address that is asked for or advertised.
    pub target: Ipv6Addr,
    /// The MAC address of the sender (in a solicitation) or target (in an advertisement), if given.
    pub mac: Option<Mac>,
    /// In an advertisement: whether it answers a solicitation.
    pub solicited: bool,
}

impl Neighbour {
    /// Reads a message from an IPv6 packet whose header is `header`. Makes the checks of RFC 4861
    /// §7.1: hop limit 255, checksum, code 0, lengths, no multicast target.
    ///
    /// # Errors
    /// `Field`, `Truncated` or `Checksum`.
    pub fn parse(header: &ip::IpHeader, packet: &[u8]) -> Result<Self, FormatError> {
        if header.protocol != ip::protocol::ICMPV6 || header.hop_limit != 255 || header.src.is_ipv4() {
            return Err(FormatError::Field);
        }
        let m = header.payload(packet);
        if m.len() < 24 {
            return Err(FormatError::Truncated);
        }
        let pseudo = checksum::pseudo_header(header.src, header.dst, ip::protocol::ICMPV6, m.len());
        if checksum::finish(checksum::add(pseudo, m)) != 0 {
            return Err(FormatError::Checksum);
        }
        let target = ip::v6_at(m, 8).ok_or(FormatError::Field)?;
        let IpAddr::V6(target) = target.into() else { return Err(FormatError::Field) };
        if !matches!(m[0], SOLICITATION | ADVERTISEMENT) || m[1] != 0 || target.is_multicast() {
            return Err(FormatError::Field);
        }
        let solicitation = m[0] == SOLICITATION;
        let wanted = if solicitation { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
        let mac = option(&m[24..], wanted)?.filter(|&mac| !ethernet::is_group(mac));
        Ok(Self { solicitation, target, mac, solicited: !solicitation && m[4] & 0x40 != 0 })
    }

    /// Returns the frame that carries the message from (`src_mac`, `src`) to (`dst_mac`, `dst`).
    pub fn frame(&self, src_mac: Mac, src: Ipv6Addr, dst_mac: Mac, dst: Ipv6Addr) -> Vec<u8> {
        let mut frame = vec![0; ethernet::HEADER + ip::V6_HEADER + MESSAGE];
        ethernet::Ethernet { dst: dst_mac, src: src_mac, ethertype: ethernet::IPV6 }.emit(&mut frame);
        let packet = &mut frame[ethernet::HEADER..];
        ip::emit(packet, src, dst, ip::protocol::ICMPV6, MESSAGE);
        packet[7] = 255;
        let m = &mut packet[ip::V6_HEADER..];
        m[0] = if self.solicitation { SOLICITATION } else { ADVERTISEMENT };
        if !self.solicitation {
            // Override, and Solicited if it answers a solicitation.
            m[4] = 0x20 | if self.solicited { 0x40 } else { 0 };
        }
        m[8..24].copy_from_slice(&self.target.octets());
        m[24] = if self.solicitation { SOURCE_LINK_LAYER } else { TARGET_LINK_LAYER };
        m[25] = 1;
        m[26..32].copy_from_slice(&self.mac.unwrap_or(src_mac));
        let pseudo = checksum::pseudo_header(src, dst, ip::protocol::ICMPV6, MESSAGE);
        let sum = checksum::finish(checksum::add(pseudo, m));
        put16(m, 2, sum);
        frame
    }
}

fn option(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, FormatError> {
    while let [kind, length, ..] = *options {
        let bytes = usize::from(length) * 8;
        if bytes == 0 || bytes > options.len() {
            return Err(FormatError::Field);
        }
        if kind == wanted && bytes == 8 {
            return Ok(options[2..8].try_into().ok());
        }
        options = &options[bytes..];
    }
    Ok(None)
}

/// Returns the solicited-node multicast address of `target` (RFC 4291 §2.7.1) and its MAC address
/// (RFC 2464 §7).
pub fn solicited_node(target: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = target.octets();
    let address =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from(b) << 8 | u16::from(c));
    (address, [0x33, 0x33, 0xff, a, b, c])
}

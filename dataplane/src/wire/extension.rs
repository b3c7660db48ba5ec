//! IPv6 extension headers, as the destination of a packet treats them (RFC 8200 §4).

use super::ip::{Fragment, IpHeader, V6_HEADER, protocol};

/// The most bytes of extension headers that are read, so that nobody makes a worker read whole packets of
/// options.
const LONGEST: usize = 256;
/// The option of one byte of padding.
const PAD_1: u8 = 0;
/// If one of these bits of its type is set, who does not know an option must not skip it (RFC 8200 §4.2).
const MUST_NOT_SKIP: u8 = 0xc0;

/// Returns whether the destination of `packet`, an unfragmented IPv6 packet that begins with `header`, may
/// go on to the upper layer without having understood any of the extension headers: options that may be
/// skipped, and routes that have been travelled.
pub fn may_be_skipped(header: &IpHeader, packet: &[u8]) -> bool {
    let chain = packet.get(V6_HEADER..header.header_len()).unwrap_or_default();
    let is_read = !header.is_ipv4() && header.fragment == Fragment::Whole && chain.len() <= LONGEST;
    is_read && packet.get(6).is_some_and(|kind| are_skippable(*kind, chain))
}

/// Returns the same for extension headers of which the first is of this `kind`.
fn are_skippable(mut kind: u8, mut chain: &[u8]) -> bool {
    let mut is_first = true;
    while let [next, length, body @ ..] = chain {
        let length = 8 * (1 + usize::from(*length)) - 2;
        let Some((body, behind)) = body.split_at_checked(length) else { return false };
        let may_skip = match kind {
            protocol::HOP_BY_HOP => is_first && are_options_skippable(body),
            protocol::DESTINATION => are_options_skippable(body),
            // The number of segments left (RFC 8200 §4.4).
            protocol::ROUTING => body[1] == 0,
            _ => false,
        };
        if !may_skip {
            return false;
        }
        (kind, chain, is_first) = (*next, behind, false);
    }
    chain.is_empty()
}

fn are_options_skippable(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        options = match rest {
            _ if *kind == PAD_1 => rest,
            [length, rest @ ..] if kind & MUST_NOT_SKIP == 0 && usize::from(*length) <= rest.len() => {
                &rest[usize::from(*length)..]
            }
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip;

    /// Returns whether these extension headers, each with its kind and the bytes behind the next one's, may
    /// be skipped.
    fn skips(headers: &[(u8, Vec<u8>)]) -> bool {
        let chain: usize = headers.iter().map(|(_, rest)| rest.len() + 1).sum();
        let mut packet = vec![0; V6_HEADER];
        let [src, dst] = [1, 2].map(|n| std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
        let first = headers.first().map_or(protocol::ESP, |(kind, _)| *kind);
        ip::emit(&mut packet, src, dst, first, chain + 8);
        for (at, (_, rest)) in headers.iter().enumerate() {
            packet.push(headers.get(at + 1).map_or(protocol::ESP, |(kind, _)| *kind));
            packet.extend(rest);
        }
        packet.extend([0; 8]);
        let header = IpHeader::parse(&packet).expect("a header");
        assert_eq!(header.header_len(), V6_HEADER + chain);
        may_be_skipped(&header, &packet)
    }

    fn options(kind: u8, options: &[u8]) -> (u8, Vec<u8>) {
        assert_eq!((options.len() + 2) % 8, 0);
        (kind, [&[((options.len() + 2) / 8 - 1) as u8], options].concat())
    }

    #[test]
    fn options_that_must_be_understood_are_not_skipped() {
        const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];
        for (list, expected) in [
            (PADDING, true),
            ([0; 6], true),
            ([5, 2, 0, 0, 0, 0], true),
            ([0x3e, 2, 9, 9, 1, 0], true),
            ([0x41, 4, 0, 0, 0, 0], false),
            ([0xc2, 4, 0, 1, 0, 0], false),
            // Home address (RFC 6275 §6.3), cut short.
            ([0xc9, 4, 0, 0, 0, 0], false),
            ([1, 5, 0, 0, 0, 0], false),
            ([0, 0, 0, 0, 0, 1], false),
        ] {
            for kind in [protocol::HOP_BY_HOP, protocol::DESTINATION] {
                assert_eq!(skips(&[options(kind, &list)]), expected, "{kind} {list:x?}");
            }
        }
        let hop = options(protocol::HOP_BY_HOP, &PADDING);
        let destination = options(protocol::DESTINATION, &PADDING);
        assert!(skips(&[hop.clone(), destination.clone(), destination.clone()]));
        assert!(!skips(&[destination.clone(), hop]), "they come first (RFC 8200 §4.1)");
        assert!(skips(&vec![destination.clone(); 8]));
        let long = options(protocol::DESTINATION, &[&[1, 252][..], &[0; 252]].concat());
        assert!(skips(std::slice::from_ref(&long)));
        assert!(!skips(&[long, destination]), "more than is read");
    }

    #[test]
    fn only_travelled_routes_are_skipped() {
        for (left, expected) in [(0, true), (1, false)] {
            assert_eq!(skips(&[(protocol::ROUTING, vec![0, 4, left, 0, 0, 0, 0])]), expected);
        }
        assert!(!skips(&[(protocol::FRAGMENT, vec![0, 0, 0, 0, 0, 0, 7])]));
    }

    #[test]
    fn ipv4_options_are_not_skipped() {
        let mut packet = vec![0; 24];
        ip::emit(&mut packet, [192, 0, 2, 1], [192, 0, 2, 2], protocol::ESP, 4);
        packet[0] = 0x46;
        ip::set_total_len(&mut packet, 24, 24);
        assert!(!may_be_skipped(&IpHeader::parse(&packet).expect("a header"), &packet));
    }
}

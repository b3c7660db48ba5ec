//! IPv6 extension headers, as the destination of a packet treats them (RFC 8200 §4).

use super::ip::{Fragment, IpHeader, V6_HEADER, protocol};

/// The most bytes of extension headers that are read, so that nobody makes a worker read whole packets of
/// options.
pub(super) const LONGEST: usize = 256;
/// Length of the fragment header in bytes.
pub(super) const FRAGMENT_HEADER: usize = 8;
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

/// Returns the same for what stands before the fragment header of `fragment`, of which each receiver
/// judges by itself (RFC 8200 §4.5). IPv4 has no such headers.
pub fn may_be_skipped_in_fragment(fragment: &[u8]) -> bool {
    fragment[0] >> 4 == 4
        || fragment_header(fragment)
            .is_some_and(|(_, at)| are_skippable(fragment[6], &fragment[V6_HEADER..at]))
}

/// Finds the fragment header of an IPv6 packet, behind at most [`LONGEST`] bytes of other extension
/// headers. Returns the offset of the byte that names it, and its own.
pub(super) fn fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut named_at, mut at) = (6, V6_HEADER);
    while at <= V6_HEADER + LONGEST {
        match *packet.get(named_at)? {
            protocol::FRAGMENT => return (at + FRAGMENT_HEADER <= packet.len()).then_some((named_at, at)),
            kind if protocol::is_extension(kind) => {
                let length = usize::from(*packet.get(at + 1)?);
                (named_at, at) = (at, at + 8 * (1 + length));
            }
            _ => return None,
        }
    }
    None
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
    fn headers_before_a_fragment_header_are_judged_without_those_behind_it() {
        let fragment = |before: &[(u8, Vec<u8>)]| {
            let kinds = before.iter().map(|(kind, _)| *kind).chain([protocol::FRAGMENT, 200]);
            let mut kinds = kinds.skip(1);
            let first = before.first().map_or(protocol::FRAGMENT, |(kind, _)| *kind);
            let mut packet = vec![0; V6_HEADER];
            let [src, dst] = [1, 2].map(|n| std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
            let chain: usize = before.iter().map(|(_, rest)| rest.len() + 1).sum();
            ip::emit(&mut packet, src, dst, first, chain + 16);
            for (_, rest) in before {
                packet.extend(kinds.next());
                packet.extend(rest);
            }
            packet.extend([200, 0, 0, 1, 0, 0, 0, 7]);
            packet.extend([0; 8]);
            packet
        };
        let skippable = options(protocol::DESTINATION, &[1, 4, 0, 0, 0, 0]);
        let strange = options(protocol::DESTINATION, &[0xc2, 4, 0, 1, 0, 0]);
        let hop = options(protocol::HOP_BY_HOP, &[0; 6]);
        for (before, at, expected) in [
            (vec![], V6_HEADER, true),
            (vec![hop.clone(), skippable.clone()], V6_HEADER + 16, true),
            (vec![hop, strange], V6_HEADER + 16, false),
            (vec![skippable.clone(); 32], V6_HEADER + 256, true),
        ] {
            let packet = fragment(&before);
            assert_eq!(fragment_header(&packet).map(|(_, at)| at), Some(at));
            assert_eq!(may_be_skipped_in_fragment(&packet), expected, "{before:x?}");
            for cut in 0..at + FRAGMENT_HEADER {
                assert_eq!(fragment_header(&packet[..cut]), None, "{cut}");
            }
        }
        let too_long = fragment(&vec![skippable; 33]);
        assert_eq!((fragment_header(&too_long), may_be_skipped_in_fragment(&too_long)), (None, false));
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

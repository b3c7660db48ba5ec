//! Fragments without options or other extension headers, as nearly all are.
//! [`Part`](super::fragment::Part) reads the others too.

use super::{
    Address, be16, be32, checksum,
    fragment::{MORE, V6_FRAGMENT_HEADER, V6_MORE, offset},
    ip::{self, V4_HEADER, V6_HEADER, protocol},
    plain::{PlainHeader, PlainV6},
    put16,
};

/// Length of the headers of a plain fragment of IPv6, in bytes.
pub const V6_HEADERS: usize = V6_HEADER + V6_FRAGMENT_HEADER;

/// A fragment whose only headers are the fixed one and IPv6's fragment header, read in a few loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainFragment<'a> {
    /// The source.
    pub src: Address,
    /// The destination.
    pub dst: Address,
    /// The identification, which all fragments of a packet share.
    pub id: u32,
    /// The offset of its part from the packet's header, in bytes.
    pub offset: usize,
    /// `true` if there are later parts.
    pub more: bool,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The protocol of what was cut. For IPv6, it may be an extension header.
    pub protocol: u8,
    /// The part of the packet.
    pub payload: &'a [u8],
}

impl<'a> PlainFragment<'a> {
    /// Reads the IPv4 packet at the start of `bytes`, whose checksum is right or, with `is_verified`, known to
    /// be. It may be a whole packet too, with offset 0.
    #[inline(always)]
    pub fn read_v4(bytes: &'a [u8], is_verified: bool) -> Option<Self> {
        let h = bytes.first_chunk::<V4_HEADER>()?;
        let is_plain = h[0] == 0x45 && (is_verified || checksum::is_zero_of_v4(h));
        let field = be16(h, 6);
        Some(Self {
            src: Address::v4(be32(h, 12)),
            dst: Address::v4(be32(h, 16)),
            id: be16(h, 4).into(),
            offset: offset(field << 3),
            more: field & MORE != 0,
            traffic_class: h[1],
            protocol: h[ip::V4_PROTOCOL_AT],
            payload: bytes.get(V4_HEADER..usize::from(be16(h, 2))).filter(|_| is_plain)?,
        })
    }

    /// Reads the IPv6 fragment at the start of `bytes`.
    #[inline]
    pub fn read_v6(bytes: &'a [u8]) -> Option<Self> {
        let h = bytes.first_chunk::<{ V6_HEADERS }>()?;
        let header =
            PlainV6::read(h.first_chunk()?).filter(|header| header.protocol() == protocol::FRAGMENT)?;
        let field = be16(h, V6_HEADER + 2);
        Some(Self {
            src: header.src,
            dst: header.dst,
            id: be32(h, V6_HEADER + 4),
            offset: offset(field),
            more: field & V6_MORE != 0,
            traffic_class: header.traffic_class(),
            protocol: h[V6_HEADER],
            payload: bytes.get(V6_HEADERS..header.total_len())?,
        })
    }

    /// Returns whether this is the first one of the two fragments of a packet, and `last` the other one, and
    /// both say the same of congestion.
    #[inline]
    pub fn is_completed_by(&self, last: &Self) -> bool {
        (self.offset, self.more, last.more) == (0, true, false)
            && (last.offset, last.id) == (self.payload.len(), self.id)
            && (last.src, last.dst) == (self.src, self.dst)
            && (last.traffic_class, last.protocol) == (self.traffic_class, self.protocol)
            && !last.payload.is_empty()
    }
}

/// Turns the header of a packet's first fragment, which [`PlainFragment::read_v4`] could read, into that of the whole
/// packet in `bytes`: its length, its checksum, no flags and no offset.
#[inline]
pub fn make_whole_v4(bytes: &mut [u8]) {
    let (sum, length) = (be16(bytes, 10), bytes.len() as u16);
    let sum = checksum::update(sum, be16(bytes, 2), length);
    let sum = checksum::update(sum, be16(bytes, 6), 0);
    put16(bytes, 2, length);
    put16(bytes, 6, 0);
    put16(bytes, 10, sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        fragment::Part,
        ip::{Fragment, IpHeader},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_full_header(
            mut bytes in proptest::collection::vec(any::<u8>(), 80),
            is_v4 in any::<bool>(),
            field in any::<u16>(),
            odd in 0u8..6,
        ) {
            if is_v4 {
                bytes[0] = if odd == 1 { 0x46 } else { 0x45 };
                bytes[2..4].copy_from_slice(&[0, if odd == 2 { 81 } else { 60 }]);
                bytes[6..8].copy_from_slice(&field.to_be_bytes());
                let length = usize::from(bytes[0] & 0xf) * 4;
                bytes[10..12].fill(0);
                let sum = checksum::of(&bytes[..length]) ^ u16::from(odd == 3) << 8;
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            } else {
                bytes[0] = 0x60 | bytes[0] & 0xf;
                bytes[4..7].copy_from_slice(&[0, if odd == 2 { 41 } else { 30 }, protocol::FRAGMENT]);
                bytes[42..44].copy_from_slice(&field.to_be_bytes());
                if odd == 1 {
                    bytes[6] = protocol::DESTINATION;
                    bytes[40..42].copy_from_slice(&[protocol::FRAGMENT, 0]);
                }
            }
            let plain = if is_v4 { PlainFragment::read_v4(&bytes, false) } else { PlainFragment::read_v6(&bytes) };
            let Ok(header) = IpHeader::parse(&bytes) else {
                prop_assert_eq!(plain, None);
                return Ok(());
            };
            let part = Part::read(&header, &bytes).filter(|part| part.head_len == if is_v4 { V4_HEADER } else { V6_HEADERS });
            let expected = part.map(|part| PlainFragment {
                src: header.src,
                dst: header.dst,
                id: part.id,
                offset: part.offset,
                more: part.more,
                traffic_class: header.traffic_class,
                protocol: part.protocol,
                payload: &bytes[part.head_len..header.total_len()],
            });
            prop_assert_eq!(plain, expected);
            // What is not to be checked may be wrong.
            if odd == 3 && is_v4 {
                prop_assert!(PlainFragment::read_v4(&bytes, true).is_some());
            }
        }
    }

    proptest! {
        #[test]
        fn first_fragment_becomes_the_whole_packet(mut bytes in proptest::collection::vec(any::<u8>(), 20..1500)) {
            bytes[0] = 0x45;
            bytes[6..8].copy_from_slice(&MORE.to_be_bytes());
            ip::set_total_len(&mut bytes, V4_HEADER, V4_HEADER);
            make_whole_v4(&mut bytes);
            let header = IpHeader::parse(&bytes);
            let read = header.map(|header| (header.fragment, header.total_len()));
            prop_assert_eq!(read, Ok((Fragment::Whole, bytes.len())));
        }
    }

    /// The two fragments of a packet of sixteen bytes.
    fn pair() -> [PlainFragment<'static>; 2] {
        let first = PlainFragment {
            src: Address::v4(1),
            dst: Address::v4(2),
            id: 3,
            offset: 0,
            more: true,
            traffic_class: 0,
            protocol: protocol::ESP,
            payload: &[0; 8],
        };
        [first, PlainFragment { offset: 8, more: false, ..first }]
    }

    #[test]
    fn two_fragments_that_differ_in_anything_are_no_packet() {
        let [first, last] = pair();
        assert!(first.is_completed_by(&last) && !last.is_completed_by(&first));
        for other in [
            PlainFragment { src: Address::v4(9), ..last },
            PlainFragment { dst: Address::v4(9), ..last },
            PlainFragment { id: 9, ..last },
            PlainFragment { offset: 0, ..last },
            PlainFragment { offset: 16, ..last },
            PlainFragment { more: true, ..last },
            PlainFragment { traffic_class: 3, ..last },
            PlainFragment { protocol: protocol::UDP, ..last },
            PlainFragment { payload: &[], ..last },
        ] {
            assert!(!first.is_completed_by(&other), "{other:?}");
        }
        for other in [PlainFragment { offset: 8, ..first }, PlainFragment { more: false, ..first }] {
            assert!(!other.is_completed_by(&last), "{other:?}");
        }
    }
}

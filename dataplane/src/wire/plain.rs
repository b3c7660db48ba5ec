//! Headers of plain packets, read in a few loads: whole packets without options or extension headers,
//! whose IPv4 checksum is right. Nearly all packets are plain; [`IpHeader`](super::ip::IpHeader) reads
//! the others too.

use super::{
    Address, checksum,
    ip::{self, V4_HEADER, V6_HEADER, protocol},
};

/// Length of the shortest payload of a plain packet with ports, in bytes.
pub const MIN_TRANSPORT: usize = 8;

/// The header of a plain packet of either family.
pub trait PlainHeader: Copy {
    /// Its length in bytes.
    const LENGTH: usize;

    /// Returns the length of the packet in bytes. It may be anything.
    fn total_len(self) -> usize;

    /// Returns DSCP and ECN.
    fn traffic_class(self) -> u8;

    /// Returns whether routers must not fragment the packet.
    fn dont_fragment(self) -> bool;

    /// Returns the time to live, or the hop limit.
    fn hop_limit(self) -> u8;

    /// Returns the protocol of the payload. The packet is not plain if it is an IPv6 extension header.
    fn protocol(self) -> u8;

    /// Returns source and destination port as in the packet, the first byte lowest, if the packet is UDP,
    /// or TCP that opens no connection. `payload` begins with all of its payload.
    #[inline(always)]
    fn ports(self, payload: &[u8]) -> Option<u32> {
        ports(self.protocol(), Self::LENGTH, self.total_len(), payload)
    }
}

/// Returns source and destination port as in the packet, the first byte lowest, if a packet of this
/// protocol is UDP, or TCP that opens no connection. It has `total_len` bytes with a header of
/// `header_len`. `payload` begins with what is behind the header.
#[inline(always)]
pub fn ports(protocol: u8, header_len: usize, total_len: usize, payload: &[u8]) -> Option<u32> {
    const SYN: u8 = 2;
    let has_ports = match protocol {
        protocol::UDP => total_len >= header_len + MIN_TRANSPORT,
        protocol::TCP => {
            total_len >= header_len + 20 && payload.get(13).is_some_and(|flags| flags & SYN == 0)
        }
        _ => false,
    };
    payload.first_chunk().filter(|_| has_ports).map(|ports| u32::from_le_bytes(*ports))
}

/// The IPv4 header of a plain packet, read in three loads.
#[derive(Clone, Copy, Debug)]
pub struct PlainV4 {
    /// The first eight bytes, the first one lowest.
    first: u64,
    /// The four bytes from the TTL to the checksum.
    second: u32,
    /// Source and destination address as in the packet, the first byte lowest.
    pub addresses: u64,
}

impl PlainV4 {
    /// Returns the header `h` if it is that of a plain packet. With `is_verified` its checksum is known
    /// to be right.
    #[inline(always)]
    pub fn read(h: &[u8; V4_HEADER], is_verified: bool) -> Option<Self> {
        // Whole words: the compiler would put one together from bytes of others.
        let word = |at: usize| u64::from_le_bytes(*h[at..].first_chunk().expect("eight more bytes"));
        let first = word(0);
        // Version 4 and five words; no more fragments, and no offset.
        let is_plain = first & 0xff3f_0000_0000_00ff == 0x45;
        let second = u32::from_le_bytes([h[8], h[9], h[10], h[11]]);
        (is_plain && (is_verified || checksum::is_zero_of_v4(h))).then(|| Self {
            first,
            second,
            addresses: word(12),
        })
    }

    /// Returns the destination as a number.
    #[inline(always)]
    pub fn dst(self) -> u32 {
        ((self.addresses >> 32) as u32).swap_bytes()
    }

    /// Returns the source as a number.
    #[inline(always)]
    pub fn src(self) -> u32 {
        (self.addresses as u32).swap_bytes()
    }
}

impl PlainHeader for PlainV4 {
    const LENGTH: usize = V4_HEADER;

    #[inline(always)]
    fn total_len(self) -> usize {
        usize::from(((self.first >> 16) as u16).swap_bytes())
    }

    #[inline(always)]
    fn traffic_class(self) -> u8 {
        (self.first >> 8) as u8
    }

    #[inline(always)]
    fn dont_fragment(self) -> bool {
        self.first >> 48 & 0x40 != 0
    }

    #[inline(always)]
    fn hop_limit(self) -> u8 {
        self.second as u8
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.second >> 8) as u8
    }
}

/// The IPv6 header of a plain packet.
#[derive(Clone, Copy, Debug)]
pub struct PlainV6 {
    /// The first eight bytes, the first one lowest.
    first: u64,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
}

impl PlainV6 {
    /// Returns the header `h` if it is that of an IPv6 packet, unless an address is an IPv4-mapped one,
    /// which no packet may carry.
    #[inline]
    pub fn read(h: &[u8; V6_HEADER]) -> Option<Self> {
        let first = u64::from_le_bytes(std::array::from_fn(|i| h[i]));
        let is_v6 = first as u8 >> 4 == 6;
        Some(Self { first, src: ip::v6_at(h, 8)?, dst: ip::v6_at(h, 24)? }).filter(|_| is_v6)
    }
}

impl PlainHeader for PlainV6 {
    const LENGTH: usize = V6_HEADER;

    #[inline(always)]
    fn total_len(self) -> usize {
        V6_HEADER + usize::from(((self.first >> 32) as u16).swap_bytes())
    }

    #[inline(always)]
    fn traffic_class(self) -> u8 {
        (self.first as u8) << 4 | (self.first >> 8) as u8 >> 4
    }

    /// Returns `true`: IPv6 packets are only cut by their sender.
    #[inline(always)]
    fn dont_fragment(self) -> bool {
        true
    }

    #[inline(always)]
    fn hop_limit(self) -> u8 {
        (self.first >> 56) as u8
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.first >> 48) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{Fragment, IpHeader};
    use proptest::prelude::*;

    fn check(plain: impl PlainHeader, header: &IpHeader) -> Result<(), TestCaseError> {
        prop_assert_eq!(plain.total_len(), header.total_len());
        prop_assert_eq!((plain.protocol(), plain.hop_limit()), (header.protocol, header.hop_limit));
        prop_assert_eq!(plain.traffic_class(), header.traffic_class);
        prop_assert_eq!(plain.dont_fragment(), header.dont_fragment);
        Ok(())
    }

    proptest! {
        #[test]
        fn v4_agrees_with_the_full_header(
            mut bytes in proptest::collection::vec(any::<u8>(), 64),
            plain in 0u8..4,
            fragment in prop_oneof![3 => Just(0u16), 1 => any::<u16>()],
        ) {
            if plain > 0 {
                bytes[0] = 0x45;
                bytes[2..4].copy_from_slice(&[0, 60]);
                bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
                bytes[10..12].fill(0);
                let sum = checksum::of(&bytes[..20]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            let found = PlainV4::read(bytes.first_chunk().unwrap(), false);
            match IpHeader::parse(&bytes) {
                Ok(header) if header.is_ipv4() && header.fragment == Fragment::Whole && !header.has_options() => {
                    let plain = found.expect("it is plain");
                    prop_assert_eq!((Address::v4(plain.src()), Address::v4(plain.dst())), (header.src, header.dst));
                    check(plain, &header)?;
                }
                Ok(_) => prop_assert!(found.is_none()),
                // Its length is left to the caller.
                Err(_) => prop_assert!(found.is_none_or(|plain| !(20..=64).contains(&plain.total_len()))),
            }
        }

        #[test]
        fn v6_agrees_with_the_full_header(
            mut bytes in proptest::collection::vec(any::<u8>(), 64),
            plain in 0u8..4,
            next_header in prop_oneof![3 => prop_oneof![Just(6u8), Just(17), Just(50)], 1 => any::<u8>()],
            is_mapped in prop_oneof![7 => Just(false), 1 => Just(true)],
        ) {
            if plain > 0 {
                bytes[0] = 0x60 | bytes[0] & 0xf;
                bytes[4..7].copy_from_slice(&[0, 24, next_header]);
            }
            if is_mapped {
                bytes[8..20].copy_from_slice(&Address::v4(0).bits().to_be_bytes()[..12]);
            }
            let found = PlainV6::read(bytes.first_chunk().unwrap());
            let found = found.filter(|plain| !protocol::is_extension(plain.protocol()));
            match IpHeader::parse(&bytes) {
                Ok(header) if !header.is_ipv4() && !header.has_options() => {
                    let plain = found.expect("it is plain");
                    prop_assert_eq!((plain.src, plain.dst), (header.src, header.dst));
                    check(plain, &header)?;
                }
                Ok(_) => prop_assert!(found.is_none()),
                Err(_) => prop_assert!(found.is_none_or(|plain| plain.total_len() > 64)),
            }
        }

        #[test]
        fn ports_are_those_of_udp_and_of_tcp_that_opens_no_connection(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            protocol in prop_oneof![Just(6u8), Just(17), any::<u8>()],
            header_len in prop_oneof![Just(0usize), Just(20), Just(40)],
        ) {
            let shown = bytes.first_chunk().map(|ports| u32::from_le_bytes(*ports));
            let expected = match protocol {
                17 if bytes.len() >= 8 => shown,
                6 if bytes.len() >= 20 && bytes[13] & 2 == 0 => shown,
                _ => None,
            };
            prop_assert_eq!(ports(protocol, header_len, header_len + bytes.len(), &bytes), expected);
            // What follows the packet in its frame does not belong to it.
            let padded = [&bytes[..], &[0; 40]].concat();
            prop_assert_eq!(ports(protocol, header_len, header_len + bytes.len(), &padded), expected);
        }
    }
}

//! IPv4 headers of plain packets, read in three loads: whole packets without options, whose checksum
//! is right. Nearly all packets are plain; [`IpHeader`](super::ip::IpHeader) reads the others too.

use super::{
    checksum,
    ip::{V4_HEADER, protocol},
};

/// Length of the shortest header of a plain packet with ports, and its first bytes behind it.
pub const MIN_TRANSPORT: usize = 20;

/// The header of a plain packet.
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
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| h[at + i]));
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

    /// Returns the length of the packet in bytes. It may be anything.
    #[inline(always)]
    pub fn total_len(self) -> usize {
        usize::from(((self.first >> 16) as u16).swap_bytes())
    }

    /// Returns DSCP and ECN.
    #[inline(always)]
    pub fn traffic_class(self) -> u8 {
        (self.first >> 8) as u8
    }

    /// Returns whether routers must not fragment the packet.
    #[inline(always)]
    pub fn dont_fragment(self) -> bool {
        self.first >> 48 & 0x40 != 0
    }

    /// Returns the time to live.
    #[inline(always)]
    pub fn hop_limit(self) -> u8 {
        self.second as u8
    }

    /// Returns the protocol of the payload.
    #[inline(always)]
    pub fn protocol(self) -> u8 {
        (self.second >> 8) as u8
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

    /// Returns source and destination port as in the packet, the first byte lowest, if the packet is UDP,
    /// or TCP that opens no connection. `payload` is the start of its payload.
    #[inline(always)]
    pub fn ports(self, payload: &[u8; MIN_TRANSPORT]) -> Option<u32> {
        const SYN: u8 = 2;
        let has_ports = match self.protocol() {
            protocol::UDP => self.total_len() >= V4_HEADER + 8,
            protocol::TCP => self.total_len() >= V4_HEADER + 20 && payload[13] & SYN == 0,
            _ => false,
        };
        has_ports.then(|| u32::from_le_bytes([payload[0], payload[1], payload[2], payload[3]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Address,
        ip::{Fragment, IpHeader},
    };
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_full_header(
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
                    prop_assert_eq!(plain.total_len(), header.total_len());
                    prop_assert_eq!((plain.protocol(), plain.hop_limit()), (header.protocol, header.hop_limit));
                    prop_assert_eq!(plain.traffic_class(), header.traffic_class);
                    prop_assert_eq!(plain.dont_fragment(), header.dont_fragment);
                }
                Ok(_) => prop_assert!(found.is_none()),
                // Its length is left to the caller.
                Err(_) => prop_assert!(found.is_none_or(|plain| !(20..=64).contains(&plain.total_len()))),
            }
        }
    }
}

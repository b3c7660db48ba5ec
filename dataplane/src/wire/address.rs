//! IP addresses in the form that the fast path uses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An address of either family as one number. IPv4 addresses are IPv4-mapped IPv6 addresses (RFC
/// 4291 §2.5.5.2), which no packet may carry.
///
/// Comparing, masking and hashing need no branch on the family. Unlike [`IpAddr`], it travels in
/// registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u128);

const MAPPED: u128 = 0xffff_0000_0000;

impl Address {
    /// The unspecified address (RFC 4291 §2.5.2).
    pub const UNSPECIFIED: Self = Self(0);

    /// Returns the IPv4 address with these 32 bits.
    #[inline]
    pub fn v4(bits: u32) -> Self {
        Self(MAPPED | u128::from(bits))
    }

    /// Returns the IPv6 address with these 16 bytes, or `None` if they are an IPv4-mapped address.
    #[inline]
    pub fn v6(octets: [u8; 16]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(octets))).filter(|address| !address.is_ipv4())
    }

    /// Returns all 128 bits.
    #[inline]
    pub fn bits(self) -> u128 {
        self.0
    }

    /// Returns whether it is an IPv4 address.
    #[inline]
    pub fn is_ipv4(self) -> bool {
        self.0 >> 32 == MAPPED >> 32
    }

    /// Returns whether it is a multicast address (RFC 1112 §4, RFC 4291 §2.7).
    #[inline]
    pub fn is_multicast(self) -> bool {
        if self.is_ipv4() { self.0 as u32 >> 28 == 0xe } else { self.0 >> 120 == 0xff }
    }

    /// Returns whether it is a link-local address (RFC 3927 §1.2, RFC 4291 §2.5.6).
    #[inline]
    pub fn is_link_local(self) -> bool {
        if self.is_ipv4() { self.0 as u32 >> 16 == 169 << 8 | 254 } else { self.0 >> 118 == 0xfe80 >> 6 }
    }

    /// Returns whether routers forward packets with it: it is not a multicast, link-local, loopback
    /// or unspecified address, and not in 0.0.0.0/8 or 240.0.0.0/4 (RFC 1812 §5.3.7, RFC 4291
    /// §2.5).
    #[inline]
    pub fn is_routable(self) -> bool {
        if self.is_ipv4() {
            is_routable_v4(self.0 as u32)
        } else {
            const UNSPECIFIED_OR_LOOPBACK: u128 = 1;
            self.0 > UNSPECIFIED_OR_LOOPBACK && !self.is_multicast() && self.0 >> 118 != 0xfe80 >> 6
        }
    }
}

/// Returns [`Address::is_routable`] for an IPv4 address.
#[inline]
pub(super) fn is_routable_v4(bits: u32) -> bool {
    let first = bits >> 24;
    first.wrapping_sub(1) < 223 && first != 127 && bits >> 16 != 169 << 8 | 254
}

impl From<Ipv4Addr> for Address {
    #[inline]
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.to_bits())
    }
}

impl From<Ipv6Addr> for Address {
    #[inline]
    fn from(address: Ipv6Addr) -> Self {
        Self(address.to_bits())
    }
}

impl From<IpAddr> for Address {
    #[inline]
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => a.into(),
            IpAddr::V6(a) => a.into(),
        }
    }
}

impl From<Address> for IpAddr {
    #[inline]
    fn from(address: Address) -> Self {
        match address.is_ipv4() {
            true => Ipv4Addr::from_bits(address.0 as u32).into(),
            false => Ipv6Addr::from_bits(address.0).into(),
        }
    }
}

impl PartialEq<IpAddr> for Address {
    #[inline]
    fn eq(&self, other: &IpAddr) -> bool {
        *self == Self::from(*other)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns what the standard library says about the same address.
    fn is_routable(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => {
                a.octets()[0] != 0 && !a.is_loopback() && a.octets()[0] < 224 && !a.is_link_local()
            }
            IpAddr::V6(a) => {
                !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && !a.is_unicast_link_local()
            }
        }
    }

    fn address() -> impl Strategy<Value = IpAddr> {
        let near =
            ["0.0.0.0", "127.0.0.0", "169.254.0.0", "169.253.255.255", "224.0.0.0", "::", "::1", "::2"]
                .into_iter()
                .chain(["fe80::", "febf::1", "fec0::1", "ff02::1", "10.0.0.1", "2001:db8::1"])
                .map(|text| text.parse().unwrap())
                .collect::<Vec<IpAddr>>();
        prop_oneof![
            proptest::sample::select(near),
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_standard_library(ip in address()) {
            let address = Address::from(ip);
            prop_assert_eq!(IpAddr::from(address), ip);
            prop_assert_eq!(address.to_string(), ip.to_string());
            prop_assert_eq!(address.is_ipv4(), ip.is_ipv4());
            prop_assert_eq!(address.is_multicast(), ip.is_multicast());
            prop_assert_eq!(address.is_routable(), is_routable(ip));
        }
    }

    #[test]
    fn a_mapped_address_is_no_ipv6_address() {
        assert_eq!(Address::v6("::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets()), None);
    }
}

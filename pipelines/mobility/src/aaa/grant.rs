//! What a server grants to a peer that it accepts.

use super::origin::Origin;
use alloc::vec::Vec;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What a server grants to a peer that it accepts. Everything else is as the connection says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The inner IPv4 address (Framed-IP-Address, RFC 2865 §5.8).
    pub ip4: Option<Ipv4Addr>,
    /// The inner IPv6 address (Framed-IPv6-Address, RFC 6911 §3.1, or Framed-IPv6-Prefix that leaves
    /// no choice, RFC 3162 §2.3).
    pub ip6: Option<Ipv6Addr>,
    /// The prefix that the inner IPv6 address is chosen from, if the server did not choose the whole
    /// address. It is not shorter than [`Ip6Prefix::SHORTEST`].
    pub ip6_prefix: Option<Ip6Prefix>,
    /// A prefix in its place that is shorter, and so is not used.
    pub ignored_prefix: Option<Ip6Prefix>,
    /// Names of the pools of other inner addresses (Framed-Pool, RFC 2869 §5.18; Framed-IPv6-Pool,
    /// RFC 3162 §2.6).
    pub pools: Vec<Vec<u8>>,
    /// Seconds until the peer is closed (Session-Timeout, RFC 2865 §5.27).
    pub session_timeout: Option<u32>,
    /// The name by which the server knows the user, for its own records (User-Name, RFC 2865 §5.1).
    /// It may be one that only the peer claimed.
    pub user_name: Vec<u8>,
    /// Values that go into every record about the peer (Class, RFC 2865 §5.25).
    pub class: Vec<Vec<u8>>,
    /// Names of the child SAs that the peer may have (Filter-Id, RFC 2865 §5.11); if empty, all those
    /// of its connection.
    pub filters: Vec<Vec<u8>>,
    /// Where the server was told that the peer comes from, when it was asked.
    pub origin: Option<Origin>,
    /// Seconds from one interim record to the next (Acct-Interim-Interval, RFC 2869 §5.16).
    pub interim_interval: Option<u32>,
}

impl Grant {
    /// Most values of Class that are kept: half a packet.
    pub const CLASSES: usize = 8;

    /// Returns true if it has an inner address, or a prefix for one.
    pub fn has_address(&self) -> bool {
        self.ip4.is_some() || self.ip6.is_some() || self.ip6_prefix.is_some()
    }
}

/// A prefix of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip6Prefix {
    first: Ipv6Addr,
    len: u8,
}

impl Ip6Prefix {
    /// Length in bits of the shortest prefix that a peer gets an address of: that of one link (RFC 4291
    /// §2.5.1). A shorter one is for networks behind the peer.
    pub const SHORTEST: u8 = 64;

    /// Makes the prefix of `len` bits that contains `address`. Returns `None` if there are not so many
    /// bits.
    pub fn new(address: Ipv6Addr, len: u8) -> Option<Self> {
        (len <= 128).then(|| Self { first: Ipv6Addr::from_bits(address.to_bits() & !host_mask(len)), len })
    }

    /// Returns true if it has less than [`Self::SHORTEST`] bits.
    pub fn is_short(self) -> bool {
        self.len < Self::SHORTEST
    }

    /// Returns true if it contains this address.
    pub fn contains(self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V6(address) if Self::new(address, self.len) == Some(self))
    }

    /// Returns the address of the host with this interface identifier (RFC 3162 §2.2), or the only one.
    pub fn host(self, interface: Option<u64>) -> Option<Ipv6Addr> {
        let host = interface.or((self.len == 128).then_some(0))?;
        Some(Ipv6Addr::from_bits(self.first.to_bits() | (u128::from(host) & host_mask(self.len))))
    }

    /// Returns the addresses that hosts can have, the lowest first. The very first is its routers', if
    /// there are more than two (RFC 4291 §2.6.1).
    pub fn hosts(self) -> impl Iterator<Item = Ipv6Addr> {
        let (first, last) = (self.first.to_bits(), self.first.to_bits() | host_mask(self.len));
        let routers = u128::from(last - first > 1);
        (first + routers..=last).map(Ipv6Addr::from_bits)
    }
}

impl fmt::Display for Ip6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.len)
    }
}

/// Returns the mask of the bits that follow a prefix of `len` bits.
fn host_mask(len: u8) -> u128 {
    u128::MAX.checked_shr(len.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    #[test]
    fn routers_have_the_first_address_of_a_prefix_if_it_has_more_than_two() {
        let at = "2001:db8::4".parse().unwrap();
        for (len, expected) in [
            (128, &["2001:db8::4"][..]),
            (127, &["2001:db8::4", "2001:db8::5"]),
            (126, &["2001:db8::5", "2001:db8::6", "2001:db8::7"]),
            (64, &["2001:db8::1", "2001:db8::2", "2001:db8::3"]),
            (0, &["::1", "::2", "::3"]),
        ] {
            let prefix = Ip6Prefix::new(at, len).unwrap();
            let hosts: Vec<String> = prefix.hosts().take(3).map(|host| host.to_string()).collect();
            assert_eq!(hosts, expected, "{prefix}");
        }
        assert_eq!(Ip6Prefix::new(at, 129), None);
    }

    #[test]
    fn a_prefix_contains_the_addresses_that_begin_with_it() {
        let prefix = Ip6Prefix::new("2001:db8:0:7::1".parse().unwrap(), 64).unwrap();
        assert_eq!(prefix.to_string(), "2001:db8:0:7::/64");
        for (address, is_in) in [
            ("2001:db8:0:7::", true),
            ("2001:db8:0:7:ffff:ffff:ffff:ffff", true),
            ("2001:db8:0:6:ffff:ffff:ffff:ffff", false),
            ("2001:db8:0:8::", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(prefix.contains(address.parse().unwrap()), is_in, "{address}");
        }
    }
}

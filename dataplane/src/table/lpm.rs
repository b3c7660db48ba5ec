//! Longest-prefix match over IPv4 and IPv6 in one table.

use super::{Map, Reader, Writer};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, Release},
    },
};

/// An address prefix, host bits zero. IPv4 is kept as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), so both families live in
/// one table without meeting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

/// The 128-bit form of an address: IPv4 as ::ffff:a.b.c.d.
#[inline]
pub(crate) fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => 0xffff_0000_0000 | u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[inline]
fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

impl Prefix {
    /// The prefix of `length` bits of `address`; host bits are cleared. `None` where the family has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (max, base) = if address.to_canonical().is_ipv4() { (32, 96) } else { (128, 0) };
        (length <= max).then(|| Self { bits: bits_of(address) & mask(base + length), length: base + length })
    }

    /// The prefix of `address` alone.
    pub fn host(address: IpAddr) -> Self {
        Self { bits: bits_of(address), length: 128 }
    }

    /// Whether it is a prefix of IPv4 addresses.
    pub fn is_ipv4(self) -> bool {
        self.length >= 96 && self.bits >> 32 == 0xffff
    }

    /// Whether `address` lies within.
    #[inline]
    pub fn contains(self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && bits_of(address) & mask(self.length) == self.bits
    }

    /// The first address.
    pub fn address(self) -> IpAddr {
        let address = Ipv6Addr::from_bits(self.bits);
        if self.is_ipv4() { IpAddr::from(address).to_canonical() } else { address.into() }
    }

    /// Bits of the prefix, counted within its family.
    pub fn length(self) -> u8 {
        if self.is_ipv4() { self.length - 96 } else { self.length }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Neither `address/length` nor an address.
    Syntax,
    /// The length is beyond the family's 32 or 128 bits.
    Length,
    /// Bits are set behind the prefix.
    HostBits,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `10.0.0.0/8` or an address alone.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().map(Self::host).map_err(|_| PrefixError::Syntax);
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Syntax)?;
        let length = length.parse().map_err(|_| PrefixError::Syntax)?;
        let prefix = Self::new(address, length).ok_or(PrefixError::Length)?;
        if prefix.bits == bits_of(address) { Ok(prefix) } else { Err(PrefixError::HostBits) }
    }
}

/// Values by prefix; a look-up tries the lengths that occur, longest first.
#[derive(Debug)]
pub struct Lpm<V: Send + Sync + 'static> {
    entries: Map<Prefix, V>,
    /// How many prefixes there are of each length. Only the writer uses it.
    counts: Box<[AtomicU64; 129]>,
    /// Bit `l` of word `l / 64`: whether prefixes of length `l` occur.
    lengths: [AtomicU64; 3],
}

impl<V: Send + Sync + 'static> Lpm<V> {
    /// A table with room for about `capacity` prefixes in the tables of `writer`.
    pub fn new(writer: &Writer, capacity: usize) -> Self {
        Self {
            entries: Map::new(writer, capacity),
            counts: Box::new([const { AtomicU64::new(0) }; 129]),
            lengths: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn find<'r>(&'r self, address: IpAddr, reader: &'r Reader) -> Option<&'r V> {
        self.matches(address, reader).next()
    }

    /// The values of all prefixes that contain `address`, longest first.
    #[inline]
    pub fn matches<'r>(&'r self, address: IpAddr, reader: &'r Reader) -> impl Iterator<Item = &'r V> {
        let bits = bits_of(address);
        // An IPv4 address must not meet ::/0, nor an IPv4-mapped IPv6 one, which no wire may carry, an IPv4 prefix.
        let mapped = bits >> 32 == 0xffff;
        let shortest = if mapped { 96 } else { 0 };
        let words = if mapped && address.is_ipv6() { 0..0 } else { shortest / 64..3 };
        words.rev().flat_map(move |word| {
            let mut lengths = self.lengths[word].load(Relaxed);
            if word * 64 < shortest {
                lengths &= u64::MAX << (shortest % 64);
            }
            std::iter::from_fn(move || {
                let bit = 63u32.checked_sub(lengths.leading_zeros())?;
                lengths ^= 1 << bit;
                let length = word as u8 * 64 + bit as u8;
                Some(self.entries.get(&Prefix { bits: bits & mask(length), length }, reader))
            })
            .flatten()
        })
    }

    /// The value of exactly `prefix`.
    pub fn get<'r>(&'r self, prefix: Prefix, reader: &'r Reader) -> Option<&'r V> {
        self.entries.get(&prefix, reader)
    }

    /// Sets the value of `prefix`.
    pub fn insert(&self, writer: &mut Writer, prefix: Prefix, value: V) {
        let before = self.entries.len();
        self.entries.insert(writer, prefix, value);
        if self.entries.len() > before {
            let length = usize::from(prefix.length);
            self.counts[length].fetch_add(1, Relaxed);
            self.lengths[length / 64].fetch_or(1 << (length % 64), Release);
        }
    }

    /// Removes `prefix`; answers whether it was there.
    pub fn remove(&self, writer: &mut Writer, prefix: Prefix) -> bool {
        let removed = self.entries.remove(writer, &prefix);
        if removed {
            let length = usize::from(prefix.length);
            if self.counts[length].fetch_sub(1, Relaxed) == 1 {
                self.lengths[length / 64].fetch_and(!(1 << (length % 64)), Release);
            }
        }
        removed
    }

    /// Prefixes now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = IpAddr> {
        // Few distinct bits, so that prefixes nest and addresses hit.
        prop_oneof![
            any::<u8>().prop_map(|b| IpAddr::from([10, b & 3, b >> 4 & 3, b >> 6])),
            any::<u8>().prop_map(|b| IpAddr::from([
                0x2001,
                0xdb8,
                u16::from(b & 3),
                0,
                0,
                0,
                0,
                u16::from(b >> 6)
            ])),
            any::<u128>().prop_map(|b| IpAddr::from(Ipv6Addr::from_bits(b))),
        ]
    }

    fn prefix(a: IpAddr, length: u8) -> Prefix {
        Prefix::new(a, if a.is_ipv4() { length % 33 } else { length }).unwrap()
    }

    #[test]
    fn families_do_not_meet() {
        let mut writer = Writer::new();
        let reader = writer.reader();
        let lpm = Lpm::new(&writer, 8);
        lpm.insert(&mut writer, "::/0".parse().unwrap(), 6);
        assert_eq!(lpm.find("10.0.0.1".parse().unwrap(), &reader), None);
        lpm.insert(&mut writer, "0.0.0.0/0".parse().unwrap(), 4);
        assert_eq!(lpm.find("10.0.0.1".parse().unwrap(), &reader), Some(&4));
        assert_eq!(lpm.find("2001:db8::1".parse().unwrap(), &reader), Some(&6));
        assert_eq!(lpm.find("::ffff:10.0.0.1".parse().unwrap(), &reader), None);
    }

    proptest! {
        #[test]
        fn finds_what_a_linear_scan_finds(
            entries in proptest::collection::vec((address(), 0u8..=128, any::<u16>(), any::<bool>()), 0..60),
            wanted in proptest::collection::vec(address(), 1..40),
        ) {
            let mut writer = Writer::new();
            let reader = writer.reader();
            let lpm = Lpm::new(&writer, 16);
            let mut model = std::collections::BTreeMap::new();
            for (a, length, value, remove) in entries {
                let prefix = prefix(a, length);
                if remove {
                    prop_assert_eq!(lpm.remove(&mut writer, prefix), model.remove(&prefix).is_some());
                } else {
                    lpm.insert(&mut writer, prefix, value);
                    model.insert(prefix, value);
                }
            }
            for a in wanted {
                let mut all: Vec<_> = model.iter().filter(|(p, _)| p.contains(a)).collect();
                all.sort_by_key(|(p, _)| std::cmp::Reverse(p.length));
                let scan: Vec<_> = all.into_iter().map(|(_, v)| *v).collect();
                prop_assert_eq!(lpm.matches(a, &reader).copied().collect::<Vec<_>>(), scan);
            }
        }

        #[test]
        fn text_and_back(a in address(), length in 0u8..=128) {
            let prefix = prefix(a, length);
            prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
        }
    }

    #[test]
    fn wrong_texts() {
        for (text, error) in [
            ("10.0.0.0/33", PrefixError::Length),
            ("10.0.0.1/8", PrefixError::HostBits),
            ("ten/8", PrefixError::Syntax),
            ("10.0.0.0/-1", PrefixError::Syntax),
            ("", PrefixError::Syntax),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
        }
    }
}

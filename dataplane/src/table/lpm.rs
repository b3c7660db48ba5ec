//! Longest-prefix match over IPv4 and IPv6 in one table.
//!
//! Prefixes are stored by hash, so a look-up must know which lengths to try. For IPv4, a guide
//! lists them for each value of an address's first 16 bits. So a packet only tries the lengths of
//! nearby prefixes, mostly one. For IPv6, one entry of the guide serves all prefixes below 48 bits.
//! A hash of the first 48 bits chooses the entry of the others. Prefixes of many lengths slow down
//! look-ups of addresses near them, and if the lengths are below 48, all IPv6 look-ups.

#![allow(unsafe_code, reason = "remembers references, by the parts that their changes are counted in")]

use super::{
    Bucket, Map, Part, Reader, Remembered, Table, TableNumber, Writer,
    domain::{V4_BITS, V6_BITS, sealed::Sealed},
    hash,
};
use crate::wire::Address;
use crossbeam::utils::CachePadded;
use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
};

/// An address prefix whose host bits are zero. Its length counts over the 128 bits of an
/// [`Address`], so both families live in one table without colliding.
#[derive(Clone, Copy, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Big-endian. A `u128` would be aligned, and every rule a third larger.
    bits: [u8; 16],
    length: u8,
}

impl PartialEq for Prefix {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // Compared as numbers, so that a prefix just made need not go through memory.
        self.bits() == other.bits() && self.length == other.length
    }
}

impl Hash for Prefix {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits = self.bits();
        // The length is a word of its own. Otherwise somebody could choose prefixes whose address
        // bits cancel the length's.
        state.write_u64(self.length.into());
        state.write_u64((bits >> 64) as u64);
        state.write_u64(bits as u64);
    }
}

#[inline]
fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

impl Prefix {
    /// Returns the prefix of `length` bits of `address`, with host bits cleared, or `None` if the
    /// family has fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (max, base) = if address.to_canonical().is_ipv4() { (32, 96) } else { (128, 0) };
        (length <= max).then(|| Self::of_bits(Address::from(address).bits(), base + length))
    }

    /// Returns the prefix of `length` bits of an address. Both have the 128-bit form.
    #[inline]
    fn of_bits(bits: u128, length: u8) -> Self {
        Self { bits: (bits & mask(length)).to_be_bytes(), length }
    }

    /// Returns the first address in its 128-bit form.
    #[inline]
    fn bits(self) -> u128 {
        u128::from_be_bytes(self.bits)
    }

    /// Returns the prefix of `address` alone.
    pub fn host(address: impl Into<Address>) -> Self {
        Self::of_bits(address.into().bits(), 128)
    }

    /// Returns whether this is a prefix of IPv4 addresses.
    pub fn is_ipv4(self) -> bool {
        self.length >= 96 && self.bits() >> 32 == 0xffff
    }

    /// Returns whether `address` is within the prefix.
    #[inline]
    pub fn contains(self, address: impl Into<Address>) -> bool {
        let address = address.into();
        // A short IPv6 prefix, above all ::/0, contains the numbers of IPv4 addresses, but not the
        // addresses.
        let differ = address.bits() ^ self.bits();
        let (high, low) = ((differ >> 64) as u64, differ as u64);
        let free = 128 - u32::from(self.length);
        if self.length >= V4 {
            // Every IPv4 prefix, and long IPv6 prefixes.
            return high == 0 && low >> free == 0;
        }
        differ.unbounded_shr(free) == 0 && !address.is_ipv4()
    }

    /// Returns the first and the last address as numbers (see [`Address::bits`]).
    pub fn span(self) -> (u128, u128) {
        (self.bits(), self.bits() | !mask(self.length))
    }

    /// Returns the first address.
    pub fn address(self) -> IpAddr {
        let address = Ipv6Addr::from_bits(self.bits());
        if self.is_ipv4() { IpAddr::from(address).to_canonical() } else { address.into() }
    }

    /// Returns the length of the prefix in bits, counted within its family.
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

/// The error for a text that is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// Neither `address/length` nor an address.
    Syntax,
    /// The length is more than the 32 or 128 bits of the family.
    Length,
    /// Bits are set behind the prefix.
    HostBits,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `10.0.0.0/8` or an address alone.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::host).map_err(|_| PrefixError::Syntax);
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Syntax)?;
        let length = length.parse().map_err(|_| PrefixError::Syntax)?;
        let prefix = Self::new(address, length).ok_or(PrefixError::Length)?;
        if prefix.bits() == Address::from(address).bits() { Ok(prefix) } else { Err(PrefixError::HostBits) }
    }
}

/// The number of first bits of an IPv4 address that choose an entry of the guide.
const GUIDE_BITS: u8 = 16;
/// The number of first bits of an IPv6 address that choose an entry of the guide, for prefixes that
/// have as many: those of a site.
const V6_SITE: u8 = 48;
/// The number of entries for such prefixes.
const V6_ENTRIES: usize = 1 << 12;
/// The number of 64-bit words that hold a bit for each length of an IPv6 prefix.
const V6_WORDS: usize = 3;
type V6Lengths = [AtomicU64; V6_WORDS];
/// The length of the 128-bit form's part before an IPv4 address, in bits.
const V4: u8 = 96;

/// An IPv4 prefix in one word: address, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct V4Key(u64);

impl V4Key {
    /// Returns the prefix of `length` bits of an IPv4 address.
    #[inline]
    fn new(address: Address, length: u8) -> Self {
        let whole = u64::from(address.bits() as u32) << 8;
        Self(whole & u64::MAX << (40 - length) | u64::from(length))
    }

    fn of(prefix: Prefix) -> Option<Self> {
        prefix.is_ipv4().then(|| Self::new(prefix.address().into(), prefix.length()))
    }
}

/// The buckets that a look-up of one address visits, computed once for all its passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Bit `l`: an IPv4 prefix of length `l` may contain the address.
    lengths: u64,
    /// The bucket of the longest of these prefixes.
    first: Bucket,
}

impl Buckets {
    /// Returns whether it is already clear that no prefix contains `address`, for which these
    /// buckets are. Always `false` for an IPv6 address.
    #[inline]
    pub fn is_empty(self, address: Address) -> bool {
        self.lengths == 0 && address.is_ipv4()
    }
}

/// Values by prefix.
#[derive(Debug)]
pub struct Lpm<V: Send + Sync + 'static> {
    v4: Map<V4Key, V>,
    v6: Map<Prefix, V>,
    /// By the first 16 bits of an IPv4 address. Bit `l`: a prefix of length `l` may contain it.
    v4_guide: Box<[AtomicU64]>,
    /// By a hash of the first 48 bits of an IPv6 address; the last entry is for shorter prefixes.
    /// Bit `l % 64` of word `l / 64`: a prefix of length `l` may contain it.
    v6_guide: Box<[V6Lengths]>,
    /// The factor of that hash: odd and random, so that nobody can choose prefixes that share an
    /// entry.
    v6_factor: u64,
    number: TableNumber,
    /// Only the writer uses it, so it shares no line with what readers need.
    counts: CachePadded<Mutex<Counts>>,
}

/// Numbers of prefixes by family (`true` is IPv6?), first entry in the guide, and length.
type Counts = HashMap<(bool, usize, u8), u32>;

impl<V: Send + Sync> Sealed for Lpm<V> {}

impl<V: Send + Sync> Table for Lpm<V> {
    #[inline(always)]
    fn number(&self) -> TableNumber {
        self.number
    }
}

impl<V: Send + Sync + 'static> Lpm<V> {
    /// Returns a table with room for about `capacity` prefixes, in the tables of `writer`.
    pub fn new(writer: &Writer, capacity: usize) -> Self {
        Self {
            v4: Map::new(writer, capacity),
            v6: Map::new(writer, capacity),
            v4_guide: (0..1 << GUIDE_BITS).map(|_| AtomicU64::new(0)).collect(),
            v6_guide: (0..=V6_ENTRIES).map(|_| V6Lengths::default()).collect(),
            v6_factor: hash::random() | 1,
            number: writer.domain.number(),
            counts: CachePadded::default(),
        }
    }

    /// Returns the value of the longest prefix that contains `address`.
    #[inline(always)]
    pub fn find<'r>(&'r self, address: impl Into<Address>, reader: &'r Reader) -> Option<&'r V> {
        self.find_map(address, reader, Some)
    }

    /// Calls `judge` with the values of all prefixes that contain `address`, longest first. Returns
    /// its first result that is not `None`.
    #[inline(always)]
    pub fn find_map<'r, R>(
        &'r self,
        address: impl Into<Address>,
        reader: &'r Reader,
        judge: impl FnMut(&'r V) -> Option<R>,
    ) -> Option<R> {
        let address = address.into();
        self.find_map_at(self.buckets(address), address, reader, judge)
    }

    /// Does the same as [`Lpm::find_map`], with the `buckets` of `address`.
    #[inline(always)]
    pub fn find_map_at<'r, R>(
        &'r self,
        buckets: Buckets,
        address: Address,
        reader: &'r Reader,
        mut judge: impl FnMut(&'r V) -> Option<R>,
    ) -> Option<R> {
        let Buckets { mut lengths, first: mut bucket } = buckets;
        while let Some(length) = take_longest(&mut lengths) {
            let key = V4Key::new(address, length);
            if let Some(answer) = self.v4.get_at(bucket, &key, reader).and_then(&mut judge) {
                return Some(answer);
            }
            if let Some(shorter) = longest(lengths) {
                bucket = self.v4.bucket(&V4Key::new(address, shorter));
            }
        }
        if address.is_ipv4() { None } else { self.find_map_v6(address, reader, judge) }
    }

    #[inline(never)]
    fn find_map_v6<'r, R>(
        &'r self,
        address: Address,
        reader: &'r Reader,
        mut judge: impl FnMut(&'r V) -> Option<R>,
    ) -> Option<R> {
        let entries = [&self.v6_guide[self.v6_entry_of(address.bits())], &self.v6_guide[V6_ENTRIES]];
        for word in (0..V6_WORDS).rev() {
            let [own, shorter] = entries.map(|lengths| lengths[word].load(Relaxed));
            let mut lengths = own | shorter;
            while let Some(length) = take_longest(&mut lengths) {
                let prefix = Prefix::of_bits(address.bits(), word as u8 * 64 + length);
                if let Some(answer) = self.v6.get(&prefix, reader).and_then(&mut judge) {
                    return Some(answer);
                }
            }
        }
        None
    }

    /// Returns the buckets that a look-up of `address` visits.
    #[inline]
    pub fn buckets(&self, address: Address) -> Buckets {
        let v4 = address.is_ipv4();
        let lengths = if v4 { self.v4_guide[entry_of(address.bits())].load(Relaxed) } else { 0 };
        let likely = longest(lengths).map(|length| self.v4.bucket(&V4Key::new(address, length)));
        Buckets { lengths, first: likely.unwrap_or_default() }
    }

    /// Prefetches the first of `buckets`, if they are those of an IPv4 address.
    #[inline]
    pub fn prefetch_bucket(&self, buckets: Buckets) {
        self.v4.prefetch_bucket(buckets.first);
    }

    /// Prefetches the entry of the longest prefix, a pass after [`Lpm::prefetch_bucket`].
    #[inline]
    pub fn prefetch_node(&self, buckets: Buckets) {
        self.v4.prefetch_node(buckets.first);
    }

    /// Returns the value of exactly `prefix`.
    pub fn get<'r>(&'r self, prefix: Prefix, reader: &'r Reader) -> Option<&'r V> {
        match V4Key::of(prefix) {
            Some(key) => self.v4.get(&key, reader),
            None => self.v6.get(&prefix, reader),
        }
    }

    /// Remembers the first that `of` refers to in the values of all prefixes that contain `address`,
    /// longest first, by the state of `parts`. `None` stands for nothing, or for tables that have begun to
    /// change since the reader's last quiescent point.
    ///
    /// # Panics
    /// Panics unless `parts` has all [`Reader::parts_of`] `address`.
    pub fn remember<T: Sync + 'static, const N: usize>(
        &self,
        address: Address,
        parts: [Part; N],
        reader: &Reader,
        of: impl for<'v> FnMut(&'v V) -> Option<&'v T>,
    ) -> Option<Remembered<T, N>> {
        assert!(
            reader.parts_of(address).iter().all(|part| parts.contains(part)),
            "all parts of this address"
        );
        let value = self.find_map(address, reader, of)?;
        // SAFETY: `of` proves that it lives as long as the prefix's value, whose changes these parts count.
        unsafe { Remembered::new(value, self.number, parts, reader) }
    }

    /// Sets the value of `prefix`.
    pub fn insert(&self, writer: &mut Writer, prefix: Prefix, value: V) {
        let (before, part) = (self.len(), part_of(prefix, writer));
        match V4Key::of(prefix) {
            Some(key) => self.v4.insert_in(part, writer, key, value),
            None => self.v6.insert_in(part, writer, prefix, value),
        }
        if self.len() > before && self.count(prefix, 1) == 1 {
            let (guide, bit) = self.guide(prefix);
            writer.change(part, || guide.iter().for_each(|entry| _ = entry.fetch_or(bit, Release)));
        }
    }

    /// Removes `prefix`. Returns whether it was there.
    pub fn remove(&self, writer: &mut Writer, prefix: Prefix) -> bool {
        let part = part_of(prefix, writer);
        let removed = match V4Key::of(prefix) {
            Some(key) => self.v4.remove_in(part, writer, &key),
            None => self.v6.remove_in(part, writer, &prefix),
        };
        if removed && self.count(prefix, -1) == 0 {
            let (guide, bit) = self.guide(prefix);
            guide.iter().for_each(|entry| _ = entry.fetch_and(!bit, Release));
        }
        removed
    }

    /// Returns the entry of the guide for an IPv6 address and prefixes of 48 bits or more.
    #[inline]
    fn v6_entry_of(&self, bits: u128) -> usize {
        let site = (bits >> (128 - V6_SITE)) as u64;
        // The high bits of a product depend on all bits of a factor.
        (site.wrapping_mul(self.v6_factor) >> (64 - V6_ENTRIES.ilog2())) as usize
    }

    /// Returns the entry of the guide for an IPv6 prefix.
    fn v6_entry(&self, prefix: Prefix) -> usize {
        if prefix.length < V6_SITE { V6_ENTRIES } else { self.v6_entry_of(prefix.bits()) }
    }

    /// Returns the entries of a guide that are about `prefix`, and its bit there.
    fn guide(&self, prefix: Prefix) -> (&[AtomicU64], u64) {
        if prefix.is_ipv4() {
            (&self.v4_guide[entries_of(prefix)], 1 << prefix.length())
        } else {
            let word = usize::from(prefix.length / 64);
            (&self.v6_guide[self.v6_entry(prefix)][word..=word], 1 << (prefix.length % 64))
        }
    }

    /// Counts a prefix that was added or removed. Returns how many of its length share its entry in
    /// the guide after that.
    fn count(&self, prefix: Prefix, change: i32) -> u32 {
        let is_ipv4 = prefix.is_ipv4();
        let entry = if is_ipv4 { *entries_of(prefix).start() } else { self.v6_entry(prefix) };
        let key = (is_ipv4, entry, prefix.length);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        *count = count.saturating_add_signed(change);
        let now = *count;
        if now == 0 {
            counts.remove(&key);
        }
        now
    }

    /// Returns the number of prefixes.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Returns whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Returns the part that changes of `prefix` are counted in.
fn part_of(prefix: Prefix, writer: &Writer) -> Part {
    let least = if prefix.is_ipv4() { V4_BITS } else { V6_BITS };
    if prefix.length() < least { Part::SHORT } else { writer.domain.part_of(prefix.address().into()) }
}

/// Returns the number of the highest bit of `lengths`.
#[inline]
fn longest(lengths: u64) -> Option<u8> {
    lengths.checked_ilog2().map(|bit| bit as u8)
}

/// Clears the highest bit of `lengths`. Returns its number.
#[inline]
fn take_longest(lengths: &mut u64) -> Option<u8> {
    let bit = longest(*lengths)?;
    *lengths ^= 1 << bit;
    Some(bit)
}

/// Returns the entry of the guide for an IPv4 address in its 128-bit form.
#[inline]
fn entry_of(bits: u128) -> usize {
    usize::from((bits as u32 >> (32 - GUIDE_BITS)) as u16)
}

/// Returns the entries of the guide for the addresses of an IPv4 prefix.
fn entries_of(prefix: Prefix) -> RangeInclusive<usize> {
    let host_bits = !mask(prefix.length);
    entry_of(prefix.bits())..=entry_of(prefix.bits() | host_bits)
}

#[cfg(test)]
mod tests;

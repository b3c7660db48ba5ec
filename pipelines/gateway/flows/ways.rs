//! A table of remembered answers with two ways. A look-up asks two entries, never a chain, so that
//! flows that somebody chose to collide cost no more than one that is not known.

use std::hash::{BuildHasher, RandomState};
use wayfarer_dataplane::{prefetch, table::Reader};

/// One of 2 to this power new flows takes the place of one that is in use.
const ADMITTED_BITS: u32 = 3;

/// The hash of keys: seeded, so that nobody outside can choose keys that collide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash([u64; 3]);

impl Default for Hash {
    fn default() -> Self {
        let random = RandomState::new();
        Self([1, 2, 3].map(|n: u64| random.hash_one(n) | 1))
    }
}

impl Hash {
    /// Returns the hash of a key of two words. Folded twice: once would be linear in what differs between
    /// flows.
    #[inline(always)]
    pub(super) fn of(&self, [a, b]: [u64; 2]) -> u64 {
        fold(fold(a ^ self.0[0], b ^ self.0[1]), self.0[2])
    }

    /// Returns the hash of IPv6 addresses.
    pub(super) fn of_v6<const N: usize>(&self, addresses: &[u8; N]) -> u64 {
        let (words, _) = addresses.as_chunks::<8>();
        words.iter().fold(0, |hash, word| self.of([hash, u64::from_le_bytes(*word)]))
    }
}

/// Returns the two halves of a product, mixed.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// An answer that is remembered.
pub(super) trait Entry: Copy {
    /// What the answer is for. Of IPv6 addresses, a key may have only a hash.
    type Key: Copy + PartialEq;

    /// The IPv6 addresses of which keys have only a hash.
    type Addresses: Copy + PartialEq + Default;

    /// An entry without an answer.
    const NONE: Self;

    /// Returns what the answer is for.
    fn key(&self) -> Self::Key;

    /// Returns whether the answer is right.
    fn is_current(&self, reader: &Reader) -> bool;

    /// Returns whether the answer is that packets take the whole way.
    fn is_refusal(&self) -> bool;
}

/// Answers by key.
#[derive(Debug)]
pub(super) struct Ways<E: Entry> {
    entries: Box<[E]>,
    /// The IPv6 addresses of each entry that is for some. They are apart from the entries, so that those of
    /// IPv4 take one line each.
    addresses: Box<[E::Addresses]>,
    /// The state of a generator of pseudo-random numbers, which decide who is admitted.
    dice: u64,
}

impl<E: Entry> Ways<E> {
    /// Makes room for `entries` answers: a power of two, at least 2, or none.
    pub(super) fn new(entries: usize) -> Self {
        debug_assert!(entries == 0 || entries.is_power_of_two() && entries > 1);
        let addresses = vec![E::Addresses::default(); entries].into();
        Self { entries: vec![E::NONE; entries].into(), addresses, dice: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the slot of the first way for a key with this hash.
    #[inline(always)]
    fn slot(&self, hash: u64) -> u32 {
        (hash as usize & (self.entries.len().wrapping_sub(1))) as u32
    }

    /// Prefetches the entry of a key with this hash. Returns its slot.
    #[inline(always)]
    pub(super) fn expect(&self, hash: u64) -> u32 {
        let slot = self.slot(hash);
        if let Some(entry) = self.entries.get(slot as usize) {
            prefetch::line(entry);
        }
        slot
    }

    /// Prefetches the IPv6 addresses of the entry in `slot`.
    pub(super) fn expect_addresses(&self, slot: u32) {
        if let Some(addresses) = self.addresses.get(slot as usize) {
            prefetch::whole(addresses);
        }
    }

    /// Returns the entry of `key` whose first way is `slot`, if it is current. `addresses` are those of which
    /// `key` has a hash, if it has one. Calls `renew` for an entry that is not current.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        slot: u32,
        key: E::Key,
        addresses: Option<&E::Addresses>,
        reader: &Reader,
        renew: impl Fn(&mut E, &E::Addresses) -> bool,
    ) -> Option<&mut E> {
        let first = self.entries.get(slot as usize)?;
        let slot = if first.key() == key && first.is_current(reader) && self.is_for(slot, addresses) {
            slot
        } else {
            self.find_other(slot, key, addresses, reader, renew)?
        };
        self.entries.get_mut(slot as usize)
    }

    /// Does the same for an entry in its second way, or one that is not current.
    #[inline(never)]
    fn find_other(
        &mut self,
        slot: u32,
        key: E::Key,
        addresses: Option<&E::Addresses>,
        reader: &Reader,
        renew: impl Fn(&mut E, &E::Addresses) -> bool,
    ) -> Option<u32> {
        [slot, slot ^ 1].into_iter().find(|&way| {
            self.is_for(way, addresses)
                && self.entry(way as usize).is_some_and(|(entry, own)| {
                    entry.key() == key && (entry.is_current(reader) || renew(entry, own))
                })
        })
    }

    /// Returns whether the entry in `slot` is for these IPv6 addresses, or there are none.
    #[inline(always)]
    fn is_for(&self, slot: u32, addresses: Option<&E::Addresses>) -> bool {
        addresses.is_none_or(|addresses| self.addresses.get(slot as usize) == Some(addresses))
    }

    /// Returns an entry with its IPv6 addresses.
    fn entry(&mut self, way: usize) -> Option<(&mut E, &E::Addresses)> {
        Some((self.entries.get_mut(way)?, self.addresses.get(way)?))
    }

    /// Learns the answer for `key`, whose hash is `hash`, and for the IPv6 addresses of which it has a hash.
    /// Asks for it only if there is an entry for it: its own, one that is neither current nor to be renewed,
    /// one that refuses, or now and then one in use. An answer that refuses takes the place of no other kind.
    pub(super) fn learn(
        &mut self,
        hash: u64,
        (key, addresses): (E::Key, E::Addresses),
        reader: &Reader,
        renew: impl Fn(&mut E, &E::Addresses) -> bool,
        ask: impl FnOnce() -> Option<E>,
    ) {
        let first = self.slot(hash) as usize;
        let ways = [first, first ^ 1];
        let mut find = |is: &dyn Fn(&mut E, &E::Addresses) -> bool| {
            ways.into_iter().find(|&way| self.entry(way).is_some_and(|(entry, own)| is(entry, own)))
        };
        let free = find(&|entry, _| entry.key() == key)
            .or_else(|| find(&|entry, own| !entry.is_current(reader) && !renew(entry, own)))
            .or_else(|| find(&|entry, _| entry.is_refusal()));
        let Some(way) = free.or_else(|| self.admit(ways)) else { return };
        if let (Some(entry), Some(own)) = (self.entries.get_mut(way), self.addresses.get_mut(way))
            && let Some(answer) = ask()
            && (free.is_some() || !answer.is_refusal())
        {
            *entry = answer;
            // Pages that are all zeros, as without IPv6, stay unused.
            if *own != addresses {
                *own = addresses;
            }
        }
    }

    /// Returns one of two ways, whose entries are in use, for one in so many new flows.
    fn admit(&mut self, ways: [usize; 2]) -> Option<usize> {
        // Knuth's MMIX; its upper bits are the good ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let is_admitted = self.dice >> (u64::BITS - ADMITTED_BITS) == 0;
        is_admitted.then(|| ways[(self.dice >> 32) as usize % 2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_dataplane::table::{Stamp, Writer};

    /// An answer for an address of which keys have a hash.
    #[derive(Clone, Copy, Debug)]
    struct Answer {
        key: u64,
        stamp: Stamp<0>,
        value: u32,
    }

    impl Entry for Answer {
        type Key = u64;
        type Addresses = [u8; 4];
        const NONE: Self = Self { key: 0, stamp: Stamp::NONE, value: 0 };

        fn key(&self) -> u64 {
            self.key
        }

        fn is_current(&self, reader: &Reader) -> bool {
            self.stamp.is_current(reader)
        }

        fn is_refusal(&self) -> bool {
            self.value == 0
        }
    }

    const KEY: u64 = 7;

    fn learn(ways: &mut Ways<Answer>, address: u8, value: u32, reader: &Reader) {
        let ask = || Some(Answer { key: KEY, stamp: Stamp::new([], reader)?, value });
        ways.learn(0, (KEY, [address; 4]), reader, |_, _| false, ask);
    }

    fn find(ways: &mut Ways<Answer>, address: Option<u8>, reader: &Reader) -> Option<u32> {
        let addresses = address.map(|address| [address; 4]);
        ways.find(0, KEY, addresses.as_ref(), reader, |_, _| false).map(|answer| answer.value)
    }

    #[test]
    fn keys_that_are_the_same_hash_are_told_apart_by_their_addresses() {
        let writer = Writer::new();
        let reader = writer.reader();
        let mut ways = Ways::new(2);
        learn(&mut ways, 1, 10, &reader);
        assert_eq!([1, 2].map(|address| find(&mut ways, Some(address), &reader)), [Some(10), None]);
        learn(&mut ways, 2, 20, &reader);
        assert_eq!([1, 2].map(|address| find(&mut ways, Some(address), &reader)), [None, Some(20)]);
        // A key that has no hash is all.
        assert_eq!(find(&mut ways, None, &reader), Some(20));
    }

    #[test]
    fn every_bit_of_ipv6_addresses_counts() {
        let hash = Hash::default();
        let mut seen = std::collections::BTreeSet::from([hash.of_v6(&[0; 32])]);
        for bit in 0..256 {
            let mut addresses = [0_u8; 32];
            addresses[bit / 8] |= 1 << (bit % 8);
            assert!(seen.insert(hash.of_v6(&addresses)), "bit {bit}");
        }
    }
}

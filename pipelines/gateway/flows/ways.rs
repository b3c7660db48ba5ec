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
}

/// Returns the two halves of a product, mixed.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// An answer that is remembered.
pub(super) trait Entry: Copy {
    /// What the answer is for.
    type Key: Copy + PartialEq;

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
pub(super) struct Ways<E> {
    entries: Box<[E]>,
    /// The state of a generator of pseudo-random numbers, which decide who is admitted.
    dice: u64,
}

impl<E: Entry> Ways<E> {
    /// Makes room for `entries` answers: a power of two, at least 2, or none.
    pub(super) fn new(entries: usize) -> Self {
        debug_assert!(entries == 0 || entries.is_power_of_two() && entries > 1);
        Self { entries: vec![E::NONE; entries].into(), dice: 0 }
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

    /// Returns the entry of `key` whose first way is `slot`, if it is current. Calls `renew` for one that
    /// is not.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        slot: u32,
        key: E::Key,
        reader: &Reader,
        renew: impl Fn(&mut E) -> bool,
    ) -> Option<&mut E> {
        let first = self.entries.get(slot as usize)?;
        let slot = if first.key() == key && first.is_current(reader) {
            slot
        } else {
            self.find_other(slot, key, reader, renew)?
        };
        self.entries.get_mut(slot as usize)
    }

    /// Does the same for an entry in its second way, or one that is not current.
    #[inline(never)]
    fn find_other(
        &mut self,
        slot: u32,
        key: E::Key,
        reader: &Reader,
        renew: impl Fn(&mut E) -> bool,
    ) -> Option<u32> {
        [slot, slot ^ 1].into_iter().find(|&way| {
            self.entries
                .get_mut(way as usize)
                .is_some_and(|entry| entry.key() == key && (entry.is_current(reader) || renew(entry)))
        })
    }

    /// Learns the answer for `key`, whose hash is `hash`. Asks for it only if there is an entry for it: its
    /// own, one that is neither current nor to be renewed, one that refuses, or now and then one in use. An
    /// answer that refuses takes the place of no other kind.
    pub(super) fn learn(
        &mut self,
        hash: u64,
        key: E::Key,
        reader: &Reader,
        renew: impl Fn(&mut E) -> bool,
        ask: impl FnOnce() -> Option<E>,
    ) {
        let first = self.slot(hash) as usize;
        let ways = [first, first ^ 1];
        let mut find = |is: &dyn Fn(&mut E) -> bool| {
            ways.into_iter().find(|&way| self.entries.get_mut(way).is_some_and(is))
        };
        let free = find(&|entry| entry.key() == key)
            .or_else(|| find(&|entry| !entry.is_current(reader) && !renew(entry)))
            .or_else(|| find(&|entry| entry.is_refusal()));
        let Some(way) = free.or_else(|| self.admit(ways)) else { return };
        if let (Some(entry), Some(answer)) = (self.entries.get_mut(way), ask())
            && (free.is_some() || !answer.is_refusal())
        {
            *entry = answer;
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

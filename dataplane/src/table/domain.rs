//! The writer and the readers of a set of tables, and the changes that they count.

use super::hash;
use crate::{
    sync::{AtomicU64, AtomicUsize, Mutex},
    wire::Address,
};
use crossbeam::utils::CachePadded;
use std::{
    any::Any,
    collections::VecDeque,
    marker::PhantomData,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Acquire, Relaxed, Release},
    },
};

/// The number of low bits of a number of changes. The others tell sets of tables apart.
const CHANGE_BITS: u32 = 44;

/// The number of bits that choose one of the parts. With more parts, fewer unrelated changes share
/// one.
#[cfg(not(loom))]
pub(super) const PART_BITS: u32 = 14;
#[cfg(loom)]
pub(super) const PART_BITS: u32 = 2;

/// The number of parts.
const PARTS: usize = 1 << PART_BITS;

/// The number of first bits of an IPv4 address that choose its part. Shorter prefixes are in
/// [`Part::SHORT`].
pub(super) const V4_BITS: u8 = 24;
/// The same for IPv6.
pub(super) const V6_BITS: u8 = 64;

/// One part of the tables of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub(super) u16);

impl Part {
    /// The part of short prefixes, of all tables. Nothing else is counted there, because a change there
    /// concerns every answer.
    pub(super) const SHORT: Self = Self(0);

    /// Returns the part that the upper bits of `hash` choose.
    #[inline]
    pub(super) fn of_hash(hash: u32) -> Self {
        Self(((hash >> (u32::BITS - PART_BITS)) as u16).max(Self::SHORT.0 + 1))
    }
}

pub(super) mod sealed {
    /// Only tables of this crate live as long as the values that are found in them.
    pub trait Sealed {}
}

/// What tells a table from the others of its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableNumber(pub(super) u16);

/// The state that readers and the writer of one set of tables share.
#[derive(Debug)]
pub(super) struct Domain {
    /// Twice the number of changes, and one more during a change. Begins at another number for each set
    /// of tables.
    pub(super) changes: CachePadded<AtomicU64>,
    /// The number of changes in each [`Part`].
    parts: Box<[AtomicU64; PARTS]>,
    /// The factor of the hash that chooses parts: odd and random, so that nobody can choose addresses
    /// that share one.
    factor: u64,
    /// The number of tables so far that remember values.
    tables: AtomicUsize,
    /// For each reader the `changes` that it last saw while it held nothing.
    seen: Mutex<Vec<Arc<CachePadded<AtomicU64>>>>,
}

impl Domain {
    fn new() -> Self {
        static DOMAINS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = DOMAINS.fetch_add(1, Relaxed);
        assert!(number < u64::MAX >> CHANGE_BITS, "a program has few sets of tables");
        let parts: Box<[AtomicU64]> = (0..PARTS).map(|_| AtomicU64::new(0)).collect();
        Self {
            changes: CachePadded::new(AtomicU64::new(number << CHANGE_BITS)),
            parts: parts.try_into().unwrap_or_else(|_| unreachable!("they are as many")),
            factor: hash::random() | 1,
            tables: AtomicUsize::new(0),
            seen: Mutex::default(),
        }
    }

    /// Returns the number of a new table.
    pub(super) fn number(&self) -> TableNumber {
        let number = self.tables.fetch_add(1, Relaxed);
        TableNumber(number.try_into().expect("a writer has few tables"))
    }

    /// Returns the part of an address: the same in all tables, so that all answers about it rest on one
    /// part.
    pub(super) fn part_of(&self, address: Address) -> Part {
        let bits = address.bits();
        let first = match address.is_ipv4() {
            true => bits as u64 >> (32 - V4_BITS),
            false => !(bits >> (128 - V6_BITS)) as u64,
        };
        self.part_of_number(first)
    }

    fn part_of_number(&self, number: u64) -> Part {
        // The high bits of a product depend on all bits of a factor.
        Part::of_hash((number.wrapping_mul(self.factor) >> 32) as u32)
    }

    /// Counts a change in `part`, which the one writer has just made.
    pub(super) fn count_in(&self, Part(part): Part) {
        let count = &self.parts[usize::from(part) % PARTS];
        count.store(count.load(Relaxed) + 1, Release);
    }

    /// Returns the sum of the counts of `parts`. Counts only grow, so that sums are equal only if all
    /// counts are.
    #[inline]
    pub(super) fn sum(&self, parts: &[Part]) -> u64 {
        parts.iter().map(|&Part(part)| self.parts[usize::from(part) % PARTS].load(Acquire)).sum()
    }
}

/// Returns whether two numbers of changes are of the same tables.
#[inline]
pub(super) fn are_of_one_domain(one: u64, other: u64) -> bool {
    one >> CHANGE_BITS == other >> CHANGE_BITS
}

/// The right to change a set of tables. There is one, so there is one writer.
#[derive(Debug)]
pub struct Writer {
    pub(super) domain: Arc<Domain>,
    retired: VecDeque<(u64, Box<dyn Any + Send>)>,
}

/// The right to read a set of tables, for one thread at a time.
#[derive(Debug)]
pub struct Reader {
    pub(super) domain: Arc<Domain>,
    seen: Arc<CachePadded<AtomicU64>>,
    /// Not `Sync`, because a quiescent point concerns one thread.
    _one_thread: PhantomData<std::cell::Cell<()>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Returns a writer for new tables.
    pub fn new() -> Self {
        Self { domain: Arc::new(Domain::new()), retired: VecDeque::new() }
    }

    /// Returns a new reader of this writer's tables.
    pub fn reader(&self) -> Reader {
        let mut all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock that `collect` takes, so this reader cannot reach what was retired before.
        let seen = Arc::new(CachePadded::new(AtomicU64::new(self.domain.changes.load(Acquire))));
        all.push(seen.clone());
        Reader { domain: self.domain.clone(), seen, _one_thread: PhantomData }
    }

    /// Makes a change of a table by `make`, whose stores to what readers see are releases. Counts it in
    /// `part`: answers that rest on that part may be other ones now.
    pub(super) fn change<R>(&mut self, part: Part, make: impl FnOnce() -> R) -> R {
        let domain = &*self.domain;
        let before = domain.changes.load(Relaxed);
        // Release: a reader that sees this number sees all changes before.
        domain.changes.store(before + 1, Release);
        let made = make();
        domain.count_in(part);
        // Release: a reader that sees the new number sees the change, and its count in the part.
        domain.changes.store(before + 2, Release);
        made
    }

    /// Keeps `garbage`, which the last change has taken out of its table, until no reader can hold it.
    pub(super) fn retire(&mut self, garbage: Box<dyn Any + Send>) {
        self.retired.push_back((self.domain.changes.load(Relaxed), garbage));
    }

    /// Frees everything that no reader can hold any more. Returns the number of values that still
    /// wait.
    pub fn collect(&mut self) -> usize {
        if !self.retired.is_empty() {
            let all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Acquire: the actions of readers before their quiescent points happen before the
            // values are freed.
            let oldest = all.iter().map(|seen| seen.load(Acquire)).min().unwrap_or(u64::MAX);
            drop(all);
            while self.retired.front().is_some_and(|(when, _)| *when <= oldest) {
                self.retired.pop_front();
            }
        }
        self.retired.len()
    }
}

impl Drop for Writer {
    /// Frees everything that nobody can hold any more, and leaks the rest, because a reader may
    /// outlive its writer, for example if the writer's thread panics.
    fn drop(&mut self) {
        self.collect();
        std::mem::forget(std::mem::take(&mut self.retired));
    }
}

impl Reader {
    /// Declares a quiescent point: this reader holds nothing, which the exclusive borrow proves.
    #[inline]
    pub fn quiescent(&mut self) {
        self.seen.store(self.domain.changes.load(Acquire), Release);
    }

    /// Returns the parts that changes of prefixes which contain `address` are counted in, in all tables of the
    /// writer. The second one is of short prefixes: of less than /24 of IPv4 or /64 of IPv6.
    pub fn parts_of(&self, address: Address) -> [Part; 2] {
        [self.domain.part_of(address), Part::SHORT]
    }

    /// Returns whether a change of the tables has begun since the last quiescent point, or was not complete
    /// then.
    #[inline]
    pub fn has_news(&self) -> bool {
        let seen = self.seen();
        !seen.is_multiple_of(2) || self.domain.changes.load(Acquire) != seen
    }

    /// Returns the number of changes at the last quiescent point.
    #[inline(always)]
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|seen| !Arc::ptr_eq(seen, &self.seen));
    }
}

/// The set of tables that a table belongs to.
#[derive(Clone, Debug)]
pub(super) struct Membership(Arc<Domain>);

impl Membership {
    pub(super) fn of(writer: &Writer) -> Self {
        Self(writer.domain.clone())
    }

    /// Checks that `reader` belongs to the same tables.
    ///
    /// # Panics
    /// Panics if `reader` belongs to other tables, whose writer would not wait for it.
    #[inline]
    pub(super) fn check_reader(&self, reader: &Reader) {
        assert!(Arc::ptr_eq(&self.0, &reader.domain), "a reader of other tables");
    }

    /// Returns the part for changes of a value that is in no table, but has a number.
    pub(super) fn part_of_number(&self, number: u32) -> Part {
        self.0.part_of_number(number.into())
    }

    pub(super) fn check_writer(&self, writer: &Writer) {
        assert!(Arc::ptr_eq(&self.0, &writer.domain), "a writer of other tables");
    }
}

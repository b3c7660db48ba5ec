//! A hash map of chains: one bucket array that never moves, nodes that never change.

#![allow(unsafe_code, reason = "nodes that are freed at quiescent points")]

use super::{
    Membership, Part, Reader, Remembered, Table, TableNumber, Writer, domain::sealed::Sealed, hash::Seed,
};
use crate::{
    prefetch,
    sync::{AtomicPtr, AtomicUsize},
};
use crossbeam::utils::CachePadded;
use std::{
    hash::{BuildHasher, Hash},
    ptr,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

/// The bucket of a key in a map, computed once for all passes of a look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket(u32);

type Pointer<K, V> = AtomicPtr<Node<K, V>>;

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    next: Pointer<K, V>,
}

/// A map whose readers never wait. Insert and remove cost O(1) while there are not many more
/// entries than buckets. Beyond that the chains grow longer, and nothing is refused.
#[derive(Debug)]
pub struct Map<K: Send + Sync + 'static, V: Send + Sync + 'static> {
    buckets: Box<[Pointer<K, V>]>,
    /// The number of entries, which changes with each of them. Readers need the other fields for
    /// every look-up, so it has lines of its own.
    entries: CachePadded<AtomicUsize>,
    seed: Seed,
    /// The number of bits by which a [`Bucket`] is shifted to the right to index `buckets`.
    shift: u32,
    number: TableNumber,
    tables: Membership,
}

impl<K: Send + Sync, V: Send + Sync> Sealed for Map<K, V> {}

impl<K: Send + Sync, V: Send + Sync> Table for Map<K, V> {
    #[inline(always)]
    fn number(&self) -> TableNumber {
        self.number
    }
}

/// Returns buckets without chains. Pages of zeros cost no memory before they are used.
#[cfg(not(loom))]
fn empty<K, V>(buckets: usize) -> Box<[Pointer<K, V>]> {
    // SAFETY: all zeros are null pointers.
    unsafe { Box::new_zeroed_slice(buckets).assume_init() }
}

#[cfg(loom)]
fn empty<K, V>(buckets: usize) -> Box<[Pointer<K, V>]> {
    (0..buckets).map(|_| Pointer::default()).collect()
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Send + Sync + 'static> Map<K, V> {
    /// Returns a map with room for about `capacity` entries, in the tables of `writer`.
    pub fn new(writer: &Writer, capacity: usize) -> Self {
        // A [`Bucket`] has 32 bits.
        let capacity = capacity.clamp(8, 1 << 30);
        let buckets = (capacity + capacity / 2).next_power_of_two();
        Self {
            buckets: empty(buckets),
            shift: u32::BITS - buckets.trailing_zeros(),
            entries: CachePadded::new(AtomicUsize::new(0)),
            seed: Seed::default(),
            number: writer.domain.number(),
            tables: Membership::of(writer),
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bucket of `key`.
    #[inline]
    pub fn bucket(&self, key: &K) -> Bucket {
        Bucket((self.seed.hash_one(key) >> 32) as u32)
    }

    #[inline]
    fn head(&self, bucket: Bucket) -> &Pointer<K, V> {
        // SAFETY: there are 2^n buckets, at least 16, and the shift leaves n bits.
        unsafe { self.buckets.get_unchecked((bucket.0 >> self.shift) as usize) }
    }

    /// Prefetches `bucket`.
    #[inline]
    pub fn prefetch_bucket(&self, bucket: Bucket) {
        prefetch::line(self.head(bucket));
    }

    /// Prefetches the first node of `bucket`, a pass after [`Map::prefetch_bucket`].
    #[inline]
    pub fn prefetch_node(&self, bucket: Bucket) {
        // The pointer is not followed, so the node may be freed meanwhile.
        prefetch::whole(self.head(bucket).load(Relaxed));
    }

    /// Returns the value of `key`, which stays readable until the reader's next quiescent point.
    #[inline]
    pub fn get<'r>(&'r self, key: &K, reader: &'r Reader) -> Option<&'r V> {
        self.get_at(self.bucket(key), key, reader)
    }

    /// Does the same as [`Map::get`], with the `bucket` of `key`.
    #[inline(always)]
    pub fn get_at<'r>(&'r self, bucket: Bucket, key: &K, reader: &'r Reader) -> Option<&'r V> {
        self.tables.check_reader(reader);
        let mut at = self.head(bucket).load(Acquire);
        // SAFETY: a node reached from a bucket is freed only after it was unlinked and `reader`,
        // borrowed as long as the result, was quiescent.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.key == *key {
                return Some(&node.value);
            }
            at = node.next.load(Acquire);
        }
        None
    }

    /// Returns the part that changes of the values of keys with this `bucket` are counted in.
    #[inline]
    pub fn part(&self, bucket: Bucket) -> Part {
        Part::of_hash(bucket.0)
    }

    /// Remembers what `of` refers to in the value of `key`, by the state of `parts`. Returns `None` if
    /// there is nothing, or if the tables have begun to change since the reader's last quiescent point.
    ///
    /// # Panics
    /// Panics if the [`part`](Self::part) of `key` is not one of `parts`.
    pub fn remember<T: Sync + 'static, const N: usize>(
        &self,
        key: &K,
        parts: [Part; N],
        reader: &Reader,
        of: impl for<'v> FnOnce(&'v V) -> Option<&'v T>,
    ) -> Option<Remembered<T, N>> {
        let bucket = self.bucket(key);
        assert!(parts.contains(&self.part(bucket)), "the part of this key");
        let value = of(self.get_at(bucket, key, reader)?)?;
        // SAFETY: `of` proves that the value lives as long as that of the key, whose changes are
        // counted in this part.
        unsafe { Remembered::new(value, self.number, parts, reader) }
    }

    /// Sets the value of `key`. Readers see the old value or the new one, never none.
    pub fn insert(&self, writer: &mut Writer, key: K, value: V) {
        let part = self.part(self.bucket(&key));
        self.insert_in(part, writer, key, value);
    }

    /// Does the same as [`Map::insert`], and counts the change in `part`.
    pub(super) fn insert_in(&self, part: Part, writer: &mut Writer, key: K, value: V) {
        self.tables.check_writer(writer);
        let (pointer, found) = self.find(&key);
        let next = match found {
            // SAFETY: this is the one writer, so a linked node cannot be freed meanwhile.
            Some(old) => unsafe { (*old).next.load(Relaxed) },
            None => {
                self.entries.fetch_add(1, Relaxed);
                ptr::null_mut()
            }
        };
        let node = Box::into_raw(Box::new(Node { key, value, next: AtomicPtr::new(next) }));
        writer.change(part, || pointer.store(node, Release));
        if let Some(old) = found {
            // SAFETY: made by `Box::into_raw` above, and just unlinked.
            writer.retire(unsafe { Box::from_raw(old) });
        }
    }

    /// Removes `key`. Returns whether it was there.
    pub fn remove(&self, writer: &mut Writer, key: &K) -> bool {
        self.remove_in(self.part(self.bucket(key)), writer, key)
    }

    /// Does the same as [`Map::remove`], and counts the change in `part`.
    pub(super) fn remove_in(&self, part: Part, writer: &mut Writer, key: &K) -> bool {
        self.tables.check_writer(writer);
        let (pointer, found) = self.find(key);
        let Some(node) = found else { return false };
        // SAFETY: as in `insert_in`. A reader at this node still finds the rest of the chain behind
        // it.
        let next = unsafe { (*node).next.load(Relaxed) };
        writer.change(part, || pointer.store(next, Release));
        // SAFETY: as in `insert_in`.
        writer.retire(unsafe { Box::from_raw(node) });
        self.entries.fetch_sub(1, Relaxed);
        true
    }

    /// Returns the pointer to the node of `key` and that node, or the last pointer of its chain.
    /// Only for the writer.
    fn find(&self, key: &K) -> (&Pointer<K, V>, Option<*mut Node<K, V>>) {
        let mut pointer = self.head(self.bucket(key));
        loop {
            let at = pointer.load(Relaxed);
            // SAFETY: only the writer frees nodes, and this is the writer.
            match unsafe { at.as_ref() } {
                None => return (pointer, None),
                Some(node) if node.key == *key => return (pointer, Some(at)),
                Some(node) => pointer = &node.next,
            }
        }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Drop for Map<K, V> {
    fn drop(&mut self) {
        for bucket in &self.buckets {
            let mut at = bucket.load(Relaxed);
            while !at.is_null() {
                // SAFETY: made by `Box::into_raw` in `insert_in`; `&mut self` proves that nobody reads
                // the map any more.
                let node = unsafe { Box::from_raw(at) };
                at = node.next.load(Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Prefix;
    use proptest::prelude::*;
    use std::{
        collections::HashMap,
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64},
        },
    };

    proptest! {
        #[test]
        fn behaves_like_a_hash_map(steps in proptest::collection::vec((any::<bool>(), 0u8..40, any::<u32>()), 0..300)) {
            let mut writer = Writer::new();
            let mut reader = writer.reader();
            // Forty keys in eight buckets, so that there are chains.
            let map = Map::new(&writer, 1);
            let mut model = HashMap::new();
            for (insert, key, value) in steps {
                if insert {
                    map.insert(&mut writer, key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(map.remove(&mut writer, &key), model.remove(&key).is_some());
                }
                for key in 0..40 {
                    prop_assert_eq!(map.get(&key, &reader), model.get(&key));
                }
                prop_assert_eq!(map.len(), model.len());
                reader.quiescent();
                writer.collect();
            }
        }
    }

    /// Refers to a whole value.
    fn whole<T>(value: &T) -> Option<&T> {
        Some(value)
    }

    proptest! {
        #[test]
        fn no_value_is_remembered_beyond_its_change(
            steps in proptest::collection::vec((any::<bool>(), 0u8..40), 0..60),
        ) {
            let mut writer = Writer::new();
            let mut reader = writer.reader();
            let map = Map::<u8, usize>::new(&writer, 1);
            for (step, (insert, key)) in steps.into_iter().enumerate() {
                reader.quiescent();
                let remember = |key| map.remember(&key, [map.part(map.bucket(&key))], &reader, whole);
                let before: Vec<_> = (0..40).map(|key| (map.get(&key, &reader).copied(), remember(key))).collect();
                match insert {
                    true => map.insert(&mut writer, key, step),
                    false => _ = map.remove(&mut writer, &key),
                }
                reader.quiescent();
                writer.collect();
                for (key, (old, remembered)) in (0..40).zip(before) {
                    prop_assert_eq!(remembered.is_some(), old.is_some());
                    let Some(mut remembered) = remembered else { continue };
                    let is_valid = remembered.get(&map, &reader).is_some() || remembered.renew(&reader);
                    let now = map.get(&key, &reader);
                    prop_assert_eq!(remembered.get(&map, &reader), now.filter(|_| is_valid));
                    prop_assert!(!is_valid || now == old.as_ref());
                }
            }
        }
    }

    /// Returns the number of entries in the fullest bucket of a map that nobody changes.
    fn longest_chain<K: Send + Sync, V: Send + Sync>(map: &Map<K, V>) -> usize {
        let chain = |bucket: &Pointer<K, V>| {
            let (mut n, mut at) = (0, bucket.load(Relaxed));
            // SAFETY: nobody changes this map.
            while let Some(node) = unsafe { at.as_ref() } {
                (n, at) = (n + 1, node.next.load(Relaxed));
            }
            n
        };
        map.buckets.iter().map(chain).max().unwrap()
    }

    #[test]
    fn keys_in_succession_and_prefixes_of_any_length_spread() {
        for group in 0..8 {
            let mut writer = Writer::new();
            let map = Map::new(&writer, 1000);
            for n in 0..1000 {
                let mut groups = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
                groups[group] = n;
                let length = 16 * (group as u8 + 1);
                let prefix = Prefix::new(std::net::Ipv6Addr::from(groups).into(), length).unwrap();
                map.insert(&mut writer, prefix, 0);
            }
            let longest = longest_chain(&map);
            assert!(longest < 8, "group {group}: {longest}");
        }
    }

    #[test]
    fn prefixes_with_their_length_in_the_address_spread() {
        for group in 0..8 {
            for shift in [0, 8] {
                let mut writer = Writer::new();
                let map = Map::new(&writer, 1000);
                for length in 16 * (group as u8 + 1)..=128 {
                    let mut groups = [0; 8];
                    groups[group] = u16::from(length) << shift;
                    let prefix = Prefix::new(std::net::Ipv6Addr::from(groups).into(), length).unwrap();
                    map.insert(&mut writer, prefix, 0);
                }
                let longest = longest_chain(&map);
                assert!(longest < 8, "group {group}, shift {shift}: {longest}");
            }
        }
    }

    /// Counts its drops, and reveals a use after one.
    struct DropCounter(Arc<AtomicU64>, u64);
    impl Drop for DropCounter {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
            self.1 = u64::MAX;
        }
    }

    #[test]
    fn nothing_is_freed_before_every_reader_was_quiescent() {
        let drops = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new();
        let (mut a, mut b) = (writer.reader(), writer.reader());
        let map = Map::new(&writer, 8);
        map.insert(&mut writer, 1, DropCounter(drops.clone(), 7));
        let held = map.get(&1, &a).unwrap();
        map.remove(&mut writer, &1);
        b.quiescent();
        assert_eq!((writer.collect(), drops.load(Relaxed), held.1), (1, 0, 7));
        a.quiescent();
        assert_eq!((writer.collect(), drops.load(Relaxed)), (0, 1));
        map.insert(&mut writer, 2, DropCounter(drops.clone(), 8));
        map.insert(&mut writer, 2, DropCounter(drops.clone(), 9));
        drop(a);
        drop(b);
        assert_eq!((writer.collect(), drops.load(Relaxed)), (0, 2));
        drop(map);
        assert_eq!(drops.load(Relaxed), 3);
    }

    #[test]
    fn a_reader_may_outlive_its_writer() {
        let drops = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new();
        let reader = writer.reader();
        let map = Map::new(&writer, 8);
        map.insert(&mut writer, 1, DropCounter(drops.clone(), 7));
        let held = map.get(&1, &reader).unwrap();
        map.remove(&mut writer, &1);
        drop(writer);
        assert_eq!((held.1, drops.load(Relaxed)), (7, 0));
    }

    #[test]
    fn readers_run_beside_a_busy_writer() {
        let mut writer = Writer::new();
        let map = Arc::new(Map::new(&writer, 16));
        let stop = Arc::new(AtomicBool::new(false));
        for key in 0..64u64 {
            map.insert(&mut writer, key, [key; 4]);
        }
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (mut reader, map, stop) = (writer.reader(), map.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        for key in 0..64 {
                            // Even keys always exist; odd ones come and go. A value is never torn,
                            // and never that of another key.
                            let value = map.get(&key, &reader);
                            assert!(value.is_some() || key % 2 == 1);
                            assert!(value.is_none_or(|v| v.iter().all(|x| x % 64 == key)));
                        }
                        reader.quiescent();
                    }
                })
            })
            .collect();
        for round in 0..20_000u64 {
            let key = round * 7 % 64;
            if key % 2 == 1 && round % 3 == 0 {
                map.remove(&mut writer, &key);
            } else {
                map.insert(&mut writer, key, [key + 64 * round; 4]);
            }
            writer.collect();
        }
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(writer.collect(), 0);
    }
}

//! A table of remembered answers with four ways. A look-up asks one entry, never a chain, so that
//! flows that somebody chose to collide cost no more than one that is not known.

use super::worth::Found;
use wayfarer_dataplane::{prefetch, table::Reader};

/// The number of entries of a bucket.
pub(super) const WAYS: usize = 4;
/// One of 2 to this power new flows looks for a slot among those of others.
const ADMITTED_BITS: u32 = 3;

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

    /// Returns whether nothing has changed since the answer was last known to be right.
    fn is_current(&self, reader: &Reader) -> bool;

    /// Returns whether the answer still holds, although something has changed. If so, it is current.
    fn renew(&mut self, reader: &Reader) -> bool;

    /// Returns whether the answer is that packets take the whole way.
    fn is_refusal(&self) -> bool;
}

/// Answers by key.
#[derive(Debug)]
pub(super) struct Ways<E: Entry> {
    /// For the entries of each bucket a byte of the hash of the key, the first one lowest. They fit caches that
    /// entries do not, so that a flow that is not known mostly costs no access to memory. Of two flows with one
    /// tag in a bucket, one at a time is known.
    tags: Box<[u32]>,
    entries: Box<[E]>,
    /// The IPv6 addresses of each entry that is for some. They are apart from the entries, so that those of
    /// IPv4 take one line each.
    addresses: Box<[E::Addresses]>,
    /// The state of a generator of pseudo-random numbers, which decide who is admitted.
    dice: u64,
}

/// The slot of no entry.
const NOWHERE: u32 = u32::MAX;

impl<E: Entry> Ways<E> {
    /// Makes room for `entries` answers: a power of two, at least [`WAYS`], or none.
    pub(super) fn new(entries: usize) -> Self {
        debug_assert!(entries == 0 || entries.is_power_of_two() && entries >= WAYS);
        let addresses = vec![E::Addresses::default(); entries].into();
        Self {
            tags: vec![0; entries / WAYS].into(),
            entries: vec![E::NONE; entries].into(),
            addresses,
            dice: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bucket of a key with this hash.
    #[inline(always)]
    fn bucket(&self, hash: u64) -> usize {
        hash as usize & self.tags.len().wrapping_sub(1)
    }

    /// Returns the way with this tag in `bucket`. There is at most one that is in use.
    #[inline(always)]
    fn way(&self, bucket: usize, tag: u8) -> Option<usize> {
        const ONES: u32 = 0x0101_0101;
        let differences = self.tags.get(bucket)? ^ (u32::from(tag) * ONES);
        // The lowest bit that is set is that of the first byte of zero.
        let zeros = differences.wrapping_sub(ONES) & !differences & (ONES << 7);
        (zeros != 0).then(|| zeros.trailing_zeros() as usize / 8)
    }

    /// Prefetches the entry of a key with this hash, if there may be one. Returns its slot.
    #[inline(always)]
    pub(super) fn expect(&self, hash: u64) -> u32 {
        let bucket = self.bucket(hash);
        let Some(way) = self.way(bucket, tag(hash)) else { return NOWHERE };
        let slot = bucket * WAYS + way;
        if let Some(entry) = self.entries.get(slot) {
            prefetch::line(entry);
        }
        slot as u32
    }

    /// Prefetches the IPv6 addresses of the entry in `slot`.
    pub(super) fn expect_addresses(&self, slot: u32) {
        if let Some(addresses) = self.addresses.get(slot as usize) {
            prefetch::whole(addresses);
        }
    }

    /// Returns the entry in `slot`, whoever's it is.
    pub(super) fn at(&self, slot: u32) -> Option<&E> {
        self.entries.get(slot as usize)
    }

    /// Returns the entry in `slot` if it is that of `key`, and current. `addresses` are those of which `key` has
    /// a hash, if it has one.
    #[inline(always)]
    pub(super) fn find(
        &mut self,
        slot: u32,
        key: E::Key,
        addresses: Option<&E::Addresses>,
        reader: &Reader,
    ) -> Option<&mut E> {
        let entry = self.entries.get_mut(slot as usize)?;
        if entry.key() != key {
            return None;
        }
        if addresses.is_some() && addresses != self.addresses.get(slot as usize) {
            return None;
        }
        (entry.is_current(reader) || entry.renew(reader)).then_some(entry)
    }

    /// Learns the answer for `key`, whose hash is `hash`, and for the IPv6 addresses of which it has a hash.
    /// Asks for it only if there is a slot for it: its own or a free one, or now and then one of no more use or,
    /// with `may_take`, another's. An answer that refuses takes nobody's. Returns what slot it found, if it looked
    /// for one and has an answer to remember.
    pub(super) fn learn(
        &mut self,
        hash: u64,
        (key, addresses): (E::Key, E::Addresses),
        may_take: bool,
        reader: &Reader,
        ask: impl FnOnce() -> Option<E>,
    ) -> Option<Found> {
        let (bucket, tag) = (self.bucket(hash), tag(hash));
        let first = bucket * WAYS;
        // With a second one of its tag, one of both would never be found.
        let own = self.way(bucket, tag);
        let is_own = |way: &usize| self.entries.get(first + way).is_some_and(|entry| entry.key() == key);
        let free = if own.is_some() { own.filter(is_own) } else { self.way(bucket, FREE) };
        let (way, found) = match free {
            Some(way) => (way, Found::Free),
            None => self.others(first, own, reader)?,
        };
        if found == Found::Taken && !may_take {
            return Some(Found::Full);
        }
        let answer = ask()?;
        if found == Found::Taken && answer.is_refusal() {
            return None;
        }
        *self.entries.get_mut(first + way)? = answer;
        let own = self.addresses.get_mut(first + way)?;
        // Pages that are all zeros, as without IPv6, stay unused.
        if *own != addresses {
            *own = addresses;
        }
        let tags = self.tags.get_mut(bucket)?;
        *tags = *tags & !(0xff << (8 * way)) | u32::from(tag) << (8 * way);
        (!answer.is_refusal()).then_some(found)
    }

    /// Returns a way of the bucket that begins at `first` for one in so many new flows: the way that has its tag,
    /// one of no more use, or any.
    fn others(&mut self, first: usize, own: Option<usize>, reader: &Reader) -> Option<(usize, Found)> {
        // Knuth's MMIX; its upper bits are the good ones.
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if self.dice >> (u64::BITS - ADMITTED_BITS) != 0 {
            return None;
        }
        let is_useless =
            |entry: &mut E| entry.is_refusal() || !entry.is_current(reader) && !entry.renew(reader);
        let entries = self.entries.get_mut(first..first + WAYS)?;
        let any = (self.dice >> 32) as usize % WAYS;
        Some(match own {
            Some(way) if is_useless(entries.get_mut(way)?) => (way, Found::Free),
            Some(way) => (way, Found::Taken),
            None => {
                entries.iter_mut().position(is_useless).map_or((any, Found::Taken), |way| (way, Found::Free))
            }
        })
    }
}

/// The tag of entries that are not in use.
const FREE: u8 = 0;

/// Returns the byte of a hash that tells the keys of a bucket apart.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    ((hash >> 56) as u8).max(FREE + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_dataplane::table::{Map, Stamp, Writer};

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

        fn renew(&mut self, _: &Reader) -> bool {
            false
        }

        fn is_refusal(&self) -> bool {
            self.value == 0
        }
    }

    const KEY: u64 = 7;

    fn learn(ways: &mut Ways<Answer>, address: u8, value: u32, reader: &Reader) {
        let ask = || Some(Answer { key: KEY, stamp: Stamp::new([], reader)?, value });
        ways.learn(0, (KEY, [address; 4]), true, reader, ask);
    }

    fn find(ways: &mut Ways<Answer>, address: Option<u8>, reader: &Reader) -> Option<u32> {
        let addresses = address.map(|address| [address; 4]);
        ways.find(0, KEY, addresses.as_ref(), reader).map(|answer| answer.value)
    }

    #[test]
    fn keys_that_are_the_same_hash_are_told_apart_by_their_addresses() {
        let writer = Writer::new();
        let reader = writer.reader();
        let mut ways = Ways::new(WAYS);
        learn(&mut ways, 1, 10, &reader);
        assert_eq!([1, 2].map(|address| find(&mut ways, Some(address), &reader)), [Some(10), None]);
        learn(&mut ways, 2, 20, &reader);
        assert_eq!([1, 2].map(|address| find(&mut ways, Some(address), &reader)), [None, Some(20)]);
        // A key that has no hash is all.
        assert_eq!(find(&mut ways, None, &reader), Some(20));
    }

    /// Learns a key whose hash is itself.
    fn learn_key(ways: &mut Ways<Answer>, key: u64, reader: &Reader) -> Option<Found> {
        let ask = || Some(Answer { key, stamp: Stamp::new([], reader)?, value: 1 });
        ways.learn(key, (key, [0; 4]), true, reader, ask)
    }

    fn knows(ways: &mut Ways<Answer>, key: u64, reader: &Reader) -> bool {
        let slot = ways.expect(key);
        ways.find(slot, key, None, reader).is_some()
    }

    #[test]
    fn bucket_has_room_for_four_keys_with_different_tags() {
        let writer = Writer::new();
        let reader = writer.reader();
        let mut ways = Ways::new(2 * WAYS);
        // All in the second bucket.
        let keys = [7, 9, 0, 255].map(|tag: u64| tag << 56 | 1);
        for (n, &key) in keys.iter().enumerate() {
            assert_eq!((ways.expect(key), knows(&mut ways, key, &reader)), (NOWHERE, false));
            assert_eq!(learn_key(&mut ways, key, &reader), Some(Found::Free));
            assert!(keys[..=n].iter().all(|&key| knows(&mut ways, key, &reader)), "{n}");
        }
        // A key with another tag takes the slot of one of them now and then.
        let other = 100 << 56 | 1;
        let tries = (0..1000).take_while(|_| learn_key(&mut ways, other, &reader).is_none()).count();
        assert!(tries < 200 && knows(&mut ways, other, &reader), "{tries}");
        assert_eq!(keys.iter().filter(|&&key| knows(&mut ways, key, &reader)).count(), 3);
    }

    #[test]
    fn key_takes_no_slot_but_that_of_one_with_its_tag() {
        let writer = Writer::new();
        let reader = writer.reader();
        let mut ways = Ways::new(2 * WAYS);
        let [one, other] = [7 << 56, 7 << 56 | 2];
        learn_key(&mut ways, one, &reader);
        while learn_key(&mut ways, other, &reader).is_none() {
            assert!(knows(&mut ways, one, &reader) && !knows(&mut ways, other, &reader));
        }
        assert!(!knows(&mut ways, one, &reader) && knows(&mut ways, other, &reader));
    }

    #[test]
    fn only_slots_of_no_use_are_free_to_whoever_may_take_no_other() {
        let mut writer = Writer::new();
        let mut reader = writer.reader();
        let mut ways = Ways::new(WAYS);
        let keys = [1, 2, 3, 4].map(|tag: u64| tag << 56);
        keys.iter().for_each(|&key| _ = learn_key(&mut ways, key, &reader));
        let other = 5 << 56;
        let mut learn_other = |may_take, value, reader: &Reader| {
            let ask = || Some(Answer { key: other, stamp: Stamp::new([], reader)?, value });
            (0..1000).find_map(|_| ways.learn(other, (other, [0; 4]), may_take, reader, ask))
        };
        assert_eq!(learn_other(true, 0, &reader), None, "an answer that refuses takes no slot");
        assert_eq!(learn_other(false, 1, &reader), Some(Found::Full));
        // A change makes all answers worthless.
        Map::new(&writer, 1).insert(&mut writer, 1, 1);
        reader.quiescent();
        assert_eq!(learn_other(false, 1, &reader), Some(Found::Free));
        assert!(knows(&mut ways, other, &reader));
    }
}

use super::{super::domain::PART_BITS, *};
use crate::table::{Bucket, Cell, Lpm, Map, Writer};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A value that counts how often it is freed.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn part<V: Send + Sync + 'static>(map: &Map<u32, V>, key: u32) -> Part {
    map.part(map.bucket(&key))
}

/// Returns a key of another part than that of `key`.
fn far_from<V: Send + Sync + 'static>(map: &Map<u32, V>, key: u32) -> u32 {
    (key + 1..).find(|other| part(map, *other) != part(map, key)).expect("there are many parts")
}

/// Refers to a whole value.
fn whole<T>(value: &T) -> Option<&T> {
    Some(value)
}

fn remember(map: &Map<u32, u32>, key: u32, reader: &Reader) -> Option<Remembered<u32, 1>> {
    map.remember(&key, [part(map, key)], reader, whole)
}

#[test]
fn value_is_current_until_anything_changes_and_renewed_unless_its_part_did() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let map = Map::new(&writer, 16);
    map.insert(&mut writer, 1, 10);
    reader.quiescent();
    let mut remembered = remember(&map, 1, &reader).unwrap();
    assert_eq!(remembered.get(&map, &reader), Some(&10));
    reader.quiescent();
    assert_eq!(remembered.get(&map, &reader), Some(&10), "nothing has changed");

    let far = far_from(&map, 1);
    map.insert(&mut writer, far, 20);
    assert_eq!(remembered.get(&map, &reader), Some(&10), "the reader has not passed a quiescent point");
    reader.quiescent();
    assert_eq!(remembered.get(&map, &reader), None);
    assert!(remembered.renew(&reader));
    assert_eq!(remembered.get(&map, &reader), Some(&10));

    map.insert(&mut writer, 1, 11);
    assert_eq!(remembered.get(&map, &reader), Some(&10), "the value waits for the reader");
    assert_eq!(writer.collect(), 1);
    reader.quiescent();
    assert_eq!(remembered.get(&map, &reader), None);
    assert!(!remembered.renew(&reader));
    assert_eq!(remembered.get(&map, &reader), None, "after a renewal that failed");
    assert_eq!(writer.collect(), 0);
    assert_eq!(remember(&map, 1, &reader).and_then(|new| new.get(&map, &reader).copied()), Some(11));
}

#[test]
fn change_of_a_cell_is_noticed_by_answers_that_rest_on_its_part() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let (map, cell) = (Map::new(&writer, 16), Cell::new(&writer, 1));
    let cells = cell.part(7);
    let key = (1..).find(|key| part(&map, *key) != cells).expect("there are many parts");
    map.insert(&mut writer, key, 10);
    reader.quiescent();
    let mut resting = map.remember(&key, [part(&map, key), cells], &reader, whole).unwrap();
    let mut other = remember(&map, key, &reader).unwrap();
    cell.store(&mut writer, cells, 2);
    reader.quiescent();
    assert_eq!((other.get(&map, &reader), resting.get(&map, &reader)), (None, None));
    assert_eq!((other.renew(&reader), resting.renew(&reader)), (true, false));
    assert_eq!((other.get(&map, &reader), resting.get(&map, &reader)), (Some(&10), None));
}

#[test]
fn nothing_is_remembered_while_the_reader_may_see_a_change() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let map = Map::new(&writer, 16);
    map.insert(&mut writer, 1, 10);
    assert!(remember(&map, 1, &reader).is_none(), "the reader is older than the value");
    assert!(Stamp::new([part(&map, 1)], &reader).is_none());
    reader.quiescent();
    assert!(remember(&map, 1, &reader).is_some());
    map.insert(&mut writer, 2, 20);
    assert!(remember(&map, 1, &reader).is_none());
    reader.quiescent();
    assert!(remember(&map, 1, &reader).is_some());
    assert!(remember(&map, 3, &reader).is_none(), "there is no such key");
}

#[test]
fn stamp_and_value_of_nothing_are_worth_nothing() {
    let writer = Writer::new();
    let mut reader = writer.reader();
    let map = Map::<u32, u32>::new(&writer, 16);
    let (mut stamp, mut value) = (Stamp::<3>::NONE, Remembered::<u32, 3>::NONE);
    for _ in 0..2 {
        assert!(!stamp.is_current(&reader) && !stamp.renew(&reader));
        assert!(value.get(&map, &reader).is_none() && !value.renew(&reader));
        reader.quiescent();
    }
}

/// Both sets of tables have seen the same changes.
#[test]
fn stamps_and_values_of_other_tables_are_worth_nothing() {
    let sets = [(); 2].map(|()| {
        let mut writer = Writer::new();
        let mut reader = writer.reader();
        let map = Map::new(&writer, 16);
        map.insert(&mut writer, 1, 10);
        reader.quiescent();
        (writer, reader, map)
    });
    let [(_, own, map), (_, other, _)] = &sets;
    let (mut stamp, mut value) = (Stamp::new([part(map, 1)], own).unwrap(), remember(map, 1, own).unwrap());
    assert!(stamp.is_current(own) && value.get(map, own).is_some());
    assert!(!stamp.is_current(other) && value.get(map, other).is_none());
    assert!(!stamp.renew(other) && !value.renew(other));
    // That changes nothing.
    assert!(stamp.is_current(own) && value.get(map, own).is_some());
}

#[test]
fn stamp_of_several_parts_rests_on_all_of_them() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let (map, lpm) = (Map::new(&writer, 16), Lpm::new(&writer, 16));
    let address = crate::wire::Address::v4(0x0a00_0001);
    map.insert(&mut writer, 1, 10);
    let [near, short] = reader.parts_of(address);
    for at in 0..3 {
        reader.quiescent();
        let mut stamp = Stamp::new([part(&map, 1), near, short], &reader).unwrap();
        let mut single = Stamp::new([part(&map, 1)], &reader).unwrap();
        match at {
            0 => map.insert(&mut writer, 1, 11),
            1 => lpm.insert(&mut writer, "10.0.0.1".parse().unwrap(), 0),
            _ => lpm.insert(&mut writer, "10.0.0.0/8".parse().unwrap(), 0),
        }
        reader.quiescent();
        assert!(!stamp.renew(&reader), "{at}");
        let is_shared = [near, short].contains(&part(&map, 1));
        assert_eq!(single.renew(&reader), at > 0 && !is_shared, "{at}");
    }
}

#[test]
fn value_may_be_used_by_any_reader_of_its_tables() {
    let freed = Arc::new(AtomicUsize::new(0));
    let mut writer = Writer::new();
    let (mut a, mut b) = (writer.reader(), writer.reader());
    let map = Map::new(&writer, 16);
    map.insert(&mut writer, 1, Counted(freed.clone()));
    a.quiescent();
    b.quiescent();
    let remembered = map.remember(&1, [part(&map, 1)], &a, whole).unwrap();
    map.remove(&mut writer, &1);
    a.quiescent();
    assert_eq!((writer.collect(), freed.load(Relaxed)), (1, 0));
    assert!(remembered.get(&map, &a).is_none());
    assert!(remembered.get(&map, &b).is_some(), "the value waits for this reader");
    b.quiescent();
    assert!(remembered.get(&map, &b).is_none());
    assert_eq!((writer.collect(), freed.load(Relaxed)), (0, 1));
}

#[test]
fn what_is_remembered_keeps_nothing_alive() {
    let freed = Arc::new(AtomicUsize::new(0));
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let map = Map::new(&writer, 16);
    map.insert(&mut writer, 1, Counted(freed.clone()));
    reader.quiescent();
    let mut remembered = map.remember(&1, [part(&map, 1)], &reader, whole).unwrap();
    map.insert(&mut writer, 1, Counted(freed.clone()));
    reader.quiescent();
    assert_eq!((writer.collect(), freed.load(Relaxed)), (0, 1));
    assert!(!remembered.renew(&reader) && remembered.get(&map, &reader).is_none());
}

/// A table frees its values when it is dropped. Nobody may still look at one that is remembered.
#[test]
fn value_of_one_table_is_not_given_out_by_another() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let (map, other) = (Map::new(&writer, 16), Map::new(&writer, 16));
    [&map, &other].into_iter().for_each(|map| map.insert(&mut writer, 1, 10));
    reader.quiescent();
    let remembered = remember(&map, 1, &reader).unwrap();
    assert_eq!([&map, &other].map(|map| remembered.get(map, &reader)), [Some(&10), None]);
    drop(map);
    assert!(remembered.is_current(&reader) && remembered.get(&other, &reader).is_none());
}

#[test]
#[should_panic(expected = "the part of this key")]
fn value_of_a_map_is_not_remembered_by_another_part() {
    let mut writer = Writer::new();
    let mut reader = writer.reader();
    let map = Map::new(&writer, 16);
    map.insert(&mut writer, 1, 10);
    reader.quiescent();
    let far = far_from(&map, 1);
    let _ = map.remember(&1, [part(&map, far)], &reader, whole);
}

#[test]
fn parts_are_those_of_upper_bits() {
    let last = Part((1 << PART_BITS) - 1);
    // The first one is of short prefixes alone.
    let (first, second) = (u32::MAX >> PART_BITS, 2 << (u32::BITS - PART_BITS));
    assert_eq!([0, first, second, u32::MAX].map(Part::of_hash), [Part(1), Part(1), Part(2), last]);
    // A default bucket, which stands for none, is not special.
    let map = Map::<u32, u32>::new(&Writer::new(), 16);
    assert_eq!(map.part(Bucket::default()), Part(1));
}

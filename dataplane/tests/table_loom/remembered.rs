//! Answers that readers remember beyond a quiescent point.

use super::Witness;
use loom::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread,
};
use std::hash::{Hash, Hasher};
use wayfarer_dataplane::table::{Cell, Map, Part, Reader, Remembered, Stamp, Writer};

/// A key whose part the test chooses by its hash. Keys of one hash share a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    name: u32,
    hash: u64,
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The key whose value is remembered.
const KEY: Name = Name { name: 1, hash: 0 };
/// Another key of its part and its chain.
const NEAR: Name = Name { name: 2, hash: 0 };

type Names = Map<Name, Witness>;

fn part(map: &Names, key: Name) -> Part {
    map.part(map.bucket(&key))
}

/// Returns a key of another part than that of [`KEY`].
fn far(map: &Names) -> Name {
    let mut keys = (1..).map(|hash| Name { name: 3, hash });
    keys.find(|key| part(map, *key) != part(map, KEY)).expect("there are two parts")
}

/// A value that was remembered, and its name.
type Held = Option<(Remembered<Witness, 1>, u32)>;

fn remember(map: &Names, reader: &Reader) -> Held {
    let mut name = 0;
    let remembered = map.remember(&KEY, [part(map, KEY)], reader, |value| {
        name = value.look();
        Some(value)
    });
    remembered.map(|remembered| (remembered, name))
}

/// Uses what is held as a worker does in a turn. Returns whether it could be used.
fn is_usable(held: &mut Held, map: &Names, reader: &Reader) -> bool {
    let Some((remembered, name)) = held else { return false };
    let is_usable = remembered.get(map, reader).is_some() || remembered.renew(reader);
    let value = remembered.get(map, reader);
    assert_eq!(value.map(|value| value.look()), is_usable.then_some(*name));
    is_usable
}

/// Runs `change` on a map that has 10 for [`KEY`], behind `others`, beside a reader that remembers its value
/// and uses it in each of its `turns`, or remembers it again. Passes to `judge` what is held after that, and
/// whether it is usable in a turn that begins after the change.
fn beside_change(
    turns: usize,
    others: &'static [Name],
    change: fn(&Names, &mut Writer),
    judge: fn(&Held, bool),
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let mut writer = Writer::new();
        let map = Map::new(&writer, 1);
        others.iter().for_each(|key| map.insert(&mut writer, *key, Witness::new(20)));
        map.insert(&mut writer, KEY, Witness::new(10));
        let map = Arc::new(map);
        let worker = {
            let (mut reader, map) = (writer.reader(), Arc::clone(&map));
            thread::spawn(move || {
                let mut held = remember(&map, &reader);
                for _ in 0..turns {
                    reader.quiescent();
                    if !is_usable(&mut held, &map, &reader) {
                        held = remember(&map, &reader);
                    }
                }
                (held, reader)
            })
        };
        change(&map, &mut writer);
        writer.collect();
        let (mut held, mut reader) = worker.join().unwrap();
        // The last quiescent point may have been before the change.
        reader.quiescent();
        let usable = is_usable(&mut held, &map, &reader);
        judge(&held, usable);
        assert_eq!(writer.collect(), 0);
        // What is usable is still there.
        assert_eq!(is_usable(&mut held, &map, &reader), usable);
    });
}

#[test]
fn remembered_value_is_not_looked_at_after_it_was_replaced() {
    beside_change(
        2,
        &[],
        |map, writer| map.insert(writer, KEY, Witness::new(11)),
        |held, usable| {
            let is_right = matches!((held, usable), (None | Some((_, 10)), false) | (Some((_, 11)), true));
            assert!(is_right, "{held:?} {usable}");
        },
    );
}

#[test]
fn remembered_value_is_not_looked_at_after_it_was_removed() {
    beside_change(
        1,
        &[],
        |map, writer| assert!(map.remove(writer, &KEY)),
        |held, usable| assert!(!usable, "{held:?}"),
    );
}

#[test]
fn remembered_value_is_not_looked_at_after_it_was_replaced_twice() {
    beside_change(
        1,
        &[],
        |map, writer| {
            map.insert(writer, KEY, Witness::new(11));
            writer.collect();
            map.insert(writer, KEY, Witness::new(12));
        },
        |held, usable| assert_eq!(usable, matches!(held, Some((_, 12))), "{held:?}"),
    );
}

#[test]
fn remembered_value_is_not_looked_at_after_its_key_came_back() {
    beside_change(
        1,
        &[],
        |map, writer| {
            assert!(map.remove(writer, &KEY));
            map.insert(writer, KEY, Witness::new(11));
        },
        |held, usable| assert_eq!(usable, matches!(held, Some((_, 11))), "{held:?}"),
    );
}

#[test]
fn remembered_value_outlives_changes_of_another_part() {
    beside_change(
        1,
        &[],
        |map, writer| map.insert(writer, far(map), Witness::new(30)),
        |held, usable| assert_eq!(usable, held.is_some(), "{held:?}"),
    );
}

/// The change is counted in the part of both keys, so that the value may have to be remembered again. But it
/// is never another one.
#[test]
fn remembered_value_is_the_same_after_its_neighbour_was_removed() {
    beside_change(
        1,
        &[NEAR],
        |map, writer| assert!(map.remove(writer, &NEAR)),
        |held, _| assert!(matches!(held, None | Some((_, 10))), "{held:?}"),
    );
}

/// Runs a change of the value 10 of [`KEY`] to 11 beside a reader that remembers which it is, by a stamp.
/// `is_far` makes a change of another part before it.
fn stamp_beside_change(is_far: bool) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let mut writer = Writer::new();
        let map = Map::new(&writer, 1);
        map.insert(&mut writer, KEY, Witness::new(10));
        let map = Arc::new(map);
        let is_done = Arc::new(AtomicBool::new(false));
        let worker = {
            let (mut reader, map, is_done) = (writer.reader(), Arc::clone(&map), Arc::clone(&is_done));
            thread::spawn(move || {
                let answer = map.get(&KEY, &reader).expect("it always exists").look();
                let mut stamp = Stamp::new([part(&map, KEY)], &reader);
                for _ in 0..2 {
                    let was_done = is_done.load(Acquire);
                    reader.quiescent();
                    let is_right = |stamp: &mut Stamp<1>| stamp.is_current(&reader) || stamp.renew(&reader);
                    if stamp.as_mut().is_some_and(is_right) && was_done {
                        assert_eq!(answer, 11, "the turn began after the change had returned");
                    }
                }
            })
        };
        if is_far {
            map.insert(&mut writer, far(&map), Witness::new(30));
        }
        map.insert(&mut writer, KEY, Witness::new(11));
        is_done.store(true, Release);
        worker.join().unwrap();
        // The reader is gone.
        assert_eq!(writer.collect(), 0);
    });
}

#[test]
fn stamp_is_not_renewed_in_a_turn_that_begins_after_a_change() {
    stamp_beside_change(false);
}

#[test]
fn stamp_renewed_after_another_change_notices_its_own() {
    stamp_beside_change(true);
}

#[test]
fn quiescence_of_another_reader_does_not_free_what_is_remembered() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let mut writer = Writer::new();
        let map = Map::new(&writer, 1);
        map.insert(&mut writer, KEY, Witness::new(10));
        let map = Arc::new(map);
        let workers = [(); 2].map(|()| {
            let (mut reader, map) = (writer.reader(), Arc::clone(&map));
            thread::spawn(move || {
                let mut held = remember(&map, &reader);
                reader.quiescent();
                is_usable(&mut held, &map, &reader);
            })
        });
        map.insert(&mut writer, KEY, Witness::new(11));
        writer.collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(writer.collect(), 0);
    });
}

#[test]
fn whoever_finds_a_new_value_beside_an_answer_for_the_old_one_has_news() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let mut writer = Writer::new();
        let cell = Arc::new(Cell::new(&writer, 10));
        let part = cell.part(7);
        let (mut reader, own) = (writer.reader(), Arc::clone(&cell));
        let worker = thread::spawn(move || {
            let old = *own.load(&reader);
            let Some(mut stamp) = Stamp::new([part], &reader) else { return };
            for _ in 0..2 {
                reader.quiescent();
                if stamp.is_current(&reader) || stamp.renew(&reader) {
                    let found = *own.load(&reader);
                    assert!(found == old || reader.has_news() && stamp.has_news(&reader), "{found}");
                }
            }
        });
        cell.store(&mut writer, part, 11);
        worker.join().unwrap();
        assert_eq!(writer.collect(), 0);
    });
}

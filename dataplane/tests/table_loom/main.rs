//! Tables and their reclamation under every interleaving that loom finds:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p wayfarer-dataplane --test table_loom --target-dir target/loom
//! ```

#![cfg(loom)]

mod remembered;

use loom::{cell::UnsafeCell, sync::Arc, thread};
use std::hash::{Hash, Hasher};
use wayfarer_dataplane::table::{Cell, Map, Reader, Writer};

/// A flag that is set while a value lives. For loom it is plain memory, written when the value is
/// made and
/// dropped, and read when somebody uses it. So a model fails as soon as these accesses are not
/// ordered.
struct Life(UnsafeCell<bool>);

// SAFETY: as safe as the tested code; loom reports every unordered access.
unsafe impl Sync for Life {}

impl Life {
    fn is_on(&self) -> bool {
        // SAFETY: as above.
        self.0.with(|on| unsafe { *on })
    }
}

/// A value of a table, known by its name.
struct Witness {
    name: u32,
    life: std::sync::Arc<Life>,
}

impl Witness {
    fn new(name: u32) -> Self {
        Self { name, life: Life(UnsafeCell::new(true)).into() }
    }

    /// Returns the name, which only the memory of a live value has.
    fn look(&self) -> u32 {
        assert!(self.life.is_on(), "{} was freed", self.name);
        self.name
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.life.0.with_mut(|on| unsafe { *on = false });
    }
}

/// A key that shares its chain with all others. Every look-up that passes it uses it.
struct Key(Witness);

impl Key {
    fn new(name: u32) -> Self {
        Self(Witness::new(name))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.look() == other.0.look()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Returns a writer, a cell with the first of two witnesses, and whether that one lives.
fn cell() -> (Writer, Arc<Cell<Witness>>, std::sync::Arc<Life>) {
    let writer = Writer::new();
    let first = Witness::new(1);
    let life = first.life.clone();
    let cell = Arc::new(Cell::new(&writer, first));
    (writer, cell, life)
}

/// Replaces the witness in a cell by the one with this name.
fn store(cell: &Cell<Witness>, writer: &mut Writer, name: u32) {
    let part = cell.part(7);
    cell.store(writer, part, Witness::new(name));
}

/// Reads a cell twice in each of two turns, and holds the values until the end of the turn.
fn read(cell: &Cell<Witness>, reader: &mut Reader) {
    let mut newest = 0;
    for _ in 0..2 {
        let (first, second) = (cell.load(reader), cell.load(reader));
        let names = [newest, first.look(), second.look()];
        assert!(names.is_sorted(), "an old value came back: {names:?}");
        newest = second.name;
        reader.quiescent();
    }
}

#[test]
fn a_value_lives_until_its_reader_is_quiescent() {
    loom::model(|| {
        let (mut writer, cell, life) = cell();
        let mut reader = writer.reader();
        let worker = {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                read(&cell, &mut reader);
                reader
            })
        };
        store(&cell, &mut writer, 2);
        writer.collect();
        writer.collect();
        let mut reader = worker.join().unwrap();
        // The last quiescent point may have been before the change.
        reader.quiescent();
        assert_eq!(writer.collect(), 0);
        assert!(!life.is_on());
        assert_eq!(cell.load(&reader).look(), 2);
    });
}

#[test]
fn quiescence_of_one_reader_does_not_cover_another() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut writer, cell, life) = cell();
        let workers = [(); 2].map(|()| {
            let (mut reader, cell) = (writer.reader(), Arc::clone(&cell));
            thread::spawn(move || {
                let held = cell.load(&reader);
                cell.load(&reader).look();
                held.look();
                reader.quiescent();
                cell.load(&reader).look();
            })
        });
        store(&cell, &mut writer, 2);
        writer.collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        // Both readers are gone.
        assert_eq!(writer.collect(), 0);
        assert!(!life.is_on());
    });
}

#[test]
fn late_reader_holds_only_the_value_that_it_found() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut writer, cell, life) = cell();
        let early = {
            let (mut reader, cell) = (writer.reader(), Arc::clone(&cell));
            thread::spawn(move || {
                cell.load(&reader).look();
                reader.quiescent();
                reader
            })
        };
        store(&cell, &mut writer, 2);
        // Between a retirement and its collection.
        let late = {
            let (reader, cell) = (writer.reader(), Arc::clone(&cell));
            thread::spawn(move || {
                let held = cell.load(&reader);
                cell.load(&reader).look();
                assert!(held.look() >= 2);
                reader
            })
        };
        writer.collect();
        store(&cell, &mut writer, 3);
        writer.collect();
        let (mut early, _late) = (early.join().unwrap(), late.join().unwrap());
        early.quiescent();
        // The late reader cannot hold the first value, but may hold the second.
        assert_eq!((writer.collect(), life.is_on()), (1, false));
    });
}

#[test]
fn dropped_writer_frees_no_value_that_is_held() {
    loom::model(|| {
        let (mut writer, cell, _) = cell();
        let worker = {
            let (mut reader, cell) = (writer.reader(), Arc::clone(&cell));
            thread::spawn(move || {
                read(&cell, &mut reader);
                reader
            })
        };
        store(&cell, &mut writer, 2);
        drop(writer);
        let reader = worker.join().unwrap();
        assert_eq!(cell.load(&reader).look(), 2);
    });
}

#[test]
fn dropped_writer_frees_values_that_nobody_holds() {
    loom::model(|| {
        let (mut writer, cell, life) = cell();
        let mut reader = writer.reader();
        store(&cell, &mut writer, 2);
        reader.quiescent();
        drop(writer);
        assert!(!life.is_on());
    });
}

/// Runs `change` on a map whose one chain is 1, 2, 3, beside a reader that looks up `keys`, which
/// always exist. Passes the names of their values to `judge`.
fn walk(keys: &'static [u32], change: fn(&Map<Key, Witness>, &mut Writer), judge: fn(&[u32])) {
    loom::model(move || {
        let mut writer = Writer::new();
        let map = Map::new(&writer, 1);
        for name in 1..=3 {
            map.insert(&mut writer, Key::new(name), Witness::new(10 * name));
        }
        let map = Arc::new(map);
        let worker = {
            let (mut reader, map) = (writer.reader(), Arc::clone(&map));
            thread::spawn(move || {
                let held: Vec<_> = keys
                    .iter()
                    .map(|&key| map.get(&Key::new(key), &reader).expect("it always exists"))
                    .collect();
                judge(&held.iter().map(|value| value.look()).collect::<Vec<_>>());
                reader.quiescent();
                reader
            })
        };
        change(&map, &mut writer);
        writer.collect();
        let mut reader = worker.join().unwrap();
        reader.quiescent();
        assert_eq!(writer.collect(), 0);
    });
}

#[test]
fn a_key_that_is_replaced_is_never_missing() {
    walk(
        &[2, 3],
        |map, writer| map.insert(writer, Key::new(2), Witness::new(21)),
        |names| assert!(matches!(names, [20 | 21, 30]), "{names:?}"),
    );
}

#[test]
fn a_key_is_found_behind_one_that_is_removed() {
    walk(
        &[2, 3],
        |map, writer| assert!(map.remove(writer, &Key::new(1))),
        |names| assert_eq!(names, [20, 30]),
    );
}

#[test]
fn a_key_is_found_while_its_chain_changes_all_around_it() {
    walk(
        &[2],
        |map, writer| {
            assert!(map.remove(writer, &Key::new(1)));
            map.insert(writer, Key::new(2), Witness::new(21));
            writer.collect();
            assert!(map.remove(writer, &Key::new(3)));
            map.insert(writer, Key::new(1), Witness::new(11));
        },
        |names| assert!(matches!(names, [20 | 21]), "{names:?}"),
    );
}

#[test]
fn a_key_that_appears_is_seen_whole() {
    loom::model(|| {
        let mut writer = Writer::new();
        let map = Arc::new(Map::<Key, Witness>::new(&writer, 1));
        let worker = {
            let (reader, map) = (writer.reader(), Arc::clone(&map));
            thread::spawn(move || {
                let found = map.get(&Key::new(1), &reader);
                assert!(found.is_none_or(|value| value.look() == 10));
            })
        };
        map.insert(&mut writer, Key::new(1), Witness::new(10));
        worker.join().unwrap();
    });
}

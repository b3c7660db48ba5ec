//! Tables that workers read without locks while one writer changes them.
//!
//! Memory is reclaimed at quiescent points: every worker has a [`Reader`] and says
//! [`Reader::quiescent`] once a turn, when it holds nothing that it read. The one [`Writer`] takes
//! things out of a table, and frees them once every reader has said so since. A read is a load; a
//! change is O(1); neither waits for the other.
//!
//! ```text
//! Reader ── get() ─►  Map, Lpm, Cell  ◄─ insert(), remove(), store() ── Writer
//!    └ quiescent()                                              retire, collect ┘
//! ```

mod cell;
mod hash;
mod lpm;
mod map;

pub use cell::Cell;
pub use lpm::{Buckets, Lpm, Prefix, PrefixError};
pub use map::{Bucket, Map};

use crate::sync::{AtomicU64, Mutex};
use crossbeam::utils::CachePadded;
use std::{
    any::Any,
    collections::VecDeque,
    marker::PhantomData,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{Acquire, Release},
    },
};

/// What readers and the writer of one set of tables have in common.
#[derive(Debug, Default)]
struct Domain {
    /// Counts the writer's retirements.
    now: AtomicU64,
    /// For each reader the `now` that it has last seen while it held nothing.
    seen: Mutex<Vec<Arc<CachePadded<AtomicU64>>>>,
}

/// The right to change a set of tables. There is one, so there is one writer.
#[derive(Debug)]
pub struct Writer {
    domain: Arc<Domain>,
    retired: VecDeque<(u64, Box<dyn Any + Send>)>,
}

/// The right to read a set of tables, of one thread at a time.
#[derive(Debug)]
pub struct Reader {
    domain: Arc<Domain>,
    seen: Arc<CachePadded<AtomicU64>>,
    /// Not `Sync`: a quiescent point is one thread's affair.
    _one_thread: PhantomData<std::cell::Cell<()>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Makes a writer for new tables.
    pub fn new() -> Self {
        Self { domain: Arc::default(), retired: VecDeque::new() }
    }

    /// Returns a new reader of this writer's tables.
    pub fn reader(&self) -> Reader {
        let mut all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock that `collect` takes: whatever was retired before is out of reach for this
        // reader.
        let seen = Arc::new(CachePadded::new(AtomicU64::new(self.domain.now.load(Acquire))));
        all.push(seen.clone());
        Reader { domain: self.domain.clone(), seen, _one_thread: PhantomData }
    }

    /// Keeps `garbage`, already out of every table, until no reader can hold it any more.
    fn retire(&mut self, garbage: Box<dyn Any + Send>) {
        // Release: a reader that sees the new number sees the tables without `garbage`.
        let now = self.domain.now.fetch_add(1, Release) + 1;
        self.retired.push_back((now, garbage));
    }

    /// Frees what no reader can hold any more, and answers how many things still wait.
    pub fn collect(&mut self) -> usize {
        if !self.retired.is_empty() {
            let all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
            // Acquire: what readers did before their quiescent points happened before what we free.
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
    /// Frees what nobody can hold any more, and leaks the rest: a reader may outlive its writer, as
    /// when the writer's thread panics.
    fn drop(&mut self) {
        self.collect();
        std::mem::forget(std::mem::take(&mut self.retired));
    }
}

impl Reader {
    /// A quiescent point: this reader holds nothing, which the exclusive borrow proves.
    #[inline]
    pub fn quiescent(&mut self) {
        self.seen.store(self.domain.now.load(Acquire), Release);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut all = self.domain.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|seen| !Arc::ptr_eq(seen, &self.seen));
    }
}

/// Which set of tables a table belongs to.
#[derive(Clone, Debug)]
struct Membership(Arc<Domain>);

impl Membership {
    fn of(writer: &Writer) -> Self {
        Self(writer.domain.clone())
    }

    /// # Panics
    /// If `reader` belongs to other tables, whose writer would not wait for it.
    #[inline]
    fn check_reader(&self, reader: &Reader) {
        assert!(Arc::ptr_eq(&self.0, &reader.domain), "a reader of other tables");
    }

    fn check_writer(&self, writer: &Writer) {
        assert!(Arc::ptr_eq(&self.0, &writer.domain), "a writer of other tables");
    }
}

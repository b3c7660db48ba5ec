//! One value that readers see completely, before or after a change.

#![allow(unsafe_code, reason = "values that are freed at quiescent points")]

use super::{Membership, Part, Reader, Writer};
use crate::sync::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// A published value. A handover is one [`Cell::store`].
#[derive(Debug)]
pub struct Cell<T: Send + Sync + 'static> {
    value: AtomicPtr<T>,
    tables: Membership,
}

impl<T: Send + Sync + 'static> Cell<T> {
    /// Returns a cell in the tables of `writer`.
    pub fn new(writer: &Writer, value: T) -> Self {
        Self { value: AtomicPtr::new(Box::into_raw(Box::new(value))), tables: Membership::of(writer) }
    }

    /// Returns the current value, which stays readable until the reader's next quiescent point.
    #[inline]
    pub fn load<'r>(&'r self, reader: &'r Reader) -> &'r T {
        self.tables.check_reader(reader);
        // SAFETY: never null, and freed only after `reader`, borrowed as long as the result, was
        // quiescent.
        unsafe { &*self.value.load(Acquire) }
    }

    /// Returns the part that changes of the value are counted in, if this is its `number`.
    pub fn part(&self, number: u32) -> Part {
        self.tables.part_of_number(number)
    }

    /// Replaces the value, and counts the change in `part`.
    pub fn store(&self, writer: &mut Writer, part: Part, value: T) {
        self.tables.check_writer(writer);
        let new = Box::into_raw(Box::new(value));
        // A remembered answer may rest on the value, but none refers to it.
        let old = writer.change(part, || self.value.swap(new, AcqRel));
        // SAFETY: made by `Box::into_raw` in `new` or `store`, and reachable only from here since
        // the swap.
        writer.retire(unsafe { Box::from_raw(old) });
    }
}

impl<T: Send + Sync + 'static> Drop for Cell<T> {
    fn drop(&mut self) {
        // SAFETY: as in `store`; `&mut self` proves that nobody reads the cell any more.
        drop(unsafe { Box::from_raw(self.value.load(Relaxed)) });
    }
}

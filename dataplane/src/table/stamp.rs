//! Answers of tables that are remembered for later turns.
//!
//! The tables of a writer are divided into parts. Every change is counted three times: once before
//! readers can see it, then in its part, and once when it is complete. A [`Stamp`] has the counts of
//! the parts that an answer was found in. The answer is still right if no change at all has been
//! counted since, or none in its parts. An answer may refer to a value of a table: see [`Remembered`].

#![allow(unsafe_code, reason = "values that are freed at quiescent points")]

use super::domain::{Part, Reader, TableNumber, are_of_one_domain, sealed::Sealed};
use crate::sync::fence;
use std::{
    fmt,
    ptr::NonNull,
    sync::atomic::Ordering::{Acquire, Relaxed},
};

/// The state of the tables that an answer rests on: of `N` parts.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<const N: usize> {
    /// The number of changes that the reader had seen when the answer was last known to be right.
    seen: u64,
    sum: u64,
    parts: [Part; N],
    /// The table that the answer refers to, if it is one that does. Here there is room for it.
    table: TableNumber,
}

impl<const N: usize> Stamp<N> {
    /// The stamp of no answer: never current, and never renewed.
    pub const NONE: Self = Self { seen: u64::MAX, sum: 0, parts: [Part(0); N], table: TableNumber(0) };

    /// Returns the stamp of an answer that `reader` has found in `parts` since its last quiescent
    /// point, or `None` if the tables have begun to change since: the answer may be old then.
    pub fn new(parts: [Part; N], reader: &Reader) -> Option<Self> {
        let sum = reader.domain.sum(&parts);
        // With the releases of a change: if the answer or the sum is that of a change, so is the
        // number.
        fence(Acquire);
        let seen = reader.seen();
        // It is odd during a change.
        let is_still = seen.is_multiple_of(2) && reader.domain.changes.load(Relaxed) == seen;
        is_still.then_some(Self { seen, sum, parts, table: TableNumber(0) })
    }

    /// Returns whether nothing has changed since the answer was last known to be right.
    #[inline(always)]
    pub fn is_current(&self, reader: &Reader) -> bool {
        self.seen == reader.seen()
    }

    /// Returns whether nothing has changed in the parts that the answer was found in. If so, it is
    /// current until the next quiescent point.
    #[inline]
    pub fn renew(&mut self, reader: &Reader) -> bool {
        let seen = reader.seen();
        // By the reader's own number: the writer's lies in a line that each change takes away.
        let is_right = are_of_one_domain(self.seen, seen) && self.sum == reader.domain.sum(&self.parts);
        if is_right {
            self.seen = seen;
        }
        is_right
    }

    /// Returns whether a change in the parts of an answer that is current may have begun since the reader's last
    /// quiescent point. If not, whatever the reader has found of them since is as old as the answer.
    pub fn has_news(&self, reader: &Reader) -> bool {
        // Acquire: with the counts of all changes up to this number. If a change that it does not have is under
        // way, the reader has found nothing of it yet.
        let changes = reader.domain.changes.load(Acquire);
        !changes.is_multiple_of(2) || self.sum != reader.domain.sum(&self.parts)
    }
}

/// A table whose values can be remembered.
pub trait Table: Sealed {
    /// Returns the number of the table among those of its writer.
    fn number(&self) -> TableNumber;
}

/// An answer that may refer to a part of a table's value, and lasts beyond a quiescent point. It keeps
/// nothing alive, and can only be used as long as its stamp is current.
pub struct Remembered<T, const N: usize> {
    stamp: Stamp<N>,
    value: Option<NonNull<T>>,
}

// SAFETY: it gives out shared references only.
unsafe impl<T: Sync, const N: usize> Send for Remembered<T, N> {}

impl<T, const N: usize> Copy for Remembered<T, N> {}

impl<T, const N: usize> Clone for Remembered<T, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, const N: usize> fmt::Debug for Remembered<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

impl<T: Sync + 'static, const N: usize> Remembered<T, N> {
    /// No answer.
    pub const NONE: Self = Self { stamp: Stamp::NONE, value: None };

    /// Remembers that the answer, found in `parts` since the reader's last quiescent point, is nothing. See
    /// [`Stamp::new`].
    pub fn nothing(parts: [Part; N], reader: &Reader) -> Option<Self> {
        Some(Self { stamp: Stamp::new(parts, reader)?, value: None })
    }

    /// Remembers `value`, which `reader` has found in `table` since its last quiescent point.
    ///
    /// # Safety
    /// The value is freed only with the table, or if a change retires it that is counted in one of
    /// `parts`.
    pub(super) unsafe fn new(
        value: &T,
        table: TableNumber,
        parts: [Part; N],
        reader: &Reader,
    ) -> Option<Self> {
        let stamp = Stamp { table, ..Stamp::new(parts, reader)? };
        Some(Self { stamp, value: Some(NonNull::from(value)) })
    }

    /// Returns whether the answer refers to nothing.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        self.value.is_none()
    }

    /// Returns whether nothing has changed since the answer was last known to be right.
    #[inline(always)]
    pub fn is_current(&self, reader: &Reader) -> bool {
        self.stamp.is_current(reader)
    }

    /// Returns the value, if there is one, nothing has changed since it was last known to be in `table`, and
    /// that is the table that it was found in.
    #[inline(always)]
    pub fn get<'r>(&self, table: &'r impl Table, reader: &'r Reader) -> Option<&'r T> {
        let is_there = self.stamp.is_current(reader) && self.stamp.table == table.number();
        let value = self.value.filter(|_| is_there)?;
        // SAFETY: the number of changes names the writer, so this is the table that the value was found in,
        // and it is borrowed as long as the result. A change that retires the value raises the number of
        // changes before the value is freed. The number is the one at which the value was found, or at which
        // its part had not changed since. So that change has a higher number, and the value is not freed
        // before `reader`, borrowed as long as the result, has seen that.
        Some(unsafe { value.as_ref() })
    }

    /// Does the same as [`Stamp::has_news`].
    pub fn has_news(&self, reader: &Reader) -> bool {
        self.stamp.has_news(reader)
    }

    /// Does the same as [`Stamp::renew`].
    #[inline]
    pub fn renew(&mut self, reader: &Reader) -> bool {
        self.stamp.renew(reader)
    }
}

#[cfg(test)]
mod tests;

//! An anti-replay window that any number of workers share without a lock (RFC 4303 §3.4.3).
//!
//! The window is a ring of words. A word says which numbers of one block of 40 consecutive numbers
//! were accepted:
//!
//! ```text
//! block = number / 40 │ lap … │ slot │        word │ lap, low 24 bits │ 40 bits of the block │
//! ```
//!
//! A block has 40 numbers because the usual window of 1024 then takes 32 words, which are four
//! cache lines.
//!
//! One compare-and-swap sets a free bit of its block, or replaces an older block by a newer one. So
//! if two workers hold the same number, one of them wins. `top`, the highest number accepted, is
//! raised *before* the word changes. So a worker that finds a word of another lap knows, once it
//! has read `top`, which lap is older: a word of a later lap can only be there if `top` already
//! makes the worker's own number stale.
//!
//! There is one more word than the window needs. So the block of `top` and the last block that the
//! window still reaches never share a word.

use crate::{prefetch, sharing::Sharing, sync::AtomicU64};
use std::sync::atomic::Ordering::*;

/// Smallest size of a window, which RFC 4303 §3.4.3 asks a receiver to use by default.
pub const MIN_SIZE: u32 = 64;
/// Largest size of a window.
pub const MAX_SIZE: u32 = 65_536;

/// The number of sequence numbers that one word holds.
const BLOCK: u64 = 40;

/// A reason why a sequence number is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    /// Number 0, which no sender ever uses (RFC 4303 §3.3.3).
    Zero,
    /// Left of the window, so that it is not known whether it was accepted.
    Stale,
    /// Accepted before.
    Duplicate,
}

/// `true` for an accepted number that was the highest so far when it came.
pub type Newest = bool;

/// The recently accepted numbers of one inbound SA.
///
/// Call [`check`](Self::check) before the packet is authenticated, and [`accept`](Self::accept)
/// after; both take a shared reference.
#[derive(Debug)]
pub struct Window {
    top: AtomicU64,
    words: Box<[AtomicU64]>,
    size: u32,
    sharing: Sharing,
}

/// The slot of a sequence number in a window: the index of its word, that word with no bit set, and
/// its own bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    seq: u64,
    empty: u64,
    bit: u64,
    index: u32,
}

impl Slot {
    /// Returns the sequence number.
    #[inline]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    #[inline]
    fn same_block(&self, word: u64) -> bool {
        word >> BLOCK == self.empty >> BLOCK
    }
}

impl Window {
    /// Returns an empty window of `size` numbers, limited to [`MIN_SIZE`]`..=`[`MAX_SIZE`], for as
    /// many workers as `sharing` says.
    pub fn new(size: u32, sharing: Sharing) -> Self {
        let size = size.clamp(MIN_SIZE, MAX_SIZE);
        let words = (u64::from(size - 1).div_ceil(BLOCK) + 1).next_power_of_two();
        let words = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { top: AtomicU64::new(0), words, size, sharing }
    }

    /// Returns a window that refuses every number up to `last`, as if all of them had been
    /// accepted.
    pub fn starting_at(size: u32, sharing: Sharing, last: u64) -> Self {
        let this = Self::new(size, sharing);
        for seq in last.saturating_sub(this.size()).saturating_add(1)..=last {
            // Nothing was accepted before, so none of these is refused.
            let _ = this.accept(seq);
        }
        this
    }

    /// Returns whether several workers use the window.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.sharing == Sharing::Many
    }

    #[inline]
    fn size(&self) -> u64 {
        u64::from(self.size)
    }

    #[inline]
    fn word(&self, slot: &Slot) -> &AtomicU64 {
        &self.words[slot.index as usize & (self.words.len() - 1)]
    }

    /// Prefetches the word of a number by its slot.
    #[inline(always)]
    pub fn prefetch(&self, slot: &Slot) {
        prefetch::line(self.word(slot));
    }

    /// Returns the highest number accepted, or 0 before the first.
    #[inline]
    pub fn top(&self) -> u64 {
        self.top.load(Acquire)
    }

    /// Infers the 64-bit number most likely meant by its lower half, on an SA with extended
    /// sequence numbers (RFC 4303 §A2.2): a number within the window, or otherwise the next to
    /// come. Only the ICV tells whether it is right.
    #[inline]
    pub fn infer(&self, low: u32) -> u64 {
        let top = self.top();
        let high = (top >> 32) as u32;
        let left = (top as u32).wrapping_sub(self.size - 1);
        let high = if top as u32 >= self.size - 1 {
            if low >= left { high } else { high.saturating_add(1) }
        } else {
            // The window begins in the previous range of 2^32 numbers, which does not exist for the
            // first one.
            if low >= left { high.saturating_sub(1) } else { high }
        };
        u64::from(high) << 32 | u64::from(low)
    }

    /// Checks whether `seq` could be accepted. Changes nothing, so it may be called for a packet
    /// that is not yet authenticated.
    ///
    /// # Errors
    /// The reason why [`accept`](Self::accept) would refuse it.
    #[inline]
    pub fn check(&self, seq: u64) -> Result<(), Replay> {
        self.check_at(&self.slot(seq))
    }

    /// Does the same as [`check`](Self::check), with the slot of the number.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    #[inline(always)]
    pub fn check_at(&self, slot: &Slot) -> Result<(), Replay> {
        if slot.seq == 0 {
            return Err(Replay::Zero);
        }
        self.judge(slot, self.word(slot).load(Acquire))
    }

    /// Marks the number of an authenticated packet. Of all calls with one number, at most one
    /// succeeds.
    ///
    /// # Errors
    /// The reason why `seq` is refused. The window may have moved since it was checked.
    #[inline(always)]
    pub fn accept(&self, seq: u64) -> Result<Newest, Replay> {
        self.accept_at(&self.slot(seq))
    }

    /// Does the same as [`accept`](Self::accept), with the slot of the number.
    ///
    /// # Errors
    /// Those of [`accept`](Self::accept).
    #[inline(always)]
    pub fn accept_at(&self, slot: &Slot) -> Result<Newest, Replay> {
        let seq = slot.seq;
        if seq == 0 {
            return Err(Replay::Zero);
        }
        if self.sharing == Sharing::One {
            return self.accept_alone(slot);
        }
        let before = self.top();
        // Equal if another worker with the same number has raised the top, but may lose the race
        // for the bit.
        let newest = seq >= before && seq >= self.top.fetch_max(seq, AcqRel);
        let cell = self.word(slot);
        let mut word = cell.load(Acquire);
        loop {
            self.judge(slot, word)?;
            let kept = if slot.same_block(word) { word } else { slot.empty };
            match cell.compare_exchange_weak(word, kept | slot.bit, AcqRel, Acquire) {
                Ok(_) => return Ok(newest),
                Err(now) => word = now,
            }
        }
    }

    /// Does the same as [`Window::accept`] for several authenticated packets. It takes one atomic
    /// operation for the top and one for each block that consecutive packets share, so that workers
    /// on one SA seldom collide. Writes the outcomes to `results`, which is as long as `slots`. If
    /// several numbers raise the top together, only the highest is the newest.
    pub fn accept_run(&self, slots: &[Slot], results: &mut [Result<Newest, Replay>]) {
        let highest = slots.iter().map(|slot| slot.seq).max().unwrap_or(0);
        let lowest = slots.iter().map(|slot| slot.seq).min().unwrap_or(0);
        if highest - lowest >= self.size() {
            // If the top were raised first, the numbers that came before the jump would be stale.
            results.iter_mut().zip(slots).for_each(|(result, slot)| *result = self.accept(slot.seq));
            return;
        }
        let before = self.top.fetch_max(highest, AcqRel);
        let mut at = 0;
        for block in slots.chunk_by(|a, b| a.index == b.index && a.empty == b.empty) {
            let results = &mut results[at..at + block.len()];
            at += block.len();
            self.accept_block(block, results);
            for (slot, result) in block.iter().zip(results) {
                if let Ok(newest) = result {
                    // Equal if another worker has raised the top to it, as for a single number.
                    *newest = slot.seq == highest && highest >= before;
                }
            }
        }
    }

    /// Accepts numbers that share a block, after the top is raised.
    fn accept_block(&self, block: &[Slot], results: &mut [Result<Newest, Replay>]) {
        let cell = self.word(&block[0]);
        let mut word = cell.load(Acquire);
        loop {
            let mut next = if block[0].same_block(word) { word } else { block[0].empty };
            for (slot, result) in block.iter().zip(&mut *results) {
                *result = match slot.seq {
                    0 => Err(Replay::Zero),
                    // As if one came after the other: each number is judged by the word that the
                    // previous one left.
                    _ => self.judge(slot, next).map(|()| false),
                };
                if result.is_ok() {
                    next |= slot.bit;
                }
            }
            if results.iter().all(Result::is_err) {
                return;
            }
            match cell.compare_exchange_weak(word, next, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Does the same as [`accept`](Self::accept), if no other worker can call it at the same time.
    #[inline]
    fn accept_alone(&self, slot: &Slot) -> Result<Newest, Replay> {
        let cell = self.word(slot);
        let word = cell.load(Relaxed);
        self.judge(slot, word)?;
        let newest = slot.seq > self.top.load(Relaxed);
        if newest {
            self.top.store(slot.seq, Release);
        }
        let kept = if slot.same_block(word) { word } else { slot.empty };
        cell.store(kept | slot.bit, Release);
        Ok(newest)
    }

    /// Judges a number by its word, which must have been read before this call; see the module's
    /// documentation.
    #[inline]
    fn judge(&self, slot: &Slot, word: u64) -> Result<(), Replay> {
        if self.top().saturating_sub(slot.seq) >= self.size() {
            Err(Replay::Stale)
        } else if slot.same_block(word) && word & slot.bit != 0 {
            Err(Replay::Duplicate)
        } else {
            Ok(())
        }
    }

    /// Returns the slot of `seq`.
    #[inline]
    pub fn slot(&self, seq: u64) -> Slot {
        let block = seq / BLOCK;
        let words = self.words.len() as u64;
        // A lap has 24 bits. So a word unchanged for 2^24 laps (2^31 numbers or more) may pass for
        // the current one. Its old bits then refuse numbers, but never let one pass twice.
        let lap = block >> words.trailing_zeros();
        Slot { seq, empty: lap << BLOCK, bit: 1 << (seq % BLOCK), index: (block & (words - 1)) as u32 }
    }
}

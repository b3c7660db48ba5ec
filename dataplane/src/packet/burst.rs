//! Packets that are worked on together.

#![allow(unsafe_code, reason = "packets are moved without copies of their own")]

use super::{BURST, Packet};
use arrayvec::ArrayVec;
use std::{
    ptr::{self, NonNull},
    slice,
};

/// Up to [`BURST`] packets on the stack. Must be empty when dropped, except in a panic, because its
/// packets belong to a pool.
#[derive(Debug, Default)]
pub struct Burst(ArrayVec<Packet, BURST>);

impl Burst {
    /// Returns an empty burst.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of packets that still fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.0.remaining_capacity()
    }

    /// Gives up the frames of all packets, which the caller then owns.
    #[inline]
    pub(crate) fn forget(&mut self) {
        // SAFETY: the burst only becomes shorter, and packets may be forgotten.
        unsafe { self.0.set_len(0) };
    }

    /// Appends all packets of `other`, which is empty afterwards.
    ///
    /// # Panics
    /// Panics if there is not enough room.
    #[inline]
    pub fn append(&mut self, other: &mut Self) {
        assert!(self.room() >= other.0.len(), "room for all packets");
        let (from, to) = (other.0.len(), self.0.len());
        // SAFETY: there is room for all of them. They are moved: `other` becomes empty.
        unsafe {
            ptr::copy_nonoverlapping(other.0.as_ptr(), self.0.as_mut_ptr().add(to), from);
            other.0.set_len(0);
            self.0.set_len(to + from);
        }
    }

    /// Takes the first `n` packets out in their order, or all if there are fewer.
    #[inline]
    pub fn take(&mut self, n: usize) -> Taken<'_> {
        let len = self.0.len();
        let end = n.min(len);
        // SAFETY: the burst only becomes shorter. The packets beyond its end belong to `Taken`
        // until that is dropped.
        unsafe { self.0.set_len(0) };
        let burst = NonNull::from(self);
        // SAFETY: the first `end` packets are initialised, and the burst is borrowed for as long as
        // they are read.
        let unread = unsafe { slice::from_raw_parts(burst.as_ref().0.as_ptr(), end) }.iter();
        Taken { burst, unread, end, stay: len - end }
    }
}

/// Packets that leave a burst, one after the other.
#[derive(Debug)]
pub struct Taken<'b> {
    /// The burst, borrowed and empty as long as this value exists.
    burst: NonNull<Burst>,
    unread: slice::Iter<'b, Packet>,
    /// The number of packets that leave.
    end: usize,
    /// The number of packets behind them, which stay.
    stay: usize,
}

impl Iterator for Taken<'_> {
    type Item = Packet;

    #[inline(always)]
    fn next(&mut self) -> Option<Packet> {
        // SAFETY: each packet is read once, and the burst's own length leaves it out.
        self.unread.next().map(|packet| unsafe { ptr::read(packet) })
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        self.by_ref().for_each(drop);
        if self.stay > 0 {
            // SAFETY: the burst is borrowed by `'b`, and `unread` is not used any more. `end..end +
            // stay` are initialised packets that nobody has taken. They move to the front.
            unsafe {
                let burst = self.burst.as_mut();
                let packets = burst.0.as_mut_ptr();
                ptr::copy(packets.add(self.end), packets, self.stay);
                burst.0.set_len(self.stay);
            }
        }
    }
}

impl std::ops::Deref for Burst {
    type Target = ArrayVec<Packet, BURST>;
    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::ops::DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use std::{
        ops::Range,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    const FULL: u8 = BURST as u8;

    /// Makes a burst of packets that each carry one of `numbers`.
    fn burst(pool: &mut Pool, numbers: Range<u8>) -> Burst {
        let mut burst = Burst::new();
        for number in numbers {
            let mut packet = pool.take().unwrap();
            packet.fill(0, &[number]).unwrap();
            burst.push(packet);
        }
        burst
    }

    /// Returns what the packets of a burst carry.
    fn numbers(burst: &Burst) -> Vec<u8> {
        burst.iter().map(|packet| packet.data()[0]).collect()
    }

    #[test]
    fn packets_are_appended_in_their_order_and_leave_the_other_burst_empty() {
        let mut pool = Pool::new(BURST + 1, 512).unwrap();
        let (mut to, mut from) = (burst(&mut pool, 0..3), burst(&mut pool, 3..FULL));
        to.append(&mut from);
        assert_eq!((to.room(), from.len(), from.room()), (0, 0, BURST));
        assert!(numbers(&to).into_iter().eq(0..FULL));
        // A full burst has room for nothing, and an empty one for all.
        to.append(&mut from);
        from.append(&mut to);
        assert_eq!(to.len(), 0);
        assert!(numbers(&from).into_iter().eq(0..FULL));
        // The empty one can be filled again.
        let mut next = burst(&mut pool, 7..8);
        to.append(&mut next);
        assert_eq!(numbers(&to), [7]);
        pool.give_all(&mut from);
        pool.give_all(&mut to);
        assert_eq!(pool.available(), BURST + 1, "each packet was moved once");
    }

    #[test]
    fn packets_without_room_are_refused_and_stay() {
        let mut pool = Pool::new(BURST + 1, 512).unwrap();
        let (mut to, mut from) = (burst(&mut pool, 0..2), burst(&mut pool, 2..FULL + 1));
        assert!(catch_unwind(AssertUnwindSafe(|| to.append(&mut from))).is_err());
        assert_eq!(numbers(&to), [0, 1]);
        assert!(numbers(&from).into_iter().eq(2..FULL + 1));
        pool.give_all(&mut to);
        pool.give_all(&mut from);
        assert_eq!(pool.available(), BURST + 1);
    }
}

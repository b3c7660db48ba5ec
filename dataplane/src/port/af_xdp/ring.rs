//! The four rings of an AF_XDP socket: single producer, single consumer, one end ours and the other
//! the kernel's.

#![allow(unsafe_code, reason = "a ring shared with the kernel")]

use crate::port::sys::Mapping;
use std::{
    io,
    marker::PhantomData,
    os::fd::RawFd,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// Where the kernel put a ring and the words that go with it.
struct Ring<T> {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
    size: u32,
    entries: PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    /// Maps a ring of `size` entries (a power of two) that was set up on the socket `fd`.
    ///
    /// # Errors
    /// What mmap(2) answered, or offsets that make no sense.
    fn map(fd: RawFd, offsets: libc::xdp_ring_offset, size: u32, page: i64) -> io::Result<Self> {
        let end = offsets.desc as usize + size as usize * size_of::<T>();
        let mapping = Mapping::new(fd, end, page)?;
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        let fits = words.iter().all(|o| o % 4 == 0 && *o as usize + 4 <= mapping.len())
            && (offsets.desc as usize).is_multiple_of(align_of::<T>());
        if !fits || !size.is_power_of_two() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "ring offsets out of range"));
        }
        Ok(Self { mapping, offsets, size, entries: PhantomData })
    }

    fn word(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: `map` checked that an aligned word lies there, and the kernel uses it as an
        // atomic too.
        unsafe { AtomicU32::from_ptr(self.mapping.base().as_ptr().add(offset as usize).cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.word(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.offsets.consumer)
    }

    fn entry(&self, index: u32) -> *mut T {
        let index = (index & (self.size - 1)) as usize;
        // SAFETY: `map` made room for `size` entries behind `desc`, aligned for `T`.
        unsafe { self.mapping.base().as_ptr().add(self.offsets.desc as usize).cast::<T>().add(index) }
    }
}

/// Our end of a ring towards the kernel: fill or transmit.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    next: u32,
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn map(fd: RawFd, at: libc::xdp_ring_offset, size: u32, page: i64) -> io::Result<Self> {
        Ok(Self { ring: Ring::map(fd, at, size, page)?, next: 0, consumed: 0 })
    }

    /// Returns how many entries can be pushed now, asking the kernel only if fewer than `wanted`
    /// are known of.
    pub(super) fn room(&mut self, wanted: usize) -> usize {
        if self.known_room() < wanted {
            self.consumed = self.ring.consumer().load(Acquire);
        }
        self.known_room()
    }

    fn known_room(&self) -> usize {
        self.ring.size.saturating_sub(self.next.wrapping_sub(self.consumed)) as usize
    }

    /// Writes an entry, which the kernel sees after [`Producer::publish`]. There must be room.
    pub(super) fn push(&mut self, entry: T) {
        // SAFETY: within the ring; the kernel does not read entries at and behind `next` before
        // they are published.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Release);
    }

    /// Returns how far the kernel has come.
    pub(super) fn consumed(&self) -> u32 {
        self.ring.consumer().load(Relaxed)
    }

    /// Returns whether the kernel has taken all that was published.
    pub(super) fn is_empty(&self) -> bool {
        self.consumed() == self.next
    }

    /// Returns whether the kernel sleeps until a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.word(self.ring.offsets.flags).load(Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Our end of a ring from the kernel: receive or completion.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    next: u32,
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn map(fd: RawFd, at: libc::xdp_ring_offset, size: u32, page: i64) -> io::Result<Self> {
        Ok(Self { ring: Ring::map(fd, at, size, page)?, next: 0, produced: 0 })
    }

    /// Reads the next entry. The kernel may use its place again after [`Consumer::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.next == self.produced {
            self.produced = self.ring.producer().load(Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        // SAFETY: within the ring; the kernel published this entry and does not write it before its
        // release.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Release);
    }
}

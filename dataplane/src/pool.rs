//! A worker's frames: one arena, one LIFO of free frames, no atomics.
//!
//! The last frame given back is the next one taken, while it is still in the cache. The arena is page-aligned, so
//! AF_XDP can use it as its UMEM.

#![allow(unsafe_code, reason = "the arena is mapped memory")]

use crate::packet::{Burst, Packet};
use std::{
    io,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::{Arc, Weak},
};

/// Bytes in front of a received packet: room for the largest outer header that ESP puts on.
pub const HEADROOM: usize = 256;

const HUGE_PAGE: usize = 2 << 20;

/// An arena of equal frames, owned by one worker.
#[derive(Debug)]
pub struct Pool {
    free: Vec<NonNull<u8>>,
    base: NonNull<u8>,
    mapped: usize,
    frames: usize,
    frame: usize,
    huge: bool,
    umem: Vec<Weak<OwnedFd>>,
}

// SAFETY: the pool owns its mapping; the pointers in `free` point into it and nowhere else.
unsafe impl Send for Pool {}

impl Pool {
    /// Maps `frames` frames of `frame` bytes each, in huge pages where the system has them.
    ///
    /// # Errors
    /// `InvalidInput` unless `frames` is at least 1 and `frame` is a multiple of 64 from 512 to 65 472; else what
    /// mmap(2) answered.
    pub fn new(frames: usize, frame: usize) -> io::Result<Self> {
        if frames == 0 || !(512..=65_472).contains(&frame) || !frame.is_multiple_of(64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "frame count or size out of range"));
        }
        let bytes = frames.checked_mul(frame).ok_or(io::ErrorKind::InvalidInput)?;
        let mapped = bytes.next_multiple_of(HUGE_PAGE);
        let (base, huge) = match map(mapped, libc::MAP_HUGETLB) {
            Ok(base) => (base, true),
            Err(_) => (map(mapped, 0)?, false),
        };
        // SAFETY: every frame lies within the `bytes <= mapped` bytes just mapped.
        let free = (0..frames).rev().map(|i| unsafe { base.add(i * frame) }).collect();
        Ok(Self { free, base, mapped, frames, frame, huge, umem: Vec::new() })
    }

    /// Takes one frame as an empty packet; `None` where none is free.
    #[inline]
    pub fn take(&mut self) -> Option<Packet> {
        let base = self.free.pop()?;
        // SAFETY: frames in `free` belong to the pool alone, and each is `frame` mapped (zeroed) bytes.
        Some(unsafe { Packet::from_raw(base, self.frame as u16, HEADROOM as u16, 0) })
    }

    /// Takes back one packet.
    ///
    /// # Panics
    /// If the packet is another pool's: a mistake in this program, never something that a wire can cause.
    #[inline]
    pub fn give(&mut self, packet: Packet) {
        let base = packet.base();
        let at = (base.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        assert!(at < self.frames * self.frame && at.is_multiple_of(self.frame), "a packet of another pool");
        self.free.push(base);
    }

    /// Takes back a burst and leaves it empty.
    #[inline]
    pub fn give_all(&mut self, burst: &mut Burst) {
        burst.drain(..).for_each(|p| self.give(p));
    }

    /// Frames that are free now.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Frames in all.
    pub fn capacity(&self) -> usize {
        self.frames
    }

    /// Bytes of one frame.
    pub fn frame_size(&self) -> usize {
        self.frame
    }

    /// Whether the frames lie in huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// The whole arena as (address, bytes), for a port that shares it with a device.
    pub(crate) fn region(&self) -> (NonNull<u8>, usize) {
        (self.base, self.frames * self.frame)
    }

    /// An open AF_XDP socket whose UMEM is this arena, for another one to share it.
    pub(crate) fn umem_socket(&self) -> Option<Arc<OwnedFd>> {
        self.umem.iter().find_map(Weak::upgrade)
    }

    /// Notes an AF_XDP socket whose UMEM is this arena.
    pub(crate) fn share_umem(&mut self, socket: &Arc<OwnedFd>) {
        self.umem.retain(|known| known.strong_count() > 0);
        self.umem.push(Arc::downgrade(socket));
    }

    /// Gives a frame away to a device, as its offset into the arena in bytes, or `None` where none is free.
    pub(crate) fn lend(&mut self) -> Option<u64> {
        let base = self.free.pop()?;
        Some((base.as_ptr() as usize - self.base.as_ptr() as usize) as u64)
    }

    /// Takes back a frame lent to a device, as a packet of `len` bytes at `address` (any address within the frame);
    /// `None` where that does not lie within one frame.
    ///
    /// # Safety
    /// The frame was lent by [`Pool::lend`] or went out as a packet, and its device has given it back.
    #[inline]
    pub(crate) unsafe fn reclaim(&mut self, address: u64, len: usize) -> Option<Packet> {
        let at = address as usize;
        let index = at / self.frame;
        let off = at - index * self.frame;
        if index >= self.frames || off + len > self.frame {
            return None;
        }
        // SAFETY: within the arena as just checked; ownership by this function's contract.
        Some(unsafe {
            Packet::from_raw(self.base.add(index * self.frame), self.frame as u16, off as u16, len as u16)
        })
    }

    /// Offset of a packet's data from the start of the arena, in bytes.
    ///
    /// # Panics
    /// If the packet is another pool's, as for [`Pool::give`].
    #[inline]
    pub(crate) fn address(&self, packet: &Packet) -> u64 {
        let at = (packet.base().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        assert!(at < self.frames * self.frame, "a packet of another pool");
        (at + packet.headroom()) as u64
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A packet may outlive its pool, and a device may still hold frames: then the mapping stays.
        if self.free.len() == self.frames {
            // SAFETY: the mapping is ours, of this size, and no packet refers to it.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
        }
    }
}

fn map(bytes: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | flags;
    // SAFETY: a fresh anonymous mapping touches no memory of ours.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap answered null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_lent_once_and_come_back() {
        let mut pool = Pool::new(3, 2048).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((taken.len(), pool.available()), (3, 0));
        let mut bases: Vec<_> = taken.iter().map(|p| p.base()).collect();
        bases.dedup();
        assert_eq!(bases.len(), 3);
        taken.into_iter().for_each(|p| pool.give(p));
        assert_eq!(pool.available(), 3);
    }

    #[test]
    #[should_panic(expected = "another pool")]
    fn a_strange_packet_is_refused() {
        let (mut a, mut b) = (Pool::new(1, 2048).unwrap(), Pool::new(1, 2048).unwrap());
        b.give(a.take().unwrap());
    }

    #[test]
    fn a_packet_may_outlive_its_pool() {
        let mut pool = Pool::new(1, 2048).unwrap();
        let mut p = pool.take().unwrap();
        p.fill(0, b"still here").unwrap();
        drop(pool);
        assert_eq!(p.data(), b"still here");
    }

    #[test]
    fn bad_shapes_are_refused() {
        for (frames, frame) in [(0, 2048), (1, 100), (1, 2047), (1, 65_536), (usize::MAX, 2048)] {
            assert!(Pool::new(frames, frame).is_err(), "{frames} x {frame}");
        }
    }
}

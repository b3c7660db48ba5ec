//! The frames of a worker: one LIFO of free frames, without atomics.
//!
//! The last frame given back is the next one taken, while it is still in the cache. The frames are
//! in a page-aligned arena, so that AF_XDP can use it as its UMEM. Or they are DPDK's mbufs, and
//! the LIFO is a cache before their mempool.

#![allow(unsafe_code, reason = "the arena is mapped memory")]

use crate::packet::{Burst, Packet, keep_orphans, take_orphans};
#[cfg(feature = "dpdk")]
use crate::port::dpdk::mempool::{BATCH, Mempool};
use std::{
    io,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::{Arc, Weak},
};

/// Bytes before a received packet: room for the largest outer header that ESP adds.
pub const HEADROOM: usize = 256;

/// Length of the longest frame, in bytes.
pub const MAX_FRAME: usize = 65_472;

const HUGE_PAGE: usize = 2 << 20;

/// Frames of equal size, owned by one worker.
#[derive(Debug)]
pub struct Pool {
    free: Vec<NonNull<u8>>,
    frames: usize,
    frame: usize,
    memory: Memory,
}

/// Frames that a port held when it was closed. If nobody gives them back to their pool, they are lost to
/// it.
#[derive(Debug, Default)]
pub struct Returned(pub(crate) Vec<NonNull<u8>>);

// SAFETY: the frames belong to this value alone.
unsafe impl Send for Returned {}

impl Returned {
    /// Takes the frames of all packets of a burst.
    pub(crate) fn of(burst: &mut Burst) -> Self {
        let frames = burst.iter().map(Packet::base).collect();
        burst.forget();
        Self(frames)
    }

    /// Adds frames of the same pool.
    pub(crate) fn extend(&mut self, frames: Self) {
        self.0.extend(frames.0);
    }

    /// Returns the number of frames.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The memory that holds the frames.
#[derive(Debug)]
enum Memory {
    Arena(Arena),
    #[cfg(feature = "dpdk")]
    Mbufs(Arc<Mempool>),
}

/// A memory mapping that the pool owns.
#[derive(Debug)]
struct Arena {
    base: NonNull<u8>,
    mapped: usize,
    umem: Vec<Weak<OwnedFd>>,
}

// SAFETY: the pool owns its memory; the pointers in `free` point into it and nowhere else.
unsafe impl Send for Pool {}

impl Pool {
    /// Maps `frames` frames of `frame` bytes each, in huge pages if they fill half of one and the
    /// system has them.
    ///
    /// # Errors
    /// `InvalidInput` unless `frames` is at least 1 and `frame` is a multiple of 64 from 512 to
    /// 65472; otherwise the error of mmap(2).
    pub fn new(frames: usize, frame: usize) -> io::Result<Self> {
        Self::check(frames, frame)?;
        let bytes = frames.checked_mul(frame).ok_or(io::ErrorKind::InvalidInput)?;
        let is_small = bytes < HUGE_PAGE / 2;
        let mapped = if is_small { bytes } else { bytes.next_multiple_of(HUGE_PAGE) };
        let huge = if is_small { 0 } else { libc::MAP_HUGETLB };
        let base = map(mapped, huge).or_else(|_| map(mapped, 0))?;
        // SAFETY: every frame lies within the `bytes <= mapped` bytes just mapped.
        let free = (0..frames).rev().map(|i| unsafe { base.add(i * frame) }).collect();
        let memory = Memory::Arena(Arena { base, mapped, umem: Vec::new() });
        Ok(Self { free, frames, frame, memory })
    }

    /// Returns an error unless a pool may have this number of frames of this many bytes.
    pub(crate) fn check(frames: usize, frame: usize) -> io::Result<()> {
        let is_sound = frames > 0 && (512..=MAX_FRAME).contains(&frame) && frame.is_multiple_of(64);
        let refused = || io::Error::new(io::ErrorKind::InvalidInput, "frame count or size out of range");
        is_sound.then_some(()).ok_or_else(refused)
    }

    /// Takes over all mbufs of a mempool.
    #[cfg(feature = "dpdk")]
    pub(crate) fn of_mbufs(mempool: Mempool) -> Self {
        let (frames, frame) = (mempool.frames(), mempool.frame());
        let free = Vec::with_capacity(mempool.kept() + BATCH);
        Self { free, frames, frame, memory: Memory::Mbufs(Arc::new(mempool)) }
    }

    /// Returns whether the frames are mbufs of `mempool`.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn is_of(&self, mempool: &Arc<Mempool>) -> bool {
        matches!(&self.memory, Memory::Mbufs(own) if Arc::ptr_eq(own, mempool))
    }

    /// Returns the mempool of the frames, if they are mbufs.
    #[cfg(feature = "dpdk")]
    pub(crate) fn mempool(&self) -> Option<Arc<Mempool>> {
        match &self.memory {
            Memory::Mbufs(mempool) => Some(mempool.clone()),
            Memory::Arena(_) => None,
        }
    }

    /// Takes one frame as an empty packet. Returns `None` if none is free.
    #[inline]
    pub fn take(&mut self) -> Option<Packet> {
        let base = self.free.pop().or_else(|| self.refill())?;
        // SAFETY: frames in `free` belong to the pool alone, and each is `frame` mapped (zeroed)
        // bytes.
        Some(unsafe { Packet::from_raw(base, self.frame as u16, HEADROOM as u16, 0) })
    }

    /// Returns a frame from the mempool when the LIFO is empty.
    #[cold]
    fn refill(&mut self) -> Option<NonNull<u8>> {
        match &self.memory {
            Memory::Arena(_) => None,
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(mempool) => {
                mempool.take(&mut self.free);
                self.free.pop()
            }
        }
    }

    /// Gives half of a LIFO that holds too many mbufs back to the mempool, where drivers find them.
    #[cfg(feature = "dpdk")]
    #[inline]
    fn spill(&mut self) {
        if let Memory::Mbufs(mempool) = &self.memory
            && self.free.len() > mempool.kept()
        {
            mempool.put(self.free.drain(mempool.kept() / 2..));
        }
    }

    /// Takes back one packet.
    ///
    /// # Panics
    /// Panics if the packet belongs to another pool. That is a bug in this program; no received
    /// packet can cause it.
    #[inline]
    pub fn give(&mut self, packet: Packet) {
        assert!(self.owns(packet.base()), "a packet of another pool");
        self.free.push(packet.into_base());
        #[cfg(feature = "dpdk")]
        self.spill();
    }

    /// Returns whether a frame belongs to this pool.
    #[inline]
    fn owns(&self, base: NonNull<u8>) -> bool {
        match &self.memory {
            Memory::Arena(arena) => {
                let at = (base.as_ptr() as usize).wrapping_sub(arena.base.as_ptr() as usize);
                at < self.frames * self.frame && at.is_multiple_of(self.frame)
            }
            // SAFETY: a pool that serves DPDK's ports has no frames but mbufs.
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(mempool) => unsafe { mempool.owns(base) },
        }
    }

    /// Takes back the frames of packets that panics of this thread dropped. Returns their number.
    pub fn adopt_orphans(&mut self) -> usize {
        let (own, others): (Vec<_>, Vec<_>) = match &self.memory {
            Memory::Arena(_) => take_orphans().into_iter().partition(|base| self.owns(*base)),
            // An orphan may not be an mbuf, so nothing before it is read.
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(mempool) => {
                let bases = mempool.bases();
                take_orphans().into_iter().partition(|base| bases.contains(base))
            }
        };
        keep_orphans(others);
        self.free.extend(&own);
        #[cfg(feature = "dpdk")]
        self.spill();
        own.len()
    }

    /// Takes back a burst and leaves it empty.
    ///
    /// # Panics
    /// Panics like [`Pool::give`].
    #[inline]
    pub fn give_all(&mut self, burst: &mut Burst) {
        assert!(burst.iter().all(|packet| self.owns(packet.base())), "a packet of another pool");
        self.free.extend(burst.iter().map(Packet::base));
        burst.forget();
        #[cfg(feature = "dpdk")]
        self.spill();
    }

    /// Takes back frames that a closed port held.
    ///
    /// # Panics
    /// Panics like [`Pool::give`].
    pub fn give_returned(&mut self, frames: Returned) {
        assert!(frames.0.iter().all(|base| self.owns(*base)), "a frame of another pool");
        self.free.extend(frames.0);
    }

    /// Returns the number of free frames. Frames that wait in a device's rings are not free.
    pub fn available(&self) -> usize {
        let behind = match &self.memory {
            Memory::Arena(_) => 0,
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(mempool) => mempool.available(),
        };
        self.free.len() + behind
    }

    /// Returns the number of all frames.
    pub fn capacity(&self) -> usize {
        self.frames
    }

    /// Returns the length of a frame in bytes.
    pub fn frame_size(&self) -> usize {
        self.frame
    }

    /// Returns the arena, for AF_XDP.
    ///
    /// # Panics
    /// Panics if the frames are mbufs. A port that needs an arena checks [`Pool::region`] when it
    /// is opened.
    #[inline]
    fn arena(&self) -> &Arena {
        match &self.memory {
            Memory::Arena(arena) => arena,
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(_) => panic!("mbufs have no arena"),
        }
    }

    /// Returns the whole arena as (address, bytes) for a port that shares it with a device, or
    /// `None` if there is no arena.
    pub(crate) fn region(&self) -> Option<(NonNull<u8>, usize)> {
        match &self.memory {
            Memory::Arena(arena) => Some((arena.base, self.frames * self.frame)),
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(_) => None,
        }
    }

    /// Returns an open AF_XDP socket whose UMEM is this arena, so that another one can share it.
    pub(crate) fn umem_socket(&self) -> Option<Arc<OwnedFd>> {
        self.arena().umem.iter().find_map(Weak::upgrade)
    }

    /// Remembers an AF_XDP socket whose UMEM is this arena.
    pub(crate) fn share_umem(&mut self, socket: &Arc<OwnedFd>) {
        match &mut self.memory {
            Memory::Arena(arena) => {
                arena.umem.retain(|known| known.strong_count() > 0);
                arena.umem.push(Arc::downgrade(socket));
            }
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(_) => {}
        }
    }

    /// Lends a frame to a device. Returns its offset in the arena in bytes, or `None` if no frame
    /// is free.
    pub(crate) fn lend(&mut self) -> Option<u64> {
        let base = self.free.pop()?;
        Some((base.as_ptr() as usize - self.arena().base.as_ptr() as usize) as u64)
    }

    /// Takes back a frame lent to a device, as a packet of `len` bytes at `address` (any address
    /// within the frame). Returns `None` if the packet does not lie within one frame.
    ///
    /// # Safety
    /// The frame was lent by [`Pool::lend`] or sent as a packet, and its device has given it back.
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
            Packet::from_raw(
                self.arena().base.add(index * self.frame),
                self.frame as u16,
                off as u16,
                len as u16,
            )
        })
    }

    /// Returns the offset of a packet's data from the start of the arena, in bytes.
    ///
    /// # Panics
    /// Panics if the packet belongs to another pool.
    #[inline]
    pub(crate) fn address(&self, packet: &Packet) -> u64 {
        let at = (packet.base().as_ptr() as usize).wrapping_sub(self.arena().base.as_ptr() as usize);
        assert!(at < self.frames * self.frame, "a packet of another pool");
        (at + packet.headroom()) as u64
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        match &self.memory {
            // A packet may outlive its pool, and a device may still hold frames: then the memory
            // stays mapped.
            Memory::Arena(arena) if self.free.len() == self.frames => {
                // SAFETY: the mapping is ours and of this size, and no packet refers to it.
                unsafe { libc::munmap(arena.base.as_ptr().cast(), arena.mapped) };
            }
            Memory::Arena(_) => {}
            #[cfg(feature = "dpdk")]
            Memory::Mbufs(mempool) => mempool.put(self.free.drain(..)),
        }
    }
}

fn map(bytes: usize, flags: i32) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | flags;
    // SAFETY: a new anonymous mapping touches no memory of ours.
    let at =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
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
    fn packet_of_another_pool_is_refused() {
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
        p.into_base();
    }

    #[test]
    fn frames_of_a_panicking_worker_come_back() {
        let mut pool = Pool::new(8, 2048).unwrap();
        let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut burst = Burst::new();
            burst.extend(std::iter::from_fn(|| pool.take()).take(6));
            let mut taken = burst.take(4);
            // Of the burst, one packet is in hand, one is freed, two are not taken yet and two
            // stay. Another packet is in no burst.
            let (gone, _in_hand) = (taken.next().unwrap(), taken.next());
            pool.give(gone);
            let _apart = pool.take();
            panic!("a test's own panic");
        }));
        assert!(fault.is_err());
        assert_eq!((pool.adopt_orphans(), pool.available()), (6, 8));
        assert_eq!(pool.adopt_orphans(), 0);
    }

    #[test]
    fn bad_shapes_are_refused() {
        for (frames, frame) in [(0, 2048), (1, 100), (1, 2047), (1, 65_536), (usize::MAX, 2048)] {
            assert!(Pool::new(frames, frame).is_err(), "{frames} x {frame}");
        }
    }
}

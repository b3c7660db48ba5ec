//! Mbufs as the frames of a worker's pool.

#![allow(unsafe_code, reason = "mbufs are DPDK's memory")]

use super::sys::{self, Mbuf, RteMempool};
use crate::packet::Packet;
use arrayvec::ArrayVec;
use std::{
    collections::HashSet,
    ffi::{CString, c_uint, c_void},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
};

/// The number of mbufs that are taken from a mempool, or put back, at once.
pub(crate) const BATCH: usize = 64;
/// The largest number of mbufs that each thread known to DPDK keeps for its drivers.
const CACHE: usize = 256;

/// `struct rte_mempool`: the mbufs of one worker. Its memory stays as long as any of its mbufs is
/// in use.
#[derive(Debug)]
pub(crate) struct Mempool {
    pool: NonNull<RteMempool>,
    frames: usize,
    frame: usize,
    /// The number of mbufs that the rings of devices may hold.
    lent: AtomicUsize,
}

// SAFETY: a mempool may be used from any thread (rte_mempool.h).
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a mempool of `frames` mbufs with a buffer of `frame` bytes each, in memory near
    /// `core`.
    ///
    /// # Errors
    /// The error of DPDK, usually that there is no memory.
    pub(super) fn new(frames: usize, frame: usize, core: usize) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = CString::new(format!("wayfarer-{}", NUMBER.fetch_add(1, Relaxed)))?;
        let room = u16::try_from(frame).map_err(|_| io::ErrorKind::InvalidInput)?;
        let count = u32::try_from(frames).map_err(|_| io::ErrorKind::InvalidInput)?;
        let cache = cache_of(frames) as u32;
        // SAFETY: EAL runs, and the name is a string that it copies.
        let pool = unsafe {
            let socket = sys::wf_socket_of(core as u32);
            sys::rte_pktmbuf_pool_create(name.as_ptr(), count, cache, 0, room, socket)
        };
        let pool = NonNull::new(pool).ok_or_else(|| io::Error::other(sys::last_error()))?;
        Ok(Self { pool, frames, frame, lent: AtomicUsize::new(0) })
    }

    pub(super) fn as_ptr(&self) -> *mut RteMempool {
        self.pool.as_ptr()
    }

    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    pub(crate) fn frame(&self) -> usize {
        self.frame
    }

    /// Returns the number of mbufs that a pool may keep out of the mempool.
    pub(crate) fn kept(&self) -> usize {
        (self.frames / 8).min(512)
    }

    /// Notes that the rings of a device may hold `mbufs` more, even if that is too many.
    ///
    /// # Errors
    /// If too few would be left: while all wait to be sent, drivers would have none to receive
    /// with.
    pub(super) fn lend(&self, mbufs: usize) -> Result<(), String> {
        let lent = self.lent.fetch_add(mbufs, Relaxed) + mbufs;
        // Besides the worker's thread, the thread that set the device up has a cache.
        let needed = lent + 2 * cache_of(self.frames) + self.kept();
        if needed > self.frames {
            return Err(format!("run with {} frames a worker: rings and caches hold {needed}", self.frames));
        }
        Ok(())
    }

    /// Notes that the rings of a device no longer hold `mbufs`.
    pub(super) fn give_back(&self, mbufs: usize) {
        self.lent.fetch_sub(mbufs, Relaxed);
    }

    /// Returns the number of mbufs that are in the mempool.
    pub(crate) fn available(&self) -> usize {
        // SAFETY: the mempool is alive.
        unsafe { sys::rte_mempool_avail_count(self.as_ptr()) as usize }
    }

    /// Moves up to [`BATCH`] mbufs, as the bases of frames, to `free`.
    pub(crate) fn take(&self, free: &mut Vec<NonNull<u8>>) {
        let mut mbufs = [std::ptr::null_mut(); BATCH];
        for count in [BATCH, 1] {
            // SAFETY: the mempool is alive, and `count` pointers fit.
            if unsafe { sys::wf_alloc(self.as_ptr(), mbufs.as_mut_ptr(), count as u32) } == 0 {
                free.extend(mbufs[..count].iter().filter_map(|mbuf| NonNull::new(base_of(*mbuf))));
                return;
            }
        }
    }

    /// Moves `frames`, which are mbufs of this mempool, back to it.
    pub(crate) fn put(&self, frames: impl Iterator<Item = NonNull<u8>>) {
        let mut mbufs: ArrayVec<_, BATCH> = ArrayVec::new();
        let put = |mbufs: &mut ArrayVec<*mut Mbuf, BATCH>| {
            // SAFETY: mbufs of this mempool with one segment, which only the pool refers to: all
            // others were refused.
            unsafe { sys::wf_put(self.as_ptr(), mbufs.as_mut_ptr(), mbufs.len() as u32) };
            mbufs.clear();
        };
        for base in frames {
            mbufs.push(mbuf_of(base));
            if mbufs.is_full() {
                put(&mut mbufs);
            }
        }
        if !mbufs.is_empty() {
            put(&mut mbufs);
        }
    }

    /// Returns whether a frame is an mbuf of this mempool.
    ///
    /// # Safety
    /// The frame is an mbuf.
    #[inline]
    pub(crate) unsafe fn owns(&self, base: NonNull<u8>) -> bool {
        // SAFETY: by contract.
        unsafe { (*mbuf_of(base)).pool == self.as_ptr() }
    }

    /// Returns the bases of all frames of the mempool, wherever they are.
    pub(crate) fn bases(&self) -> HashSet<NonNull<u8>> {
        unsafe extern "C" fn note(_: *mut RteMempool, all: *mut c_void, mbuf: *mut c_void, _: c_uint) {
            // SAFETY: `all` is the set that `bases` passes, which nobody else uses meanwhile.
            let all = unsafe { &mut *all.cast::<HashSet<NonNull<u8>>>() };
            all.extend(NonNull::new(base_of(mbuf.cast())));
        }
        let mut all = HashSet::with_capacity(self.frames);
        // SAFETY: the mempool is alive, its objects are mbufs, and `all` outlives the call.
        unsafe { sys::rte_mempool_obj_iter(self.as_ptr(), note, (&raw mut all).cast()) };
        all
    }
}

fn cache_of(frames: usize) -> usize {
    (frames / 8).min(CACHE)
}

impl Drop for Mempool {
    fn drop(&mut self) {
        // A packet may outlive its pool: then the memory stays.
        if self.available() == self.frames {
            // SAFETY: all mbufs are back, and no device has the mempool any more, because each
            // keeps it alive.
            unsafe { sys::rte_mempool_free(self.as_ptr()) };
        }
    }
}

/// Returns the start of the own buffer of an mbuf: the base of its frame.
#[inline]
pub(super) fn base_of(mbuf: *mut Mbuf) -> *mut u8 {
    mbuf.wrapping_add(1).cast()
}

/// Returns the mbuf whose own buffer begins at the base of a frame.
#[inline]
pub(super) fn mbuf_of(base: NonNull<u8>) -> *mut Mbuf {
    base.as_ptr().cast::<Mbuf>().wrapping_sub(1)
}

/// Returns the packet in an mbuf of `pool`, of one segment, in its own buffer of `frame` bytes.
/// Returns `None` for any other mbuf.
///
/// # Safety
/// The mbuf is live and nobody else uses it.
#[inline]
pub(super) unsafe fn packet_of(mbuf: *mut Mbuf, pool: *mut RteMempool, frame: usize) -> Option<Packet> {
    // SAFETY: by contract.
    let header = unsafe { &*mbuf };
    let base = base_of(mbuf);
    let end = usize::from(header.data_off) + usize::from(header.data_len);
    let is_plain = header.segments == 1 && header.refcnt == 1 && header.buffer == base && header.pool == pool;
    if !is_plain || end > frame {
        return None;
    }
    let base = NonNull::new(base)?;
    // SAFETY: the mbuf's own buffer is `frame` bytes of mapped memory and belongs to the packet
    // alone; `end` is within it.
    let mut packet = unsafe { Packet::from_raw(base, frame as u16, header.data_off, header.data_len) };
    // SAFETY: constants.
    let (mask, good) = unsafe { (sys::wf_rx_checksum_mask, sys::wf_rx_checksum_good) };
    if header.ol_flags & mask == good {
        packet.set_verified();
    }
    Some(packet)
}

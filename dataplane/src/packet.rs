//! One packet type for every kind of memory: heap, AF_XDP's UMEM, DPDK's mbufs.
//!
//! A [`Packet`] owns its frame. A worker gives it back to the [`Pool`](crate::pool::Pool) that it
//! came from, or to a port. A forgotten packet leaks its frame, which the pool's counts show, but
//! never frees memory twice. The frame of a dropped packet, for example when a panic unwinds, is an
//! orphan of its thread, and the pool can [adopt](crate::pool::Pool::adopt_orphans) it.

#![allow(unsafe_code, reason = "a frame is raw memory")]

mod burst;

pub use burst::{Burst, Taken};

use std::{cell::RefCell, fmt, mem::ManuallyDrop, ptr::NonNull, slice, thread};

/// The largest number of packets in one turn of a worker.
pub const BURST: usize = 64;

/// A frame and the part of it that holds the packet. Sixteen bytes, neither `Clone` nor `Copy`.
///
/// ```text
/// base            base+off          base+off+len       base+cap
///  │   headroom     │      data          │   tailroom     │
/// ```
///
/// It is a pointer and one word of four 16-bit fields, so that it travels in two registers. Five
/// separate fields would be written in parts and read as a whole when the packet moves, and each
/// time the processor would wait until the parts reach the cache.
pub struct Packet {
    base: NonNull<u8>,
    /// `off`, `len`, `cap`, `port`, from the low end. `cap` is a multiple of 64; its low bits are
    /// flags.
    shape: u64,
}

const _: () = assert!(size_of::<Packet>() == 16);

const LEN: u32 = 16;
const CAP: u32 = 32;
const PORT: u32 = 48;

/// The flags in the low bits of `cap`.
const FLAGS: u16 = 63;
const VERIFIED: u64 = 1 << CAP;
const NO_CHECKSUM: u64 = 2 << CAP;
const TIMED: u64 = 4 << CAP;
const TAGGED: u64 = 8 << CAP;

/// Bytes at the start of a frame that hold the packet's time, if it has one.
const TIME: usize = size_of::<u64>();

// SAFETY: a packet owns its frame exclusively (contract of `from_raw`), so both may move to another
// thread.
unsafe impl Send for Packet {}

impl Packet {
    /// Makes a packet of raw memory, for pools and ports only.
    ///
    /// # Safety
    /// `base..base + cap` is initialised memory that stays mapped and belongs to this packet alone
    /// until it is given back; `off + len <= cap`; `cap` is a multiple of 64.
    #[inline]
    pub(crate) unsafe fn from_raw(base: NonNull<u8>, cap: u16, off: u16, len: u16) -> Self {
        debug_assert!(u32::from(off) + u32::from(len) <= u32::from(cap) && cap & FLAGS == 0);
        Self { base, shape: u64::from(off) | u64::from(len) << LEN | u64::from(cap) << CAP }
    }

    #[inline]
    fn field(&self, at: u32) -> u16 {
        (self.shape >> at) as u16
    }

    #[inline]
    fn cap(&self) -> usize {
        usize::from(self.field(CAP) & !FLAGS)
    }

    /// Sets offset and length. The caller ensures that `off + len <= cap`.
    #[inline]
    fn place(&mut self, off: usize, len: usize) {
        self.shape = self.shape >> CAP << CAP | (len as u64) << LEN | off as u64;
    }

    /// Returns the start of the frame, by which the pool knows it.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Hands the frame to the caller. Returns the start of the frame.
    #[inline]
    pub(crate) fn into_base(self) -> NonNull<u8> {
        ManuallyDrop::new(self).base
    }

    /// Returns the offset of the data from the start of the frame, in bytes.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.field(0))
    }

    /// Returns the number of free bytes behind the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.cap() - self.headroom() - self.len()
    }

    /// Returns the length of the data in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.field(LEN))
    }

    /// Returns whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the index of the port that received the packet.
    #[inline]
    pub fn port(&self) -> u16 {
        self.field(PORT)
    }

    /// Sets the index of the port that received the packet.
    #[inline]
    pub fn set_port(&mut self, port: u16) {
        self.shape = self.shape << 16 >> 16 | u64::from(port) << PORT;
    }

    /// Returns whether the receiving port has verified the checksum of the outer IPv4 header.
    #[inline]
    pub fn is_verified(&self) -> bool {
        self.shape & VERIFIED != 0
    }

    /// Notes that the checksum of the outer IPv4 header is right. For ports.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn set_verified(&mut self) {
        self.shape |= VERIFIED;
    }

    /// Returns whether the sending port must complete the UDP checksum over IPv6, whose field holds
    /// the sum of the pseudo-header.
    #[inline]
    pub fn lacks_checksum(&self) -> bool {
        self.shape & NO_CHECKSUM != 0
    }

    /// Leaves the UDP checksum over IPv6 to the sending port. Only for a port that says that it can
    /// do so.
    #[inline]
    pub fn leave_checksum(&mut self) {
        self.shape |= NO_CHECKSUM;
    }

    /// Returns the value of the 802.1Q tag that the frame has beside its data, if there is one: a device
    /// has taken it off, or is to put it on. It is where the index of a port is otherwise, so it is gone
    /// before the packet leaves the ports.
    #[inline]
    pub(crate) fn tag(&self) -> Option<u16> {
        (self.shape & TAGGED != 0).then(|| self.field(PORT))
    }

    /// Puts an 802.1Q tag of this value beside the data.
    #[inline]
    pub(crate) fn set_tag(&mut self, value: u16) {
        self.set_port(value);
        self.shape |= TAGGED;
    }

    /// Takes the value of the 802.1Q tag from beside the data, if there is one.
    #[inline]
    pub(crate) fn take_tag(&mut self) -> Option<u16> {
        let tag = self.tag();
        self.shape &= !TAGGED;
        tag
    }

    /// Returns whether the sending port must do more than send the data.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn has_tasks(&self) -> bool {
        self.shape & (NO_CHECKSUM | TAGGED) != 0
    }

    /// Returns when the packet was captured, in nanoseconds since 1970, if its port knows that.
    pub fn time(&self) -> Option<u64> {
        let is_kept = self.shape & TIMED != 0 && self.headroom() >= TIME;
        // SAFETY: the frame is ours (contract of `from_raw`), and its headroom is long enough.
        is_kept.then(|| unsafe { self.base.cast().read_unaligned() })
    }

    /// Sets when the packet was captured, in nanoseconds since 1970. The time is at the start of the
    /// frame, so that it costs other packets nothing. It is lost if headers need that space.
    pub fn set_time(&mut self, time: u64) {
        if self.headroom() >= TIME {
            // SAFETY: as in `time`, and `&mut self` makes it the only reference.
            unsafe { self.base.cast().write_unaligned(time) };
            self.shape |= TIMED;
        }
    }

    /// Returns the data.
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `off + len <= cap` holds after every method, and the frame is ours (contract of
        // `from_raw`).
        unsafe { slice::from_raw_parts(self.base.as_ptr().add(self.headroom()), self.len()) }
    }

    /// Returns the data for writing.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes it the only reference.
        unsafe { slice::from_raw_parts_mut(self.base.as_ptr().add(self.headroom()), self.len()) }
    }

    /// Grows the data by `n` bytes at the front. Returns `None` and changes nothing if the headroom
    /// is shorter.
    #[inline]
    #[must_use]
    pub fn push_front(&mut self, n: usize) -> Option<()> {
        let off = self.headroom().checked_sub(n)?;
        self.place(off, self.len() + n);
        Some(())
    }

    /// Cuts `n` bytes off the front. Returns `None` and changes nothing if the data is shorter.
    #[inline]
    #[must_use]
    pub fn pull_front(&mut self, n: usize) -> Option<()> {
        let len = self.len().checked_sub(n)?;
        self.place(self.headroom() + n, len);
        Some(())
    }

    /// Cuts or grows the data at the end to `len` bytes. Returns `None` and changes nothing if the
    /// frame is shorter.
    #[inline]
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> Option<()> {
        if len > self.cap() - self.headroom() {
            return None;
        }
        self.place(self.headroom(), len);
        Some(())
    }

    /// Makes the data begin `headroom` bytes into the frame, `len` bytes long. Returns `None` and changes
    /// nothing if the frame is shorter.
    #[inline]
    #[must_use]
    pub fn reshape(&mut self, headroom: usize, len: usize) -> Option<()> {
        if len > self.cap().checked_sub(headroom)? {
            return None;
        }
        self.place(headroom, len);
        Some(())
    }

    /// Replaces the data by a copy of `bytes`, `headroom` bytes into the frame. Returns `None` and
    /// changes nothing if it does not fit.
    #[inline]
    #[must_use]
    pub fn fill(&mut self, headroom: usize, bytes: &[u8]) -> Option<()> {
        if bytes.len() > self.cap().checked_sub(headroom)? {
            return None;
        }
        self.place(headroom, bytes.len());
        self.data_mut().copy_from_slice(bytes);
        Some(())
    }
}

impl Drop for Packet {
    // Inlined, and by value from there on, so that a packet never has to lie in memory just in case
    // of a panic.
    #[inline(always)]
    fn drop(&mut self) {
        orphan(self.base);
    }
}

thread_local! {
    /// The frames of packets that this thread dropped.
    static ORPHANS: RefCell<Vec<NonNull<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the frame of a packet that was dropped.
#[cold]
#[inline(never)]
fn orphan(base: NonNull<u8>) {
    debug_assert!(thread::panicking(), "a packet was dropped");
    keep_orphans([base]);
}

/// Takes the frames of packets that this thread dropped. Nobody else holds them.
pub(crate) fn take_orphans() -> Vec<NonNull<u8>> {
    ORPHANS.take()
}

/// Keeps frames that another pool of this thread may take.
pub(crate) fn keep_orphans(frames: impl IntoIterator<Item = NonNull<u8>>) {
    // Without the thread's list the frames leak, as all frames of a thread that ends do.
    let _ = ORPHANS.try_with(|orphans| orphans.borrow_mut().extend(frames));
}

impl fmt::Debug for Packet {
    /// Shows only offset, lengths and port, because the bytes of a packet may be somebody's
    /// plaintext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (off, len, cap, port) = (self.headroom(), self.len(), self.cap(), self.port());
        write!(f, "Packet {{ off: {off}, len: {len}, cap: {cap}, port: {port} }}")
    }
}

#[cfg(test)]
mod tests {
    use crate::pool::Pool;

    #[test]
    fn data_grows_and_shrinks_within_the_frame() {
        let mut pool = Pool::new(1, 512).unwrap();
        let mut p = pool.take().unwrap();
        p.fill(128, b"hello").unwrap();
        assert_eq!(p.data(), b"hello");
        p.push_front(2).unwrap();
        assert_eq!((p.len(), p.headroom()), (7, 126));
        assert!(p.push_front(127).is_none());
        p.pull_front(3).unwrap();
        assert_eq!(p.data(), b"ello");
        assert!(p.pull_front(5).is_none());
        p.set_len(512 - 129).unwrap();
        assert_eq!(p.tailroom(), 0);
        assert!(p.set_len(512 - 128).is_none());
        assert!(p.fill(500, &[0; 13]).is_none());
        assert!(p.set_len(usize::MAX).is_none() && p.fill(usize::MAX - 5, &[0; 10]).is_none());
        assert!(p.push_front(usize::MAX).is_none() && p.pull_front(usize::MAX).is_none());
        assert!(
            p.reshape(513, 0).is_none() && p.reshape(512, 1).is_none() && p.reshape(1, usize::MAX).is_none()
        );
        p.reshape(130, 3).unwrap();
        assert_eq!((p.headroom(), p.len(), p.data()), (130, 3, &b"llo"[..]));
        pool.give(p);
    }

    #[test]
    fn time_stays_in_the_headroom() {
        let mut pool = Pool::new(1, 512).unwrap();
        let mut p = pool.take().unwrap();
        p.fill(7, &[1; 20]).unwrap();
        p.set_time(5);
        assert_eq!((p.time(), p.data()), (None, &[1; 20][..]));
        p.fill(64, &[1; 20]).unwrap();
        assert_eq!(p.time(), None);
        p.set_time(u64::MAX - 5);
        p.push_front(56).unwrap();
        p.data_mut().fill(9);
        assert_eq!(p.time(), Some(u64::MAX - 5));
        p.set_port(3);
        p.pull_front(60).unwrap();
        p.set_len(300).unwrap();
        assert_eq!((p.time(), p.port(), p.is_verified()), (Some(u64::MAX - 5), 3, false));
        p.push_front(61).unwrap();
        assert_eq!(p.time(), None);
        pool.give(p);
        let p = pool.take().unwrap();
        assert_eq!(p.time(), None, "the next packet in this frame");
        pool.give(p);
    }

    #[test]
    fn debug_shows_no_bytes() {
        let mut pool = Pool::new(1, 512).unwrap();
        let mut p = pool.take().unwrap();
        p.fill(0, b"secret").unwrap();
        assert_eq!(format!("{p:?}"), "Packet { off: 0, len: 6, cap: 512, port: 0 }");
        pool.give(p);
    }
}

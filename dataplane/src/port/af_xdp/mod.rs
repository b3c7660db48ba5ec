//! A queue of a NIC through an AF_XDP socket, without the kernel's network stack.
//!
//! The [`Pool`] of a worker is its UMEM. All its sockets, of any device and queue, share it, so
//! that a packet received by one socket and sent by another is never copied in user space. Each
//! socket has its own four rings (the kernel's `Documentation/networking/af_xdp.rst`).

#![allow(unsafe_code, reason = "rings and frames shared with the kernel")]

mod held;
mod overtaking;
mod ring;

use super::{Port, PortError, PortStats, classifier::Classifier, device::Device, sys};
use crate::{
    packet::Burst,
    pool::{Pool, Returned},
};
use held::HeldFrames;
use overtaking::OvertakingFragments;
use ring::{Consumer, Producer};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::NonNull,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Number of entries of each ring.
const RING: u32 = 2048;
/// The least number of frames that are lent to the kernel at once.
const REFILL: usize = 32;
/// Length of the shortest frame that a device takes, in bytes: an Ethernet header.
const SHORTEST: usize = 14;

/// How long a port that is closed waits until its frames are sent.
const SENDING: Duration = Duration::from_millis(100);

/// linux/if_xdp.h, Linux 6.18: the number of frames that one system call sends in copy mode.
/// Default 32.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const TX_BUDGET: i32 = 256;

const NEEDS: &str = "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF (or CAP_SYS_ADMIN), and RLIMIT_MEMLOCK for its frames (or CAP_IPC_LOCK)";

/// One queue of one device.
///
/// [`Port::close`] returns the frames in its rings. If it is dropped instead, they are lost to the
/// pool, whose memory then stays mapped.
pub struct AfXdpPort {
    socket: Arc<OwnedFd>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// The arena that the kernel knows. Packets of another one are never put on a ring.
    umem: NonNull<u8>,
    /// The number of frames in the fill and receive rings, and the number that should be there.
    lent: usize,
    target: usize,
    /// The lengths of the frames that the device has not completed yet, in bytes.
    in_flight: VecDeque<u32>,
    held: HeldFrames,
    overtaking: Option<OvertakingFragments>,
    stats: PortStats,
    _classifier: Arc<Classifier>,
}

// SAFETY: the port owns the mappings and the socket; `umem` is compared, never followed.
unsafe impl Send for AfXdpPort {}

impl AfXdpPort {
    /// Opens `queue` of `device` on frames of `pool`, and makes `classifier` feed it. At most
    /// `fill` frames of the pool wait in the rings for packets.
    ///
    /// The kernel requires that the first socket of a pool decides between zero-copy and copy for
    /// all.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] if the frames of the pool are not of 2048 or 4096 bytes, or the
    /// queue is taken; [`PortError::Permission`]; or the error of the system.
    pub fn open(
        pool: &mut Pool,
        device: &Device,
        queue: u32,
        fill: usize,
        classifier: &Arc<Classifier>,
    ) -> Result<Self, PortError> {
        if !matches!(pool.frame_size(), 2048 | 4096) {
            return Err(device.unsupported(format!(
                "AF_XDP takes frames of 2048 or 4096 bytes, not of {}",
                pool.frame_size()
            )));
        }
        let Some(arena) = pool.region() else {
            return Err(
                device.unsupported("AF_XDP needs frames in a pool's own memory, but these are DPDK's mbufs")
            );
        };
        let failed = |action| {
            move |e: io::Error| match e.raw_os_error() {
                Some(libc::ENOBUFS) => {
                    PortError::Permission { device: device.name().to_owned(), action, needed: NEEDS }
                }
                Some(libc::EBUSY) => {
                    device.unsupported(format!("queue {queue} has an AF_XDP socket already"))
                }
                _ => PortError::system(device.name(), action, NEEDS, e),
            }
        };
        let socket = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(failed("open an AF_XDP socket"))?;
        let first = pool.umem_socket();
        if first.is_none() {
            register(&socket, arena, pool.frame_size()).map_err(failed("register frames with AF_XDP"))?;
        }
        for name in
            [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
        {
            sys::set_option(&socket, libc::SOL_XDP, name, &RING).map_err(failed("make AF_XDP rings"))?;
        }
        let _ = sys::set_option(&socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET);
        let (rx, tx, fill_ring, completion) = map_rings(&socket).map_err(failed("map AF_XDP rings"))?;
        bind(&socket, device, queue, first.as_deref(), classifier.is_native())
            .map_err(failed("bind an AF_XDP socket"))?;
        classifier.set_socket(queue, &socket).map_err(failed("redirect packets to AF_XDP"))?;
        let socket = Arc::new(socket);
        pool.share_umem(&socket);
        Ok(Self {
            socket,
            rx,
            tx,
            fill: fill_ring,
            completion,
            umem: arena.0,
            lent: 0,
            target: fill.min(RING as usize),
            // One ring has those to be sent, another those that were sent.
            in_flight: VecDeque::with_capacity(2 * RING as usize),
            held: HeldFrames::new(pool.capacity(), pool.frame_size()),
            overtaking: OvertakingFragments::open(device, queue, classifier)?,
            stats: PortStats::default(),
            _classifier: classifier.clone(),
        })
    }

    /// Returns whether the device uses the gateway's frames, with no copy in the kernel either.
    pub fn is_zero_copy(&self) -> bool {
        sys::option::<u32>(&self.socket, libc::SOL_XDP, libc::XDP_OPTIONS)
            .is_ok_and(|options| options & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    fn check(&self, pool: &Pool) {
        assert_eq!(
            Some(self.umem),
            pool.region().map(|arena| arena.0),
            "another pool than the port was opened on"
        );
    }

    /// Keeps the fill ring full, a batch at a time.
    fn refill(&mut self, pool: &mut Pool) {
        let missing = self.target - self.lent;
        if missing < REFILL.min(self.target) {
            return;
        }
        for _ in 0..self.fill.room(missing).min(missing) {
            let Some(address) = pool.lend() else { break };
            self.fill.push(address);
            self.held.insert(address);
            self.lent += 1;
        }
        self.fill.publish();
    }

    /// Takes back frames that the device has sent.
    fn reap(&mut self, pool: &mut Pool) {
        if self.in_flight.is_empty() {
            return;
        }
        while let Some(address) = self.completion.pop() {
            // Frames are completed in the order in which they were given to the device.
            let length = self.in_flight.pop_front().unwrap_or(0);
            self.stats.tx_packets += 1;
            self.stats.tx_bytes += u64::from(length);
            self.held.remove(address);
            // SAFETY: the frame was sent as a packet, and the kernel says that it no longer needs
            // it.
            if let Some(packet) = unsafe { pool.reclaim(address, 0) } {
                pool.give(packet);
            }
        }
        self.completion.release();
    }

    /// Makes the kernel send the frames on the ring. In copy mode one call sends a limited number
    /// of frames, so it calls again while that makes progress.
    fn kick(&mut self) {
        while !self.tx.is_empty() && self.tx.needs_wakeup() {
            let before = self.tx.consumed();
            // Whatever the reason, the frames are still on the ring, or not.
            let _ = wake(&self.socket);
            if self.tx.consumed() == before {
                return;
            }
        }
    }
}

impl Port for AfXdpPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        self.refill(pool);
        if let Some(overtaking) = &mut self.overtaking {
            overtaking.rx(pool, burst, &mut self.stats);
        }
        let had = burst.len();
        while burst.room() > 0 {
            let Some(received) = self.rx.pop() else { break };
            self.lent = self.lent.saturating_sub(1);
            // SAFETY: the frame was lent by `refill`, and the kernel has filled it and given it
            // back.
            match unsafe { pool.reclaim(received.addr, received.len as usize) } {
                Some(packet) => {
                    self.held.remove(received.addr);
                    self.stats.received(&packet);
                    burst.push(packet);
                }
                None => self.stats.rx_errors += 1,
            }
        }
        self.rx.release();
        if burst.len() == had && self.fill.needs_wakeup() {
            let (buffer, address) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: an empty message; no memory is written.
            unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer,
                    0,
                    libc::MSG_DONTWAIT,
                    address,
                    std::ptr::null_mut(),
                );
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        let count = self.tx.room(burst.len()).min(burst.len());
        for packet in burst.drain(..count) {
            // The kernel would skip such a descriptor and never complete it.
            if packet.len() < SHORTEST {
                self.stats.tx_errors += 1;
                pool.give(packet);
                continue;
            }
            let (addr, len) = (pool.address(&packet), packet.len() as u32);
            packet.into_base();
            self.held.insert(addr);
            self.tx.push(libc::xdp_desc { addr, len, options: 0 });
            self.in_flight.push_back(len);
        }
        self.tx.publish();
    }

    fn flush(&mut self, pool: &mut Pool) {
        self.check(pool);
        self.kick();
        self.reap(pool);
    }

    fn is_drained(&self) -> bool {
        self.in_flight.is_empty()
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    /// Closes the socket. The kernel then writes to no frame any more. If the NIC is still there, it may
    /// do so for longer in zero-copy mode, and may still read frames that are to be sent. None is
    /// returned then.
    fn close(self: Box<Self>) -> Returned {
        let mut this = *self;
        let is_gone = wake(&this.socket).is_err_and(|e| e.raw_os_error() == Some(libc::ENXIO));
        let end = Instant::now() + SENDING;
        while !this.in_flight.is_empty() && !is_gone && Instant::now() < end {
            this.kick();
            while this.completion.pop().is_some() {
                this.in_flight.pop_front();
            }
            this.completion.release();
            thread::sleep(Duration::from_millis(1));
        }
        let is_with_nic = !is_gone && (this.is_zero_copy() || !this.in_flight.is_empty());
        let Self { socket, rx, tx, fill, completion, umem, held, .. } = this;
        // The rings keep the socket open as well.
        drop((rx, tx, fill, completion, socket));
        if is_with_nic {
            return Returned::default();
        }
        // SAFETY: within the arena, whose length `held` knows.
        Returned(held.iter().map(|at| unsafe { umem.add(at) }).collect())
    }

    fn stats(&self) -> PortStats {
        let kernel = sys::option::<libc::xdp_statistics>(&self.socket, libc::SOL_XDP, libc::XDP_STATISTICS);
        let overtaking = self.overtaking.as_ref().map_or(0, OvertakingFragments::missed);
        let rx_missed = overtaking + kernel.map_or(0, |s| s.rx_dropped + s.rx_ring_full);
        PortStats { rx_missed, ..self.stats }
    }
}

/// Makes the kernel look at the transmit ring.
fn wake(socket: &OwnedFd) -> io::Result<()> {
    let (buffer, address) = (std::ptr::null(), std::ptr::null());
    // SAFETY: an empty message; no memory is read.
    let sent = unsafe { libc::sendto(socket.as_raw_fd(), buffer, 0, libc::MSG_DONTWAIT, address, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers the arena of a pool as the UMEM of the socket.
fn register(socket: &OwnedFd, (base, len): (NonNull<u8>, usize), frame: usize) -> io::Result<()> {
    let umem = libc::xdp_umem_reg {
        addr: base.as_ptr() as u64,
        len: len as u64,
        chunk_size: frame as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    sys::set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)
}

type Rings = (Consumer<libc::xdp_desc>, Producer<libc::xdp_desc>, Producer<u64>, Consumer<u64>);

/// Returns the receive, transmit, fill and completion ring.
fn map_rings(socket: &OwnedFd) -> io::Result<Rings> {
    let at = sys::option::<libc::xdp_mmap_offsets>(socket, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
    let fd = socket.as_raw_fd();
    Ok((
        Consumer::map(fd, at.rx, RING, libc::XDP_PGOFF_RX_RING)?,
        Producer::map(fd, at.tx, RING, libc::XDP_PGOFF_TX_RING)?,
        Producer::map(fd, at.fr, RING, libc::XDP_UMEM_PGOFF_FILL_RING as i64)?,
        Consumer::map(fd, at.cr, RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64)?,
    ))
}

/// Binds to a queue. The first socket uses zero-copy if the driver can. A further one does as the
/// first did, and must not repeat the flags.
fn bind(
    socket: &OwnedFd,
    device: &Device,
    queue: u32,
    first: Option<&OwnedFd>,
    native: bool,
) -> io::Result<()> {
    let flags = match first {
        Some(_) => libc::XDP_SHARED_UMEM,
        None if native => libc::XDP_USE_NEED_WAKEUP,
        // A generic program does not work with zero-copy, and the kernel does not check that.
        None => libc::XDP_USE_NEED_WAKEUP | libc::XDP_COPY,
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: device.index(),
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: first.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as u32;
    sys::while_busy(|| {
        // SAFETY: the kernel reads `len` bytes of a live value.
        sys::check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
    })
}

/// Several queues of one device as one port, for a worker that serves more than one. It receives
/// from all, and sends through the first.
pub struct AfXdpQueues {
    queues: Vec<AfXdpPort>,
    next: usize,
}

impl AfXdpQueues {
    /// Returns `queues` as one port, or `None` if there are none. All must be opened on one pool.
    pub fn new(queues: Vec<AfXdpPort>) -> Option<Self> {
        (!queues.is_empty()).then_some(Self { queues, next: 0 })
    }
}

impl Port for AfXdpQueues {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        // Each time another queue is first, so that a busy one does not keep the others out of the
        // burst.
        self.next = (self.next + 1) % self.queues.len();
        let (after, before) = self.queues.split_at_mut(self.next);
        after.iter_mut().chain(before).for_each(|queue| queue.rx(pool, burst));
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.queues[0].tx(pool, burst);
    }

    fn flush(&mut self, pool: &mut Pool) {
        self.queues[0].flush(pool);
    }

    fn is_drained(&self) -> bool {
        self.queues[0].is_drained()
    }

    fn refused(&self) -> u64 {
        self.queues[0].refused()
    }

    fn close(self: Box<Self>) -> Returned {
        Returned(self.queues.into_iter().flat_map(|queue| Box::new(queue).close().0).collect())
    }

    fn stats(&self) -> PortStats {
        self.queues.iter().map(Port::stats).fold(PortStats::default(), PortStats::plus)
    }
}

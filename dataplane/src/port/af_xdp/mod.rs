//! A queue of a NIC by an AF_XDP socket, without the kernel's network stack.
//!
//! A worker's [`Pool`] is its UMEM: all its sockets, of whatever device and queue, share it, so
//! that what comes in by one and goes out by another is never copied in user space. Each has its
//! own four rings (the kernel's `Documentation/networking/af_xdp.rst`).

#![allow(unsafe_code, reason = "rings and frames shared with the kernel")]

mod ring;

use super::{Port, PortError, PortStats, classifier::Classifier, device::Device, sys};
use crate::{packet::Burst, pool::Pool};
use ring::{Consumer, Producer};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::NonNull,
    sync::Arc,
};

/// Entries of each ring.
const RING: u32 = 2048;
/// Frames are lent to the kernel in batches of this many at least.
const REFILL: usize = 32;
/// Shortest frame that a device takes: an Ethernet header.
const SHORTEST: usize = 14;

/// linux/if_xdp.h, Linux 6.18: frames that one system call sends in copy mode, 32 unless told.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
const TX_BUDGET: i32 = 256;

const NEEDS: &str = "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF (or CAP_SYS_ADMIN), and RLIMIT_MEMLOCK for its frames (or CAP_IPC_LOCK)";

/// One queue of one device.
///
/// Frames that its rings hold when it is dropped are lost to the pool, whose memory then stays
/// mapped.
pub struct AfXdpPort {
    socket: Arc<OwnedFd>,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    /// The arena that the kernel knows; packets of another are never put on a ring.
    umem: NonNull<u8>,
    /// Frames in the fill and receive rings, and how many there should be.
    lent: usize,
    target: usize,
    in_flight: usize,
    stats: PortStats,
    _classifier: Arc<Classifier>,
}

// SAFETY: the mappings and the socket are its own; `umem` is compared, never followed.
unsafe impl Send for AfXdpPort {}

impl AfXdpPort {
    /// Opens `queue` of `device`, on frames of `pool`, and has `classifier` feed it. At most `fill`
    /// frames of the pool wait in the device's rings for packets.
    ///
    /// The first socket of a pool decides between zero-copy and copy for all: the kernel wants it
    /// so.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] if the pool's frames are not of 2048 or 4096 bytes, or the queue
    /// is taken; [`PortError::Permission`]; or what the system answered.
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
            return Err(device.unsupported("AF_XDP needs frames of its own; DPDK's ports have mbufs"));
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
            in_flight: 0,
            stats: PortStats::default(),
            _classifier: classifier.clone(),
        })
    }

    /// Returns whether device and gateway use the same frames, without a copy in the kernel either.
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
            self.lent += 1;
        }
        self.fill.publish();
    }

    /// Takes back frames that the device has sent.
    fn reap(&mut self, pool: &mut Pool) {
        if self.in_flight == 0 {
            return;
        }
        while let Some(address) = self.completion.pop() {
            self.in_flight = self.in_flight.saturating_sub(1);
            // SAFETY: the frame went out as a packet, and the kernel says that it is done with it.
            if let Some(packet) = unsafe { pool.reclaim(address, 0) } {
                pool.give(packet);
            }
        }
        self.completion.release();
    }

    /// Has the kernel send what is on the ring. One call sends a bounded number of frames in copy
    /// mode, so there are as many calls as make a difference.
    fn kick(&mut self) {
        while !self.tx.is_empty() && self.tx.needs_wakeup() {
            let before = self.tx.consumed();
            // SAFETY: an empty message; no memory is read.
            unsafe {
                let (nothing, nobody) = (std::ptr::null(), std::ptr::null());
                libc::sendto(self.socket.as_raw_fd(), nothing, 0, libc::MSG_DONTWAIT, nobody, 0);
            }
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
        let had = burst.len();
        while burst.room() > 0 {
            let Some(received) = self.rx.pop() else { break };
            self.lent = self.lent.saturating_sub(1);
            // SAFETY: the frame was lent by `refill`, and the kernel has filled it and given it
            // back.
            match unsafe { pool.reclaim(received.addr, received.len as usize) } {
                Some(packet) => {
                    self.stats.received(&packet);
                    burst.push(packet);
                }
                None => self.stats.rx_errors += 1,
            }
        }
        self.rx.release();
        if burst.len() == had && self.fill.needs_wakeup() {
            let (nothing, nobody) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: an empty message; no memory is written.
            unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    nothing,
                    0,
                    libc::MSG_DONTWAIT,
                    nobody,
                    std::ptr::null_mut(),
                );
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        let count = self.tx.room(burst.len()).min(burst.len());
        for packet in burst.drain(..count) {
            // The kernel would pass over such a descriptor and never complete it.
            if packet.len() < SHORTEST {
                self.stats.tx_errors += 1;
                pool.give(packet);
                continue;
            }
            self.stats.sent(&packet);
            let (addr, len) = (pool.address(&packet), packet.len() as u32);
            packet.into_base();
            self.tx.push(libc::xdp_desc { addr, len, options: 0 });
            self.in_flight += 1;
        }
        self.tx.publish();
    }

    fn flush(&mut self, pool: &mut Pool) {
        self.check(pool);
        self.kick();
        self.reap(pool);
    }

    fn is_drained(&self) -> bool {
        self.in_flight == 0
    }

    fn stats(&self) -> PortStats {
        let kernel = sys::option::<libc::xdp_statistics>(&self.socket, libc::SOL_XDP, libc::XDP_STATISTICS);
        let rx_missed = kernel.map_or(0, |s| s.rx_dropped + s.rx_ring_full);
        PortStats { rx_missed, ..self.stats }
    }
}

/// Makes a pool's arena of frames the socket's UMEM.
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

/// Receive, transmit, fill and completion ring.
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

/// Binds to a queue: zero-copy if the driver can, for a first socket; as the first did, for a
/// further one, which must not repeat the flags.
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
        // A generic program and zero-copy do not go together, and the kernel does not look.
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

/// Several queues of one device as one port, for a worker that serves more than one: receives from
/// all, sends by the first.
pub struct AfXdpQueues {
    queues: Vec<AfXdpPort>,
    next: usize,
}

impl AfXdpQueues {
    /// `None` of no ports; they must be of one pool.
    pub fn new(queues: Vec<AfXdpPort>) -> Option<Self> {
        (!queues.is_empty()).then_some(Self { queues, next: 0 })
    }
}

impl Port for AfXdpQueues {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        // Another queue is the first each time, so that a busy one does not keep the others out of
        // the burst.
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

    fn stats(&self) -> PortStats {
        self.queues.iter().map(Port::stats).fold(PortStats::default(), PortStats::plus)
    }
}

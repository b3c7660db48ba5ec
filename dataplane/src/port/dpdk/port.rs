//! One queue pair of a device.

#![allow(unsafe_code, reason = "mbufs are DPDK's memory")]

use super::{
    device::Device,
    mempool::{Mempool, mbuf_of, packet_of},
    sys::{self, Mbuf},
};
use crate::{
    packet::{BURST, Burst, Packet},
    pool::{HEADROOM, Pool},
    port::{Port, PortStats},
};
use std::{ptr::null_mut, sync::Arc};

/// RTE_PKTMBUF_HEADROOM in every distribution's build of DPDK.
const DRIVERS_HEADROOM: usize = 128;
const _: () = assert!(DRIVERS_HEADROOM <= HEADROOM);

/// A receive queue and the transmit queue with the same number.
#[derive(Debug)]
pub(super) struct DpdkPort {
    /// Keeps the device open.
    _device: Arc<Device>,
    mempool: Arc<Mempool>,
    port: u16,
    queue: u16,
    stats: PortStats,
}

impl DpdkPort {
    pub(super) fn new(device: Arc<Device>, mempool: Arc<Mempool>, queue: u16) -> Self {
        Self { port: device.port(), _device: device, mempool, queue, stats: PortStats::default() }
    }

    fn check(&self, pool: &Pool) {
        assert!(pool.is_of(&self.mempool), "another pool than the port was opened on");
    }

    /// Copies the content of an mbuf that is not plain into a frame, if it fits: a jumbo frame or
    /// joined packets in several mbufs, or a buffer of the driver's own.
    #[cold]
    fn gather(&mut self, mbuf: *mut Mbuf, pool: &mut Pool) -> Option<Packet> {
        let Some(mut packet) = pool.take() else {
            self.stats.rx_missed += 1;
            return None;
        };
        // As much headroom as drivers leave. This cannot fail, because a pool leaves more.
        let _ = packet.push_front(packet.headroom() - DRIVERS_HEADROOM);
        // SAFETY: the driver has handed the mbuf over.
        let len = unsafe { (*mbuf).pkt_len } as usize;
        if packet.set_len(len).is_none() {
            self.stats.rx_oversize += 1;
            pool.give(packet);
            return None;
        }
        // SAFETY: the packet has room for all bytes of the mbuf's segments, `pkt_len` in total.
        unsafe { sys::wf_copy(mbuf, packet.data_mut().as_mut_ptr()) };
        Some(packet)
    }
}

impl Port for DpdkPort {
    fn attach(&mut self) {
        super::thread::register();
    }

    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        let mut mbufs: [*mut Mbuf; BURST] = [null_mut(); BURST];
        let (before, room) = (burst.len(), burst.room() as u16);
        // SAFETY: the queue belongs to this worker, its device runs as long as `self._device`
        // exists, and `room` pointers fit.
        let received = unsafe { sys::wf_rx(self.port, self.queue, mbufs.as_mut_ptr(), room) };
        let (mempool, frame) = (self.mempool.as_ptr(), pool.frame_size());
        let mut bytes = 0;
        for &mbuf in &mbufs[..usize::from(received)] {
            // SAFETY: the driver has handed the mbuf over.
            let packet = match unsafe { packet_of(mbuf, mempool, frame) } {
                Some(packet) => packet,
                None => {
                    let gathered = self.gather(mbuf, pool);
                    // SAFETY: the mbuf is ours, and its content is copied.
                    unsafe { sys::wf_free(mbuf) };
                    let Some(packet) = gathered else { continue };
                    packet
                }
            };
            bytes += packet.len() as u64;
            burst.push(packet);
        }
        self.stats.rx_packets += (burst.len() - before) as u64;
        self.stats.rx_bytes += bytes;
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.check(pool);
        let mut mbufs: [*mut Mbuf; BURST] = [null_mut(); BURST];
        let mut bytes = 0;
        for (slot, packet) in mbufs.iter_mut().zip(burst.iter()) {
            *slot = hand_over(packet);
            bytes += packet.len();
        }
        // SAFETY: as in `rx`. All are mbufs of this worker's pool with one segment, which nobody
        // else refers to.
        let sent = unsafe { sys::wf_tx(self.port, self.queue, mbufs.as_mut_ptr(), burst.len() as u16) };
        let sent = usize::from(sent);
        self.stats.tx_packets += sent as u64;
        self.stats.tx_bytes += bytes as u64;
        burst.drain(..sent).for_each(|packet| _ = packet.into_base());
        self.stats.tx_bytes -= burst.iter().map(|left| left.len() as u64).sum::<u64>();
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

/// Writes to a packet's mbuf where in it the packet is, and what the device must do.
#[inline]
fn hand_over(packet: &Packet) -> *mut Mbuf {
    let mbuf = mbuf_of(packet.base());
    // SAFETY: every frame of a pool that serves DPDK's ports is an mbuf, and the packet owns it.
    let header = unsafe { &mut *mbuf };
    header.data_off = packet.headroom() as u16;
    header.data_len = packet.len() as u16;
    header.pkt_len = packet.len() as u32;
    header.ol_flags = 0;
    if packet.lacks_checksum() {
        // SAFETY: a constant, and a function without arguments.
        (header.ol_flags, header.tx_offload) = unsafe { (sys::wf_tx_udp6_checksum, sys::wf_udp6_layout()) };
    }
    mbuf
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::dpdk::{Eal, OpenDevice, Options, Request};
    use std::sync::OnceLock;

    const FRAMES: usize = 1024;

    fn eal() -> &'static Eal {
        static EAL: OnceLock<Eal> = OnceLock::new();
        let start = || {
            let options = Options {
                cores: vec![0],
                memory: Some(Options::memory_for(2, FRAMES, 2048)),
                vdev: vec!["net_ring0".into(), "net_ring1".into()],
                ..Options::default()
            };
            Eal::start(&options).unwrap()
        };
        EAL.get_or_init(start)
    }

    /// Returns a device that receives what it sends.
    fn ring(name: &str) -> (Box<dyn Port>, Pool) {
        let eal = eal();
        let mut pools = vec![eal.pool(FRAMES, 2048, 0).unwrap()];
        let request =
            Request { device: name, mtu: None, mac: None, promiscuous: false, fill_checksums: false };
        let OpenDevice { mut ports, .. } = eal.open(&request, &mut pools).unwrap();
        (ports.remove(0), pools.remove(0))
    }

    /// Returns an mbuf with `len` bytes of `byte`.
    fn mbuf(pool: &mut Pool, byte: u8, len: usize) -> *mut Mbuf {
        let mut packet = pool.take().unwrap();
        packet.fill(128, &vec![byte; len]).unwrap();
        let mbuf = hand_over(&packet);
        packet.into_base();
        mbuf
    }

    /// Appends `second` to `first`.
    fn chain(first: *mut Mbuf, second: *mut Mbuf) {
        // SAFETY: both belong to this test alone.
        unsafe {
            (*first).pkt_len += (*second).pkt_len;
            (*first).segments = 2;
            (*first).next = second;
        }
    }

    #[test]
    fn unusual_mbufs_are_copied_to_a_plain_one_if_they_fit() {
        let (mut port, mut pool) = ring("net_ring0");
        let (port, pool) = (&mut port, &mut pool);
        let (fits, long) = (mbuf(pool, 1, 700), mbuf(pool, 3, 1500));
        chain(fits, mbuf(pool, 2, 800));
        chain(long, mbuf(pool, 4, 1500));
        let mut mbufs = [fits, long, mbuf(pool, 5, 100)];
        // SAFETY: the ring belongs to this test, and accepts any mbufs.
        assert_eq!(unsafe { sys::wf_tx(0, 0, mbufs.as_mut_ptr(), 3) }, 3);
        let mut burst = Burst::new();
        port.rx(pool, &mut burst);
        let mut whole = vec![1; 700];
        whole.extend([2; 800]);
        assert_eq!(burst.iter().map(Packet::data).collect::<Vec<_>>(), [&whole[..], &[5; 100]]);
        assert_eq!((port.stats().rx_packets, port.stats().rx_bytes, port.stats().rx_oversize), (2, 1600, 1));
        pool.give_all(&mut burst);
        assert_eq!(pool.available(), FRAMES);
    }

    #[test]
    fn trusts_only_good_checksums_of_the_outermost_header() {
        let (mut port, mut pool) = ring("net_ring1");
        // rte_mbuf_core.h: IP_CKSUM_BAD, IP_CKSUM_GOOD, OUTER_IP_CKSUM_BAD, L4_CKSUM_BAD and VLAN.
        let (bad, good, outer_bad, others) = (1 << 4, 1 << 7, 1 << 5, 1 << 3 | 1);
        let flags = [0, good, bad, good | bad, good | outer_bad, good | others];
        let mut mbufs = flags.map(|flags| {
            let mbuf = mbuf(&mut pool, 0, 60);
            // SAFETY: it belongs to this test alone.
            unsafe { (*mbuf).ol_flags = flags };
            mbuf
        });
        let mut number = 0;
        // SAFETY: an open device, and a name that is a string.
        assert_eq!(unsafe { sys::wf_port_of(c"net_ring1".as_ptr(), &mut number) }, 0);
        // SAFETY: the ring belongs to this test, and accepts any mbufs.
        assert_eq!(unsafe { sys::wf_tx(number, 0, mbufs.as_mut_ptr(), 6) }, 6);
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        let believed: Vec<_> = burst.iter().map(Packet::is_verified).collect();
        assert_eq!(believed, [false, true, false, false, false, true]);
        pool.give_all(&mut burst);
    }

    #[test]
    fn orphaned_frames_return_to_their_own_pool() {
        let mut pools = [eal().pool(FRAMES, 2048, 0).unwrap(), Pool::new(2, 2048).unwrap()];
        let fault = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let [mbufs, arena] = &mut pools;
            let (mbuf, mut first) = (mbufs.take().unwrap(), arena.take().unwrap());
            let _second = arena.take();
            // SAFETY: a live mbuf, which belongs to this test alone.
            let header =
                unsafe { std::slice::from_raw_parts(mbuf_of(mbuf.base()).cast(), size_of::<Mbuf>()) };
            // The bytes before a frame may look like an mbuf: they are somebody's packet.
            first.fill(2048 - header.len(), header).unwrap();
            panic!("a test's own panic");
        }));
        assert!(fault.is_err());
        assert_eq!(pools.each_mut().map(Pool::adopt_orphans), [1, 2]);
        assert_eq!(pools.each_ref().map(Pool::available), [FRAMES, 2]);
    }
}

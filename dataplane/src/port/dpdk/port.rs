//! One queue pair of a device.

#![allow(unsafe_code, reason = "mbufs are DPDK's memory")]

use super::{
    device::{Device, Powers},
    mempool::{Mempool, mbuf_of, packet_of},
    sys::{self, Mbuf},
};
use crate::{
    packet::{BURST, Burst, Packet},
    pool::{HEADROOM, Pool},
    port::{Port, PortStats, vlan},
    wire::ethernet,
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
    powers: Powers,
    stats: PortStats,
}

impl DpdkPort {
    pub(super) fn new(device: Arc<Device>, mempool: Arc<Mempool>, queue: u16, powers: Powers) -> Self {
        Self { port: device.port(), _device: device, mempool, queue, powers, stats: PortStats::default() }
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

    /// Leaves the tag that the device has taken off beside the frame, or puts it back if nobody asked for
    /// that: the frame is in a VLAN, whatever the driver does.
    fn keep_tag(&mut self, tag: u16, mut packet: Packet, pool: &mut Pool) -> Option<Packet> {
        if self.powers.strips_tags {
            packet.set_tag(tag);
        } else if vlan::put_back(&mut packet, ethernet::VLAN, tag).is_none() {
            self.stats.rx_errors += 1;
            pool.give(packet);
            return None;
        }
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
            let tag = unsafe { taken_tag(mbuf) };
            // SAFETY: as above.
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
            let packet = match tag {
                None => packet,
                Some(tag) => match self.keep_tag(tag, packet, pool) {
                    Some(packet) => packet,
                    None => continue,
                },
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

    fn inserts_tags(&self) -> bool {
        self.powers.inserts_tags
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

/// Returns the value of the 802.1Q tag that the device has taken off a frame, if it has.
///
/// # Safety
/// The mbuf is live and nobody else uses it.
#[inline]
unsafe fn taken_tag(mbuf: *const Mbuf) -> Option<u16> {
    // SAFETY: by contract, and a constant.
    let (header, stripped) = unsafe { (&*mbuf, sys::wf_rx_vlan_stripped) };
    (header.ol_flags & stripped != 0).then_some(header.vlan_tci)
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
    if packet.has_tasks() {
        give_tasks(packet, header);
    }
    mbuf
}

fn give_tasks(packet: &Packet, header: &mut Mbuf) {
    // SAFETY: constants, and a function without arguments.
    let (checksum, layout, tagged) =
        unsafe { (sys::wf_tx_udp6_checksum, sys::wf_udp6_layout(), sys::wf_tx_vlan) };
    header.tx_offload = 0;
    if packet.lacks_checksum() {
        (header.ol_flags, header.tx_offload) = (checksum, layout);
    }
    if let Some(tag) = packet.tag() {
        header.ol_flags |= tagged;
        header.vlan_tci = tag;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{
        dpdk::{Eal, OpenDevice, Options, Request},
        monitor::DeviceState,
    };
    use std::{
        ffi::{CStr, c_int, c_void},
        sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    };

    const FRAMES: usize = 1024;
    // rte_mbuf_core.h: VLAN and VLAN_STRIPPED.
    const STRIPPED: u64 = 1 << 6 | 1;

    unsafe extern "C" {
        fn wf_note_removal(port: u16, event: c_int, with: *mut c_void, result: *mut c_void) -> c_int;
    }

    /// Returns the one EAL of this process, which opens one device at a time.
    fn eal() -> MutexGuard<'static, Eal> {
        static EAL: OnceLock<Mutex<Eal>> = OnceLock::new();
        let start = || {
            let options = Options {
                cores: vec![0],
                memory: Some(Options::memory_for(5, FRAMES, 2048)),
                vdev: (0..5).map(|number| format!("net_ring{number}")).collect(),
                ..Options::default()
            };
            Mutex::new(Eal::start(&options).unwrap())
        };
        EAL.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(device: &str) -> Request<'_> {
        Request {
            device,
            mtu: None,
            mac: None,
            promiscuous: false,
            fill_checksums: false,
            offload_tags: false,
        }
    }

    /// Returns a device that receives what it sends.
    fn ring(name: &str) -> (Box<dyn Port>, Pool) {
        let eal = eal();
        let mut pools = vec![eal.pool(FRAMES, 2048, 0).unwrap()];
        let OpenDevice { mut ports, .. } = eal.open(&request(name), &mut pools).unwrap();
        (ports.remove(0), pools.remove(0))
    }

    /// Ends what has a device open, while no other thread opens or closes one: DPDK's list of devices has
    /// no lock.
    fn close<T>(open: T) {
        let _one = eal();
        drop(open);
    }

    /// Returns DPDK's number of a device that is there.
    fn number(name: &CStr) -> u16 {
        let mut number = 0;
        // SAFETY: EAL runs, and the name is a string.
        assert_eq!(unsafe { sys::wf_port_of(name.as_ptr(), &mut number) }, 0);
        number
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
        let pool = &mut pool;
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
        close(port);
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
        // SAFETY: the ring belongs to this test, and accepts any mbufs.
        assert_eq!(unsafe { sys::wf_tx(number(c"net_ring1"), 0, mbufs.as_mut_ptr(), 6) }, 6);
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        let believed: Vec<_> = burst.iter().map(Packet::is_verified).collect();
        assert_eq!(believed, [false, true, false, false, false, true]);
        pool.give_all(&mut burst);
        close(port);
    }

    #[test]
    fn tags_that_a_device_takes_off_unasked_are_put_back() {
        let (mut port, mut pool) = ring("net_ring2");
        let mut mbufs = [60, 13].map(|length| {
            let mbuf = mbuf(&mut pool, 7, length);
            // SAFETY: it belongs to this test alone.
            unsafe { ((*mbuf).ol_flags, (*mbuf).vlan_tci) = (STRIPPED, 0xa064) };
            mbuf
        });
        // SAFETY: the ring belongs to this test, and accepts any mbufs.
        assert_eq!(unsafe { sys::wf_tx(number(c"net_ring2"), 0, mbufs.as_mut_ptr(), 2) }, 2);
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        let whole = [&[7; 12][..], &[0x81, 0, 0xa0, 100], &[7; 48]].concat();
        assert_eq!(burst.iter().map(Packet::data).collect::<Vec<_>>(), [&whole[..]]);
        assert_eq!((burst[0].tag(), port.inserts_tags()), (None, false));
        assert_eq!((port.stats().rx_packets, port.stats().rx_errors), (1, 1), "one is no Ethernet frame");
        pool.give_all(&mut burst);
        assert_eq!(pool.available(), FRAMES);
        close(port);
    }

    #[test]
    fn tags_that_a_device_works_on_are_beside_the_data() {
        let eal = eal();
        let mut pool = eal.pool(FRAMES, 2048, 0).unwrap();
        let (mempool, number) = (pool.mempool().unwrap(), number(c"net_ring3"));
        let (device, powers) = Device::start(number, &request("net_ring3"), vec![mempool.clone()]).unwrap();
        drop(eal);
        // This device does not, so the test does it.
        let powers = Powers { strips_tags: true, inserts_tags: true, ..powers };
        let mut port = DpdkPort::new(Arc::new(device), mempool, 0, powers);
        assert!(port.inserts_tags());
        let mut burst = Burst::new();
        for tag in [Some(0xa064), None] {
            let mut packet = pool.take().unwrap();
            packet.fill(128, &[7; 60]).unwrap();
            if let Some(tag) = tag {
                packet.set_tag(tag);
            }
            burst.push(packet);
        }
        port.tx(&mut pool, &mut burst);
        let mut mbufs = [null_mut(); 2];
        // SAFETY: the ring belongs to this test, and two pointers fit.
        assert_eq!(unsafe { sys::wf_rx(number, 0, mbufs.as_mut_ptr(), 2) }, 2);
        // SAFETY: the ring has handed them over; and a constant.
        let (headers, tagged) = unsafe { (mbufs.map(|mbuf| &mut *mbuf), sys::wf_tx_vlan) };
        assert_eq!(headers.each_ref().map(|header| header.ol_flags), [tagged, 0]);
        assert_eq!((headers[0].vlan_tci, headers[0].data_len), (0xa064, 60));
        headers.into_iter().zip([STRIPPED, 0]).for_each(|(header, flags)| header.ol_flags = flags);
        // SAFETY: as above.
        assert_eq!(unsafe { sys::wf_tx(number, 0, mbufs.as_mut_ptr(), 2) }, 2);
        port.rx(&mut pool, &mut burst);
        let received: Vec<_> = burst.iter_mut().map(|packet| (packet.take_tag(), packet.len())).collect();
        assert_eq!(received, [(Some(0xa064), 60), (None, 60)]);
        pool.give_all(&mut burst);
        close(port);
    }

    #[test]
    fn device_that_was_removed_is_gone_until_it_is_opened_again() {
        for _ in 0..2 {
            let mut pools = vec![eal().pool(FRAMES, 2048, 0).unwrap()];
            let opened = eal().open(&request("net_ring4"), &mut pools).unwrap();
            let state = opened.monitor.state();
            assert_eq!((state.is_gone, state.is_up, state.mtu), (false, true, Some(1500)));
            // SAFETY: it takes any numbers, and no other argument is used. A NIC's driver has EAL call it.
            unsafe { wf_note_removal(number(c"net_ring4"), 0, null_mut(), null_mut()) };
            let gone = DeviceState { is_gone: true, ..DeviceState::default() };
            assert_eq!(opened.monitor.state(), gone);
            close(opened);
            assert_eq!(pools[0].available(), FRAMES);
        }
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

//! The functions of DPDK and of `shim.c`, and the structures that both sides share. `shim.c`
//! asserts their layout.

#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// `struct rte_mempool`.
#[repr(C)]
pub(super) struct RteMempool {
    _opaque: [u8; 0],
}

/// `struct rte_mbuf` (rte_mbuf_core.h).
#[repr(C)]
pub(super) struct Mbuf {
    /// Start of the buffer: right behind this structure, unless the mbuf refers to a buffer
    /// elsewhere.
    pub buffer: *mut u8,
    _buf_iova: u64,
    /// Offset of the data in the buffer, in bytes.
    pub data_off: u16,
    pub refcnt: u16,
    /// Number of buffers that hold the packet.
    pub segments: u16,
    _port: u16,
    /// Findings of a device, or tasks for it.
    pub ol_flags: u64,
    _packet_type: u32,
    /// Length of the packet in bytes.
    pub pkt_len: u32,
    /// Length of the part in this buffer, in bytes.
    pub data_len: u16,
    /// The value of a VLAN tag that a device has taken off, or is to put on.
    pub vlan_tci: u16,
    _hash: [u32; 2],
    _vlan_tci_outer: u16,
    _buf_len: u16,
    pub pool: *mut RteMempool,
    /// The packet's next segment.
    pub next: *mut Self,
    /// Lengths of headers, for a device that fills in a checksum.
    pub tx_offload: u64,
    _rest: [u8; 48],
}

const _: () = assert!(
    size_of::<Mbuf>() == 128
        && std::mem::offset_of!(Mbuf, vlan_tci) == 42
        && std::mem::offset_of!(Mbuf, tx_offload) == 72
);

/// `struct info` of `shim.c`.
#[repr(C)]
pub(super) struct Info {
    pub driver: [c_char; 64],
    pub queues: u16,
}

/// `struct setup` of `shim.c`.
#[repr(C)]
pub(super) struct Setup {
    pub pools: *const *mut RteMempool,
    pub queues: u16,
    pub descriptors: u16,
    pub mtu: u16,
    pub promiscuous: u8,
    pub has_mac: u8,
    pub mac: [u8; 6],
    pub step: *const c_char,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    pub spreading: u8,
    pub verifies: u8,
    pub fills: u8,
    pub strips: u8,
    pub inserts: u8,
    pub fixed_mtu: u8,
}

/// `struct state` of `shim.c`.
#[repr(C)]
#[derive(Default)]
pub(super) struct State {
    pub missed: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub speed: u32,
    pub is_up: u8,
    pub is_full_duplex: u8,
    pub is_promiscuous: u8,
    pub is_gone: u8,
}

const _: () = assert!(size_of::<Info>() == 66 && std::mem::offset_of!(Info, queues) == 64);
const _: () = assert!(
    size_of::<Setup>() == 48
        && std::mem::offset_of!(Setup, mac) == 16
        && std::mem::offset_of!(Setup, step) == 24
        && std::mem::offset_of!(Setup, rx_descriptors) == 32
        && std::mem::offset_of!(Setup, fixed_mtu) == 41
);
const _: () = assert!(size_of::<State>() == 32 && std::mem::offset_of!(State, is_gone) == 31);

unsafe extern "C" {
    pub(super) static wf_rx_checksum_mask: u64;
    pub(super) static wf_rx_checksum_good: u64;
    pub(super) static wf_tx_udp6_checksum: u64;
    pub(super) static wf_rx_vlan_stripped: u64;
    pub(super) static wf_tx_vlan: u64;

    pub(super) fn wf_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    pub(super) fn wf_socket_of(core: c_uint) -> c_int;
    fn wf_last_error() -> *const c_char;
    pub(super) fn wf_is_registered() -> c_int;
    pub(super) fn wf_alloc(pool: *mut RteMempool, mbufs: *mut *mut Mbuf, count: c_uint) -> c_int;
    pub(super) fn wf_put(pool: *mut RteMempool, mbufs: *mut *mut Mbuf, count: c_uint);
    pub(super) fn wf_free(mbuf: *mut Mbuf);
    pub(super) fn wf_copy(mbuf: *const Mbuf, to: *mut u8);
    pub(super) fn wf_udp6_layout() -> u64;
    pub(super) fn wf_rx(port: u16, queue: u16, mbufs: *mut *mut Mbuf, count: u16) -> u16;
    pub(super) fn wf_tx(port: u16, queue: u16, mbufs: *mut *mut Mbuf, count: u16) -> u16;
    pub(super) fn wf_info(port: u16, info: *mut Info) -> c_int;
    pub(super) fn wf_start(port: u16, setup: *mut Setup) -> c_int;
    pub(super) fn wf_close(port: u16);
    pub(super) fn wf_port_of(name: *const c_char, port: *mut u16) -> c_int;
    pub(super) fn wf_state(port: u16, state: *mut State);
    pub(super) fn wf_counters(port: u16, names: *mut [c_char; 64], values: *mut u64, most: c_uint) -> c_int;

    pub(super) fn rte_eal_get_runtime_dir() -> *const c_char;
    pub(super) fn rte_thread_register() -> c_int;
    pub(super) fn rte_thread_unregister();
    pub(super) fn rte_dev_probe(devargs: *const c_char) -> c_int;
    pub(super) fn rte_eth_macaddr_get(port: u16, mac: *mut [u8; 6]) -> c_int;
    pub(super) fn rte_eth_dev_get_mtu(port: u16, mtu: *mut u16) -> c_int;
    pub(super) fn rte_mempool_avail_count(pool: *const RteMempool) -> c_uint;
    pub(super) fn rte_mempool_obj_iter(
        pool: *mut RteMempool,
        each: unsafe extern "C" fn(*mut RteMempool, *mut c_void, *mut c_void, c_uint),
        with: *mut c_void,
    ) -> u32;
    pub(super) fn rte_mempool_free(pool: *mut RteMempool);
    pub(super) fn rte_pktmbuf_pool_create(
        name: *const c_char,
        count: c_uint,
        cache: c_uint,
        private: u16,
        room: u16,
        socket: c_int,
    ) -> *mut RteMempool;
}

/// Returns DPDK's message about the last failed call of this thread.
pub(super) fn last_error() -> String {
    // SAFETY: a constant string, or a string of this thread that stays until its next call.
    unsafe { CStr::from_ptr(wf_last_error()) }.to_string_lossy().into_owned()
}

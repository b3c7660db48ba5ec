//! Where packets come from and go to.
//!
//! A [`Port`] is one queue pair of one device, owned by one worker. A worker calls [`Port::rx`] and
//! [`Port::tx`] once a burst through `Box<dyn Port>`; nothing here is called once a packet.
//!
//! | port | what is behind it |
//! |---|---|
//! | [`af_xdp`] | a queue of a NIC, the worker's own frames in its rings |
//! | [`af_packet`] | any Ethernet device, by a ring shared with the kernel |
//! | [`dpdk`] | a NIC by DPDK's poll-mode drivers |
//! | [`tap`] | the host's own network stack |
//! | [`pcap`] | capture files |
//! | [`memory`] | another thread, or a test |
//! | [`generator`], [`sink`] | load, and nothing |
//!
//! [`open`] opens kernel devices for all workers. A NIC is shared with the host: [`classifier`]
//! says whose frame is whose, and [`neighbour_socket`] lets the slow path take part in ARP and
//! neighbour discovery.

use crate::{
    packet::{Burst, Packet},
    pool::Pool,
};

pub mod af_packet;
pub mod af_xdp;
mod bpf;
pub mod classifier;
pub mod device;
pub mod dpdk;
mod error;
pub mod generator;
pub mod memory;
pub mod monitor;
pub mod neighbour_socket;
pub mod open;
pub mod pcap;
pub mod sink;
mod sys;
pub mod tap;

pub use error::PortError;

/// A MAC address (IEEE 802).
pub type Mac = [u8; 6];

/// What a port counted, in packets unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Received and handed to the worker.
    pub rx_packets: u64,
    /// Bytes of those, Ethernet header included.
    pub rx_bytes: u64,
    /// Lost before the worker saw them: device ring full or no free frame.
    pub rx_missed: u64,
    /// Received but not usable, such as one cut short.
    pub rx_errors: u64,
    /// Received but longer than one frame: jumbo frames, or joined by LRO or GRO.
    pub rx_oversize: u64,
    /// Handed to the device.
    pub tx_packets: u64,
    /// Bytes of those, Ethernet header included.
    pub tx_bytes: u64,
    /// Taken but refused by the device or file for good, such as a frame longer than the MTU.
    pub tx_errors: u64,
}

impl PortStats {
    /// Returns the sum of both: several queues as one.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rx_packets: self.rx_packets + other.rx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_missed: self.rx_missed + other.rx_missed,
            rx_errors: self.rx_errors + other.rx_errors,
            rx_oversize: self.rx_oversize + other.rx_oversize,
            tx_packets: self.tx_packets + other.tx_packets,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_errors: self.tx_errors + other.tx_errors,
        }
    }

    #[inline]
    fn received(&mut self, packet: &Packet) {
        self.rx_packets += 1;
        self.rx_bytes += packet.len() as u64;
    }

    #[inline]
    fn sent(&mut self, packet: &Packet) {
        self.tx_packets += 1;
        self.tx_bytes += packet.len() as u64;
    }
}

/// One queue of a device. Every method is for the worker's own thread; none blocks.
pub trait Port: Send {
    /// Once, on the worker's own thread, before all else.
    fn attach(&mut self) {}

    /// Appends received packets to `burst`, as many as there are and as fit, in frames of `pool`.
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Takes packets off the front of `burst` and sends them. What stays in the burst did not fit
    /// the device's ring; the caller counts and frees it. Frames return to `pool` now or, if a
    /// device still reads them, in a later call.
    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Once a turn after all `tx`: tells the device to go on, and collects frames that it has sent.
    fn flush(&mut self, _pool: &mut Pool) {}

    /// Returns whether no packet will ever come again (a file was read to its end).
    fn is_exhausted(&self) -> bool {
        false
    }

    /// Returns whether all that was handed to `tx` has left: a worker that stops waits for this, up
    /// to a bound.
    fn is_drained(&self) -> bool {
        true
    }

    /// Returns what this queue counted so far. May be a system call: for now and then, not for each
    /// turn.
    fn stats(&self) -> PortStats;
}

impl std::fmt::Debug for dyn Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port {{ {:?} }}", self.stats())
    }
}

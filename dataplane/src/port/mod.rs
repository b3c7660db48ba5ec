//! The places where packets come from and go to.
//!
//! A [`Port`] is one queue pair of one device, owned by one worker. A worker calls [`Port::rx`] and
//! [`Port::tx`] once for each burst through `Box<dyn Port>`. Nothing here is called for each
//! packet.
//!
//! | port | what is behind it |
//! |---|---|
//! | [`af_xdp`] | a queue of a NIC, with the worker's own frames in its rings |
//! | [`af_packet`] | any device, through a ring shared with the kernel |
//! | [`dpdk`] | a NIC through DPDK's poll-mode drivers |
//! | [`tap`] | the host's own network stack |
//! | [`pcap`] | capture files |
//! | [`memory`] | another thread, or a test |
//! | [`generator`], [`sink`] | generated load; nothing |
//! | [`absent`] | a device that is gone |
//! | [`vlan`] | one VLAN of any of the others |
//!
//! [`open`] opens kernel devices for all workers. A NIC is shared with the host: [`classifier`]
//! decides which frames are the gateway's, [`neighbour_socket`] lets the slow path take part in ARP and
//! neighbour discovery, and [`too_big_socket`] lets it hear of paths with a smaller MTU.

use crate::{
    packet::{Burst, Packet},
    pool::{Pool, Returned},
};

pub mod absent;
pub mod af_packet;
pub mod af_xdp;
mod bound_device;
mod bpf;
pub mod classifier;
pub mod device;
pub mod dpdk;
mod error;
pub mod generator;
pub mod link_layer;
pub mod memory;
pub mod monitor;
pub mod neighbour_socket;
pub mod open;
pub mod pcap;
mod segments;
pub mod sink;
mod socket_filter;
mod sys;
pub mod tap;
pub mod too_big_socket;
pub mod vlan;
mod vnet_header;

pub use error::PortError;

/// A MAC address (IEEE 802).
pub type Mac = [u8; 6];

/// The counters of a port, in packets unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Received and given to the worker.
    pub rx_packets: u64,
    /// Bytes of the packets in `rx_packets`, including the Ethernet header.
    pub rx_bytes: u64,
    /// Lost before the worker saw them, because the device's ring was full or no frame was free.
    pub rx_missed: u64,
    /// Received but not usable, for example cut short.
    pub rx_errors: u64,
    /// Received but longer than one frame: jumbo frames, or joined ones on a port that cannot cut them.
    pub rx_oversize: u64,
    /// Received in a VLAN, or in none, that no port of the device has.
    pub rx_foreign: u64,
    /// Given to the device.
    pub tx_packets: u64,
    /// Bytes of the packets in `tx_packets`, including the Ethernet header.
    pub tx_bytes: u64,
    /// Taken from the worker, but refused by the device or file for good, for example because
    /// longer than the MTU.
    pub tx_errors: u64,
}

impl PortStats {
    /// Returns the sum of both, for several queues as one.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rx_packets: self.rx_packets + other.rx_packets,
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_missed: self.rx_missed + other.rx_missed,
            rx_errors: self.rx_errors + other.rx_errors,
            rx_oversize: self.rx_oversize + other.rx_oversize,
            rx_foreign: self.rx_foreign + other.rx_foreign,
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

/// One queue of a device. Every method is for the worker's own thread and does not block, but
/// [`Port::close`].
pub trait Port: Send {
    /// Prepares the port. Called once, on the worker's own thread, before all else.
    fn attach(&mut self) {}

    /// Appends received packets to `burst`, as many as there are and as fit, in frames of `pool`.
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Takes packets off the front of `burst` and sends them. Packets that stay in the burst did
    /// not fit the device's ring; the caller counts and frees them. Frames return to `pool` at once
    /// or, if a device still reads them, in a later call.
    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst);

    /// Tells the device to send, and collects frames that it has sent. Called once a turn, after
    /// all `tx`.
    fn flush(&mut self, _pool: &mut Pool) {}

    /// Returns whether no packet will ever come again, because a file was read to its end.
    fn is_exhausted(&self) -> bool {
        false
    }

    /// Returns whether the port stands for a device that is gone.
    fn is_absent(&self) -> bool {
        false
    }

    /// Returns whether the device is down at this moment. May be a system call: it is for ports that have
    /// just not taken all packets.
    fn is_down(&self) -> bool {
        false
    }

    /// Returns whether the device puts 802.1Q tags on frames that it sends, and is to be given them
    /// without. Their values are beside the data of packets.
    fn inserts_tags(&self) -> bool {
        false
    }

    /// Returns whether everything given to `tx` has left. A worker that stops waits for this, up to
    /// a bound.
    fn is_drained(&self) -> bool {
        true
    }

    /// Returns how many packets the device has refused for good so far: [`PortStats::tx_errors`],
    /// without a system call.
    fn refused(&self) -> u64 {
        0
    }

    /// Closes the port, on any thread, which may take long. Returns the frames that the device held and
    /// uses no more, for the pool that they came from.
    fn close(self: Box<Self>) -> Returned {
        Returned::default()
    }

    /// Returns the counters of this queue. May be a system call, so it is not for each turn.
    fn stats(&self) -> PortStats;
}

impl std::fmt::Debug for dyn Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port {{ {:?} }}", self.stats())
    }
}

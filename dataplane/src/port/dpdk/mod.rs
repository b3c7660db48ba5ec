//! NICs through DPDK's poll-mode drivers. The frame of a packet is the buffer of an mbuf, so
//! nothing is copied.
//!
//! Built only with the feature `dpdk`. Without it all names still exist, so that callers are the
//! same, and [`Eal::start`] says what is missing.

#[cfg(not(feature = "dpdk"))]
mod absent;
#[cfg(feature = "dpdk")]
mod device;
#[cfg(feature = "dpdk")]
mod eal;
mod interface;
#[cfg(feature = "dpdk")]
pub(crate) mod mempool;
#[cfg(feature = "dpdk")]
mod messages;
#[cfg(feature = "dpdk")]
mod port;
#[cfg(feature = "dpdk")]
mod sys;
#[cfg(feature = "dpdk")]
mod thread;

#[cfg(not(feature = "dpdk"))]
pub use absent::Eal;
#[cfg(feature = "dpdk")]
pub use eal::Eal;
pub use interface::on_interface;

use super::{Mac, Port, monitor::Monitor};

/// The options for starting DPDK's environment abstraction layer (EAL).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Cores that workers run on (`-l`). Not empty.
    pub cores: Vec<usize>,
    /// Memory to reserve at the start, in bytes (`-m`). If `None`, EAL takes memory from huge pages
    /// when needed.
    pub memory: Option<usize>,
    /// `true` if memory comes from huge pages, else it comes from ordinary pages (`--no-huge`),
    /// which is for trying out.
    pub hugepages: bool,
    /// PCI addresses of the NICs that it may use (`-a`). No others are touched.
    pub allow: Vec<String>,
    /// Virtual devices to make, each `driverN,key=value,…` (`--vdev`).
    pub vdev: Vec<String>,
    /// Further options of EAL, word by word.
    pub options: Vec<String>,
}

/// The largest size of an mbuf without its buffer, in bytes.
const MBUF: usize = 256;
/// Memory besides frames, in bytes: for drivers' rings and EAL itself.
const OTHER_MEMORY: usize = 64 << 20;

impl Options {
    /// Returns how much memory is enough for `workers` pools of `frames` frames of `frame` bytes
    /// each, in bytes. Without huge pages it must be reserved at the start, because it cannot grow.
    pub fn memory_for(workers: usize, frames: usize, frame: usize) -> usize {
        frames.saturating_mul(frame + MBUF).saturating_mul(workers).saturating_add(OTHER_MEMORY)
    }
}

/// A device that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// DPDK's name for it: a PCI address, or the driver and number of a virtual device.
    pub device: &'a str,
    /// Largest payload of a frame in bytes; `None` leaves it unchanged.
    pub mtu: Option<usize>,
    /// MAC address that it gets; `None` leaves it unchanged.
    pub mac: Option<Mac>,
    /// `true` if it also receives frames to other stations' MAC addresses.
    pub promiscuous: bool,
    /// `true` if it should fill in UDP checksums over IPv6, if it can
    /// ([`OpenDevice::fills_checksums`]).
    pub fill_checksums: bool,
    /// `true` if it should take 802.1Q tags off frames that it receives and put them on those that it
    /// sends, if it can. Its ports are then for [`vlan::divide`](super::vlan::divide) only.
    pub offload_tags: bool,
}

/// An open device.
#[derive(Debug)]
pub struct OpenDevice {
    /// One port for each worker, in the order of their pools.
    pub ports: Vec<Box<dyn Port>>,
    /// Its driver, and how packets are spread over queues, in words.
    pub kind: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest payload of a frame, in bytes.
    pub mtu: usize,
    /// `true` if it fills in the UDP checksum of a packet that lacks it
    /// ([`Packet::lacks_checksum`](crate::packet::Packet::lacks_checksum)).
    pub fills_checksums: bool,
    /// `true` if its driver cannot set the MTU that was asked for. Then it is only known that the driver
    /// has accepted frames of this length.
    pub has_fixed_mtu: bool,
    /// The state of the device while it runs.
    pub monitor: Box<dyn Monitor>,
}

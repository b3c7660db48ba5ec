//! NICs by DPDK's poll-mode drivers. The frame of a packet is an mbuf's buffer: nothing is copied.
//!
//! Built with the feature `dpdk` only. Without it everything here is still named, so that callers are the same, and
//! [`Eal::start`] says what is missing.

#[cfg(not(feature = "dpdk"))]
mod absent;

#[cfg(not(feature = "dpdk"))]
pub use absent::Eal;

use super::{Mac, Port, monitor::Monitor};

/// How DPDK's environment abstraction layer (EAL) is to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Cores that workers run on (`-l`). Not empty.
    pub cores: Vec<usize>,
    /// Memory to take at the start, in bytes (`-m`); `None`: what it asks for as it goes, from huge pages.
    pub memory: Option<usize>,
    /// Whether memory comes from huge pages; else from ordinary ones (`--no-huge`), which is for trying out.
    pub hugepages: bool,
    /// PCI addresses of the NICs that it may take (`-a`); none are touched but these.
    pub allow: Vec<String>,
    /// Virtual devices to make, each `driverN,key=value,…` (`--vdev`).
    pub vdev: Vec<String>,
    /// Further options, word by word as EAL takes them.
    pub options: Vec<String>,
}

/// A device that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its name for DPDK: a PCI address, or the driver and number of a virtual device.
    pub device: &'a str,
    /// Largest payload of a frame in bytes; `None`: as it is.
    pub mtu: Option<usize>,
    /// MAC address that it is to have; `None`: its own.
    pub mac: Option<Mac>,
    /// Whether frames to other stations' MAC addresses are received as well.
    pub promiscuous: bool,
}

/// An open device.
#[derive(Debug)]
pub struct Opened {
    /// One a worker, in the order of their pools.
    pub ports: Vec<Box<dyn Port>>,
    /// Its driver, and how packets find their queue, for people.
    pub kind: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest payload of a frame, in bytes.
    pub mtu: usize,
    /// How it is while it runs.
    pub monitor: Box<dyn Monitor>,
}

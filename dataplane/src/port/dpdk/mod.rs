//! NICs by DPDK's poll-mode drivers. The frame of a packet is an mbuf's buffer: nothing is copied.
//!
//! Built with the feature `dpdk` only. Without it everything here is still named, so that callers
//! are the same, and [`Eal::start`] says what is missing.

#[cfg(not(feature = "dpdk"))]
mod absent;
#[cfg(feature = "dpdk")]
mod device;
#[cfg(feature = "dpdk")]
mod eal;
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

use super::{Mac, Port, monitor::Monitor};

/// How DPDK's environment abstraction layer (EAL) is to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Cores that workers run on (`-l`). Not empty.
    pub cores: Vec<usize>,
    /// Memory to take at the start, in bytes (`-m`); `None`: what it asks for as it goes, from huge
    /// pages.
    pub memory: Option<usize>,
    /// Whether memory comes from huge pages; else from ordinary ones (`--no-huge`), which is for
    /// trying out.
    pub hugepages: bool,
    /// PCI addresses of the NICs that it may take (`-a`); none are touched but these.
    pub allow: Vec<String>,
    /// Virtual devices to make, each `driverN,key=value,…` (`--vdev`).
    pub vdev: Vec<String>,
    /// Further options, word by word as EAL takes them.
    pub options: Vec<String>,
}

/// Memory of an mbuf besides its buffer, in bytes, at most.
const MBUF: usize = 256;
/// Memory besides frames: drivers' rings and EAL's own.
const BESIDES: usize = 64 << 20;

impl Options {
    /// Returns the memory that is enough for `workers` pools of `frames` frames of `frame` bytes
    /// each, in bytes: what to take at the start if there are no huge pages, for then it cannot
    /// grow.
    pub fn memory_for(workers: usize, frames: usize, frame: usize) -> usize {
        frames.saturating_mul(frame + MBUF).saturating_mul(workers).saturating_add(BESIDES)
    }
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
    /// Whether UDP checksums over IPv6 are wanted of it, if it can
    /// ([`OpenDevice::fills_checksums`]).
    pub fill_checksums: bool,
}

/// An open device.
#[derive(Debug)]
pub struct OpenDevice {
    /// One a worker, in the order of their pools.
    pub ports: Vec<Box<dyn Port>>,
    /// Its driver, and how packets find their queue, for people.
    pub kind: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest payload of a frame, in bytes.
    pub mtu: usize,
    /// Whether it fills in the UDP checksum of a packet that lacks it
    /// ([`Packet::lacks_checksum`](crate::packet::Packet::lacks_checksum)).
    pub fills_checksums: bool,
    /// How it is while it runs.
    pub monitor: Box<dyn Monitor>,
}

/// Returns what DPDK says of the last call of this thread that failed.
#[cfg(feature = "dpdk")]
#[allow(unsafe_code, reason = "DPDK's functions")]
fn last_error() -> String {
    // SAFETY: a constant string, or one of this thread that stays until its next call.
    unsafe { std::ffi::CStr::from_ptr(sys::wf_last_error()) }.to_string_lossy().into_owned()
}

//! Replaces DPDK in a program that was built without it.

use super::{OpenDevice, Options, Request};
use crate::{pool::Pool, port::PortError};

/// DPDK's environment, which does not exist in this program.
#[derive(Debug)]
pub enum Eal {}

impl Eal {
    /// The version of DPDK that this program was built with.
    pub const VERSION: Option<&str> = None;

    /// Starts DPDK, once in a process.
    ///
    /// # Errors
    /// Always, because this program was built without DPDK.
    pub fn start(_: &Options) -> Result<Self, PortError> {
        let reason =
            "this program was built without it; build it with: cargo build --release --features dpdk";
        Err(PortError::NotSupported { device: "dpdk".into(), reason: reason.into() })
    }

    /// Returns the largest number of receive and transmit queues of `device`, or `None` if there is
    /// no such device.
    pub fn queues(&self, _: &str) -> Option<usize> {
        match *self {}
    }

    /// Returns a pool for a worker on a core, with this number of frames of this many bytes. Its
    /// frames are mbufs.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn pool(&self, _: usize, _: usize, _: usize) -> Result<Pool, PortError> {
        match *self {}
    }

    /// Opens a device for as many workers as there are pools, all made by [`Eal::pool`].
    ///
    /// # Errors
    /// There is no such device, it has fewer queues than there are workers, or its driver refuses
    /// the request.
    pub fn open(&self, _: &Request<'_>, _: &mut [Pool]) -> Result<OpenDevice, PortError> {
        match *self {}
    }
}

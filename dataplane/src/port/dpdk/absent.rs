//! In place of DPDK in a program that was built without it.

use super::{OpenDevice, Options, Request};
use crate::{pool::Pool, port::PortError};

/// DPDK's environment, of which there is none here.
#[derive(Debug)]
pub enum Eal {}

impl Eal {
    /// The version of DPDK that was found when this program was built.
    pub const VERSION: Option<&str> = None;

    /// Starts DPDK, once in a process.
    ///
    /// # Errors
    /// Always: this program was built without it.
    pub fn start(_: &Options) -> Result<Self, PortError> {
        let reason =
            "this program was built without it; build it with: cargo build --release --features dpdk";
        Err(PortError::NotSupported { device: "dpdk".into(), reason: reason.into() })
    }

    /// Returns the receive and transmit queues that `device` has at most; `None` if there is no
    /// such device.
    pub fn queues(&self, _: &str) -> Option<usize> {
        match *self {}
    }

    /// Returns a pool for a worker on a core, of so many frames of so many bytes each, whose frames
    /// are mbufs.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn pool(&self, _: usize, _: usize, _: usize) -> Result<Pool, PortError> {
        match *self {}
    }

    /// Opens a device for as many workers as there are pools, all made by [`Eal::pool`].
    ///
    /// # Errors
    /// There is no such device, it has fewer queues than there are workers, or its driver refuses
    /// what is asked.
    pub fn open(&self, _: &Request<'_>, _: &mut [Pool]) -> Result<OpenDevice, PortError> {
        match *self {}
    }
}

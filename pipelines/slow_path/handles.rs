//! What the slow path holds of workers and ports.

use super::neighbours::Segment;
use crate::gateway::{counters::WorkerCounters, rings::Rings};
use std::sync::Arc;
use wayfarer_dataplane::port::{monitor::Monitor, open::SharedDevice};

/// What the slow path shares with one worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Its rings.
    pub rings: Arc<Rings>,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// The core it is pinned to.
    pub core: Option<usize>,
}

/// What the slow path knows of one port.
#[derive(Debug)]
pub struct PortHandle {
    /// Its name.
    pub name: String,
    /// Its kind and mode, for people.
    pub kind: String,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// The kernel's index of its device, if it is one.
    pub device: Option<u32>,
    /// What neighbour discovery needs.
    pub segment: Segment,
    /// What a device that is shared with the kernel has besides its queues, which do not carry
    /// neighbour discovery.
    pub shared: Option<SharedDevice>,
    /// What tells the state of its device, if it is one.
    pub monitor: Option<Box<dyn Monitor>>,
}

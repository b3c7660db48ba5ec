//! The slow path's handles of workers and ports.

use super::neighbours::Segment;
use crate::gateway::{counters::WorkerCounters, rings::Rings};
use std::sync::Arc;
use wayfarer_dataplane::{
    port::{
        monitor::Monitor,
        neighbour_socket::NeighbourSocket,
        open::{Reopener, SharedDevice},
        vlan::Tagging,
    },
    wire::vlan::Vlan,
};

/// The parts of a worker that the slow path shares.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// The rings between the worker and the slow path.
    pub rings: Arc<Rings>,
    /// The worker's counters.
    pub counters: Arc<WorkerCounters>,
    /// The core that the worker is pinned to.
    pub core: Option<usize>,
}

/// One of the ports that share a device.
#[derive(Clone, Copy, Debug)]
pub struct SubPort {
    /// Index of the port.
    pub port: usize,
    /// The port's VLAN; `None`: it is in none.
    pub tagging: Option<Tagging>,
}

/// Returns the kind of a port, for people, from that of its device.
pub fn kind_in_vlan(device: &str, tagging: Option<Tagging>) -> String {
    tagging.map_or_else(|| device.to_owned(), |tagging| format!("{device}, VLAN {}", tagging.vlan))
}

/// The slow path's handle of a port.
#[derive(Debug)]
pub struct PortHandle {
    /// The port's name.
    pub name: String,
    /// The port's kind and mode, for people.
    pub kind: String,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// The largest value that `mtu` may take while the gateway follows the device's, in bytes.
    pub mtu_limit: usize,
    /// Longest IP packet that a frame holds, in bytes; [`usize::MAX`] on ports without a device, and on
    /// TAP devices of exception paths.
    pub frames_hold: usize,
    /// The name of the port's device: of one of the kernel's, its primary name, which the barrier knows;
    /// `None` on ports without a device, or if the barrier does not know the device yet.
    pub device_name: Option<String>,
    /// The kernel's index of the port's device, if there is one. Ports in VLANs have none.
    pub device: Option<u32>,
    /// The VLAN that the port is in.
    pub vlan: Option<Vlan>,
    /// The ports that share the device, in the order in which it is divided. Only for the first of
    /// them, and empty if the port has its device for itself.
    pub sub_ports: Vec<SubPort>,
    /// Index of the port that this one stands for in the kernel, as the TAP device of its exception path.
    pub exception_of: Option<usize>,
    /// The port's addresses, for neighbour discovery.
    pub segment: Segment,
    /// The sockets and classifier of a device that is shared with the kernel.
    pub shared: Option<SharedDevice>,
    /// The monitor of the port's device, if there is one.
    pub monitor: Option<Box<dyn Monitor>>,
    /// Opens the port's device again when it comes back; `None` if that is not possible.
    pub reopener: Option<Reopener>,
}

impl PortHandle {
    /// Returns the socket for ARP and neighbour discovery of a device that is shared with the kernel.
    /// Other ports carry those frames themselves.
    pub(super) fn neighbour_socket(&self) -> Option<&NeighbourSocket> {
        self.shared.as_ref()?.neighbours.as_ref()
    }
}

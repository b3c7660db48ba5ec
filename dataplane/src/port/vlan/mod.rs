//! Several ports on one device: each in a VLAN of its own, and at most one in none.
//!
//! ```text
//! device ─► trunk ─┬─► port without a VLAN: frames without tags, and those with foreign ones
//!                  ├─► port in VLAN 100: its frames, without their tag
//!                  └─► port in VLAN [100, 200]
//! ```
//!
//! The ports of one worker share a trunk. Only the worker uses it, so its lock is never contended.
//! The device is read only if no frame waits in the trunk. So all that one burst of the device brings
//! finds room, and what the worker has not fetched yet waits in the device's own ring.
//!
//! A device may take single 802.1Q tags off frames, and put them on. Then a tag comes and goes beside the
//! data of a packet, and the trunk moves no bytes.

mod monitor;
mod tagging;
#[cfg(test)]
mod tests;
mod trunk;

pub(super) use tagging::put_back;
pub use tagging::{Priority, Tagging};

use super::{Port, PortStats, monitor::Monitor};
use crate::{
    packet::Burst,
    pool::{Pool, Returned},
};
use monitor::SubPortMonitor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trunk::Trunk;

/// The parts of a port that shares its device.
#[derive(Debug)]
pub struct SubPort {
    /// One port for each worker.
    pub queues: Vec<Box<dyn Port>>,
    /// The state of the device, as far as it is this port's.
    pub monitor: Option<Box<dyn Monitor>>,
}

/// Divides a device with a queue for each worker among ports: one for each of `taggings`, of which
/// `None` is the port in no VLAN. Losses and errors of the device are the first port's.
pub fn divide(
    queues: Vec<Box<dyn Port>>,
    monitor: Option<Box<dyn Monitor>>,
    taggings: &[Option<Tagging>],
) -> Vec<SubPort> {
    let trunks: Vec<_> =
        queues.into_iter().map(|queue| Arc::new(Mutex::new(Trunk::new(queue, taggings)))).collect();
    let monitor = monitor.map(|monitor| Arc::new(Mutex::new(monitor)));
    let sub_port = |(index, tagging): (usize, &Option<Tagging>)| SubPort {
        queues: trunks.iter().map(|trunk| Box::new(VlanPort { trunk: trunk.clone(), index }) as _).collect(),
        monitor: monitor.clone().map(|device| {
            let mtu_cost = tagging.map_or(0, |tagging| tagging.vlan.mtu_cost());
            Box::new(SubPortMonitor { device, is_first: index == 0, mtu_cost }) as _
        }),
    };
    taggings.iter().enumerate().map(sub_port).collect()
}

/// One worker's queue of a port that shares its device.
struct VlanPort {
    trunk: Arc<Mutex<Trunk>>,
    index: usize,
}

impl VlanPort {
    /// Returns the trunk. After a panic of its worker it is still consistent.
    fn trunk(&self) -> MutexGuard<'_, Trunk> {
        self.trunk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port for VlanPort {
    fn attach(&mut self) {
        self.trunk().attach();
    }

    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.trunk().rx(self.index, pool, burst);
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.trunk().tx(self.index, pool, burst);
    }

    fn flush(&mut self, pool: &mut Pool) {
        self.trunk().device.flush(pool);
    }

    fn is_exhausted(&self) -> bool {
        self.trunk().is_exhausted(self.index)
    }

    fn is_absent(&self) -> bool {
        self.trunk().device.is_absent()
    }

    fn is_down(&self) -> bool {
        self.trunk().device.is_down()
    }

    fn is_drained(&self) -> bool {
        self.trunk().device.is_drained()
    }

    fn refused(&self) -> u64 {
        self.trunk().refused(self.index)
    }

    /// Closes the port, and the device with the last of its ports.
    fn close(self: Box<Self>) -> Returned {
        let mut frames = self.trunk().retire(self.index);
        if let Some(last) = Arc::into_inner(self.trunk) {
            frames.extend(last.into_inner().unwrap_or_else(PoisonError::into_inner).close());
        }
        frames
    }

    fn stats(&self) -> PortStats {
        self.trunk().stats(self.index)
    }
}

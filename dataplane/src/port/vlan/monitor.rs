//! The state of a device for one of the ports that share it.

use crate::port::monitor::{DeviceState, Monitor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of the device, with the MTU that is left for a port's IP packets. The device's losses
/// and counters are only the first port's, so that nothing counts twice.
#[derive(Debug)]
pub(super) struct SubPortMonitor {
    pub(super) device: Arc<Mutex<Box<dyn Monitor>>>,
    pub(super) is_first: bool,
    /// See [`Vlan::mtu_cost`](crate::wire::vlan::Vlan::mtu_cost).
    pub(super) mtu_cost: usize,
}

impl SubPortMonitor {
    fn device(&self) -> MutexGuard<'_, Box<dyn Monitor>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for SubPortMonitor {
    fn state(&self) -> DeviceState {
        let state = self.device().state();
        let mtu = state.mtu.map(|mtu| mtu.saturating_sub(self.mtu_cost));
        match self.is_first {
            true => DeviceState { mtu, ..state },
            false => DeviceState { mtu, rx_missed: 0, rx_errors: 0, tx_errors: 0, ..state },
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        if self.is_first { self.device().counters() } else { Vec::new() }
    }
}

//! Stands for a device that is gone, or that has not appeared yet.

use super::{
    Port, PortStats,
    monitor::{DeviceState, Monitor},
};
use crate::{packet::Burst, pool::Pool};

/// A queue that receives nothing and takes nothing.
#[derive(Clone, Copy, Debug)]
pub struct AbsentPort;

impl Port for AbsentPort {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn tx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn is_absent(&self) -> bool {
        true
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

/// The state of a device that has not appeared yet, or that does not come back.
#[derive(Clone, Copy, Debug, Default)]
pub struct AbsentDevice {
    rx_missed: u64,
    rx_errors: u64,
    tx_errors: u64,
}

impl AbsentDevice {
    /// Stands for a device whose last state was `last`. What it counted stays.
    pub fn after(last: &DeviceState) -> Self {
        let DeviceState { rx_missed, rx_errors, tx_errors, .. } = *last;
        Self { rx_missed, rx_errors, tx_errors }
    }
}

impl Monitor for AbsentDevice {
    fn state(&self) -> DeviceState {
        let Self { rx_missed, rx_errors, tx_errors } = *self;
        DeviceState { is_gone: true, rx_missed, rx_errors, tx_errors, ..DeviceState::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_device_outlive_it() {
        let last = DeviceState {
            is_up: true,
            mtu: Some(1500),
            rx_missed: 1,
            rx_errors: 2,
            tx_errors: 3,
            ..DeviceState::default()
        };
        let expected = DeviceState { is_up: false, is_gone: true, mtu: None, ..last.clone() };
        assert_eq!(AbsentDevice::after(&last).state(), expected);
    }
}

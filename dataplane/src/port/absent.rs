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

/// The state of a device that has not appeared yet.
#[derive(Clone, Copy, Debug)]
pub struct AbsentDevice;

impl Monitor for AbsentDevice {
    fn state(&self) -> DeviceState {
        DeviceState { is_gone: true, ..DeviceState::default() }
    }
}

//! The state of a device that ports use.

use super::{
    PortError,
    classifier::NEEDS,
    device::Device,
    monitor::{DeviceState, Monitor},
    sys,
};
use std::os::fd::OwnedFd;

/// A device with a packet socket that is bound to it and receives nothing. The kernel unbinds the
/// socket for good when the device is removed, or moved to another network namespace. So a device that
/// is made with the same name and index at once afterwards is not taken for it.
#[derive(Debug)]
pub(super) struct BoundDevice {
    device: Device,
    socket: OwnedFd,
    /// The number of its receive queues that ports serve; `None` if they serve whatever there are.
    served_queues: Option<u32>,
}

impl BoundDevice {
    /// Binds a socket to a device. Ports are opened afterwards, so that they are on no later device.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub(super) fn new(device: Device) -> Result<Self, PortError> {
        let bind = || {
            // With protocol 0 it receives nothing.
            let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
            sys::bind_packet(&socket, device.index(), 0)?;
            Ok(socket)
        };
        let failed = |e| PortError::system(device.name(), "watch the device", NEEDS, e);
        let socket = bind().map_err(failed)?;
        Ok(Self { device, socket, served_queues: None })
    }

    /// Notes that ports serve no more than the first `queues` of its receive queues.
    pub(super) fn with_served_queues(self, queues: u32) -> Self {
        Self { served_queues: Some(queues), ..self }
    }

    /// Returns the device.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}

impl Monitor for BoundDevice {
    fn state(&self) -> DeviceState {
        match sys::bound_device(&self.socket) {
            Ok(index) if index == self.device.index() => {
                let state = self.device.state();
                // Another device may have had its name meanwhile.
                let has_more =
                    |served| self.device.queues() > served && self.device.state().name == state.name;
                let has_unserved_queues = self.served_queues.is_some_and(has_more);
                DeviceState { has_unserved_queues, ..state }
            }
            _ => DeviceState { is_gone: true, ..DeviceState::default() },
        }
    }
}

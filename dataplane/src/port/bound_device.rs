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
        Ok(Self { device, socket })
    }

    /// Returns the device.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }
}

impl Monitor for BoundDevice {
    fn state(&self) -> DeviceState {
        match sys::bound_device(&self.socket) {
            Ok(index) if index == self.device.index() => self.device.state(),
            _ => DeviceState { is_gone: true, ..DeviceState::default() },
        }
    }
}

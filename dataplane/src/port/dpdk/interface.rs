//! Virtual devices of DPDK whose drivers use a device of the kernel's. Not every driver tells what becomes of
//! that: `net_af_packet` is always up.

use crate::port::{
    PortError,
    bound_device::BoundDevice,
    device::Device,
    monitor::{DeviceState, Monitor},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A device of DPDK and the kernel's device that its driver uses.
#[derive(Debug)]
struct OnInterface {
    own: Box<dyn Monitor>,
    interface: BoundDevice,
    /// Where the kernel tells of a queue that the driver has of the interface, if that is a TAP device.
    queue: Option<PathBuf>,
}

/// Returns a monitor of a device of DPDK, with monitor `own`, whose driver uses `interface`: it has the
/// carrier of that, an MTU that both have, and is gone with it.
///
/// # Errors
/// [`PortError::Permission`] without CAP_NET_RAW.
pub fn on_interface(own: Box<dyn Monitor>, interface: Device) -> Result<Box<dyn Monitor>, PortError> {
    let queue = queue_of(interface.name());
    let interface = BoundDevice::new(interface)?;
    Ok(Box::new(OnInterface { own, interface, queue }))
}

impl Monitor for OnInterface {
    fn state(&self) -> DeviceState {
        let (own, interface) = (self.own.state(), self.interface.state());
        // The far end of a TAP device may be in another network namespace, where nobody sees its carrier.
        let is_elsewhere = || self.queue.as_deref().and_then(tap_device).is_some();
        match interface.is_gone {
            _ if own.is_gone => own,
            true if is_elsewhere() => DeviceState { is_up: true, ..own },
            true => interface,
            false => {
                let mtu = [own.mtu, interface.mtu].into_iter().flatten().min();
                DeviceState { mtu, is_up: interface.is_up, ..own }
            }
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.own.counters()
    }
}

/// Returns where the kernel tells of a file of this process that is a queue of the TAP device `name`.
fn queue_of(name: &str) -> Option<PathBuf> {
    let mut files = fs::read_dir("/proc/self/fdinfo").ok()?.flatten().map(|file| file.path());
    files.find(|file| tap_device(file).as_deref() == Some(name))
}

/// Returns the name of the TAP device that a file is a queue of, in whatever network namespace that device
/// is. Returns `None` once the device is gone.
fn tap_device(file: &Path) -> Option<String> {
    let about = fs::read_to_string(file).ok()?;
    let name = about.lines().find_map(|line| line.strip_prefix("iff:\t"))?;
    (!name.is_empty()).then(|| name.to_owned())
}

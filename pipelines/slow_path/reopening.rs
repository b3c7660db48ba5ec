//! Ports whose devices disappear and come back: a USB modem, a veth pair or VLAN that is made again.
//!
//! While a device is gone, workers have an [`AbsentPort`] in its place, which drops what they send.
//! The barrier stays, because it knows the device by its name.

use super::{SlowPath, view::mac_text};
use std::time::Duration;
use tracing::{info, warn};
use wayfarer_dataplane::port::{absent::AbsentPort, open::OpenDevice};

impl SlowPath {
    /// Closes a port whose device is gone.
    pub(super) fn close_port(&mut self, port: usize) {
        self.network.ports[port].shared = None;
        for worker in &self.workers {
            worker.rings.replace_port(port, Box::new(AbsentPort));
        }
    }

    /// Opens a port on the device that has its device's name now.
    pub(super) fn open_port(&mut self, now: Duration, port: usize) {
        let handle = &self.network.ports[port];
        let Some(reopener) = &handle.reopener else { return };
        let host = self.kernel.as_ref().map(|kernel| kernel.addresses()).into_iter().flatten();
        let opened = reopener.open(host);
        self.devices.opened(now, port, opened.is_ok());
        let line = self.devices.admits_line(now, port);
        match opened {
            Ok(opened) => {
                let (kind, mac, mtu) = (opened.driver.to_string(), opened.mac, Some(opened.mtu));
                self.use_device(port, opened);
                if let Some(left_out) = line {
                    let (port, mac) = (&self.network.ports[port].name, mac_text(mac));
                    info!(name: "device_opened", port, kind, mac, left_out, "the device was opened again");
                }
                self.follow_mtu(now, port, mtu);
            }
            Err(why) => {
                if let Some(left_out) = line {
                    let port = &self.network.ports[port].name;
                    warn!(name: "device_not_opened", port, left_out, %why, "the device is there, but cannot be opened");
                }
            }
        }
    }

    /// Has the workers and the slow path use a device in place of a port's earlier one.
    fn use_device(&mut self, port: usize, opened: OpenDevice) {
        let OpenDevice { ports, driver, mac, index, shared, monitor, .. } = opened;
        // Frames to the new address must be known when the first one comes.
        self.links.tables.tables.settings.ports[port].mac.set(mac);
        let handle = &mut self.network.ports[port];
        handle.kind = driver.to_string();
        handle.segment.mac = mac;
        handle.device = Some(index);
        handle.shared = shared;
        handle.monitor = Some(monitor);
        for (worker, queue) in self.workers.iter().zip(ports) {
            worker.rings.replace_port(port, queue);
        }
        self.neighbours.restart(port as u16, mac);
        if let Some(kernel) = &mut self.kernel {
            kernel.set_device(port as u16, index);
        }
    }

    /// Closes the ports that workers no longer use.
    pub(super) fn close_old_ports(&self) {
        for worker in &self.workers {
            while worker.rings.old_ports.pop().is_some() {}
        }
    }
}

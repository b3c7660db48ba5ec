//! Follows the devices of ports, and logs what has changed.
//!
//! A device may disappear and come back: a USB modem, a veth pair or VLAN that is made again. A TAP
//! device is made again here. While a device is gone, workers have an [`AbsentPort`] in its place,
//! which drops what they send. The barrier stays, because it knows the device by its name.

use super::{
    SlowPath,
    devices::{Change, new_host_mac, new_mtu},
    neighbours::Stations,
    view::mac_text,
};
use std::time::Duration;
use tracing::{error, info, warn};
use wayfarer_dataplane::port::{absent::AbsentPort, monitor::DeviceState, open::OpenDevice};

impl SlowPath {
    /// Polls the devices if it is time, and follows what changed.
    pub(super) fn handle_devices(&mut self, now: Duration) {
        if self.devices.must_fit(now) {
            self.links.fit_ports(&self.network);
        }
        for Change { port, state, has_moved, must_open } in self.devices.poll(now, &self.network.ports) {
            if has_moved {
                self.log_device(now, port, &state);
            }
            if has_moved && state.is_gone {
                self.close_port(port);
            }
            if must_open {
                self.open_port(now, port);
            }
            self.follow_mtu(now, port, state.mtu);
            self.follow_host_mac(now, port, &state);
        }
    }

    fn log_device(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let Some(left_out) = self.devices.admits_line(now, port) else { return };
        let handle = &self.network.ports[port];
        let port = &handle.name;
        match state {
            DeviceState { is_gone: true, .. } if handle.reopener.is_some() => {
                warn!(name: "device_gone", port, left_out, "there is no device: this port waits for it");
            }
            DeviceState { is_gone: true, .. } => {
                error!(
                    name: "device_gone", port, left_out,
                    "the device is gone: no traffic passes this port until the gateway is restarted"
                );
            }
            DeviceState { is_up: false, .. } => {
                info!(name: "device_down", port, left_out, "the device is down")
            }
            DeviceState { speed: speed_mbps, .. } => {
                info!(name: "device_up", port, speed_mbps, left_out, "the device is up");
            }
        }
    }

    /// Sends frames for the host to the MAC address that its end of a TAP device has now.
    fn follow_host_mac(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let Some(mac) = new_host_mac(&self.network.ports[port], state) else { return };
        self.set_stations(port, Stations::Only(mac));
        if let Some(left_out) = self.devices.admits_line(now, port) {
            let (port, mac) = (&self.network.ports[port].name, mac_text(mac));
            info!(name: "device_mac", port, mac, left_out, "the host's MAC address on the device has changed");
        }
    }

    fn set_stations(&mut self, port: usize, stations: Stations) {
        self.network.ports[port].segment.stations = stations;
        if let (Some(host), Stations::Only(mac)) = (&self.links.tables.tables.settings.host, stations)
            && usize::from(host.port) == port
        {
            host.mac.set(mac);
        }
        self.network.routes.set_stations(&mut self.links.tables, port as u16, stations);
    }

    /// Makes a port take its device's MTU: what is forwarded, what tunnels carry, and what senders are
    /// told (RFC 4301 §8.2).
    fn follow_mtu(&mut self, now: Duration, port: usize, mtu: Option<usize>) {
        let handle = &mut self.network.ports[port];
        let Some(mtu) = new_mtu(handle, mtu) else { return };
        let from = std::mem::replace(&mut handle.mtu, mtu);
        self.links.tables.tables.settings.ports[port].set_mtu(mtu);
        self.links.fit_ports(&self.network);
        if let Some(left_out) = self.devices.admits_line(now, port) {
            let port = &self.network.ports[port].name;
            info!(name: "device_mtu", port, from, mtu, left_out, "the device's MTU has changed");
        }
    }

    /// Closes a port whose device is gone.
    fn close_port(&mut self, port: usize) {
        self.network.ports[port].shared = None;
        for worker in &self.workers {
            worker.rings.replace_port(port, Box::new(AbsentPort));
        }
    }

    /// Opens a port on the device that has its device's name now.
    fn open_port(&mut self, now: Duration, port: usize) {
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
        let OpenDevice { ports, driver, mac, index, station, shared, monitor, .. } = opened;
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
        let stations = station.map_or(Stations::Ask, Stations::Only);
        self.set_stations(port, stations);
        self.neighbours.restart(port as u16, mac, stations);
        let is_host = self.links.tables.tables.settings.host.as_ref();
        if is_host.is_some_and(|host| usize::from(host.port) == port) {
            if let Some(ike) = &mut self.ike {
                ike.use_host_device(index, &self.links);
            }
        } else if let Some(kernel) = &mut self.kernel {
            kernel.set_device(port as u16, index);
        }
    }

    /// Closes the ports that workers no longer use, and gives the workers the frames that these held.
    pub(super) fn close_old_ports(&self) {
        for worker in &self.workers {
            while let Some((port, old)) = worker.rings.old_ports.pop() {
                let returned = old.close();
                let frames = returned.len();
                if frames > 0 && worker.rings.return_frames(returned) {
                    let port = &self.network.ports[port].name;
                    info!(name: "frames_returned", port, frames, "the frames in the rings of the earlier device came back");
                }
            }
        }
    }
}

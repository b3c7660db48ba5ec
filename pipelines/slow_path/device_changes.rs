//! Follows the devices of ports, and logs what has changed.
//!
//! A device may disappear and come back: a USB modem, a veth pair or VLAN that is made again. A TAP
//! device, also that of an exception path, is made again here. While a device is gone, workers have an
//! [`AbsentPort`] in its place, which drops what they send. A device that gets another name stays the
//! port's. The barrier knows devices by their primary names, so it is told of each one that a device gets or
//! that a port opens, which may be configured by an alternative one. It also closes the kernel's own devices
//! in ports' VLANs as they appear.

use super::{
    SlowPath,
    devices::{Change, new_host_mac, new_mtu, new_name},
    handles::{PortHandle, SubPort, kind_in_vlan},
    neighbours::Stations,
    view::mac_text,
};
use crate::barrier::SharedBarrier;
use std::{sync::PoisonError, time::Duration};
use tracing::{info, warn};
use wayfarer_dataplane::port::{
    Mac, Port, PortError,
    absent::{AbsentDevice, AbsentPort},
    monitor::{DeviceState, Monitor},
    open::{OpenDevice, Reopener, SharedDevice},
    vlan,
};

/// What a port is on the device that it uses from now on.
struct Part {
    kind: String,
    mac: Mac,
    /// Largest IP packet, in bytes.
    mtu: usize,
    /// The kernel's index of the device, if its routes and addresses are the port's.
    device: Option<u32>,
    /// The MAC address of the only station, if there is only one.
    station: Option<Mac>,
    shared: Option<SharedDevice>,
}

impl SlowPath {
    /// Polls the devices if it is time, and follows what changed.
    pub(super) fn handle_devices(&mut self, now: Duration) {
        if self.devices.must_fit(now) {
            self.links.fit_ports(&self.network);
        }
        if self.devices.must_look(now)
            && let Some(barrier) = &self.barrier
            && !barrier.lock().unwrap_or_else(PoisonError::into_inner).close_vlans()
        {
            self.devices.look_again();
        }
        let changes = self.devices.poll(now, &self.network.ports);
        // Before any device is opened: one that is a port's may have got the name that another port looks for.
        for Change { port, state, .. } in &changes {
            self.follow_name(now, *port, state);
        }
        // The first of the ports that share a device opens it for all, so all are closed before.
        for Change { port, state, .. } in changes.iter().filter(|change| change.has_moved) {
            self.log_device(now, *port, state);
            self.workers.iter().for_each(|worker| worker.rings.set_down(*port, !state.is_up));
            if state.is_gone {
                self.close_port(*port);
            }
        }
        for Change { port, state, has_outgrown_frames, must_open, .. } in changes {
            if must_open {
                if state.has_unserved_queues {
                    self.log_unserved_queues(now, port);
                }
                self.open_device(now, port, state.name.as_deref());
            }
            let from = self.follow_mtu(port, state.mtu);
            if has_outgrown_frames {
                self.log_short_frames(now, port, state.mtu);
            } else if let Some(from) = from {
                self.log_mtu(now, port, from);
            }
            self.follow_host_mac(now, port, &state);
        }
    }

    fn log_device(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let Some(left_out) = self.devices.admits_line(now, port) else { return };
        let can_return = self.can_return(port);
        let port = &self.network.ports[port].name;
        match state {
            DeviceState { is_gone: true, .. } if can_return => {
                warn!(name: "device_gone", port, left_out, "there is no device: this port waits for it");
            }
            DeviceState { is_gone: true, .. } => {
                warn!(
                    name: "device_gone", port, left_out,
                    "there is no device: this port has none until the gateway is started again"
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

    /// Logs that a port goes on by AF_PACKET, which serves all queues.
    fn log_unserved_queues(&mut self, now: Duration, port: usize) {
        let Some(left_out) = self.devices.admits_line(now, port) else { return };
        let port = &self.network.ports[port].name;
        warn!(
            name: "device_queues", port, left_out,
            "the device has more receive queues than AF_XDP serves: this port uses AF_PACKET until the gateway is \
             started again"
        );
    }

    /// Goes on with a device that has got another name, once the host is closed by it.
    fn follow_name(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let Some(to) = new_name(&self.network.ports[port], state) else { return };
        let closed = self.close_host(port, to);
        let line = self.devices.admits_line(now, port);
        let handle = &mut self.network.ports[port];
        let port = &handle.name;
        match (closed, line) {
            (Ok(()), line) => {
                let from = handle.device_name.replace(to.to_owned());
                // For devices in its VLANs that could not be closed.
                self.devices.look_again();
                if let Some(left_out) = line {
                    info!(
                        name: "device_renamed", port, from, to, left_out,
                        "the device has another name: this port stays on it"
                    );
                }
            }
            (Err(why), Some(left_out)) => {
                warn!(
                    name: "device_not_closed", port, to, left_out, %why,
                    "the device has another name, by which the host may forward the gateway's traffic in clear"
                );
            }
            (Err(_), None) => {}
        }
    }

    /// Forgets the names of devices that `barrier` does not know, because a device got another one after it
    /// was closed and before it was opened. So such a device is followed like any with another name.
    pub(super) fn forget_open_names(&mut self, barrier: &SharedBarrier) {
        let barrier = barrier.lock().unwrap_or_else(PoisonError::into_inner);
        for PortHandle { device_name, reopener, .. } in &mut self.network.ports {
            if reopener.as_ref().is_some_and(|reopener| reopener.tap.is_none()) {
                device_name.take_if(|name| !barrier.has_closed(name));
            }
        }
    }

    /// Has the barrier know the device of a port by this primary name.
    fn close_host(&self, port: usize, name: &str) -> Result<(), PortError> {
        let Some(barrier) = &self.barrier else { return Ok(()) };
        let mut barrier = barrier.lock().unwrap_or_else(PoisonError::into_inner);
        let PortHandle { name: port, device_name, reopener, .. } = &self.network.ports[port];
        match (reopener.as_ref().and_then(|reopener| reopener.tap), device_name) {
            (None, _) => barrier.close(port, name),
            (Some(_), Some(earlier)) => barrier.rename_tap(earlier, name),
            (Some(_), None) => Ok(()),
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
    /// told (RFC 4301 §8.2). Returns the MTU before, in bytes, if that was another.
    fn follow_mtu(&mut self, port: usize, mtu: Option<usize>) -> Option<usize> {
        let handle = &mut self.network.ports[port];
        let mtu = new_mtu(handle, mtu)?;
        let from = std::mem::replace(&mut handle.mtu, mtu);
        self.links.tables.tables.settings.ports[port].set_mtu(mtu);
        self.links.fit_ports(&self.network);
        Some(from)
    }

    fn log_mtu(&mut self, now: Duration, port: usize, from: usize) {
        if let Some(left_out) = self.devices.admits_line(now, port) {
            let PortHandle { name: port, mtu, .. } = &self.network.ports[port];
            info!(name: "device_mtu", port, from, mtu, left_out, "the device's MTU has changed");
        }
    }

    /// Logs that frames are too short for a device's MTU.
    fn log_short_frames(&mut self, now: Duration, port: usize, device_mtu: Option<usize>) {
        let Some(left_out) = self.devices.admits_line(now, port) else { return };
        let PortHandle { name: port, mtu_limit: mtu, .. } = &self.network.ports[port];
        warn!(
            name: "frames_too_short", port, device_mtu, mtu, left_out,
            "a frame holds less than the device's MTU: the port takes no more, and longer packets that come in are \
             lost: raise gateway.frame_size, or start the gateway again without it (kind = \"af_xdp\" takes 4KiB at \
             most: use \"auto\" for more), or lower the MTU of the device and of those that it is connected to"
        );
    }

    /// Returns true if a device that is gone can be opened again, by this port or by the first of those
    /// that share it.
    fn can_return(&self, port: usize) -> bool {
        let has_part = |handle: &PortHandle| handle.sub_ports.iter().any(|part| part.port == port);
        let mut all = self.network.ports.iter().enumerate();
        all.any(|(index, handle)| handle.reopener.is_some() && (index == port || has_part(handle)))
    }

    /// Closes a port whose device is gone.
    fn close_port(&mut self, port: usize) {
        self.network.ports[port].shared = None;
        if !self.can_return(port) {
            // The monitor keeps DPDK's device open.
            let monitor = &mut self.network.ports[port].monitor;
            let last = monitor.as_ref().map(|monitor| monitor.state()).unwrap_or_default();
            *monitor = Some(Box::new(AbsentDevice::after(&last)));
        }
        self.nats.share_pings(port, None);
        for worker in &self.workers {
            worker.rings.replace_port(port, Box::new(AbsentPort));
        }
    }

    /// Opens a port's device, for that port and all others that share it: the one called `present`, or, if
    /// that is gone, the one that has the configured name now.
    fn open_device(&mut self, now: Duration, port: usize, present: Option<&str>) {
        let Some(reopener) = &self.network.ports[port].reopener else { return };
        let opened = self.open_again(port, reopener, present);
        self.devices.opened(now, port, opened.is_ok());
        let line = self.devices.admits_line(now, port);
        match opened {
            Ok(opened) => {
                self.network.ports[port].device_name = Some(opened.name.clone());
                // For devices in its VLANs that could not be closed.
                self.devices.look_again();
                let (kind, mac) = (opened.driver.to_string(), opened.mac);
                self.use_device(now, port, opened);
                if let Some(left_out) = line {
                    let (port, mac) = (&self.network.ports[port].name, mac_text(mac));
                    info!(name: "device_opened", port, kind, mac, left_out, "the device was opened again");
                }
            }
            Err(why) => {
                if let Some(left_out) = line {
                    let port = &self.network.ports[port].name;
                    warn!(name: "device_not_opened", port, left_out, %why, "the device is there, but cannot be opened");
                }
            }
        }
    }

    /// Opens the device of a port once the host is closed there.
    fn open_again(
        &self,
        port: usize,
        reopener: &Reopener,
        present: Option<&str>,
    ) -> Result<OpenDevice, PortError> {
        let name = reopener.primary_name(present)?;
        let ports = &self.network.ports;
        if let Some(user) = self.devices.user_of(&name, ports, port) {
            let reason = format!("port \"{user}\" has this device");
            return Err(PortError::NotSupported { device: name, reason });
        }
        self.close_host(port, &name)?;
        let host = self.kernel.as_ref().map(|kernel| kernel.addresses()).into_iter().flatten();
        let mut reopener = reopener.clone();
        if let (Some(tap), Some(of)) = (&mut reopener.tap, ports[port].exception_of) {
            // The port that it stands for may have followed another MTU since.
            tap.mtu = ports[of].mtu;
        }
        reopener.open(&name, host)
    }

    /// Has the workers and the slow path use a device in place of a port's earlier one, and divides it
    /// among the ports that share it.
    fn use_device(&mut self, now: Duration, port: usize, opened: OpenDevice) {
        if let Some(of) = self.network.ports[port].exception_of {
            return self.use_kernel_side(port, of, opened);
        }
        let OpenDevice { ports, driver, mac, mtu, index, station, mut shared, monitor, .. } = opened;
        let sub_ports = self.network.ports[port].sub_ports.clone();
        if sub_ports.is_empty() {
            let whole = Part { kind: driver.to_string(), mac, mtu, device: Some(index), station, shared };
            return self.use_part(now, port, whole, ports, Some(monitor));
        }
        let taggings: Vec<_> = sub_ports.iter().map(|sub_port| sub_port.tagging).collect();
        let parts = vlan::divide(ports, Some(monitor), &taggings);
        for (SubPort { port, tagging }, part) in sub_ports.into_iter().zip(parts) {
            let is_untagged = tagging.is_none();
            let own = Part {
                kind: kind_in_vlan(&driver.to_string(), tagging),
                mac,
                mtu: mtu.saturating_sub(tagging.map_or(0, |tagging| tagging.vlan.mtu_cost())),
                device: is_untagged.then_some(index),
                station,
                shared: if is_untagged { shared.take() } else { None },
            };
            self.devices.opened(now, port, true);
            self.use_part(now, port, own, part.queues, part.monitor);
        }
    }

    /// Has the workers use a TAP device, whose port is `port`, as the kernel's side of port `of`. The slow path
    /// follows the kernel's routes and addresses there.
    fn use_kernel_side(&mut self, port: usize, of: usize, opened: OpenDevice) {
        let OpenDevice { ports, index, monitor, .. } = opened;
        self.network.ports[port].monitor = Some(monitor);
        self.use_queues(port, ports);
        let earlier = self.network.ports[of].device.replace(index);
        self.kernel_sides.retain(|side| Some(*side) != earlier);
        self.kernel_sides.push(index);
        if let Some(kernel) = &mut self.kernel {
            kernel.set_device(of as u16, index);
        }
    }

    /// Has each worker use one of these queues as its queue of a port.
    fn use_queues(&self, port: usize, queues: Vec<Box<dyn Port>>) {
        for (worker, queue) in self.workers.iter().zip(queues) {
            worker.rings.replace_port(port, queue);
            worker.rings.set_down(port, false);
        }
    }

    /// Has the workers and the slow path use this part of a device as a port.
    fn use_part(
        &mut self,
        now: Duration,
        port: usize,
        Part { kind, mac, mtu, device, station, shared }: Part,
        queues: Vec<Box<dyn Port>>,
        monitor: Option<Box<dyn Monitor>>,
    ) {
        // Frames to the new address must be known when the first one comes.
        self.links.tables.tables.settings.ports[port].mac.set(mac);
        let handle = &mut self.network.ports[port];
        (handle.kind, handle.segment.mac, handle.device) = (kind, mac, device);
        self.nats.share_pings(port, shared.as_ref().map(|shared| shared.classifier.clone()));
        (handle.shared, handle.monitor) = (shared, monitor);
        self.use_queues(port, queues);
        let stations = station.map_or(Stations::Ask, Stations::Only);
        self.set_stations(port, stations);
        self.neighbours.restart(port as u16, mac, stations);
        let host = self.links.tables.tables.settings.host.as_ref();
        let is_host = host.is_some_and(|host| usize::from(host.port) == port);
        match (device, &mut self.ike, &mut self.kernel) {
            (Some(index), Some(ike), _) if is_host => ike.use_host_device(index, &self.links),
            (Some(index), _, Some(kernel)) if !is_host => kernel.set_device(port as u16, index),
            _ => {}
        }
        if let Some(from) = self.follow_mtu(port, Some(mtu)) {
            self.log_mtu(now, port, from);
        }
    }

    /// Closes a port that a worker no longer uses, and gives the worker the frames that it held. Others wait
    /// until the next turn, because it may take a while.
    pub(super) fn close_old_ports(&self) {
        for worker in &self.workers {
            if let Some((port, old)) = worker.rings.old_ports.pop() {
                let returned = old.close();
                let frames = returned.len();
                if frames > 0 && worker.rings.return_frames(returned) {
                    let port = &self.network.ports[port].name;
                    info!(name: "frames_returned", port, frames, "the frames in the rings of the earlier device came back");
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;

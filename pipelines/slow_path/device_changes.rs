//! Follows the devices of ports, and logs what has changed.
//!
//! A device may disappear and come back: a USB modem, a veth pair or VLAN that is made again. A TAP
//! device, also that of an exception path, is made again here. While a device is gone, workers have an
//! [`AbsentPort`] in its place, which drops what they send. The barrier stays, because it knows the device
//! by its primary name. A port may be configured by an alternative one, so the barrier is asked each time
//! that a device is opened. It also closes the kernel's own devices in ports' VLANs as they appear.

use super::{
    SlowPath,
    devices::{Change, new_host_mac, new_mtu},
    handles::{PortHandle, SubPort, kind_in_vlan},
    neighbours::Stations,
    view::mac_text,
};
use std::{sync::PoisonError, time::Duration};
use tracing::{info, warn};
use wayfarer_dataplane::port::{
    Mac, Port, PortError,
    absent::AbsentPort,
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
                self.open_device(now, port);
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
        let port = &self.network.ports[port].name;
        match state {
            DeviceState { is_gone: true, .. } => {
                warn!(name: "device_gone", port, left_out, "there is no device: this port waits for it");
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

    /// Closes a port whose device is gone.
    fn close_port(&mut self, port: usize) {
        self.network.ports[port].shared = None;
        self.nats.share_pings(port, None);
        for worker in &self.workers {
            worker.rings.replace_port(port, Box::new(AbsentPort));
        }
    }

    /// Opens the device that has the name of a port's device now, for that port and all others that
    /// share it.
    fn open_device(&mut self, now: Duration, port: usize) {
        let Some(reopener) = &self.network.ports[port].reopener else { return };
        let opened = self.open_again(port, reopener);
        self.devices.opened(now, port, opened.is_ok());
        let line = self.devices.admits_line(now, port);
        match opened {
            Ok((name, opened)) => {
                if let Some(reopener) = &mut self.network.ports[port].reopener {
                    reopener.earlier_name = name;
                }
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

    /// Opens the device of a port once the host is closed there. Returns it with its primary name.
    fn open_again(&self, port: usize, reopener: &Reopener) -> Result<(String, OpenDevice), PortError> {
        let name = reopener.primary_name()?;
        let ports = &self.network.ports;
        if let Some(user) = self.devices.user_of(&name, ports, port) {
            let reason = format!("port \"{user}\" has this device");
            return Err(PortError::NotSupported { device: name, reason });
        }
        if let Some(barrier) = self.barrier.as_ref().filter(|_| reopener.tap.is_none()) {
            barrier.lock().unwrap_or_else(PoisonError::into_inner).close(&ports[port].name, &name)?;
        }
        let host = self.kernel.as_ref().map(|kernel| kernel.addresses()).into_iter().flatten();
        let mut reopener = reopener.clone();
        if let (Some(tap), Some(of)) = (&mut reopener.tap, ports[port].exception_of) {
            // The port that it stands for may have followed another MTU since.
            tap.mtu = ports[of].mtu;
        }
        let opened = reopener.open(&name, host)?;
        Ok((name, opened))
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
mod tests {
    use super::*;
    use crate::{
        barrier::Barrier,
        config::{self, model::Config},
        gateway::tables::{Settings, Tables},
        namespace::alone,
    };
    use crossbeam::channel::bounded;
    use std::{
        path::Path,
        process::Command,
        sync::{Arc, Mutex},
        time::Instant,
    };
    use wayfarer_dataplane::table::Writer;

    const PORT: &str = "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"eth0\"\nvlan = 100\n\
                        addresses = [\"192.0.2.7/24\"]\n";

    fn add_veth(name: &str, peer: &str) {
        let arguments = ["link", "add", name, "type", "veth", "peer", "name", peer];
        assert!(Command::new("ip").args(arguments).status().unwrap().success(), "{name}");
    }

    /// Returns a slow path without workers and open ports.
    fn slow_path(config: &Config) -> SlowPath {
        let settings = Settings {
            ports: Box::default(),
            encap_ports: Box::default(),
            host: None,
            mss_clamp: false,
            discards: false,
            nats: Box::default(),
        };
        let writer = Writer::new();
        let tables = Arc::new(Tables::new(&writer, 16, settings));
        let ((_, requests), (_, new_ike)) = (bounded(1), bounded(1));
        SlowPath::new(config, writer, tables, vec![], vec![], (requests, new_ike)).unwrap()
    }

    /// Not every kernel has devices in VLANs, so others stand for them.
    #[test]
    fn host_is_closed_by_devices_of_its_own_in_a_ports_vlan_that_appear_later() {
        alone(|| {
            add_veth("eth0", "eth9");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
            let config = config::parse(PORT, &file).unwrap();
            let mut slow_path = slow_path(&config);
            let barrier = Arc::new(Mutex::new(Barrier::with_stand_ins(&config)));
            slow_path.use_barrier(barrier.clone());
            let closed = || barrier.lock().unwrap().closed_names().join(" ");
            // The list fails until there is a device.
            slow_path.handle_devices(Duration::ZERO);
            add_veth("guests", "guests9");
            slow_path.handle_devices(Duration::from_millis(999));
            assert_eq!(closed(), "eth0");
            slow_path.handle_devices(Duration::from_secs(1));
            assert_eq!(closed(), "eth0 guests", "it was not tried again");
            slow_path.follow_kernel(false, vec![]).unwrap();
            add_veth("staff", "staff9");
            let (mut now, end) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(10));
            while closed() != "eth0 guests staff" {
                assert!(Instant::now() < end, "a device that the kernel told of stays open");
                slow_path.handle_kernel(now);
                now += Duration::from_secs(1);
                slow_path.handle_devices(now);
            }
        });
    }
}

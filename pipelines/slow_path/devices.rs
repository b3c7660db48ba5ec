//! Follows the devices of ports: up and down, MTU, MAC address, removal and return. Logs what
//! changes.

use super::{SlowPath, handles::PortHandle, line_limit::LineLimit, neighbours::Stations, view::mac_text};
use std::{collections::BTreeMap, time::Duration};
use tracing::{error, info, warn};
use wayfarer_dataplane::port::{Mac, monitor::DeviceState, open::Reopener};

/// Time between two polls of the devices if the kernel tells nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two polls, so that a device that flaps does not keep the slow path busy.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);

/// Least time between two times that a device is opened again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

/// The devices' states at the last poll.
#[derive(Debug, Default)]
pub(super) struct Devices {
    next: Duration,
    /// When the devices may be polled again at the earliest.
    earliest: Duration,
    known: BTreeMap<usize, Known>,
}

/// What is known of the device of a port.
#[derive(Debug)]
struct Known {
    is_up: bool,
    is_gone: bool,
    /// True if it has another MAC address than the port, which cannot follow.
    is_foreign: bool,
    /// When it may be opened again at the earliest.
    open_at: Duration,
    /// Limits the log's lines about it.
    lines: LineLimit,
}

impl Default for Known {
    /// Every device is assumed to be up at first.
    fn default() -> Self {
        Self {
            is_up: true,
            is_gone: false,
            is_foreign: false,
            open_at: Duration::ZERO,
            lines: LineLimit::default(),
        }
    }
}

/// A device that differs from what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Index of the device's port.
    port: usize,
    /// The device's state.
    state: DeviceState,
    /// True if it came up, went down, disappeared, or got a MAC address that the port cannot follow.
    has_moved: bool,
    /// True if it must be opened again: it was gone, or has another MAC address.
    must_open: bool,
}

impl Devices {
    /// Has the devices polled as soon as that may be.
    pub(super) fn look_soon(&mut self) {
        self.next = self.next.min(self.earliest);
    }

    /// Polls the devices if it is time, and returns those that changed.
    fn poll(&mut self, now: Duration, ports: &[PortHandle]) -> Vec<Change> {
        if now < self.next {
            return Vec::new();
        }
        (self.next, self.earliest) = (now + POLL_INTERVAL, now + LEAST_INTERVAL);
        let monitored =
            (0..).zip(ports).filter_map(|(port, handle)| Some((port, handle, handle.monitor.as_ref()?)));
        monitored
            .filter_map(|(port, handle, monitor)| {
                let state = monitor.state();
                let known = self.known.entry(port).or_default();
                let is_foreign = has_other_mac(handle, &state) && handle.reopener.is_none();
                let before = (known.is_up, known.is_gone, known.is_foreign);
                (known.is_up, known.is_gone, known.is_foreign) = (state.is_up, state.is_gone, is_foreign);
                let has_moved = before != (state.is_up, state.is_gone, is_foreign);
                let must_open = now >= known.open_at && must_open(handle, &state);
                let has_changed = has_moved
                    || must_open
                    || new_mtu(handle, state.mtu).is_some()
                    || new_host_mac(handle, &state).is_some();
                has_changed.then_some(Change { port, state, has_moved, must_open })
            })
            .collect()
    }

    /// Returns true if the device of `port` is gone, or has not appeared yet.
    pub(super) fn is_gone(&self, port: u16) -> bool {
        self.known.get(&usize::from(port)).is_some_and(|known| known.is_gone)
    }

    /// Records that the device of `port` was opened again, or could not be.
    pub(super) fn opened(&mut self, now: Duration, port: usize, succeeded: bool) {
        let known = self.known.entry(port).or_default();
        known.open_at = now + REOPEN_INTERVAL;
        known.is_gone &= !succeeded;
        // The next poll tells whether it is up.
        known.is_up |= succeeded;
    }

    /// Returns `None` if a line about the device of `port` must be left out. Otherwise returns the
    /// number of lines that were left out before it, if there are any.
    pub(super) fn admits_line(&mut self, now: Duration, port: usize) -> Option<Option<u64>> {
        self.known.entry(port).or_default().lines.admits(now)
    }
}

/// Returns the MTU that a port must take to follow its device, in bytes.
fn new_mtu(port: &PortHandle, mtu: Option<usize>) -> Option<usize> {
    let is_followed = port.device.is_some();
    let mtu = mtu.filter(|_| is_followed)?.min(port.mtu_limit);
    (mtu != port.mtu).then_some(mtu)
}

/// Returns true if a device that is shared with the kernel has another MAC address than its port.
fn has_other_mac(port: &PortHandle, state: &DeviceState) -> bool {
    port.shared.is_some() && state.mac.is_some_and(|mac| mac != port.segment.mac)
}

/// Returns the MAC address that the host has at the other end of a port from now on.
fn new_host_mac(port: &PortHandle, state: &DeviceState) -> Option<Mac> {
    let Stations::Only(known) = port.segment.stations else { return None };
    let is_followed = port.device.is_some() && port.shared.is_none();
    state.mac.filter(|mac| is_followed && *mac != known)
}

/// Returns true if the device of a port must be opened again, and can be.
fn must_open(port: &PortHandle, state: &DeviceState) -> bool {
    (state.is_gone || has_other_mac(port, state)) && port.reopener.as_ref().is_some_and(Reopener::is_ready)
}

impl SlowPath {
    /// Polls the devices if it is time, and follows what changed.
    pub(super) fn handle_devices(&mut self, now: Duration) {
        for Change { port, state, has_moved, must_open } in self.devices.poll(now, &self.network.ports) {
            if has_moved {
                self.log_device(now, port, &state);
            }
            if has_moved && state.is_gone {
                self.close_port(port);
            }
            if must_open {
                self.open_port(now, port);
            } else {
                self.follow_mtu(now, port, state.mtu);
                self.follow_host_mac(now, port, &state);
            }
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
            _ if has_other_mac(handle, state) && handle.reopener.is_none() => {
                error!(
                    name: "device_mac", port, left_out,
                    "the device has another MAC address: what comes there is not the gateway's until it is \
                     restarted"
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
        self.network.ports[port].segment.stations = Stations::Only(mac);
        if let Some(host) = &self.links.tables.tables.settings.host
            && usize::from(host.port) == port
        {
            host.mac.set(mac);
        }
        self.network.routes.set_station(&mut self.links.tables, port as u16, mac);
        if let Some(left_out) = self.devices.admits_line(now, port) {
            let (port, mac) = (&self.network.ports[port].name, mac_text(mac));
            info!(name: "device_mac", port, mac, left_out, "the host's MAC address on the device has changed");
        }
    }

    /// Makes a port take its device's MTU: what is forwarded, what tunnels carry, and what senders are
    /// told (RFC 4301 §8.2).
    pub(super) fn follow_mtu(&mut self, now: Duration, port: usize, mtu: Option<usize>) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow_path::neighbours::{Segment, Stations};
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    };
    use wayfarer_dataplane::port::monitor::Monitor;

    /// A monitor whose state a test sets, and which counts how often it is polled.
    #[derive(Clone, Debug, Default)]
    struct FakeMonitor {
        is_up: Arc<AtomicBool>,
        is_gone: Arc<AtomicBool>,
        polls: Arc<AtomicU32>,
    }

    impl Monitor for FakeMonitor {
        fn state(&self) -> DeviceState {
            self.polls.fetch_add(1, Relaxed);
            let [is_up, is_gone] = [&self.is_up, &self.is_gone].map(|flag| flag.load(Relaxed));
            DeviceState { is_up, is_gone, speed: is_up.then_some(10_000), ..DeviceState::default() }
        }
    }

    fn port(monitor: Option<Box<dyn Monitor>>) -> PortHandle {
        let segment = Segment { mac: [2; 6], addresses: vec![], stations: Stations::Ask };
        PortHandle {
            name: "a".into(),
            kind: "fake".into(),
            mtu: 1500,
            mtu_limit: 1500,
            device: None,
            segment,
            shared: None,
            monitor,
            reopener: None,
        }
    }

    #[test]
    fn every_change_is_reported_once_and_devices_are_polled_at_most_once_a_second() {
        let devices = [FakeMonitor::default(), FakeMonitor::default()];
        devices[0].is_up.store(true, Relaxed);
        let ports =
            [port(Some(Box::new(devices[0].clone()))), port(None), port(Some(Box::new(devices[1].clone())))];
        let mut known = Devices::default();
        let mut poll = |ms| {
            let changes = known.poll(Duration::from_millis(ms), &ports);
            changes.into_iter().map(|c| (c.port, c.state.is_up, c.state.speed)).collect::<Vec<_>>()
        };
        assert_eq!(poll(0), [(2, false, None)]);
        devices[0].is_up.store(false, Relaxed);
        assert_eq!(poll(999), []);
        assert_eq!(devices[0].polls.load(Relaxed), 1);
        assert_eq!(poll(1000), [(0, false, None)]);
        assert_eq!(poll(2000), []);
        devices.iter().for_each(|device| device.is_up.store(true, Relaxed));
        assert_eq!(poll(3000), [(0, true, Some(10_000)), (2, true, Some(10_000))]);
        assert_eq!(poll(4000), []);
    }

    #[test]
    fn a_device_that_disappears_while_down_is_reported_gone() {
        let device = FakeMonitor::default();
        let ports = [port(Some(Box::new(device.clone())))];
        let mut known = Devices::default();
        let mut poll = |second| {
            let changes = known.poll(Duration::from_secs(second), &ports);
            changes.into_iter().map(|c| (c.state.is_up, c.state.is_gone)).collect::<Vec<_>>()
        };
        assert_eq!(poll(1), [(false, false)]);
        device.is_gone.store(true, Relaxed);
        assert_eq!(poll(2), [(false, true)]);
        assert_eq!(poll(3), []);
    }
}

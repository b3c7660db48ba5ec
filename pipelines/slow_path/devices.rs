//! Follows the devices of ports: up and down, MTU, removal. Logs what changes.

use super::{SlowPath, handles::PortHandle, line_limit::LineLimit};
use std::{collections::BTreeMap, time::Duration};
use tracing::{info, warn};
use wayfarer_dataplane::port::monitor::DeviceState;

/// Time between two polls of the devices if the kernel tells nothing.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two polls, so that a device that flaps does not keep the slow path busy.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);

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
    /// Limits the log's lines about it.
    lines: LineLimit,
}

impl Default for Known {
    /// Every device is assumed to be up at first.
    fn default() -> Self {
        Self { is_up: true, is_gone: false, lines: LineLimit::default() }
    }
}

/// A device that differs from what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Index of the device's port.
    port: usize,
    /// The device's state.
    state: DeviceState,
    /// True if it came up, went down or disappeared.
    has_moved: bool,
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
                let has_moved = (known.is_up, known.is_gone) != (state.is_up, state.is_gone);
                (known.is_up, known.is_gone) = (state.is_up, state.is_gone);
                let has_changed = has_moved || new_mtu(handle, &state).is_some();
                has_changed.then_some(Change { port, state, has_moved })
            })
            .collect()
    }

    /// Returns `None` if a line about the device of `port` must be left out. Otherwise returns the
    /// number of lines that were left out before it, if there are any.
    fn admits_line(&mut self, now: Duration, port: usize) -> Option<Option<u64>> {
        self.known.entry(port).or_default().lines.admits(now)
    }
}

/// Returns the MTU that a port must take to follow its device, in bytes.
fn new_mtu(port: &PortHandle, state: &DeviceState) -> Option<usize> {
    let is_followed = port.device.is_some();
    let mtu = state.mtu.filter(|_| is_followed)?.min(port.mtu_limit);
    (mtu != port.mtu).then_some(mtu)
}

impl SlowPath {
    /// Polls the devices if it is time, and follows what changed.
    pub(super) fn handle_devices(&mut self, now: Duration) {
        for Change { port, state, has_moved } in self.devices.poll(now, &self.network.ports) {
            if has_moved {
                self.log_device(now, port, &state);
            }
            self.follow_mtu(now, port, &state);
        }
    }

    fn log_device(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let Some(left_out) = self.devices.admits_line(now, port) else { return };
        let port = &self.network.ports[port].name;
        match state {
            DeviceState { is_gone: true, .. } => {
                warn!(
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

    /// Makes a port take its device's MTU: what is forwarded, what tunnels carry, and what senders are
    /// told (RFC 4301 §8.2).
    fn follow_mtu(&mut self, now: Duration, port: usize, state: &DeviceState) {
        let handle = &mut self.network.ports[port];
        let Some(mtu) = new_mtu(handle, state) else { return };
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

//! Logs when devices go down, come up or disappear. Nothing else is done about it.

use super::handles::PortHandle;
use std::{collections::BTreeMap, time::Duration};
use tracing::{info, warn};
use wayfarer_dataplane::port::monitor::DeviceState;

/// Time between two polls of the devices.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The devices' states at the last poll.
#[derive(Debug, Default)]
pub(super) struct Devices {
    next: Duration,
    /// For each port: whether its device was up, and whether it was gone.
    known: BTreeMap<usize, (bool, bool)>,
}

/// A device that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Index of the device's port.
    port: usize,
    /// The new state.
    state: DeviceState,
}

impl Devices {
    /// Polls the devices if it is time, and returns those that changed. Every device is assumed to
    /// be up at first.
    fn poll(&mut self, now: Duration, ports: &[PortHandle]) -> Vec<Change> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + POLL_INTERVAL;
        let monitored =
            ports.iter().enumerate().filter_map(|(port, handle)| Some((port, handle.monitor.as_ref()?)));
        let states = monitored.map(|(port, monitor)| Change { port, state: monitor.state() });
        let changed: Vec<_> = states
            .filter(|Change { port, state }| {
                let now = (state.is_up, state.is_gone);
                self.known.insert(*port, now).unwrap_or((true, false)) != now
            })
            .collect();
        changed
    }

    /// Polls the devices if it is time, and logs what changed.
    pub(super) fn log_changes(&mut self, now: Duration, ports: &[PortHandle]) {
        for Change { port, state } in self.poll(now, ports) {
            let port = ports.get(port).map_or("?", |port| &port.name);
            match state {
                DeviceState { is_gone: true, .. } => {
                    warn!(
                        name: "device_gone", port,
                        "the device is gone: no traffic passes this port until the gateway is restarted"
                    );
                }
                DeviceState { is_up: false, .. } => info!(name: "device_down", port, "the device is down"),
                DeviceState { speed: speed_mbps, .. } => {
                    info!(name: "device_up", port, speed_mbps, "the device is up");
                }
            }
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

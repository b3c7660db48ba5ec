//! Looks for changes of the devices of ports: up and down, MTU, MAC address, name, queues, removal and
//! return.

use super::{handles::PortHandle, line_limit::LineLimit, neighbours::Stations};
use std::{collections::BTreeMap, time::Duration};
use wayfarer_dataplane::port::{Mac, monitor::DeviceState};

/// Time between two polls of the devices if the kernel tells nothing. It may tell of a lost carrier only
/// after a second, by which the gateway must have followed.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Least time between two times that links are made to fit their ports.
const FIT_INTERVAL: Duration = Duration::from_secs(1);
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
    /// True if devices of the kernel, also others than the ports', must be looked for at the next poll.
    must_look: bool,
    /// True if links may leave by ports with other MTUs since the last call of [`Devices::must_fit`].
    have_routes_changed: bool,
    /// When links may be made to fit their ports again at the earliest.
    fit_at: Duration,
    /// True once the gateway ends, and takes its own devices away.
    has_ended: bool,
}

/// What is known of the device of a port.
#[derive(Debug)]
struct Known {
    is_up: bool,
    /// True if it was down when last looked at. It counts as down from the second time on: some
    /// devices lose their carrier for a moment as they are set up.
    was_down: bool,
    is_gone: bool,
    /// True if its MTU is beyond what frames hold.
    exceeds_frames: bool,
    /// When it may be opened again at the earliest.
    open_at: Duration,
    /// Limits the log's lines about it.
    lines: LineLimit,
}

impl Default for Known {
    /// Every device is assumed to be up at first.
    fn default() -> Self {
        let (open_at, lines) = (Duration::ZERO, LineLimit::default());
        Self { is_up: true, was_down: false, is_gone: false, exceeds_frames: false, open_at, lines }
    }
}

/// A device that differs from what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Index of the device's port.
    pub(super) port: usize,
    /// The device's state.
    pub(super) state: DeviceState,
    /// True if it came up, went down or disappeared.
    pub(super) has_moved: bool,
    /// True if its MTU has come to be beyond what frames hold.
    pub(super) has_outgrown_frames: bool,
    /// True if it must be opened again: it was gone, or has another MAC address, or more queues.
    pub(super) must_open: bool,
}

impl Devices {
    /// Has the devices polled as soon as that may be, and others looked for.
    pub(super) fn look_soon(&mut self) {
        self.next = self.next.min(self.earliest);
        self.must_look = true;
    }

    /// Has devices looked for once more, at the next poll that is due.
    pub(super) fn look_again(&mut self) {
        self.must_look = true;
    }

    /// Returns true once if the kernel may have other devices than before, and a poll is due.
    pub(super) fn must_look(&mut self, now: Duration) -> bool {
        now >= self.next && !self.has_ended && std::mem::take(&mut self.must_look)
    }

    /// Records that routes have changed, and so perhaps the ports by which links leave.
    pub(super) fn routes_changed(&mut self) {
        self.have_routes_changed = true;
    }

    /// Returns true if all links must be made to fit the ports that they leave by. Since that takes
    /// time for each link, it is at most once in a while, however often routes change.
    pub(super) fn must_fit(&mut self, now: Duration) -> bool {
        let must = self.have_routes_changed && now >= self.fit_at;
        if must {
            (self.have_routes_changed, self.fit_at) = (false, now + FIT_INTERVAL);
        }
        must
    }

    /// Ends all polls: what happens to the devices from now on is the gateway's own end.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Polls the devices if it is time, and returns those that changed.
    pub(super) fn poll(&mut self, now: Duration, ports: &[PortHandle]) -> Vec<Change> {
        if now < self.next || self.has_ended {
            return Vec::new();
        }
        (self.next, self.earliest) = (now + POLL_INTERVAL, now + LEAST_INTERVAL);
        let monitored =
            (0..).zip(ports).filter_map(|(port, handle)| Some((port, handle, handle.monitor.as_ref()?)));
        let (known, next, earliest) = (&mut self.known, &mut self.next, self.earliest);
        monitored
            .filter_map(|(port, handle, monitor)| {
                let state = monitor.state();
                let known = known.entry(port).or_default();
                let is_doubtful = !state.is_up && !state.is_gone && known.is_up && !known.was_down;
                known.was_down = !state.is_up;
                if is_doubtful {
                    *next = earliest;
                }
                let is_up = state.is_up || is_doubtful;
                let has_moved = (known.is_up, known.is_gone) != (is_up, state.is_gone);
                (known.is_up, known.is_gone) = (is_up, state.is_gone);
                let exceeds_frames = exceeds_frames(handle, state.mtu);
                let has_outgrown_frames = exceeds_frames && !known.exceeds_frames;
                known.exceeds_frames = exceeds_frames;
                let must_open = now >= known.open_at && must_open(handle, &state);
                let has_changed = has_moved
                    || has_outgrown_frames
                    || must_open
                    || new_mtu(handle, state.mtu).is_some()
                    || new_name(handle, &state).is_some()
                    || new_host_mac(handle, &state).is_some();
                has_changed.then_some(Change { port, state, has_moved, has_outgrown_frames, must_open })
            })
            .collect()
    }

    /// Returns true if the device of `port` is gone, or has not appeared yet.
    pub(super) fn is_gone(&self, port: u16) -> bool {
        self.known.get(&usize::from(port)).is_some_and(|known| known.is_gone)
    }

    /// Returns true if the device of `port` is there, but down.
    pub(super) fn is_down(&self, port: u16) -> bool {
        self.known.get(&usize::from(port)).is_some_and(|known| !known.is_up && !known.is_gone)
    }

    /// Returns the name of another port than `port` that has the device of this primary name open.
    pub(super) fn user_of<'a>(&self, device: &str, ports: &'a [PortHandle], port: usize) -> Option<&'a str> {
        let others =
            (0..).zip(ports).filter(|(other, _)| usize::from(*other) != port && !self.is_gone(*other));
        // It may have got another name since the last poll.
        let name_now = |handle: &PortHandle| {
            let state = handle.monitor.as_ref().map(|monitor| monitor.state());
            state.and_then(|state| state.name).or_else(|| handle.device_name.clone())
        };
        // Of the ports that share a device, only the first has a reopener.
        let has_device =
            |handle: &&PortHandle| handle.reopener.is_some() && name_now(handle).as_deref() == Some(device);
        others.map(|(_, handle)| handle).find(has_device).map(|handle| &handle.name[..])
    }

    /// Records that the device of `port` was opened again, or could not be.
    pub(super) fn opened(&mut self, now: Duration, port: usize, succeeded: bool) {
        let known = self.known.entry(port).or_default();
        known.open_at = now + REOPEN_INTERVAL;
        known.is_gone &= !succeeded;
        // The next polls tell whether it is up.
        known.is_up |= succeeded;
        known.was_down &= !succeeded;
    }

    /// Returns `None` if a line about the device of `port` must be left out. Otherwise returns the
    /// number of lines that were left out before it, if there are any.
    pub(super) fn admits_line(&mut self, now: Duration, port: usize) -> Option<Option<u64>> {
        self.known.entry(port).or_default().lines.admits(now)
    }
}

/// Returns the MTU that a port must take to follow its device, in bytes.
pub(super) fn new_mtu(port: &PortHandle, mtu: Option<usize>) -> Option<usize> {
    let mtu = mtu.filter(|_| is_followed(port))?.min(port.mtu_limit);
    (mtu != port.mtu).then_some(mtu)
}

/// Returns true if a device's MTU is beyond what frames hold: packets that come in may be longer,
/// whatever MTU the port has.
fn exceeds_frames(port: &PortHandle, mtu: Option<usize>) -> bool {
    is_followed(port) && mtu.is_some_and(|mtu| mtu > port.frames_hold)
}

/// Returns true if a port follows its device's MTU. The device of an exception path gets the one of the
/// port that it stands for.
fn is_followed(port: &PortHandle) -> bool {
    port.exception_of.is_none()
}

/// Returns the primary name that a port's device has now, if that is another one than before.
pub(super) fn new_name<'a>(port: &PortHandle, state: &'a DeviceState) -> Option<&'a str> {
    let name = state.name.as_deref().filter(|_| port.reopener.is_some())?;
    (port.device_name.as_deref() != Some(name)).then_some(name)
}

/// Returns the MAC address that the host has at the other end of a port from now on.
pub(super) fn new_host_mac(port: &PortHandle, state: &DeviceState) -> Option<Mac> {
    let Stations::Only(known) = port.segment.stations else { return None };
    let is_followed = (port.device.is_some() && port.shared.is_none()) || port.vlan.is_some();
    state.mac.filter(|mac| is_followed && *mac != known)
}

/// Returns true if the device of a port must be opened again, and can be. A TAP device has the host's
/// MAC address, not the port's.
fn must_open(port: &PortHandle, state: &DeviceState) -> bool {
    let Some(reopener) = &port.reopener else { return false };
    let has_other_mac = || reopener.tap.is_none() && state.mac.is_some_and(|mac| mac != port.segment.mac);
    let is_needed = state.is_gone || state.has_unserved_queues || has_other_mac();
    is_needed && reopener.is_ready(state.name.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow_path::neighbours::{Segment, Stations};
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    };
    use wayfarer_dataplane::port::{
        classifier::Rules,
        monitor::Monitor,
        open::{Reopener, TapSettings},
    };

    /// A monitor whose state a test sets, and which counts how often it is polled.
    #[derive(Clone, Debug, Default)]
    struct FakeMonitor {
        name: Option<String>,
        is_up: Arc<AtomicBool>,
        is_gone: Arc<AtomicBool>,
        polls: Arc<AtomicU32>,
    }

    impl Monitor for FakeMonitor {
        fn state(&self) -> DeviceState {
            self.polls.fetch_add(1, Relaxed);
            let [is_up, is_gone] = [&self.is_up, &self.is_gone].map(|flag| flag.load(Relaxed));
            let (name, speed) = (self.name.clone(), is_up.then_some(10_000));
            DeviceState { name, is_up, is_gone, speed, ..DeviceState::default() }
        }
    }

    fn port(monitor: Option<Box<dyn Monitor>>) -> PortHandle {
        let segment = Segment { mac: [2; 6], addresses: vec![], stations: Stations::Ask };
        PortHandle {
            name: "a".into(),
            kind: "fake".into(),
            mtu: 1500,
            mtu_limit: 1500,
            frames_hold: 1500,
            device_name: None,
            device: None,
            vlan: None,
            sub_ports: vec![],
            exception_of: None,
            segment,
            shared: None,
            monitor,
            reopener: None,
        }
    }

    /// Opens the device called `device`.
    fn reopener(device: &str) -> Reopener {
        Reopener {
            device: device.to_owned(),
            rules: Rules::default(),
            workers: 1,
            frame_size: 2048,
            tap: None,
        }
    }

    #[test]
    fn every_change_is_reported_once_and_devices_are_polled_at_most_twice_a_second() {
        let devices = [FakeMonitor::default(), FakeMonitor::default()];
        devices[0].is_up.store(true, Relaxed);
        let ports =
            [port(Some(Box::new(devices[0].clone()))), port(None), port(Some(Box::new(devices[1].clone())))];
        let mut known = Devices::default();
        let mut poll = |ms| {
            let changes = known.poll(Duration::from_millis(ms), &ports);
            changes.into_iter().map(|c| (c.port, c.state.is_up, c.state.speed)).collect::<Vec<_>>()
        };
        // One that is down is looked at again soon.
        assert_eq!((poll(0), poll(199)), (vec![], vec![]));
        assert_eq!(poll(200), [(2, false, None)]);
        devices[0].is_up.store(false, Relaxed);
        assert_eq!(poll(699), []);
        assert_eq!(devices[0].polls.load(Relaxed), 2);
        assert_eq!((poll(700), poll(900)), (vec![], vec![(0, false, None)]));
        assert_eq!(poll(1400), []);
        devices.iter().for_each(|device| device.is_up.store(true, Relaxed));
        assert_eq!(poll(1900), [(0, true, Some(10_000)), (2, true, Some(10_000))]);
        assert_eq!(poll(2400), []);
        devices.iter().for_each(|device| device.is_gone.store(true, Relaxed));
        known.end();
        assert_eq!(known.poll(Duration::from_secs(5), &ports), []);
    }

    #[test]
    fn tap_device_is_made_again_only_if_it_is_gone() {
        let mut tap = port(None);
        let settings = Some(TapSettings { mtu: 1500, mac: None });
        tap.reopener = Some(Reopener { tap: settings, ..reopener("wf0") });
        let state = DeviceState { is_up: true, mac: Some([2, 0, 0, 0, 0, 9]), ..DeviceState::default() };
        assert!(!must_open(&tap, &state));
        assert!(must_open(&tap, &DeviceState { is_gone: true, ..state.clone() }));
        // Any other device must be there.
        tap.reopener.as_mut().unwrap().tap = None;
        assert!(!must_open(&tap, &DeviceState { is_gone: true, ..state }));
    }

    #[test]
    fn a_port_waits_for_a_device_that_has_its_name() {
        let mut lan = port(None);
        let gone = DeviceState { is_gone: true, ..DeviceState::default() };
        for (device, is_there) in [("wf-no-such", false), ("lo", true)] {
            // Another device may have the primary name that this one had.
            (lan.reopener, lan.device_name) = (Some(reopener(device)), Some("lo".into()));
            assert_eq!(must_open(&lan, &gone), is_there, "{device}");
        }
    }

    #[test]
    fn device_that_is_there_is_opened_again_by_the_name_that_it_has_now() {
        let mut lan = port(None);
        lan.reopener = Some(reopener("wf-no-such"));
        let there = |name: &str| DeviceState { name: Some(name.into()), ..DeviceState::default() };
        for (name, is_there) in [("lo", true), ("wf-no-other", false)] {
            let other_mac = DeviceState { mac: Some([9; 6]), ..there(name) };
            let more_queues = DeviceState { has_unserved_queues: true, ..there(name) };
            assert_eq!(
                [other_mac, more_queues].map(|state| must_open(&lan, &state)),
                [is_there; 2],
                "{name}"
            );
        }
        assert!(!must_open(&lan, &there("lo")), "nothing has changed but its name");
    }

    #[test]
    fn another_name_is_reported_until_the_port_has_it() {
        let mut lan = port(None);
        let state = DeviceState { name: Some("wan0".into()), ..DeviceState::default() };
        lan.device_name = Some("eth0".into());
        assert_eq!(new_name(&lan, &state), None, "the first of the ports that share a device follows it");
        lan.reopener = Some(reopener("eth0"));
        assert_eq!(new_name(&lan, &state), Some("wan0"));
        assert_eq!(new_name(&lan, &DeviceState { is_gone: true, ..DeviceState::default() }), None);
        lan.device_name = Some("wan0".into());
        assert_eq!(new_name(&lan, &state), None);
    }

    #[test]
    fn a_device_that_another_port_has_open_is_known_by_the_name_that_it_has_now() {
        let mut ports = [port(None), port(None)];
        ports[1].name = "guests".to_owned();
        for (port, name) in ports.iter_mut().zip(["eth1", "eth2"]) {
            (port.reopener, port.device_name) = (Some(reopener("uplink")), Some(name.to_owned()));
        }
        let mut known = Devices::default();
        assert_eq!(known.user_of("eth2", &ports, 0), Some("guests"));
        assert_eq!(known.user_of("eth2", &ports, 1), None, "the port itself");
        assert_eq!(known.user_of("eth3", &ports, 0), None);
        known.known.entry(1).or_default().is_gone = true;
        assert_eq!(known.user_of("eth2", &ports, 0), None, "it is gone");
        known.opened(Duration::ZERO, 1, true);
        assert_eq!(known.user_of("eth2", &ports, 0), Some("guests"));
        let renamed = FakeMonitor { name: Some("eth3".into()), ..FakeMonitor::default() };
        ports[1].monitor = Some(Box::new(renamed));
        assert_eq!(["eth2", "eth3"].map(|name| known.user_of(name, &ports, 0)), [None, Some("guests")]);
    }

    #[test]
    fn devices_that_change_are_looked_for_no_more_often_than_ports_are_polled() {
        let mut known = Devices::default();
        let mut looks = Vec::new();
        for ms in 0..1000 {
            known.look_soon();
            if known.must_look(Duration::from_millis(ms)) {
                looks.push(ms);
            }
            known.poll(Duration::from_millis(ms), &[]);
        }
        assert_eq!(looks, [0, 200, 400, 600, 800]);
        known.poll(Duration::from_secs(1), &[]);
        known.look_again();
        assert_eq!(
            [1499, 1500, 1501].map(|ms| known.must_look(Duration::from_millis(ms))),
            [false, true, false]
        );
    }

    #[test]
    fn routes_that_flap_make_links_fit_their_ports_once_a_second() {
        let mut known = Devices::default();
        assert!(!known.must_fit(Duration::ZERO));
        let mut fits = 0;
        for ms in 0..3000 {
            known.routes_changed();
            fits += u32::from(known.must_fit(Duration::from_millis(ms)));
        }
        assert_eq!(fits, 3);
        // The last change counts too.
        assert!(known.must_fit(Duration::from_secs(3)) && !known.must_fit(Duration::from_secs(9)));
    }

    #[test]
    fn an_mtu_beyond_what_frames_hold_is_reported_once() {
        let mut a = port(None);
        for (mtu, exceeds) in [(1500, false), (1501, true), (9000, true)] {
            a.exception_of = Some(1);
            assert!(!exceeds_frames(&a, Some(mtu)), "it follows no device");
            a.exception_of = None;
            assert_eq!(exceeds_frames(&a, Some(mtu)), exceeds);
            a.mtu_limit = 1400;
            assert_eq!(exceeds_frames(&a, Some(mtu)), exceeds, "though the configuration asks for less");
            a.mtu_limit = 1500;
        }
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
        assert_eq!((poll(1), poll(2)), (vec![], vec![(false, false)]));
        device.is_gone.store(true, Relaxed);
        assert_eq!(poll(3), [(false, true)]);
        assert_eq!(poll(4), []);
    }
}

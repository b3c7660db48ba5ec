//! Devices that change while the gateway runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use wayfarer::{
    config::model::Remote,
    control::protocol::{Command, Outcome, PortView, Reply, View},
    launch::OpenPort,
    log::{Format, recorded},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::{DeviceRefused, PortDown, PortGone, TooBig, TxRingFull},
    packet::Burst,
    pool::Pool,
    port::{
        Port, PortStats,
        memory::Wire,
        monitor::{DeviceState, Monitor},
    },
};

const SUITE: &str = "aes128gcm16";
/// An interface index that no device of the kernel has.
const NO_DEVICE: u32 = 1 << 30;

/// A device whose state a test sets.
#[derive(Clone, Debug)]
struct FakeDevice(Arc<Mutex<DeviceState>>);

impl FakeDevice {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(DeviceState { is_up: true, mtu: Some(1500), ..DeviceState::default() })))
    }

    fn set(&self, change: impl FnOnce(&mut DeviceState)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Monitor for FakeDevice {
    fn state(&self) -> DeviceState {
        self.0.lock().unwrap().clone()
    }
}

/// Makes a gateway with a tunnel on ports that `change` changes.
fn world(change: impl FnOnce(&mut [OpenPort], &[Vec<Wire>; 2])) -> (World, Terminal) {
    let mut tunnel = tunnel(1, suite(SUITE));
    tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
    let (mut ports, wires) = open_ports(1, 512);
    change(&mut ports, &wires);
    let mut world = World::on(config(vec![tunnel]), (ports, wires));
    world.meet_neighbours();
    (world, Terminal::new(1, suite(SUITE), "192.0.2.1"))
}

/// Makes the device of port `index` one that a test sets.
fn follow(ports: &mut [OpenPort], index: usize) -> FakeDevice {
    let device = FakeDevice::new();
    ports[index].monitor = Some(Box::new(device.clone()));
    ports[index].device = Some(NO_DEVICE);
    ports[index].mtu_limit = 1600;
    device
}

fn port(world: &mut World, index: usize) -> PortView {
    match world.ask(Command::Show { what: View::Ports }).outcome {
        Outcome::Result(Reply::Ports(mut ports)) => ports.swap_remove(index),
        other => panic!("{other:?}"),
    }
}

/// Sends a datagram of `length` bytes in all, which must not be fragmented, to the terminal.
fn send(world: &mut World, length: usize) {
    world.send(INSIDE, &datagram("10.99.0.7", "10.98.0.1", (2, 1), &vec![7; length - 28]));
}

#[test]
fn tunnels_and_answers_follow_the_mtu_of_a_device() {
    let mut device = None;
    let (mut world, terminal) = world(|ports, _| device = Some(follow(ports, OUTSIDE)));
    let device = device.unwrap();
    // RFC 4303 tunnel over IPv4 with AES-GCM-16: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4.
    let mut refused = 0;
    for (mtu, shown, fits) in [(1500, 1500, 1446), (1400, 1400, 1346), (9000, 1600, 1546), (1300, 1300, 1246)]
    {
        device.set(|state| state.mtu = Some(mtu));
        world.pass(Duration::from_secs(1));
        assert_eq!(port(&mut world, OUTSIDE).mtu, shown);
        send(&mut world, fits + 1);
        refused += 1;
        assert_eq!(world.all_drops(), [(TooBig, refused)], "{mtu}");
        let answer = world.take(INSIDE).remove(0);
        assert_eq!(usize::from(u16::from_be_bytes([answer[26], answer[27]])), fits);
        send(&mut world, fits);
        let out = world.take(OUTSIDE).remove(0);
        assert_eq!((out.len(), terminal.open(&out).2.len()), (shown, fits));
    }
}

/// As one of DPDK.
#[test]
fn port_of_a_device_that_the_kernel_does_not_have_follows_its_mtu() {
    let mut device = None;
    let (mut world, _) = world(|ports, _| {
        device = Some(follow(ports, OUTSIDE));
        ports[OUTSIDE].device = None;
    });
    device.unwrap().set(|state| state.mtu = Some(1300));
    world.pass(Duration::from_secs(1));
    assert_eq!(port(&mut world, OUTSIDE).mtu, 1300);
}

#[test]
fn an_mtu_beyond_the_frames_is_logged_once_and_shown() {
    let mut device = None;
    let (mut world, _) = world(|ports, _| {
        let outside = follow(ports, OUTSIDE);
        outside.set(|state| state.mtu = Some(9000));
        ports[OUTSIDE].frames_hold = 1600;
        ports[OUTSIDE].mtu = 1600;
        device = Some(outside);
    });
    let device = device.unwrap();
    let mut lines = |mtu: usize| {
        device.set(|state| state.mtu = Some(mtu));
        let log = recorded(Format::Json, || world.pass(Duration::from_secs(3)));
        let shown = port(&mut world, OUTSIDE);
        let count = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
        (count("frames_too_short"), count("device_mtu"), shown.mtu, shown.device_mtu)
    };
    assert_eq!(lines(9001), (0, 0, 1600, Some(9001)), "the start has said so");
    assert_eq!(lines(1500), (0, 1, 1500, Some(1500)));
    assert_eq!(lines(9000), (1, 0, 1600, Some(9000)));
    assert_eq!(lines(1600), (0, 0, 1600, Some(1600)));
    assert_eq!(lines(1601), (1, 0, 1600, Some(1601)));
}

#[test]
fn tunnels_fit_the_port_that_they_move_to() {
    let (mut world, _) = world(|ports, _| ports[INSIDE].mtu = 1300);
    for (round, (remote, fits)) in
        [("192.0.2.1", 1446), ("10.99.0.50", 1246), ("192.0.2.1", 1446)].into_iter().enumerate()
    {
        world.ask(Command::SaMove { tunnel: "t1".into(), remote: ip(remote), port: None });
        send(&mut world, fits + 1);
        assert_eq!(world.all_drops(), [(TooBig, round as u64 + 1)], "{remote}");
        let answer = world.take(INSIDE).remove(0);
        assert_eq!(usize::from(u16::from_be_bytes([answer[26], answer[27]])), fits, "{remote}");
    }
}

#[test]
fn packets_in_clear_follow_the_mtu_of_a_device() {
    let mut device = None;
    let (mut world, mut terminal) = world(|ports, _| device = Some(follow(ports, INSIDE)));
    let mut up = |world: &mut World| {
        world.send(OUTSIDE, &terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1300])));
        world.take(INSIDE).len()
    };
    assert_eq!(up(&mut world), 1);
    device.unwrap().set(|state| state.mtu = Some(1300));
    world.pass(Duration::from_secs(1));
    assert_eq!((up(&mut world), world.all_drops()), (0, vec![(TooBig, 1)]));
}

/// A port whose device refuses every packet.
struct RefusingPort(PortStats);

impl Port for RefusingPort {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.0.tx_errors += burst.len() as u64;
        pool.give_all(burst);
    }

    fn refused(&self) -> u64 {
        self.0.tx_errors
    }

    fn stats(&self) -> PortStats {
        self.0
    }
}

#[test]
fn packets_that_a_device_refuses_are_drops_and_not_sent() {
    let (mut world, _) = world(|ports, _| {
        ports[OUTSIDE].queues = vec![Box::new(RefusingPort(PortStats::default()))];
        ports[OUTSIDE].stations = wayfarer::slow_path::neighbours::Stations::Only(STATION_MAC[OUTSIDE]);
    });
    let sent = world.counters().sent.value();
    (0..3).for_each(|_| send(&mut world, 100));
    assert_eq!((world.all_drops(), world.counters().sent.value()), (vec![(DeviceRefused, 3)], sent));
}

#[test]
fn losses_of_a_port_are_shown_with_it_and_among_the_drops() {
    let lost =
        PortStats { rx_missed: 3, rx_errors: 5, rx_oversize: 7, tx_errors: 11, ..PortStats::default() };
    let (mut world, _) = world(|ports, _| ports[OUTSIDE].queues = vec![Box::new(RefusingPort(lost))]);
    // Enough turns for a report of the counters.
    (0..5000).for_each(|_| _ = world.assembly.workers[0].0.turn());
    let shown = port(&mut world, OUTSIDE);
    assert_eq!((shown.rx_missed, shown.rx_errors, shown.rx_oversize, shown.tx_errors), (3, 5, 7, 11));
    let answer = world.ask(Command::Show { what: View::Drops });
    let Outcome::Result(Reply::Drops(all)) = answer.outcome else { panic!("{answer:?}") };
    let packets = |reason: &str| all.iter().find(|drop| drop.reason == reason).map(|drop| drop.packets);
    assert_eq!(["PortMissed", "PortErrors", "PortOversize"].map(packets), [Some(3), Some(5), Some(7)]);
}

/// A port whose device takes no packet, or refuses each for good if `refuses` is set.
struct FullPort {
    refuses: bool,
    is_down: bool,
    stats: PortStats,
}

impl Port for FullPort {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.refuses {
            self.stats.tx_errors += 1;
            pool.give(burst.remove(0));
        }
    }

    fn is_down(&self) -> bool {
        self.is_down
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

#[test]
fn packets_to_a_port_whose_device_is_down_are_told_from_those_of_a_full_one() {
    for (refuses, up) in [(false, TxRingFull), (true, DeviceRefused)] {
        let mut device = None;
        let (mut world, _) = world(|ports, _| {
            device = Some(follow(ports, OUTSIDE));
            let full = FullPort { refuses, is_down: false, stats: PortStats::default() };
            ports[OUTSIDE].queues = vec![Box::new(full)];
            ports[OUTSIDE].stations = wayfarer::slow_path::neighbours::Stations::Only(STATION_MAC[OUTSIDE]);
        });
        let device = device.unwrap();
        let mut after = |is_up: bool, reason| {
            device.set(|state| state.is_up = is_up);
            (0..2).for_each(|_| world.pass(Duration::from_secs(1)));
            let before = world.drops(reason);
            (0..3).for_each(|_| send(&mut world, 100));
            world.drops(reason) - before
        };
        assert_eq!([after(true, up), after(false, PortDown), after(true, up)], [3; 3], "{up:?}");
        let mut all = vec![(up, 6), (PortDown, 3)];
        all.sort_unstable();
        assert_eq!(world.all_drops(), all);
    }
}

/// The slow path waits, because a device may have lost its carrier for a moment only.
#[test]
fn port_that_says_that_its_device_is_down_is_believed_at_once() {
    for refuses in [false, true] {
        let (mut world, _) = world(|ports, _| {
            let down = FullPort { refuses, is_down: true, stats: PortStats::default() };
            ports[OUTSIDE].queues = vec![Box::new(down)];
            ports[OUTSIDE].stations = wayfarer::slow_path::neighbours::Stations::Only(STATION_MAC[OUTSIDE]);
        });
        (0..3).for_each(|_| send(&mut world, 100));
        assert_eq!(world.all_drops(), [(PortDown, 3)], "{refuses}");
    }
}

/// Some devices take what they cannot send.
#[test]
fn nothing_is_handed_to_a_device_that_is_down() {
    let mut device = None;
    let (mut world, _) = world(|ports, _| device = Some(follow(ports, OUTSIDE)));
    device.unwrap().set(|state| state.is_up = false);
    let mut send_after = |time| {
        world.pass(Duration::from_millis(time));
        (0..3).for_each(|_| send(&mut world, 100));
        (world.take(OUTSIDE).len(), world.drops(PortDown))
    };
    assert_eq!(send_after(500), (3, 0), "it may have lost its carrier for a moment only");
    assert_eq!(send_after(200), (0, 3));
}

#[test]
fn packets_to_a_port_whose_device_is_gone_are_counted_and_its_counters_stay() {
    let mut device = None;
    let (mut world, _) = world(|ports, _| device = Some(follow(ports, OUTSIDE)));
    send(&mut world, 100);
    assert_eq!(world.take(OUTSIDE).len(), 1);
    device.unwrap().set(|state| *state = DeviceState { is_gone: true, ..DeviceState::default() });
    let log = recorded(Format::Json, || world.pass(Duration::from_secs(1)));
    assert!(log.contains("this port has none until the gateway is started again"), "nothing opens it: {log}");
    (0..3).for_each(|_| send(&mut world, 100));
    assert_eq!((world.take(OUTSIDE).len(), world.all_drops()), (0, vec![(PortGone, 3)]));
    // The next hop is forgotten after a while, and nobody can be asked for it.
    world.pass(Duration::from_secs(60));
    let before = world.slow_drops(PortGone);
    send(&mut world, 100);
    assert_eq!(world.slow_drops(PortGone), before + 1);
    // Enough turns for a report of the counters.
    (0..5000).for_each(|_| _ = world.assembly.workers[0].0.turn());
    let port = port(&mut world, OUTSIDE);
    assert_eq!((port.link.as_deref(), port.tx_packets > 0), (Some("gone"), true));
}

#[test]
fn host_is_found_at_the_mac_address_that_it_has_now() {
    let (mut ports, wires) = open_host_ports(512);
    let device = follow(&mut ports, INSIDE);
    let mut tunnel = tunnel(1, suite(SUITE));
    tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
    let mut world = World::on(config(vec![tunnel]), (ports, wires));
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let mut to_host = |world: &mut World| {
        world.send(OUTSIDE, &to_own_address());
        world.send(OUTSIDE, &terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 100])));
        let frames = std::mem::take(&mut world.out[INSIDE]);
        frames.iter().map(|frame| frame[..6].to_vec()).collect::<Vec<_>>()
    };
    device.set(|state| state.mac = Some(STATION_MAC[INSIDE]));
    world.pass(Duration::from_secs(1));
    assert_eq!(to_host(&mut world), [STATION_MAC[INSIDE]; 2]);
    let mac = [2, 0, 0, 0, 0, 0x77];
    device.set(|state| state.mac = Some(mac));
    world.pass(Duration::from_secs(1));
    assert_eq!(to_host(&mut world), [mac; 2]);
}

/// A datagram to the gateway's own address, which is for the host.
fn to_own_address() -> Vec<u8> {
    datagram("192.0.2.9", "203.0.113.1", (7, 7), &[7; 100])
}

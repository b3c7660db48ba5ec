//! Several workers in threads of their own on one SA: exact replay protection, unique numbers, no
//! lost packets.

use super::slow_path::{SHOW, counters_in};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal};
use wayfarer::{
    config::model::{Config, Remote, Route},
    launch::{Assembly, Gateway, OpenPort, WorkerResources},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Burst,
    pool::Pool,
    port::{Port, PortStats, memory::Wire},
    wire::ip,
};

const WORKERS: usize = 2;
const PACKETS: u64 = 100_000;

/// Frames in each worker's pool.
const FRAMES: usize = 2048;

/// Starts a gateway with two workers and two tunnels that knows its neighbours.
fn start() -> (Gateway, [Vec<Wire>; 2]) {
    start_on(|ports| ports)
}

/// Does the same as [`start`], with ports that `change` returns.
fn start_on(change: fn(Vec<OpenPort>) -> Vec<OpenPort>) -> (Gateway, [Vec<Wire>; 2]) {
    let suite = suite("aes128gcm16");
    start_with(config(vec![tunnel(1, suite), tunnel(2, suite)]), change)
}

/// Does the same as [`start_on`], with another configuration of two tunnels.
fn start_with(mut config: Config, change: fn(Vec<OpenPort>) -> Vec<OpenPort>) -> (Gateway, [Vec<Wire>; 2]) {
    let suite = suite("aes128gcm16");
    for tunnel in &mut config.tunnels {
        tunnel.window = 65_536;
        tunnel.remote = Remote::At(ip("192.0.2.1"), 0);
    }
    // Idle workers sleep, so that two polling workers and the test can share a small machine.
    config.gateway.idle_sleep = Some(Duration::from_micros(20));
    let (ports, wires) = open_ports(WORKERS, 512);
    let resources = (0..WORKERS)
        .map(|_| WorkerResources { pool: Pool::new(FRAMES, 2048).unwrap(), core: None })
        .collect();
    let gateway = Gateway::start(Assembly::new(&config, resources, change(ports)).unwrap()).unwrap();
    // The first packet of each direction makes the gateway resolve its neighbours.
    let mut first = Terminal::new(2, suite, "192.0.2.1");
    wires[OUTSIDE][0].send(&to_gateway(OUTSIDE, &first.seal(&up(2))));
    wires[INSIDE][1].send(&to_gateway(INSIDE, &down(2)));
    let mut arrived = [0, 0];
    until(|| {
        for port in [OUTSIDE, INSIDE] {
            arrived[port] += collect(&wires[port], port, |_| ());
        }
        arrived == [1, 1]
    });
    (gateway, wires)
}

fn up(n: u32) -> Vec<u8> {
    datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), b"up")
}

fn down(n: u32) -> Vec<u8> {
    datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), b"down")
}

/// Passes the packets that came out of all queues of a port to `take`, answers neighbour
/// discovery, and returns the number of packets.
fn collect(wires: &[Wire], port: usize, mut take: impl FnMut(&[u8])) -> u64 {
    let mut packets = 0;
    for wire in wires {
        while let Some(frame) = wire.receive(<[u8]>::to_vec) {
            match answer_neighbour(&frame, STATION_MAC[port]) {
                Some(reply) => assert!(wire.send(&reply)),
                None => {
                    packets += 1;
                    take(&frame[14..]);
                }
            }
        }
    }
    packets
}

/// Ends a gateway. Its workers check that they have counted the end of every packet, and only once, and so
/// must the slow path have.
fn stop(mut gateway: Gateway) {
    assert!(gateway.stop_workers());
    counters_in(gateway.ask(SHOW).expect("the slow path runs"));
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "the condition was not met in time");
        std::thread::yield_now();
    }
}

#[test]
fn each_sequence_number_passes_once_with_two_workers() {
    const GROUP: u64 = 100;
    let (gateway, wires) = start();
    let terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let mut times = vec![0u8; PACKETS as usize + 1];
    let mut passed = 0;
    let mut pass = |wires: &[Wire]| {
        passed += collect(wires, INSIDE, |packet| times[number_in(packet) as usize] += 1);
        passed
    };
    for first in (1..=PACKETS).step_by(GROUP as usize) {
        let mut group: Vec<_> = (first..first + GROUP)
            .map(|seq| {
                let packet = datagram("10.98.0.1", "10.99.0.7", (1, 2), &seq.to_be_bytes());
                to_gateway(OUTSIDE, &terminal.seal_as(&packet, 4, seq))
            })
            .collect();
        // Keep fewer packets on their way than the wires hold.
        until(|| first - 1 - pass(&wires[INSIDE]) < 256);
        // Both workers get every packet, the second worker in reverse order.
        for wire in &wires[OUTSIDE] {
            group.iter().for_each(|frame| until(|| wire.send(frame)));
            group.reverse();
        }
    }
    let dropped = |reason| gateway.counters().map(|c| c.drops.of(reason)).sum::<u64>();
    until(|| pass(&wires[INSIDE]) + dropped(DropReason::ReplayDuplicate) == 2 * PACKETS);
    assert_eq!(dropped(DropReason::ReplayDuplicate), PACKETS);
    let wrong: Vec<_> = (1..times.len()).filter(|&seq| times[seq] != 1).collect();
    assert!(wrong.is_empty(), "did not pass exactly once: {wrong:?}");
    assert!(gateway.counters().all(|c| c.received.value() > PACKETS / 2), "one worker did all the work");
    stop(gateway);
}

/// Returns the number that a datagram carries.
fn number_in(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[28..36].try_into().unwrap())
}

#[test]
fn packets_of_one_sa_have_unique_numbers() {
    let (gateway, wires) = start();
    let terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let frame = to_gateway(INSIDE, &down(1));
    let mut numbers = BTreeSet::new();
    let mut take =
        |packet: &[u8]| assert!(numbers.insert(terminal.open(packet).1), "a number was used twice");
    let mut opened = 0;
    for sent in 0..PACKETS {
        // Keep fewer packets on their way than the wires hold.
        until(|| {
            opened += collect(&wires[OUTSIDE], OUTSIDE, &mut take);
            sent - opened < 256
        });
        assert!(wires[INSIDE][sent as usize % WORKERS].send(&frame));
    }
    until(|| {
        opened += collect(&wires[OUTSIDE], OUTSIDE, &mut take);
        opened == PACKETS
    });
    assert_eq!(numbers.last(), Some(&PACKETS));
    assert!(gateway.counters().all(|c| c.sealed.value() > PACKETS / 4), "one worker did all the work");
    stop(gateway);
}

/// A frame over which a [`FaultyPort`] panics on reception.
const FATAL: &[u8] = &[0xde; 60];

/// The end of a frame over which a [`FaultyPort`] panics when it sends.
const FATAL_TO_SEND: &[u8] = b"fatal to send";

/// A port with a bug: it panics over some frames while it has others in hand.
struct FaultyPort(Box<dyn Port>);

impl Port for FaultyPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.0.rx(pool, burst);
        assert!(burst.iter().all(|packet| packet.data() != FATAL), "a test's own panic");
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        assert!(!burst.iter().any(|packet| packet.data().ends_with(FATAL_TO_SEND)), "a test's own panic");
        self.0.tx(pool, burst);
    }

    fn stats(&self) -> PortStats {
        self.0.stats()
    }
}

#[test]
fn failing_worker_counts_the_packets_in_hand_as_dropped_and_goes_on() {
    const FAULTS: u64 = 500;
    let (gateway, wires) = start_on(|mut ports| {
        let queues = std::mem::take(&mut ports[OUTSIDE].queues);
        ports[OUTSIDE].queues = queues.into_iter().map(|queue| Box::new(FaultyPort(queue)) as _).collect();
        ports
    });
    let mut terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let (mut sent, mut passed) = (0, 0);
    let counters: Vec<_> = gateway.counters().cloned().collect();
    let lost = || counters.iter().map(|c| c.drops.of(DropReason::WorkerFault)).sum::<u64>();
    for _ in 0..FAULTS {
        for _ in 0..3 {
            sent += 1;
            let good = to_gateway(OUTSIDE, &terminal.seal(&up(1)));
            until(|| wires[OUTSIDE][0].send(&good));
        }
        sent += 1;
        until(|| wires[OUTSIDE][0].send(FATAL));
        passed += collect(&wires[INSIDE], INSIDE, |_| ());
    }
    until(|| {
        passed += collect(&wires[INSIDE], INSIDE, |_| ());
        passed + lost() == sent
    });
    assert!((1..=FAULTS).contains(&counters[0].faults.value()) && lost() >= FAULTS);
    assert_eq!(counters[1].faults.value(), 0);
    assert!(!gateway.is_broken());
    // Both workers have all their frames back, and forward.
    until(|| counters.iter().all(|c| c.free_frames.value() == FRAMES as u64));
    for queue in &wires[OUTSIDE] {
        let good = to_gateway(OUTSIDE, &terminal.seal(&up(1)));
        assert!(queue.send(&good));
        let mut arrived = 0;
        until(|| {
            arrived += collect(&wires[INSIDE], INSIDE, |_| ());
            arrived == 1
        });
    }
    stop(gateway);
}

#[test]
fn packet_that_a_port_fails_to_send_is_not_retried_forever() {
    let (gateway, wires) = start_on(|mut ports| {
        let queues = std::mem::take(&mut ports[INSIDE].queues);
        ports[INSIDE].queues = queues.into_iter().map(|queue| Box::new(FaultyPort(queue)) as _).collect();
        ports
    });
    let mut terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let mut send = |payload: &[u8]| {
        let packet = datagram("10.98.0.1", "10.99.0.7", (1, 2), payload);
        assert!(wires[OUTSIDE][0].send(&to_gateway(OUTSIDE, &terminal.seal(&packet))));
    };
    let counters = gateway.counters().next().unwrap().clone();
    send(FATAL_TO_SEND);
    until(|| counters.drops.of(DropReason::WorkerFault) == 1);
    assert_eq!(counters.faults.value(), 1);
    send(b"good");
    let mut arrived = 0;
    until(|| {
        arrived += collect(&wires[INSIDE], INSIDE, |_| ());
        arrived == 1
    });
    until(|| counters.free_frames.value() == FRAMES as u64);
    stop(gateway);
}

#[test]
fn no_frame_is_lost_however_often_a_worker_fails() {
    // More faults than the worker has frames.
    const FAULTS: u64 = FRAMES as u64 + 100;
    let suite = suite("aes128gcm16");
    let mut config = config(vec![tunnel(1, suite), tunnel(2, suite)]);
    // A fault in the tables: a route by a port that does not exist.
    config.routes.push(Route { to: "10.77.0.0/24".parse().unwrap(), via: None, port: 99 });
    config.tunnels[0].selectors.push(selector("10.77.0.0/24", "10.98.0.1"));
    let (gateway, wires) = start_with(config, |ports| ports);
    let counters = gateway.counters().next().unwrap().clone();
    let mut terminal = Terminal::new(1, suite, "192.0.2.1");
    for fault in 1..=FAULTS {
        let packet = datagram("10.98.0.1", "10.77.0.7", (1, 2), b"up");
        let fatal = to_gateway(OUTSIDE, &terminal.seal(&packet));
        until(|| wires[OUTSIDE][0].send(&fatal));
        until(|| counters.faults.value() == fault);
    }
    assert_eq!(counters.drops.of(DropReason::WorkerFault), FAULTS);
    until(|| counters.free_frames.value() == FRAMES as u64);
    let good = to_gateway(OUTSIDE, &terminal.seal(&up(1)));
    assert!(wires[OUTSIDE][0].send(&good));
    let mut arrived = 0;
    until(|| {
        arrived += collect(&wires[INSIDE], INSIDE, |_| ());
        arrived == 1
    });
    stop(gateway);
}

#[test]
fn worker_that_fails_with_a_long_packet_opens_others() {
    let suite = suite("aes128gcm16");
    let mut config = config(vec![tunnel(1, suite), tunnel(2, suite)]);
    // The same fault.
    config.routes.push(Route { to: "10.77.0.0/24".parse().unwrap(), via: None, port: 99 });
    config.tunnels[0].selectors.push(selector("10.77.0.0/24", "10.98.0.1"));
    let (gateway, wires) = start_with(config, |ports| ports);
    let counters = gateway.counters().next().unwrap().clone();
    let mut terminal = Terminal::new(1, suite, "192.0.2.1");
    let mut send = |to: &str, id| {
        let mut packet = datagram("10.98.0.1", to, (1, 2), &[7; 4000]);
        ip::allow_fragments(&mut packet, 20, 1);
        for piece in fragments(&terminal.seal(&packet), 1500, id) {
            until(|| wires[OUTSIDE][0].send(&to_gateway(OUTSIDE, &piece)));
        }
    };
    for fault in 1..=3 {
        send("10.77.0.7", fault as u16);
        until(|| counters.faults.value() == fault);
    }
    send("10.99.0.7", 9);
    let mut out = vec![];
    until(|| {
        collect(&wires[INSIDE], INSIDE, |packet| out.push(packet.to_vec()));
        out.len() == 3
    });
    assert_eq!(joined(out)[0].len(), 4028);
    assert_eq!(counters.drops.of(DropReason::WorkerFault), 3);
    until(|| counters.free_frames.value() == FRAMES as u64);
    stop(gateway);
}

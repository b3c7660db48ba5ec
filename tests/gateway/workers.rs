//! Several workers, each in a thread of its own, on one SA: exact replay, unique numbers, nothing
//! lost.

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
};

const WORKERS: usize = 2;
const PACKETS: u64 = 100_000;

/// Frames of each worker.
const FRAMES: usize = 2048;

/// A running gateway with two workers and two tunnels, neighbours met.
fn start() -> (Gateway, [Vec<Wire>; 2]) {
    start_on(|ports| ports)
}

/// The same on what `change` makes of its ports.
fn start_on(change: fn(Vec<OpenPort>) -> Vec<OpenPort>) -> (Gateway, [Vec<Wire>; 2]) {
    let suite = suite("aes128gcm16");
    start_with(config(vec![tunnel(1, suite), tunnel(2, suite)]), change)
}

/// The same with another configuration of two tunnels.
fn start_with(mut config: Config, change: fn(Vec<OpenPort>) -> Vec<OpenPort>) -> (Gateway, [Vec<Wire>; 2]) {
    let suite = suite("aes128gcm16");
    for tunnel in &mut config.tunnels {
        tunnel.window = 65_536;
        tunnel.remote = Remote::At(ip("192.0.2.1"), 0);
    }
    // Two polling workers and this test on a small machine: an idle worker lets the others run.
    config.gateway.idle_sleep = Some(Duration::from_micros(20));
    let (ports, wires) = open_ports(WORKERS, 512);
    let resources = (0..WORKERS)
        .map(|_| WorkerResources { pool: Pool::new(FRAMES, 2048).unwrap(), core: None })
        .collect();
    let gateway = Gateway::start(Assembly::new(&config, resources, change(ports)).unwrap()).unwrap();
    // The first packets of each direction make the gateway ask for its neighbours.
    let mut first = Terminal::new(2, suite, "192.0.2.1");
    wires[OUTSIDE][0].send(&to_gateway(OUTSIDE, &first.seal(&up(2))));
    wires[INSIDE][1].send(&to_gateway(INSIDE, &down(2)));
    let mut met = [0, 0];
    until(|| {
        for port in [OUTSIDE, INSIDE] {
            met[port] += collect(&wires[port], port, |_| ());
        }
        met == [1, 1]
    });
    (gateway, wires)
}

fn up(n: u32) -> Vec<u8> {
    datagram(&format!("10.98.0.{n}"), "10.99.0.7", (1, 2), b"up")
}

fn down(n: u32) -> Vec<u8> {
    datagram("10.99.0.7", &format!("10.98.0.{n}"), (2, 1), b"down")
}

/// Takes what came out of all queues of a port, and answers neighbour discovery; how many packets
/// it was.
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

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::yield_now();
    }
}

#[test]
fn a_number_passes_once_whichever_worker_sees_it_first() {
    const GROUP: u64 = 100;
    let (gateway, wires) = start();
    let terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let mut times = vec![0u8; PACKETS as usize + 1];
    let mut passed = 0;
    let mut pass = |wires: &[Wire]| {
        passed += collect(wires, INSIDE, |packet| times[numbered(packet) as usize] += 1);
        passed
    };
    for first in (1..=PACKETS).step_by(GROUP as usize) {
        let mut group: Vec<_> = (first..first + GROUP)
            .map(|seq| {
                let packet = datagram("10.98.0.1", "10.99.0.7", (1, 2), &seq.to_be_bytes());
                to_gateway(OUTSIDE, &terminal.seal_as(&packet, 4, seq))
            })
            .collect();
        // No more on their way than the wires hold.
        until(|| first - 1 - pass(&wires[INSIDE]) < 256);
        // Both workers get every packet, the second one from the group's end.
        for wire in &wires[OUTSIDE] {
            group.iter().for_each(|frame| until(|| wire.send(frame)));
            group.reverse();
        }
    }
    let dropped = |reason| gateway.counters().map(|c| c.drops.of(reason)).sum::<u64>();
    until(|| pass(&wires[INSIDE]) + dropped(DropReason::ReplayDuplicate) == 2 * PACKETS);
    assert_eq!(dropped(DropReason::ReplayDuplicate), PACKETS);
    let wrong: Vec<_> = (1..times.len()).filter(|&seq| times[seq] != 1).collect();
    assert!(wrong.is_empty(), "not just once: {wrong:?}");
    assert!(gateway.counters().all(|c| c.received.value() > PACKETS / 2), "one worker did all the work");
}

/// The number that a datagram carries.
fn numbered(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[28..36].try_into().unwrap())
}

#[test]
fn no_two_packets_of_one_sa_carry_the_same_number() {
    let (gateway, wires) = start();
    let terminal = Terminal::new(1, suite("aes128gcm16"), "192.0.2.1");
    let frame = to_gateway(INSIDE, &down(1));
    let mut numbers = BTreeSet::new();
    let mut take =
        |packet: &[u8]| assert!(numbers.insert(terminal.open(packet).1), "a number was used twice");
    let mut opened = 0;
    for sent in 0..PACKETS {
        // No more on their way than the wires hold, whoever is held up.
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
}

/// What makes a [`Faulty`] port fail.
const FATAL: &[u8] = &[0xde; 60];

/// The end of what makes it fail when it is to send it.
const FATAL_TO_SEND: &[u8] = b"fatal to send";

/// A port that has a mistake: it fails over some frames, with others in hand.
struct Faulty(Box<dyn Port>);

impl Port for Faulty {
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
fn a_worker_that_fails_drops_what_it_has_in_hand_counted_and_goes_on() {
    const FAULTS: u64 = 500;
    let (gateway, wires) = start_on(|mut ports| {
        let queues = std::mem::take(&mut ports[OUTSIDE].queues);
        ports[OUTSIDE].queues = queues.into_iter().map(|queue| Box::new(Faulty(queue)) as _).collect();
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
    // Both still have all their frames, and forward.
    until(|| counters.iter().all(|c| c.free_frames.value() == FRAMES as u64));
    for queue in &wires[OUTSIDE] {
        let good = to_gateway(OUTSIDE, &terminal.seal(&up(1)));
        assert!(queue.send(&good));
        let mut came = 0;
        until(|| {
            came += collect(&wires[INSIDE], INSIDE, |_| ());
            came == 1
        });
    }
}

#[test]
fn what_a_port_fails_to_send_is_not_tried_again_for_ever() {
    let (mut gateway, wires) = start_on(|mut ports| {
        let queues = std::mem::take(&mut ports[INSIDE].queues);
        ports[INSIDE].queues = queues.into_iter().map(|queue| Box::new(Faulty(queue)) as _).collect();
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
    let mut came = 0;
    until(|| {
        came += collect(&wires[INSIDE], INSIDE, |_| ());
        came == 1
    });
    until(|| counters.free_frames.value() == FRAMES as u64);
    assert!(gateway.stop_workers());
}

#[test]
fn a_packet_in_hand_is_not_lost_however_often_a_worker_fails() {
    // More often than it has frames.
    const FAULTS: u64 = FRAMES as u64 + 100;
    let suite = suite("aes128gcm16");
    let mut config = config(vec![tunnel(1, suite), tunnel(2, suite)]);
    // A mistake in the tables: a route by a port that is not there.
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
    let mut came = 0;
    until(|| {
        came += collect(&wires[INSIDE], INSIDE, |_| ());
        came == 1
    });
}

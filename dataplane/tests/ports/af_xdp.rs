//! AF_XDP sockets, with the program in the driver and in the kernel's receive path.

use crate::{
    frames::{number, numbered},
    traffic::{self, Worker},
    world::{World, wait_for},
};
use std::sync::Arc;
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Port, PortError,
        af_xdp::{AfXdpPort, AfXdpQueues},
        classifier::{Classifier, Rules},
        device::Device,
    },
};

const FRAMES: usize = 4096;
const FILL: usize = 1024;
const BOTH: [bool; 2] = [true, false];

fn pool() -> Pool {
    Pool::new(FRAMES, 2048).unwrap()
}

/// Opens one port for each queue of `device`, on the given pools.
fn open(world: &World, device: &str, native: bool, pools: &mut [Pool]) -> (Device, Vec<AfXdpPort>) {
    world.gw(|| {
        let device = Device::find(device).unwrap();
        let queues = pools.len() as u32;
        let classifier = Arc::new(Classifier::xdp(&device, queues, native, &Rules::default()).unwrap());
        let ports = (0..queues)
            .zip(pools)
            .map(|(queue, pool)| AfXdpPort::open(pool, &device, queue, FILL, &classifier).unwrap())
            .collect();
        (device, ports)
    })
}

fn workers(world: &World, native: bool, queues: usize) -> (Device, Vec<Worker>) {
    let mut pools: Vec<_> = (0..queues).map(|_| pool()).collect();
    let (device, ports) = open(world, "gw0", native, &mut pools);
    (device, ports.into_iter().map(|port| Box::new(port) as _).zip(pools).collect())
}

/// Lends frames to the device before the first packet comes.
fn prime(workers: &mut [Worker]) {
    for (port, pool) in workers {
        let mut burst = Burst::new();
        port.rx(pool, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(pool.available(), FRAMES - FILL);
    }
}

#[test]
fn frames_cross_byte_for_byte() {
    for native in BOTH {
        let world = World::new(1, 1);
        let (device, mut workers) = workers(&world, native, 1);
        prime(&mut workers);
        let (port, pool) = &mut workers[0];
        traffic::round_trip(&mut **port, pool, device.mac(), &world.peer("peer0"));
    }
}

#[test]
fn nothing_is_lost_or_doubled_under_back_pressure() {
    for native in BOTH {
        let world = World::new(1, 1);
        let (device, mut workers) = workers(&world, native, 1);
        prime(&mut workers);
        traffic::echo(&mut workers, device.mac(), &world.peer("peer0"), 10_000, 200);
        // Every frame is free, or lent to the device with too few missing for another batch.
        let (port, pool) = &mut workers[0];
        port.rx(pool, &mut Burst::new());
        assert!((FRAMES - FILL..FRAMES - FILL + 32).contains(&pool.available()), "{}", pool.available());
    }
}

#[test]
fn two_workers_have_a_queue_each() {
    for native in BOTH {
        let world = World::new(1, 2);
        let (device, mut workers) = workers(&world, native, 2);
        assert_eq!(device.queues(), 2);
        prime(&mut workers);
        traffic::echo(&mut workers, device.mac(), &world.peer("peer0"), 10_000, 200);
        let received: Vec<_> = workers.iter().map(|(port, _)| port.stats().rx_packets).collect();
        assert_eq!(received.iter().sum::<u64>(), 10_000);
        // A veth pair shows a generic program only the first queue.
        assert!(!native || received.iter().all(|n| *n > 1000), "{received:?}");
    }
}

#[test]
fn one_worker_serves_both_queues() {
    let world = World::new(1, 2);
    let mut pool = pool();
    let (device, ports) = world.gw(|| {
        let device = Device::find("gw0").unwrap();
        let classifier = Arc::new(Classifier::xdp(&device, 2, true, &Rules::default()).unwrap());
        let open = |queue| AfXdpPort::open(&mut pool, &device, queue, FILL, &classifier).unwrap();
        let ports: Vec<_> = (0..2).map(open).collect();
        (device, ports)
    });
    let port = Box::new(AfXdpQueues::new(ports).unwrap()) as Box<dyn Port>;
    let mut workers = [(port, pool)];
    workers[0].0.rx(&mut workers[0].1, &mut Burst::new());
    traffic::echo(&mut workers, device.mac(), &world.peer("peer0"), 5000, 200);
    assert_eq!(workers[0].0.stats().rx_packets, 5000);
}

#[test]
fn forwarding_from_device_to_device_uses_the_same_frames() {
    for native in BOTH {
        let world = World::new(2, 1);
        let mut pools = [pool()];
        let (device, mut inside) = open(&world, "gw0", native, &mut pools);
        let (_, mut outside) = open(&world, "gw1", native, &mut pools);
        let ([pool], [inside], [outside]) = (&mut pools, &mut inside[..], &mut outside[..]) else {
            panic!("one queue each")
        };
        let (from, to) = (world.peer("peer0"), world.peer("peer1"));
        let mut burst = Burst::new();
        inside.rx(pool, &mut burst);
        outside.rx(pool, &mut burst);
        let (mut sent, mut received) = (0, 0);
        wait_for("all frames to come through", || {
            while sent < 5000 && sent - received < 200 {
                from.send(&numbered(device.mac(), from.mac, 9, sent, 60 + sent as usize % 900));
                sent += 1;
            }
            inside.rx(pool, &mut burst);
            outside.tx(pool, &mut burst);
            outside.flush(pool);
            while let Some(frame) = to.try_recv() {
                assert_eq!(number(&frame), received);
                assert_eq!(
                    frame,
                    numbered(device.mac(), from.mac, 9, received, 60 + received as usize % 900)
                );
                received += 1;
            }
            (received == 5000).then_some(())
        });
        traffic::drain(outside, pool);
        assert_eq!((inside.stats().rx_packets, outside.stats().tx_packets), (5000, 5000));
    }
}

#[test]
fn a_runt_is_freed_and_counted() {
    let world = World::new(1, 1);
    let (_, mut workers) = workers(&world, true, 1);
    let (port, pool) = &mut workers[0];
    let mut burst = Burst::new();
    burst.push(pool.take().unwrap());
    port.tx(pool, &mut burst);
    assert_eq!((burst.len(), pool.available(), port.stats().tx_errors), (0, FRAMES, 1));
    assert!(port.is_drained());
}

/// Those that wait in a ring may never leave.
#[test]
fn packets_count_as_sent_once_the_device_has_sent_them() {
    for native in BOTH {
        let world = World::new(1, 1);
        let (device, mut workers) = workers(&world, native, 1);
        prime(&mut workers);
        let peer = world.peer("peer0");
        let (port, pool) = &mut workers[0];
        let sent = |port: &dyn Port| (port.is_drained(), port.stats().tx_packets, port.stats().tx_bytes);
        world.in_gw("ip link set gw0 down");
        let mut burst = Burst::new();
        for number in 0..3 {
            let mut packet = pool.take().unwrap();
            packet.fill(256, &numbered(peer.mac, device.mac(), 9, number, 100)).unwrap();
            burst.push(packet);
        }
        port.tx(pool, &mut burst);
        port.flush(pool);
        assert_eq!((burst.len(), sent(&**port)), (0, (false, 0, 0)));
        world.in_gw("ip link set gw0 up");
        traffic::drain(&mut **port, pool);
        assert_eq!((sent(&**port), port.refused()), ((true, 3, 300), 0));
    }
}

#[test]
fn counts_overflowing_packets_as_missed() {
    let world = World::new(1, 1);
    let (device, mut workers) = workers(&world, true, 1);
    prime(&mut workers);
    let peer = world.peer("peer0");
    let (port, pool) = &mut workers[0];
    let mut sent = 0;
    wait_for("the fill ring to run dry", || {
        peer.send(&numbered(device.mac(), peer.mac, 9, sent, 60));
        sent += 1;
        (port.stats().rx_missed > 0).then_some(())
    });
    assert!(sent > FILL as u32);
    // The packets that came before are whole and in order.
    let mut expected = 0;
    while expected < FILL as u32 {
        let mut burst = traffic::receive(&mut **port, pool);
        for packet in burst.iter() {
            assert_eq!(packet.data(), numbered(device.mac(), peer.mac, 9, expected, 60));
            expected += 1;
        }
        pool.give_all(&mut burst);
    }
}

#[test]
fn a_closed_port_leaves_nothing_behind_and_can_be_opened_again() {
    for native in BOTH {
        let world = World::new(1, 1);
        for _ in 0..10 {
            let (device, mut workers) = workers(&world, native, 1);
            prime(&mut workers);
            assert!(world.in_gw("ip -d link show gw0").contains("prog/xdp"));
            traffic::echo(&mut workers, device.mac(), &world.peer("peer0"), 100, 50);
        }
        wait_for("the program to go", || (!world.in_gw("ip -d link show gw0").contains("xdp")).then_some(()));
    }
}

/// Closes a port, and returns the number of frames of its pool that are free then.
fn close((port, mut pool): Worker) -> usize {
    pool.give_returned(port.close());
    pool.available()
}

#[test]
fn a_closed_port_returns_all_frames() {
    for native in BOTH {
        // With the device there, and without it.
        for removes in [false, true] {
            let world = World::new(1, 1);
            let (device, mut workers) = workers(&world, native, 1);
            prime(&mut workers);
            let peer = world.peer("peer0");
            traffic::echo(&mut workers, device.mac(), &peer, 3000, 200);
            let mut worker = workers.remove(0);
            // Some frames wait in the receive ring, and some are to be sent.
            for number in 0..50 {
                peer.send(&numbered(device.mac(), peer.mac, 9, number, 200));
            }
            let mut burst = traffic::receive(&mut *worker.0, &mut worker.1);
            worker.0.tx(&mut worker.1, &mut burst);
            assert!(worker.1.available() < FRAMES);
            if removes {
                world.in_gw("ip link del gw0");
            }
            assert_eq!(close(worker), FRAMES);
        }
    }
}

#[test]
fn a_closed_port_of_several_queues_returns_all_frames_but_those_of_other_devices() {
    let world = World::new(2, 2);
    let mut pool = pool();
    let mut open = |name: &str| {
        world.gw(|| {
            let device = Device::find(name).unwrap();
            let classifier = Arc::new(Classifier::xdp(&device, 2, true, &Rules::default()).unwrap());
            let open = |queue| AfXdpPort::open(&mut pool, &device, queue, FILL, &classifier).unwrap();
            AfXdpQueues::new((0..2).map(open).collect()).unwrap()
        })
    };
    let (mut first, mut second) = (Box::new(open("gw0")), open("gw1"));
    first.rx(&mut pool, &mut Burst::new());
    second.rx(&mut pool, &mut Burst::new());
    assert_eq!(pool.available(), FRAMES - 4 * FILL);
    pool.give_returned(first.close());
    assert_eq!(pool.available(), FRAMES - 2 * FILL);
    // The other device still works with the same frames.
    let mac = world.gw(|| Device::find("gw1").unwrap().mac());
    let mut workers = [(Box::new(second) as Box<dyn Port>, pool)];
    traffic::echo(&mut workers, mac, &world.peer("peer1"), 1000, 200);
}

#[test]
fn errors_name_the_reason() {
    let world = World::new(1, 1);
    let mut pools = [pool()];
    let (device, _ports) = open(&world, "gw0", true, &mut pools);
    world.gw(|| {
        let error = Classifier::xdp(&device, 1, true, &Rules::default()).unwrap_err();
        assert_eq!(error.to_string(), "gw0: another XDP program is attached already");
        let lo = Device::find("lo").unwrap();
        let error = Classifier::xdp(&lo, 1, true, &Rules::default()).unwrap_err();
        assert!(matches!(error, PortError::NotSupported { .. }), "{error}");
        let classifier = Arc::new(Classifier::xdp(&lo, 1, false, &Rules::default()).unwrap());
        let mut odd = Pool::new(16, 1024).unwrap();
        let error = AfXdpPort::open(&mut odd, &lo, 0, 8, &classifier).err().unwrap();
        assert_eq!(error.to_string(), "lo: AF_XDP takes frames of 2048 or 4096 bytes, not of 1024");
        let error = AfXdpPort::open(&mut pool(), &device, 0, 8, &classifier).err().unwrap();
        assert_eq!(error.to_string(), "gw0: queue 0 has an AF_XDP socket already");
    });
}

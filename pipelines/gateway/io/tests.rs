//! Ports that do not take what is sent by them, and rings that links share.

use super::*;
use crate::gateway::{input_port::from_link, tables::Settings};
use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use wayfarer_dataplane::{table::Writer, wire::ip};

/// A port whose device is up and has no room. Counts how often it is asked whether it is down.
struct FullPort(Arc<AtomicUsize>);

impl Port for FullPort {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn tx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn is_down(&self) -> bool {
        self.0.fetch_add(1, Relaxed);
        false
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

#[test]
fn full_port_is_asked_once_a_turn_whether_its_device_is_down() {
    let asked = Arc::new(AtomicUsize::new(0));
    let ports: Vec<Box<dyn Port>> = vec![Box::new(FullPort(asked.clone()))];
    let (pool, counters) = (Pool::new(256, 2048).unwrap(), Arc::new(WorkerCounters::new(1)));
    let mut io = Io::new(ports, vec![], pool, counters, Arc::new(Rings::new(2048, 1))).unwrap();
    for turn in 1..=2 {
        for _ in 0..200 {
            let packet = io.take().unwrap();
            io.send(packet, 0);
        }
        io.flush();
        assert_eq!(asked.load(Relaxed), turn);
    }
    assert_eq!(io.counters().drops.of(DropReason::TxRingFull), 400);
}

#[test]
fn packets_of_one_link_that_wait_for_next_hops_leave_room_for_others() {
    let (rings, pool) = (Arc::new(Rings::new(2048, 1)), Pool::new(64, 2048).unwrap());
    let mut io = Io::new(vec![], vec![], pool, Arc::new(WorkerCounters::new(0)), rings.clone()).unwrap();
    let settings = Settings {
        ports: Box::default(),
        encap_ports: Box::default(),
        host: None,
        mss_clamp: false,
        discards: false,
        nats: Box::default(),
    };
    let writer = Writer::new();
    let (tables, now) = (Tables::new(&writer, 16, settings), Instant::now());
    let next = IpAddr::from([10, 99, 0, 1]);
    let mut forward = |link: u16| {
        let mut packet = io.take().unwrap();
        packet.fill(64, &[0; ip::V4_HEADER]).unwrap();
        packet.set_port(from_link(link));
        // No share refills between turns.
        io.now = Some(now);
        io.route_by(Some(Hop::Resolve { port: 0, via: None }), packet, next.into(), &tables);
        io.flush();
    };
    let waiting = || rings.of(Punt::Resolve { port: 0, next }, from_link(0), ip::V4_HEADER).len();
    (0..1000).for_each(|_| forward(0));
    let one = waiting();
    assert_eq!(one, 128 + 64, "half of the ring, and its share");
    forward(1);
    assert_eq!(waiting(), one + 1, "another link");
}

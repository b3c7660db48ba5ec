//! Ports that do not take what is sent by them, rings that links share, and fragments that wait while
//! the machine sleeps.

use super::*;
use crate::gateway::{input_port::from_link, reassembly::Fragments, tables::Settings};
use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};
use wayfarer_dataplane::{
    table::Writer,
    wire::ip::{self, IpHeader},
};

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
        siu_port: None,
        home_agent: None,
        host: None,
        mss_clamp: false,
        discards: false,
        nats: Box::default(),
    };
    let writer = Writer::new();
    let (tables, now) = (Tables::new(&writer, 16, settings), Moment::now());
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

/// Keeps one of the two fragments of a packet. Returns whether the packet is complete.
fn keep(io: &mut Io, is_last: bool) -> bool {
    let [local, remote] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
    let mut bytes = [0; ip::V4_HEADER + 8];
    ip::emit(&mut bytes, remote, local, ip::protocol::UDP, 8);
    bytes[6..8].copy_from_slice(if is_last { &[0, 1] } else { &[0x20, 0] });
    ip::set_total_len(&mut bytes, ip::V4_HEADER, ip::V4_HEADER + 8);
    let mut packet = io.take().unwrap();
    packet.fill(64, &bytes).unwrap();
    packet.set_port(0);
    let header = IpHeader::parse(&bytes).unwrap();
    let mut fragments = Fragments::new();
    let is_whole = io.reassemble(packet, &header, &mut fragments).is_some();
    fragments.drain(..).for_each(|fragment| io.free(fragment));
    is_whole
}

/// The clock has gone on while the machine slept, which `clock` checks.
#[test]
fn fragments_do_not_outlive_a_sleep_of_the_machine() {
    let (rings, pool) = (Arc::new(Rings::new(2048, 1)), Pool::new(64, 2048).unwrap());
    let mut io = Io::new(vec![], vec![], pool, Arc::new(WorkerCounters::new(0)), rings).unwrap();
    let timeouts = |io: &Io| (io.counters().drops.of(DropReason::FragmentTimeout), io.reassembly.waiting());
    assert!(!keep(&mut io, false) && keep(&mut io, true));
    assert!(!keep(&mut io, false));
    let asleep = Duration::from_secs(3600);
    let woken = Moment::now() + asleep;
    io.flush();
    io.now = Some(woken);
    assert!(!keep(&mut io, true), "the first fragment is an hour old");
    assert_eq!(timeouts(&io), (1, 1));
    // It sleeps again, and nothing comes.
    io.flush();
    io.now = Some(woken + asleep);
    io.expire_fragments();
    assert_eq!(timeouts(&io), (2, 0));
}

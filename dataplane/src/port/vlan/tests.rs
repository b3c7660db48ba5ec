#![allow(clippy::unusual_byte_groupings, reason = "class, drop precedence and ECN")]

mod offload;

use super::*;
use crate::{
    packet::BURST,
    port::{
        absent::AbsentPort,
        memory::{self, Wire},
        monitor::DeviceState,
    },
    wire::{
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
        vlan::Vlan,
    },
};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

const FRAMES: usize = 512;
const TAG_100: [u8; 4] = [0x81, 0, 0, 100];
const TAGS_7_200: [u8; 8] = [0x88, 0xa8, 0, 7, 0x81, 0, 0, 200];

fn tagging(outer: Option<u16>, inner: u16) -> Tagging {
    Tagging { vlan: Vlan::new(outer, inner).unwrap(), priority: Priority::Fixed(0), sets_dscp: false }
}

/// Three ports on a wire: in no VLAN, in VLAN 100 and in VLAN [7, 200].
struct World {
    ports: Vec<Box<dyn Port>>,
    pool: Pool,
    wire: Wire,
}

impl World {
    fn new(taggings: &[Option<Tagging>], depth: usize) -> Self {
        let (device, wire) = memory::pair(depth, 2048);
        let parts = divide(vec![Box::new(device)], None, taggings);
        let ports = parts.into_iter().flat_map(|part| part.queues).collect();
        Self { ports, pool: Pool::new(FRAMES, 2048).unwrap(), wire }
    }

    fn three() -> Self {
        Self::new(&[None, Some(tagging(None, 100)), Some(tagging(Some(7), 200))], FRAMES)
    }

    /// Returns what port `index` receives at once.
    fn receive(&mut self, index: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.ports[index].rx(&mut self.pool, &mut burst);
        let frames = burst.iter().map(|packet| packet.data().to_vec()).collect();
        self.pool.give_all(&mut burst);
        frames
    }

    /// Returns what port `index` receives until the device has nothing more for any port.
    fn receive_all(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut all = vec![vec![]; self.ports.len()];
        for _ in 0..4 * FRAMES / BURST {
            for (index, frames) in all.iter_mut().enumerate() {
                frames.extend(self.receive(index));
            }
        }
        all
    }

    fn burst(&mut self, headroom: usize, frames: &[Vec<u8>]) -> Burst {
        let mut burst = Burst::new();
        for frame in frames {
            let mut packet = self.pool.take().unwrap();
            packet.fill(headroom, frame).unwrap();
            burst.push(packet);
        }
        burst
    }

    /// Sends frames by port `index`, and returns what stays.
    fn send(&mut self, index: usize, headroom: usize, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut burst = self.burst(headroom, frames);
        self.ports[index].tx(&mut self.pool, &mut burst);
        let left = burst.iter().map(|packet| packet.data().to_vec()).collect();
        self.pool.give_all(&mut burst);
        left
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.wire.receive(<[u8]>::to_vec)).collect()
    }
}

/// Makes an IPv4 packet with this traffic class, in a frame with these tags.
fn frame(tags: &[u8], class: u8, protocol: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let header = ip::emit(&mut packet, src, dst, protocol, 12);
    packet.truncate(header + 12);
    ip::set_traffic_class(&mut packet, class);
    with_tags(tags, ethernet::IPV4, &packet)
}

fn with_tags(tags: &[u8], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2; 6][..], &[4; 6], tags, &ethertype.to_be_bytes(), payload].concat()
}

fn class_of(frame: &[u8]) -> u8 {
    assert_eq!(Ethernet::parse(frame).unwrap().ethertype, ethernet::IPV4);
    IpHeader::parse(&frame[ethernet::HEADER..]).expect("a header with the right checksum").traffic_class
}

#[test]
fn every_frame_goes_to_the_port_of_its_vlan_and_foreign_ones_stay_whole() {
    let mut world = World::three();
    let priority = [0x81, 0, 0xe0, 0];
    let plain = frame(&[], 0, protocol::UDP);
    let foreign: Vec<Vec<u8>> = [
        &[0x81, 0, 0, 101][..],
        &[0x88, 0xa8, 0, 100],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 201],
        &[0x81, 0, 0, 7, 0x81, 0, 0, 200],
        &TAG_100.repeat(10),
        &priority,
        &[0x81, 0, 0x0f, 0xff],
    ]
    .map(|tags| frame(tags, 0, protocol::UDP))
    .into();
    let own = [&TAG_100[..], &[priority, TAG_100, priority].concat(), &TAGS_7_200];
    for sent in own.map(|tags| frame(tags, 0, protocol::UDP)).iter().chain(&foreign).chain([&plain]) {
        assert!(world.wire.send(sent));
    }
    let untagged = foreign.iter().cloned().chain([plain.clone()]).collect::<Vec<_>>();
    assert_eq!(world.receive_all(), [untagged, vec![plain.clone(); 2], vec![plain]]);
    assert_eq!(world.pool.available(), FRAMES);
    let counts: Vec<_> =
        world.ports.iter().map(|port| (port.stats().rx_packets, port.stats().rx_foreign)).collect();
    assert_eq!(counts, [(8, 0), (2, 0), (1, 0)]);
}

#[test]
fn frames_of_no_port_are_counted() {
    let mut world = World::new(&[Some(tagging(None, 100)), Some(tagging(None, 200))], FRAMES);
    for tags in [&[][..], &TAG_100, &[0x81, 0, 0, 7], &TAGS_7_200] {
        assert!(world.wire.send(&frame(tags, 0, protocol::UDP)));
    }
    assert_eq!(world.receive_all().iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    let foreign: Vec<_> = world.ports.iter().map(|port| port.stats().rx_foreign).collect();
    assert_eq!((foreign, world.pool.available()), (vec![3, 0], FRAMES));
}

#[test]
fn every_truncation_of_a_frame_is_somebodys() {
    for tags in [&TAGS_7_200[..], &TAG_100.repeat(10), &[0x81, 0, 0, 0, 0x81, 0, 0, 100]] {
        let mut world = World::three();
        let whole = frame(tags, 0, protocol::UDP);
        (0..=whole.len()).for_each(|end| assert!(world.wire.send(&whole[..end])));
        let received: usize = world.receive_all().iter().map(Vec::len).sum();
        assert_eq!((received, world.pool.available()), (whole.len() + 1, FRAMES));
    }
}

#[test]
fn a_flood_of_one_vlan_leaves_the_others_their_frames_and_waits_in_the_device() {
    let mut world = World::three();
    let (flood, single) = (frame(&TAG_100, 0, protocol::UDP), frame(&TAGS_7_200, 0, protocol::UDP));
    (0..300).for_each(|_| assert!(world.wire.send(&flood)));
    assert!(world.wire.send(&single));
    assert_eq!(world.receive(0).len(), 0);
    // One burst waits, and no more is read before it is fetched.
    assert_eq!((world.receive(2).len(), world.pool.available()), (0, FRAMES - BURST));
    assert_eq!(world.receive(1).len(), BURST);
    let rest = world.receive_all();
    assert_eq!(rest.iter().map(Vec::len).collect::<Vec<_>>(), [0, 300 - BURST, 1]);
    assert!(world.ports.iter().all(|port| port.stats().rx_missed == 0));
}

#[test]
fn tags_are_sent_with_their_priority() {
    for (priority, expected) in
        [(Priority::Fixed(0), [0; 3]), (Priority::Fixed(7), [7; 3]), (Priority::Dscp, [5, 2, 0])]
    {
        let [single, double] =
            [tagging(None, 100), tagging(Some(7), 200)].map(|tagging| Some(Tagging { priority, ..tagging }));
        let mut world = World::new(&[single, double], FRAMES);
        let mut v6 = vec![0; 40];
        let address = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
        ip::emit(&mut v6, address(1), address(2), protocol::UDP, 0);
        ip::set_traffic_class(&mut v6, 0b010_110_01);
        let frames = [
            frame(&[], 0xbb, protocol::ESP),
            with_tags(&[], ethernet::IPV6, &v6),
            with_tags(&[], ethernet::ARP, &[9; 28]),
        ];
        for (index, tags) in [&TAG_100[..], &TAGS_7_200].into_iter().enumerate() {
            assert_eq!(world.send(index, 256, &frames), [[0u8; 0]; 0]);
            let with = |(frame, priority): (&Vec<u8>, u8)| {
                let mut tags = tags.to_vec();
                tags.iter_mut().skip(2).step_by(4).for_each(|byte| *byte |= priority << 5);
                [&frame[..12], &tags, &frame[12..]].concat()
            };
            let tagged: Vec<_> = frames.iter().zip(expected).map(with).collect();
            assert_eq!(world.sent(), tagged, "{priority:?}");
            let bytes: usize = frames.iter().map(Vec::len).sum();
            let stats = world.ports[index].stats();
            assert_eq!((stats.tx_packets, stats.tx_bytes), (3, bytes as u64));
        }
    }
}

#[test]
fn dscp_follows_the_priority_of_a_tag_except_in_esp() {
    let follows = Tagging { sets_dscp: true, ..tagging(None, 100) };
    let mut world = World::new(&[Some(follows), Some(tagging(Some(7), 200))], FRAMES);
    let mut marked = TAG_100;
    marked[2] = 5 << 5;
    let mut others = TAGS_7_200;
    others[2] = 5 << 5;
    let broken = with_tags(&marked, ethernet::IPV4, &[0x45; 8]);
    for sent in [
        frame(&marked, 0x0b, protocol::UDP),
        frame(&marked, 0x0b, protocol::ESP),
        frame(&others, 0x0b, protocol::UDP),
        broken.clone(),
    ] {
        assert!(world.wire.send(&sent));
    }
    let mut received = world.receive_all();
    assert_eq!(received[0].pop().unwrap()[12..], broken[16..], "a packet that is none stays as it is");
    let classes: Vec<Vec<u8>> =
        received.iter().map(|frames| frames.iter().map(|frame| class_of(frame)).collect()).collect();
    assert_eq!(classes, [vec![0b101_000_11, 0x0b], vec![0x0b]]);
}

#[test]
fn unsent_packets_come_back_without_tags_and_unfit_ones_are_counted_once() {
    let mut world = World::new(&[Some(tagging(None, 100)), Some(tagging(Some(7), 200)), None], 3);
    let frames: Vec<_> = (0..5).map(|class| frame(&[], class << 2, protocol::UDP)).collect();
    for (index, sent) in [(1, 3), (0, 0)] {
        assert_eq!(world.send(index, 256, &frames), frames[sent..]);
    }
    let _ = world.sent();
    assert_eq!(world.send(0, 3, &frames[..2]), [[0u8; 0]; 0]);
    assert_eq!(world.send(0, 256, &[vec![1; 13], frames[0].clone()]), [[0u8; 0]; 0]);
    assert_eq!(world.sent().len(), 1);
    let counts = |index: usize| (world.ports[index].stats().tx_packets, world.ports[index].refused());
    assert_eq!([0, 1, 2].map(counts), [(1, 3), (3, 0), (0, 0)]);
    assert_eq!(world.pool.available(), FRAMES);
}

/// A device that refuses every second packet.
#[derive(Default)]
struct RefusingDevice(PortStats);

impl Port for RefusingDevice {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        for (at, packet) in burst.take(BURST).enumerate() {
            if at % 2 == 0 {
                self.0.sent(&packet);
            } else {
                self.0.tx_errors += 1;
            }
            pool.give(packet);
        }
    }

    fn refused(&self) -> u64 {
        self.0.tx_errors
    }

    fn stats(&self) -> PortStats {
        PortStats { rx_missed: 5, rx_errors: 6, rx_oversize: 7, ..self.0 }
    }
}

#[test]
fn what_a_device_refuses_and_loses_is_divided_without_a_rest() {
    let taggings = [None, Some(tagging(None, 100)), Some(tagging(Some(7), 200))];
    let parts = divide(vec![Box::<RefusingDevice>::default()], None, &taggings);
    let ports = parts.into_iter().flat_map(|part| part.queues).collect();
    let (_, wire) = memory::pair(1, 64);
    let mut world = World { ports, pool: Pool::new(FRAMES, 2048).unwrap(), wire };
    let long = [frame(&[], 0, protocol::UDP), vec![7; 500]].concat();
    let mut sent = vec![];
    for (index, count) in [(1, 3), (0, 2), (2, 5), (1, 1)] {
        let frames: Vec<_> = (0..count).map(|at| long[..100 + 10 * at].to_vec()).collect();
        world.send(index, 256, &frames);
        sent.extend(frames.iter().step_by(2).map(|frame| (index, frame.len() as u64)));
    }
    for index in 0..3 {
        let stats = world.ports[index].stats();
        let own = sent.iter().filter(|(port, _)| *port == index).map(|(_, length)| *length);
        assert_eq!(
            (stats.tx_packets, stats.tx_bytes),
            (own.clone().count() as u64, own.sum::<u64>()),
            "{index}"
        );
        assert_eq!([stats.tx_errors, world.ports[index].refused()], [[1, 1, 2][index]; 2]);
        let lost = (stats.rx_missed, stats.rx_errors, stats.rx_oversize);
        assert_eq!(lost, if index == 0 { (5, 6, 7) } else { (0, 0, 0) });
    }
}

#[test]
fn a_port_that_is_replaced_gives_its_frames_back_and_holds_up_no_other() {
    let mut world = World::three();
    (0..10).for_each(|_| assert!(world.wire.send(&frame(&TAG_100, 0, protocol::UDP))));
    assert_eq!((world.receive(0).len(), world.pool.available()), (0, FRAMES - 10));
    let old = std::mem::replace(&mut world.ports[1], Box::new(AbsentPort));
    world.pool.give_returned(old.close());
    assert_eq!(world.pool.available(), FRAMES);
    assert!(world.wire.send(&frame(&TAG_100, 0, protocol::UDP)));
    assert!(world.wire.send(&frame(&TAGS_7_200, 0, protocol::UDP)));
    assert_eq!((world.receive(0).len(), world.receive(2).len()), (0, 1));
    assert_eq!(world.pool.available(), FRAMES);
}

#[test]
fn a_port_is_exhausted_once_it_has_fetched_what_waits() {
    let mut world = World::three();
    assert!(world.wire.send(&frame(&TAG_100, 0, protocol::UDP)));
    world.wire.close();
    let exhausted = |world: &World| world.ports.iter().map(|port| port.is_exhausted()).collect::<Vec<_>>();
    assert_eq!(world.receive(0).len(), 0);
    assert_eq!(exhausted(&world), [true, false, true]);
    assert_eq!(world.receive(1).len(), 1);
    assert_eq!(exhausted(&world), [true; 3]);
}

/// A device that is down. Counts how often it is asked for packets.
struct IdleDevice(Arc<AtomicU32>);

impl Port for IdleDevice {
    fn rx(&mut self, _: &mut Pool, _: &mut Burst) {
        self.0.fetch_add(1, Relaxed);
    }

    fn tx(&mut self, _: &mut Pool, _: &mut Burst) {}

    fn is_down(&self) -> bool {
        true
    }

    fn stats(&self) -> PortStats {
        PortStats::default()
    }
}

#[test]
fn ports_of_a_device_that_is_down_say_so() {
    let taggings = [None, Some(tagging(None, 100))];
    let parts = divide(vec![Box::new(IdleDevice(Arc::default()))], None, &taggings);
    let are_down: Vec<_> = parts.iter().map(|part| part.queues[0].is_down()).collect();
    assert_eq!(are_down, [true; 2]);
}

#[test]
fn an_idle_device_is_asked_once_a_turn() {
    let polls: Arc<AtomicU32> = Arc::default();
    let taggings: Vec<_> = (1..=50).map(|id| Some(tagging(None, id))).collect();
    let parts = divide(vec![Box::new(IdleDevice(polls.clone()))], None, &taggings);
    let mut ports: Vec<_> = parts.into_iter().flat_map(|part| part.queues).collect();
    let (mut pool, mut burst) = (Pool::new(1, 512).unwrap(), Burst::new());
    for _ in 0..10 {
        ports.iter_mut().for_each(|port| port.rx(&mut pool, &mut burst));
    }
    assert_eq!(polls.load(Relaxed), 10);
}

#[derive(Debug)]
struct FakeMonitor;

impl Monitor for FakeMonitor {
    fn state(&self) -> DeviceState {
        DeviceState {
            mtu: Some(1500),
            is_up: true,
            rx_missed: 1,
            rx_errors: 2,
            tx_errors: 3,
            ..Default::default()
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        vec![("own".to_owned(), 4)]
    }
}

#[test]
fn state_of_a_device_is_every_ports_and_its_counts_are_the_first_ones() {
    let taggings = [Some(tagging(None, 100)), Some(tagging(Some(7), 200)), None];
    let parts = divide(vec![], Some(Box::new(FakeMonitor)), &taggings);
    let monitors: Vec<_> = parts.into_iter().filter_map(|part| part.monitor).collect();
    let states: Vec<_> = monitors.iter().map(|monitor| monitor.state()).collect();
    assert_eq!(states.iter().map(|state| state.mtu.unwrap()).collect::<Vec<_>>(), [1500, 1492, 1500]);
    assert!(states.iter().all(|state| state.is_up));
    let counts = |state: &DeviceState| (state.rx_missed, state.rx_errors, state.tx_errors);
    assert_eq!(states.iter().map(counts).collect::<Vec<_>>(), [(1, 2, 3), (0, 0, 0), (0, 0, 0)]);
    assert_eq!(monitors.iter().map(|monitor| monitor.counters().len()).collect::<Vec<_>>(), [1, 0, 0]);
}

//! Devices that take 802.1Q tags off frames and put them on.

use super::*;
use crate::packet::Packet;
use crate::wire::{be16, vlan};

/// A NIC that does so, on any other port.
struct Offloading(Box<dyn Port>);

fn take_off(packet: &mut Packet) {
    let tag = packet.data().get(12..16).filter(|tag| be16(tag, 0) == ethernet::VLAN);
    let Some(tag) = tag.map(|tag| be16(tag, 2)) else { return };
    vlan::cut_tags(packet.data_mut(), vlan::TAG);
    packet.pull_front(vlan::TAG).unwrap();
    packet.set_tag(tag);
}

fn put_on(packet: &mut Packet) {
    if let Some(tag) = packet.take_tag() {
        put_back(packet, ethernet::VLAN, tag).unwrap();
    }
}

impl Port for Offloading {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.0.rx(pool, burst);
        burst.iter_mut().for_each(take_off);
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        burst.iter_mut().for_each(put_on);
        self.0.tx(pool, burst);
        // What does not fit stays as it was.
        burst.iter_mut().for_each(take_off);
    }

    fn inserts_tags(&self) -> bool {
        true
    }

    fn stats(&self) -> PortStats {
        self.0.stats()
    }
}

/// Returns two equal worlds, of which the second one has a NIC that works on tags.
fn both(taggings: &[Option<Tagging>], depth: usize) -> [World; 2] {
    [false, true].map(|has_nic| {
        let (device, wire) = memory::pair(depth, 2048);
        let device: Box<dyn Port> =
            if has_nic { Box::new(Offloading(Box::new(device))) } else { Box::new(device) };
        let ports = divide(vec![device], None, taggings).into_iter().flat_map(|part| part.queues).collect();
        World { ports, pool: Pool::new(FRAMES, 2048).unwrap(), wire }
    })
}

#[test]
fn frames_reach_the_same_ports_whoever_takes_their_tags_off() {
    let by_priority = Tagging { sets_dscp: true, ..tagging(None, 200) };
    let priority = [0x81, 0, 0xe0, 0];
    let tags = [
        &[][..],
        &TAG_100,
        &[0x81, 0, 0xa0, 200],
        &[TAG_100, priority].concat(),
        &[priority, TAG_100].concat(),
        &priority,
        &[0x81, 0, 0, 101],
        &TAGS_7_200,
        &[0x88, 0xa8, 0, 100],
        &TAG_100.repeat(10),
    ];
    for taggings in [
        &[Some(tagging(None, 100)), Some(by_priority), None][..],
        &[Some(tagging(None, 100)), Some(by_priority)],
    ] {
        let [wire, nic] = both(taggings, FRAMES).map(|mut world| {
            for frame in tags.iter().map(|tags| frame(tags, 0, protocol::UDP)) {
                assert!(world.wire.send(&frame));
            }
            let received = world.receive_all();
            let foreign: Vec<_> = world.ports.iter().map(|port| port.stats().rx_foreign).collect();
            assert_eq!(world.pool.available(), FRAMES);
            (received, foreign)
        });
        assert_eq!(nic, wire);
        assert_eq!(nic.0.iter().take(2).map(Vec::len).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(class_of(&nic.0[1][0]) >> 5, 5);
    }
}

#[test]
fn every_truncation_of_a_frame_without_its_tag_is_somebodys() {
    let [_, mut world] = both(&[Some(tagging(None, 100)), None], FRAMES);
    let whole = frame(&TAG_100.repeat(3), 0, protocol::UDP);
    (0..=whole.len()).for_each(|end| assert!(world.wire.send(&whole[..end])));
    let received: usize = world.receive_all().iter().map(Vec::len).sum();
    let foreign = world.ports[0].stats().rx_foreign as usize;
    assert_eq!((received + foreign, world.pool.available()), (whole.len() + 1, FRAMES));
}

#[test]
fn frames_leave_with_the_same_tags_whoever_puts_them_on() {
    let by_dscp = Tagging { priority: Priority::Dscp, ..tagging(None, 100) };
    let taggings = [Some(by_dscp), Some(tagging(Some(7), 200)), None];
    let [wire, nic] = both(&taggings, FRAMES).map(|mut world| {
        let frames = [0xb8, 0].map(|class| frame(&[], class, protocol::UDP));
        for index in 0..3 {
            assert!(world.send(index, 64, &frames).is_empty());
        }
        world.sent()
    });
    assert_eq!(nic, wire);
    assert_eq!(nic[0], frame(&[0x81, 0, 0xa0, 100], 0xb8, protocol::UDP));
}

#[test]
fn frames_that_a_device_does_not_take_stay_without_tags() {
    let [_, mut world] = both(&[Some(tagging(None, 100)), None], 4);
    let plain = frame(&[], 0, protocol::UDP);
    let left = world.send(0, 64, &vec![plain.clone(); 10]);
    assert_eq!((left.len(), world.sent().len()), (6, 4));
    assert!(left.iter().all(|left| *left == plain));
}

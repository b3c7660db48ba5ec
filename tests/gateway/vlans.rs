//! Ports in VLANs of one device: outside in VLAN 100, inside in VLAN [100, 200].

use wayfarer::{
    config::model::Remote,
    control::protocol::{Command, Outcome, PortView, Reply, View},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::{TooBig, UnknownEthertype},
    port::vlan::{self, Priority, Tagging},
    wire::{
        arp::{Arp, Operation},
        ethernet,
        ip::IpHeader,
        vlan::Vlan,
    },
};

const SUITE: &str = "aes128gcm16";
/// The tags of each port, without a priority.
const TAGS: [&[u8]; 2] = [&[0x81, 0, 0, 100], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 200]];
/// The MAC address that both ports have.
const MAC: [u8; 6] = GATEWAY_MAC[OUTSIDE];

fn tagging(outer: Option<u16>, inner: u16) -> Tagging {
    Tagging { vlan: Vlan::new(outer, inner).unwrap(), priority: Priority::Fixed(0), sets_dscp: false }
}

/// A gateway on one wire, and the terminal of its tunnel.
struct Trunk {
    world: World,
    terminal: Terminal,
}

impl Trunk {
    /// Makes a gateway whose ports mark their frames as `change` has it. With `has_untagged`, a third
    /// port is in no VLAN.
    fn new(has_untagged: bool, change: impl FnOnce(&mut [Tagging; 2])) -> Self {
        let mut tunnel = tunnel(1, suite(SUITE));
        tunnel.remote = Remote::At(ip("192.0.2.1"), 4500);
        let (mut ports, wires) = open_ports(1, 512);
        let mut taggings = [tagging(None, 100), tagging(Some(100), 200)];
        change(&mut taggings);
        if has_untagged {
            let mut port = bare_port(OUTSIDE, ports[OUTSIDE].stations, vec![]);
            port.addresses = vec![(ip("198.51.100.1"), "198.51.100.0/24".parse().unwrap())];
            port.name = "untagged".to_owned();
            ports.push(port);
        }
        let taggings: Vec<_> = ports.iter().enumerate().map(|(at, _)| taggings.get(at).copied()).collect();
        let device = std::mem::take(&mut ports[OUTSIDE].queues);
        for (port, part) in ports.iter_mut().zip(vlan::divide(device, None, &taggings)) {
            (port.queues, port.mac) = (part.queues, MAC);
        }
        ports[INSIDE].mtu = 1492;
        let world = World::on(config(vec![tunnel]), (ports, wires));
        Self { world, terminal: Terminal::new(1, suite(SUITE), "192.0.2.1") }
    }

    /// Sends frames to the gateway, and returns those that come from it.
    fn exchange(&mut self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        assert!(self.world.wires[OUTSIDE].send(&frame));
        self.world.settle();
        std::mem::take(&mut self.world.out[OUTSIDE])
    }

    /// Does the same with an IP packet in the VLAN of a port, and answers the requests for neighbours
    /// that come in the VLAN of a port.
    fn send(&mut self, port: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut packets = vec![];
        let mut frames = self.exchange(tagged(TAGS[port], frame(MAC, STATION_MAC[port], packet)));
        while let Some(frame) = frames.pop() {
            let asked = [OUTSIDE, INSIDE].into_iter().find_map(|port| {
                let plain = without(TAGS[port], &without_priority(&frame))?;
                Some((port, answer_neighbour(&plain, STATION_MAC[port])?))
            });
            match asked {
                Some((port, reply)) => frames.extend(self.exchange(tagged(TAGS[port], reply))),
                None => packets.push(frame),
            }
        }
        packets
    }

    fn ports(&mut self) -> Vec<PortView> {
        // Enough turns for a report of the counters.
        (0..5000).for_each(|_| _ = self.world.assembly.workers[0].0.turn());
        match self.world.ask(Command::Show { what: View::Ports }).outcome {
            Outcome::Result(Reply::Ports(ports)) => ports,
            other => panic!("{other:?}"),
        }
    }
}

/// Puts tags into a frame.
fn tagged(tags: &[u8], mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, tags.iter().copied());
    frame
}

/// Returns the frame with the priority of its one or two tags cleared.
fn without_priority(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[14] &= 0x1f;
    if frame[16..18] == [0x81, 0] {
        frame[18] &= 0x1f;
    }
    frame
}

/// Returns the frame without these tags; `None` if it has others.
fn without(tags: &[u8], frame: &[u8]) -> Option<Vec<u8>> {
    let rest = frame[12..].strip_prefix(tags)?;
    Some([&frame[..12], rest].concat())
}

/// Returns the IP packet in a frame with these tags to the station of a port.
fn packet_in(tags: &[u8], port: usize, frame: &[u8]) -> Vec<u8> {
    let plain = without(tags, frame).unwrap_or_else(|| panic!("not with {tags:x?}: {frame:x?}"));
    assert_eq!((&plain[..6], &plain[6..12]), (&STATION_MAC[port][..], &MAC[..]));
    plain[ethernet::HEADER..].to_vec()
}

fn up() -> Vec<u8> {
    datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up")
}

fn down(length: usize) -> Vec<u8> {
    datagram("10.99.0.7", "10.98.0.1", (2, 1), &vec![7; length - 28])
}

#[test]
fn a_tunnel_leads_from_one_vlan_to_another() {
    for has_untagged in [false, true] {
        let mut trunk = Trunk::new(has_untagged, |_| {});
        let sealed = trunk.terminal.seal(&up());
        let [out] = trunk.send(OUTSIDE, &sealed).try_into().unwrap();
        assert_eq!(packet_in(TAGS[INSIDE], INSIDE, &out), forwarded(&up()));
        let [out] = trunk.send(INSIDE, &down(100)).try_into().unwrap();
        let sealed = packet_in(TAGS[OUTSIDE], OUTSIDE, &out);
        assert_eq!(trunk.terminal.open(&sealed).2, forwarded(&down(100)));
        assert_eq!(trunk.world.all_drops(), []);
        let counts: Vec<_> =
            trunk.ports().iter().map(|p| (p.neighbours, p.rx_packets, p.tx_packets)).collect();
        assert_eq!(counts[..2], [(1, 2, 2), (1, 2, 2)], "a packet and an answer; a packet and a request");
        assert!(counts[2..].iter().all(|counts| *counts == (0, 0, 0)));
    }
}

#[test]
fn stations_find_the_gateway_only_in_its_vlan() {
    let mut trunk = Trunk::new(true, |_| {});
    let request = |target: [u8; 4], sender: [u8; 4]| Arp {
        operation: Operation::Request,
        sender_mac: STATION_MAC[OUTSIDE],
        sender: sender.into(),
        target_mac: [0; 6],
        target: target.into(),
    };
    let outside = request([203, 0, 113, 1], [203, 0, 113, 9]).frame(ethernet::BROADCAST);
    let untagged = request([198, 51, 100, 1], [198, 51, 100, 9]).frame(ethernet::BROADCAST);
    for (tags, frame, is_answered) in [
        (TAGS[OUTSIDE], &outside, true),
        (TAGS[INSIDE], &outside, false),
        (&[], &outside, false),
        (&[0x81, 0, 0, 101], &outside, false),
        (&[], &untagged, true),
        (TAGS[OUTSIDE], &untagged, false),
    ] {
        let answers = trunk.exchange(tagged(tags, frame.clone()));
        assert_eq!(answers.len(), usize::from(is_answered), "{tags:x?}");
        if let Some(answer) = answers.first() {
            let arp = Arp::parse(&without(tags, answer).unwrap()[ethernet::HEADER..]).unwrap();
            assert_eq!((arp.operation, arp.sender_mac), (Operation::Reply, MAC));
        }
    }
}

#[test]
fn priorities_follow_dscp_out_and_in() {
    let mut trunk = Trunk::new(false, |taggings| {
        taggings[OUTSIDE].priority = Priority::Dscp;
        taggings[INSIDE].priority = Priority::Fixed(3);
        taggings[INSIDE].sets_dscp = true;
    });
    let priority_6 = [0x88, 0xa8, 6 << 5, 100, 0x81, 0, 0, 200];
    // The stations are known afterwards.
    trunk.send(INSIDE, &down(100));
    let in_vlan = tagged(&priority_6, frame(MAC, STATION_MAC[INSIDE], &down(100)));
    let [out] = trunk.exchange(in_vlan).try_into().unwrap();
    let sealed = packet_in(&[0x81, 0, 6 << 5, 100], OUTSIDE, &out);
    let (outer, _, inner, _) = trunk.terminal.open(&sealed);
    let inner = IpHeader::parse(&inner).expect("a header with the right checksum");
    assert_eq!((outer.traffic_class, inner.traffic_class), (6 << 5, 6 << 5), "class selector 6");
    let sealed = trunk.terminal.seal(&up());
    trunk.send(OUTSIDE, &sealed);
    let sealed = trunk.terminal.seal(&up());
    let in_vlan = tagged(&[0x81, 0, 7 << 5, 100], frame(MAC, STATION_MAC[OUTSIDE], &sealed));
    let [out] = trunk.exchange(in_vlan).try_into().unwrap();
    let inner = packet_in(&[0x88, 0xa8, 3 << 5, 100, 0x81, 0, 3 << 5, 200], INSIDE, &out);
    assert_eq!(inner, forwarded(&up()), "the peer's DSCP stays");
}

#[test]
fn each_vlan_has_its_own_mtu() {
    let mut trunk = Trunk::new(false, |_| {});
    let longest = datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1492 - 28]);
    let sealed = trunk.terminal.seal(&longest);
    // Padding and ESP: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4. The outer packet does not fit
    // the outside's MTU, so a router cut it.
    let pieces = fragments(&sealed, 1500, 7);
    let out: Vec<_> = pieces.iter().flat_map(|piece| trunk.send(OUTSIDE, piece)).collect();
    assert_eq!(packet_in(TAGS[INSIDE], INSIDE, &out[0]), forwarded(&longest));
    let sealed = trunk.terminal.seal(&datagram("10.98.0.1", "10.99.0.7", (1, 2), &[7; 1493 - 28]));
    for piece in fragments(&sealed, 1500, 8) {
        trunk.send(OUTSIDE, &piece);
    }
    assert_eq!(trunk.world.all_drops(), [(TooBig, 1)]);
}

#[test]
fn frames_in_other_vlans_are_counted() {
    let foreign =
        [&[0x81, 0, 0, 101][..], &[0x88, 0xa8, 0, 100], &[0x81, 0, 0x0f, 0xff], &TAGS[OUTSIDE].repeat(10)];
    let passing = datagram("10.99.0.7", "198.51.100.9", (1, 2), b"passing by");
    let send = |trunk: &mut Trunk| {
        for tags in foreign {
            let in_vlan = tagged(tags, frame(MAC, STATION_MAC[INSIDE], &passing));
            assert_eq!(trunk.exchange(in_vlan), [[0u8; 0]; 0]);
        }
        trunk.ports().iter().map(|port| (port.rx_packets, port.rx_foreign)).collect::<Vec<_>>()
    };
    let mut alone = Trunk::new(false, |_| {});
    assert_eq!((send(&mut alone), alone.world.all_drops()), (vec![(0, 4), (0, 0)], vec![]));
    let answer = alone.world.ask(Command::Show { what: View::Drops });
    let Outcome::Result(Reply::Drops(shown)) = answer.outcome else { panic!("{answer:?}") };
    let packets = |reason: &str| shown.iter().find(|drop| drop.reason == reason).map(|drop| drop.packets);
    assert_eq!(packets("PortForeign"), Some(4));
    let mut beside = Trunk::new(true, |_| {});
    assert_eq!(send(&mut beside), [(0, 0), (0, 0), (4, 0)]);
    assert_eq!(beside.world.all_drops(), [(UnknownEthertype, 4)]);
}

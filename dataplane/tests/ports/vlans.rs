//! A device whose ports are in VLANs, beside the host's kernel.

use crate::{
    frames::{ESP, ICMPV6, TCP, UDP, ethernet, ip, joined, ports, tcp},
    world::{RawSocket, World, wait_for},
};
use std::net::IpAddr;
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Mac, Port,
        classifier::Rules,
        open::{self, Kind, Request},
        vlan::{self, Priority, Tagging},
    },
    wire::vlan::Vlan,
};

const PRIORITY: [u8; 4] = [0x81, 0, 0xa0, 0];
const TAG_100: [u8; 4] = [0x81, 0, 0xa0, 100];
const TAG_7: [u8; 4] = [0x88, 0xa8, 0, 7];
const TAG_200: [u8; 4] = [0x81, 0, 0, 200];
const OWN: &str = "198.51.100.1";
/// Polls after which a port has looked at all of its sockets.
const POLLS: usize = 64;
/// The length of the longest IP packet of each port, for a device's MTU of 1500 bytes.
const LONGEST: [usize; 3] = [1500, 1492, 1500];

/// The receiver of a frame: a port by its index, without the tags, or the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Port(usize),
    Kernel,
}
use Receiver::{Kernel, Port as AtPort};

/// The ports of `gw0` in VLAN 100, in VLAN [7, 200] and, if there is one, in none.
struct Trunk {
    ports: Vec<Box<dyn Port>>,
    pool: Pool,
    kernel: Vec<RawSocket>,
    peer: RawSocket,
    mac: Mac,
    sent: u32,
}

impl Trunk {
    fn open(world: &World, kind: Kind, has_untagged: bool) -> Self {
        let vlans = [(None, 100), (Some(7), 200)].map(|(outer, inner)| Vlan::new(outer, inner).unwrap());
        let rules = Rules {
            local: vec![OWN.parse().unwrap()],
            udp_ports: vec![4500],
            vlans: vlans.to_vec(),
            only_vlans: !has_untagged,
            ..Rules::default()
        };
        let mut pools = [Pool::new(512, 2048).unwrap()];
        let request = Request { device: "gw0", kind, rules, tap_mtu: 1500 };
        let opened = world.gw(|| open::open(&request, &mut pools).unwrap());
        let link = world.in_gw("ip -d link show gw0");
        assert!(link.contains("promiscuity 1") && link.contains("allmulti 1"), "{link}");
        let mut taggings =
            vlans.map(|vlan| Some(Tagging { vlan, priority: Priority::Fixed(0), sets_dscp: false })).to_vec();
        taggings.extend(has_untagged.then_some(None));
        let parts = vlan::divide(opened.ports, Some(opened.monitor), &taggings);
        let ports = parts.into_iter().flat_map(|part| part.queues).collect();
        let protocols = [
            libc::ETH_P_IP,
            libc::ETH_P_IPV6,
            libc::ETH_P_ARP,
            libc::ETH_P_8021Q,
            libc::ETH_P_8021AD,
            0x88b5,
        ];
        let kernel = protocols.map(|protocol| world.kernel("gw0", protocol)).into();
        let [pool] = pools;
        let peer = world.peer("peer0");
        let mut trunk = Self { ports, pool, kernel, peer, mac: opened.mac, sent: 0 };
        trunk.receive(0);
        trunk
    }

    fn receive(&mut self, index: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.ports[index].rx(&mut self.pool, &mut burst);
        let frames = burst.iter().map(|packet| packet.data().to_vec()).collect();
        self.pool.give_all(&mut burst);
        frames
    }

    /// Sends a frame of `plain` with these tags, and returns its receiver, of which there must be one.
    fn receiver_of(&mut self, tags: &[[u8; 4]], plain: &[u8]) -> Receiver {
        self.sent += 1;
        let mut plain = plain.to_vec();
        plain.extend(self.sent.to_be_bytes());
        let tags = tags.concat();
        let frame = [&plain[..12], &tags, &plain[12..]].concat();
        let fence = [&self.mac[..], &self.peer.mac, &TAG_100, b"fence", &self.sent.to_be_bytes()].concat();
        self.peer.send(&frame);
        self.peer.send(&fence);
        let (mut receivers, mut has_ended) = (vec![], false);
        wait_for("the frame and the fence", || {
            has_ended |= self.look(&plain, &frame, &fence[16..], &mut receivers);
            (has_ended && !receivers.is_empty()).then_some(())
        });
        for _ in 0..POLLS {
            self.look(&plain, &frame, &fence[16..], &mut receivers);
        }
        assert_eq!(receivers.len(), 1, "{receivers:?}");
        receivers[0]
    }

    /// Adds those who have got `frame` since the last call, which is `plain` without its tags. Returns
    /// whether a port has got what ends with `fence`.
    fn look(&mut self, plain: &[u8], frame: &[u8], fence: &[u8], receivers: &mut Vec<Receiver>) -> bool {
        let mut has_ended = false;
        for index in 0..self.ports.len() {
            for received in self.receive(index) {
                has_ended |= received.ends_with(fence);
                receivers.extend((received == plain || received == frame).then_some(AtPort(index)));
            }
        }
        let ends_so =
            |received: &Vec<u8>| received.starts_with(&plain[..12]) && received.ends_with(&plain[14..]);
        for socket in &self.kernel {
            receivers.extend(std::iter::from_fn(|| socket.try_recv()).filter(ends_so).map(|_| Kernel));
        }
        has_ended
    }

    /// Checks who gets frames in the gateway's VLANs, in others and in none, of which `untagged` is the
    /// port.
    fn whole_table(&mut self, untagged: Option<usize>) {
        let (own, from): (Mac, Mac) = (self.mac, self.peer.mac);
        let other: Mac = [2, 0, 0, 0, 0, 9];
        let to = |mac: Mac, destination: &str, protocol, payload: &[u8]| {
            let (ethertype, packet) = ip(destination.parse::<IpAddr>().unwrap(), protocol, payload);
            ethernet(mac, from, ethertype, &packet)
        };
        let passing = to(own, "192.0.2.1", UDP, &ports(9, b"x"));
        let ssh = to(own, OWN, TCP, &ports(22, b""));
        let esp = to(own, OWN, ESP, &[0, 0, 0x10, 1, 0, 0, 0, 1]);
        let solicitation = [&[135u8, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        let in_vlans = [
            ("forwarded", passing.clone(), true),
            ("ESP", esp.clone(), true),
            ("SSH to us", ssh.clone(), true),
            (
                "ARP",
                ethernet([0xff; 6], from, 0x0806, &[&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat()),
                true,
            ),
            ("solicitation", to([0x33, 0x33, 0xff, 0, 0, 1], "ff02::1:ff00:1", ICMPV6, &solicitation), true),
            ("not IP", ethernet(own, from, 0x88b5, &[7; 40]), true),
            ("another MAC", to(other, "192.0.2.1", UDP, &ports(9, b"x")), false),
        ];
        let double = [TAG_7, TAG_200];
        for (index, tags) in
            [(0, &[TAG_100][..]), (1, &double), (0, &[PRIORITY, TAG_100]), (1, &[TAG_7, PRIORITY, TAG_200])]
        {
            for (name, frame, is_ours) in &in_vlans {
                let expected = if *is_ours { AtPort(index) } else { Kernel };
                assert_eq!(self.receiver_of(tags, frame), expected, "{name} in {tags:x?}");
            }
        }
        let strange = [
            &[[0x81, 0, 0, 101]][..],
            &[[0x88, 0xa8, 0, 100]],
            &[TAG_7],
            &[[0x81, 0, 0, 7], TAG_200],
            &[TAG_7, [0x81, 0, 0, 201]],
            &[TAG_100, TAG_100],
            &[TAG_7, TAG_200, TAG_200],
            &[TAG_100; 10],
        ];
        for tags in strange {
            assert_eq!(self.receiver_of(tags, &passing), Kernel, "{tags:x?}");
        }
        for tags in [&[][..], &[PRIORITY]] {
            assert_eq!(self.receiver_of(tags, &passing), untagged.map_or(Kernel, AtPort), "{tags:x?}");
            assert_eq!(self.receiver_of(tags, &esp), untagged.map_or(Kernel, AtPort), "{tags:x?}");
            assert_eq!(self.receiver_of(tags, &ssh), Kernel, "{tags:x?}");
        }
    }

    /// Checks that all packets of a port's MTU leave, with their tags, and that none longer is accepted.
    fn longest_packets(&mut self) {
        for (index, length) in (0..self.ports.len()).zip(LONGEST) {
            let frame = [&self.peer.mac[..], &self.mac, &[8, 0], &vec![index as u8; length]].concat();
            let mut burst = Burst::new();
            let mut packet = self.pool.take().unwrap();
            packet.fill(packet.headroom(), &frame).unwrap();
            burst.push(packet);
            self.ports[index].tx(&mut self.pool, &mut burst);
            assert!(burst.is_empty());
            let received = wait_for("the frame", || {
                self.ports[index].flush(&mut self.pool);
                self.peer.try_recv().filter(|received| received.ends_with(&frame[14..]))
            });
            // The kernel takes out the outermost tag.
            let tags = [&[][..], &TAG_200, &[]][index];
            assert_eq!(received, [&frame[..12], tags, &frame[12..]].concat());
            assert_eq!((self.ports[index].stats().tx_packets, self.ports[index].refused()), (1, 0));
        }
    }
}

fn check(kind: Kind) {
    for has_untagged in [true, false] {
        let world = World::new(1, 1);
        let mut trunk = Trunk::open(&world, kind, has_untagged);
        trunk.whole_table(has_untagged.then_some(2));
        trunk.longest_packets();
    }
}

#[test]
fn af_packet_divides_a_device() {
    check(Kind::AfPacket);
}

#[test]
fn af_xdp_divides_a_device() {
    check(Kind::AfXdp);
}

#[test]
fn joined_frames_are_cut_in_every_vlan() {
    let world = World::new(1, 1);
    world.in_peer("ethtool -K peer0 tx on tso on gso on");
    let mut trunk = Trunk::open(&world, Kind::AfPacket, true);
    let peer = world.joining_peer("peer0");
    let payload: Vec<u8> = (0..20_000u32).map(|n| (n / 7) as u8).collect();
    for (index, tags) in [(0, &[TAG_100][..]), (1, &[TAG_7, TAG_200]), (2, &[])] {
        // Less than a slot of the ring, and more.
        for length in [1500, 20_000] {
            let payload = &payload[..length];
            let (ethertype, packet) = ip("192.0.2.1".parse().unwrap(), TCP, &tcp(1, payload));
            let mut frame = ethernet(trunk.mac, peer.mac, ethertype, &packet);
            frame.splice(12..12, tags.concat());
            let header = joined(1, 1000, 34 + 4 * tags.len() as u16);
            peer.send(&[&header[..], &frame].concat());
            let mut received = vec![];
            wait_for("all packets", || {
                for other in 0..trunk.ports.len() {
                    let frames = trunk.receive(other);
                    assert!(other == index || frames.is_empty(), "at port {other}");
                    received.extend(frames);
                }
                (received.len() >= length.div_ceil(1000)).then_some(())
            });
            let parts: Vec<u8> = received.iter().flat_map(|packet| &packet[54..]).copied().collect();
            assert!(parts == payload && received.iter().all(|packet| packet[12..14] == [8, 0]));
        }
        let stats = trunk.ports[index].stats();
        assert_eq!((stats.rx_errors, stats.rx_oversize, stats.rx_missed), (0, 0, 0));
    }
}

#[test]
fn a_pool_must_have_room_for_tags() {
    let world = World::new(1, 1);
    // A frame has 256 bytes of headroom, 14 of Ethernet, 4 of a tag, and a packet of 1280 bytes or the
    // device's MTU.
    for (mtu, vlan, frame, fits) in [
        (1500, None, 1600, true),
        (1500, None, 1536, false),
        (1266, None, 1536, true),
        (1266, Some(100), 1536, false),
    ] {
        world.in_gw(&format!("ip link set gw0 mtu {mtu}"));
        let vlans = vlan.map(|vlan| Vlan::new(None, vlan).unwrap()).into_iter().collect();
        let rules = Rules { vlans, ..Rules::default() };
        let request = Request { device: "gw0", kind: Kind::AfPacket, rules, tap_mtu: 1500 };
        let opened = world.gw(|| open::open(&request, &mut [Pool::new(64, frame).unwrap()]));
        assert_eq!(opened.is_ok(), fits, "{mtu} {vlan:?} {frame}");
    }
}

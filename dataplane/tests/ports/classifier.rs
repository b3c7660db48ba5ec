//! The division of frames between the gateway's port and the host's kernel: the whole table, for
//! XDP and for AF_PACKET.

use crate::{
    frames::{self, ESP, FRAGMENT, ICMPV6, TCP, UDP, ethernet, ip, ports},
    traffic::Worker,
    world::{RawSocket, World, wait_for},
};
use std::{net::IpAddr, sync::Arc};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Mac, Port,
        af_packet::AfPacketPort,
        af_xdp::AfXdpPort,
        classifier::{Classifier, MAX_LOCAL, NatRule, Rules},
        device::Device,
        neighbour_socket::NeighbourSocket,
    },
};

/// The receiver of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Receiver {
    Gateway,
    Kernel,
}
use Receiver::{Gateway, Kernel};

const ETHERTYPES: [i32; 7] = [
    libc::ETH_P_IP,
    libc::ETH_P_IPV6,
    libc::ETH_P_ARP,
    0x88b5,
    // The kernel's protocol for a frame with an LLC header in place of an EtherType (IEEE 802.2).
    libc::ETH_P_802_2,
    libc::ETH_P_8021Q,
    libc::ETH_P_PPP_SES,
];
/// Tags: of VLAN 0 with a priority, the same in the form of 802.1ad, and of VLAN 5.
const PRIORITY: [u8; 4] = [0x81, 0, 0xa0, 0];
const OUTER_PRIORITY: [u8; 4] = [0x88, 0xa8, 0x40, 0];
const VLAN: [u8; 4] = [0x81, 0, 0xa0, 5];
pub(crate) const LOCAL4: &str = "198.51.100.1";
pub(crate) const LOCAL6: &str = "2001:db8::1";
/// Not that of a NAT.
pub(crate) const OTHER4: &str = "198.51.100.2";
/// Ends as `LOCAL4` does.
pub(crate) const LIKE_LOCAL4: &str = "2001:db8::c633:6401";
const LINK_LOCAL: &str = "fe80::1";
/// Polls after which a port has looked at all of its sockets.
const POLLS: usize = 64;

/// A gateway's port on `gw0`, and all other receivers there.
pub(crate) struct Listener {
    worker: Worker,
    pub(crate) classifier: Arc<Classifier>,
    neighbours: NeighbourSocket,
    kernel: Vec<RawSocket>,
    pub(crate) peer: RawSocket,
    pub(crate) mac: Mac,
    sent: u32,
}

/// Returns whether a frame was received as it was sent. The kernel takes tags off, so only the
/// addresses and the end of a long frame, with its number, are compared.
fn is_same(received: &[u8], sent: &[u8]) -> bool {
    let end = sent.len().saturating_sub(24).max(18);
    received.get(..12) == sent.get(..12) && received.ends_with(&sent[end..])
}

pub(crate) type Open = fn(&Device, &Rules, &mut Pool) -> (Box<dyn Port>, Arc<Classifier>);

impl Listener {
    pub(crate) fn open(world: &World, open: Open) -> Self {
        let rules = Rules {
            local: [LOCAL4, OTHER4, LOCAL6, LIKE_LOCAL4, LINK_LOCAL].map(|a| a.parse().unwrap()).to_vec(),
            udp_ports: vec![500, 4500],
            nats: vec![NatRule { address: LOCAL4.parse().unwrap(), ports: 20_000..=29_999 }],
            ..Rules::default()
        };
        let mut pool = Pool::new(256, 2048).unwrap();
        let (port, classifier, neighbours, mac) = world.gw(|| {
            let device = Device::find("gw0").unwrap();
            let (port, classifier) = open(&device, &rules, &mut pool);
            (port, classifier, NeighbourSocket::open(&device).unwrap(), device.mac())
        });
        // Sockets for one protocol come after XDP and TCX, so they see what the network stack sees.
        let kernel = ETHERTYPES.map(|protocol| world.kernel("gw0", protocol)).into();
        let peer = world.peer("peer0");
        let mut listener = Self { worker: (port, pool), classifier, neighbours, kernel, peer, mac, sent: 0 };
        listener.worker.0.rx(&mut listener.worker.1, &mut Burst::new());
        listener
    }

    /// Sends a frame with a unique number at its end. Returns whether the gateway or the kernel got
    /// it; it must not be both.
    pub(crate) fn receiver_of(&mut self, frame: Vec<u8>) -> Receiver {
        let receivers = self.receivers_of(frame, 1);
        assert_eq!(receivers.len(), 1, "a frame went to both");
        receivers[0]
    }

    /// Sends a frame with a unique number at its end. Returns all who got it, once they are `count`.
    pub(crate) fn receivers_of(&mut self, mut frame: Vec<u8>, count: usize) -> Vec<Receiver> {
        self.sent += 1;
        let number = self.sent;
        if frame.len() >= 14 + 20 {
            frame.extend(number.to_be_bytes());
        }
        // When a later frame has arrived, so has everything before it. That frame is known to go to
        // the gateway.
        let (ethertype, packet) = ip("192.0.2.77".parse().unwrap(), UDP, &ports(number as u16, b"fence"));
        let fence = ethernet(self.mac, self.peer.mac, ethertype, &packet);
        self.peer.send(&frame);
        self.peer.send(&fence);
        let (mut receivers, mut has_ended) = (vec![], false);
        wait_for("the frame and the fence", || {
            has_ended |= self.look(&frame, &fence, &mut receivers);
            (has_ended && receivers.len() >= count).then_some(())
        });
        for _ in 0..POLLS {
            self.look(&frame, &fence, &mut receivers);
        }
        receivers.sort_unstable();
        receivers
    }

    /// Adds those who have got `frame` since the last call. Returns whether the gateway has got `fence`.
    fn look(&mut self, frame: &[u8], fence: &[u8], receivers: &mut Vec<Receiver>) -> bool {
        let (port, pool) = &mut self.worker;
        let mut burst = Burst::new();
        port.rx(pool, &mut burst);
        receivers.extend(burst.iter().filter(|p| is_same(p.data(), frame)).map(|_| Gateway));
        let has_ended = burst.iter().any(|p| is_same(p.data(), fence));
        pool.give_all(&mut burst);
        for socket in &self.kernel {
            for received in std::iter::from_fn(|| socket.try_recv()) {
                assert!(!is_same(&received, fence), "the last frame went to the kernel");
                receivers.extend(is_same(&received, frame).then_some(Kernel));
            }
        }
        has_ended
    }

    fn whole_table(&mut self) {
        let (own, from) = (self.mac, self.peer.mac);
        let other: Mac = [2, 0, 0, 0, 0, 9];
        let to = |mac: Mac, destination: &str, protocol, payload: &[u8]| {
            let (ethertype, packet) = ip(destination.parse::<IpAddr>().unwrap(), protocol, payload);
            ethernet(mac, from, ethertype, &packet)
        };
        let esp = [0, 0, 0x10, 1, 0, 0, 0, 1, 9, 9, 9, 9];
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &[0; 20]].concat();
        let solicitation = [&[135u8, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        let fragment = |mut frame: Vec<u8>, field: [u8; 2]| {
            frame[20..22].copy_from_slice(&field);
            frame
        };
        // Behind an IPv6 header: a fragment header with this field, and the rest.
        let part =
            |protocol: u8, field: u8, rest: &[u8]| [&[protocol, 0, 0, field, 0, 0, 0, 7][..], rest].concat();
        let rest = b"a later part".to_vec();
        // What a DHCP server sends to the client with this MAC address (RFC 2131 §2).
        let offer = |client: Mac| {
            let header = [0, 67, 0, 68, 0, 0, 0, 0];
            [&header[..], &[2, 1, 6, 0], &[0; 24], &client, &[0; 202]].concat()
        };
        let ihl = |mut frame: Vec<u8>, byte| {
            frame[14] = byte;
            frame
        };
        let options = |frame: Vec<u8>| {
            let mut frame = ihl(frame, 0x46);
            frame.splice(34..34, [1, 1, 1, 0]);
            frame
        };
        let behind = |tags: &[[u8; 4]], mut frame: Vec<u8>| {
            frame.splice(12..12, tags.concat());
            frame
        };
        let tagged = |frame| behind(&[VLAN], frame);
        // RFC 1042: a length, LLC and SNAP, then the EtherType.
        let snap = |mut frame: Vec<u8>| {
            let length = (frame.len() - 12 + 6) as u16;
            frame.splice(12..12, [&length.to_be_bytes()[..], &[0xaa, 0xaa, 3, 0, 0, 0]].concat());
            frame
        };
        let table = [
            ("IPv4 to elsewhere", Gateway, to(own, "192.0.2.1", TCP, &ports(22, b""))),
            ("IPv6 to elsewhere", Gateway, to(own, "2001:db8:1::1", TCP, &ports(22, b""))),
            (
                "IPv4 to elsewhere, a fragment",
                Gateway,
                fragment(to(own, "192.0.2.1", UDP, b"rest"), [0x20, 9]),
            ),
            ("ICMPv6 to elsewhere", Gateway, to(own, "2001:db8:1::1", ICMPV6, &[128, 0, 0, 0])),
            ("ESP to us", Gateway, to(own, LOCAL4, ESP, &esp)),
            ("ESP to us over IPv6", Gateway, to(own, LOCAL6, ESP, &esp)),
            ("ESP to our link-local address", Gateway, to(own, LINK_LOCAL, ESP, &esp)),
            ("ESP to us behind IP options", Gateway, options(to(own, LOCAL4, ESP, &esp))),
            ("UDP 4500 to us", Gateway, to(own, LOCAL4, UDP, &ports(4500, b"x"))),
            (
                "UDP 4500 to us, don't fragment",
                Gateway,
                fragment(to(own, LOCAL4, UDP, &ports(4500, b"x")), [0x40, 0]),
            ),
            ("UDP 4500 to us behind IP options", Gateway, options(to(own, LOCAL4, UDP, &ports(4500, b"x")))),
            ("UDP 500 to us over IPv6", Gateway, to(own, LOCAL6, UDP, &ports(500, b"x"))),
            ("UDP 53 to us", Kernel, to(own, LOCAL4, UDP, &ports(53, b"x"))),
            ("UDP 53 to us over IPv6", Kernel, to(own, LOCAL6, UDP, &ports(53, b"x"))),
            ("fragment header cut short", Kernel, to(own, LOCAL6, FRAGMENT, &[UDP, 0, 0])),
            ("the same to elsewhere", Gateway, to(own, "2001:db8:1::1", FRAGMENT, &[UDP, 0, 0])),
            (
                "IPv6 to elsewhere, a fragment",
                Gateway,
                to(own, "2001:db8:1::1", FRAGMENT, &part(UDP, 8, &rest)),
            ),
            ("DHCP offer to us, of an address to come", Kernel, to(own, "192.0.2.50", UDP, &offer(own))),
            ("DHCP offer to a station behind us", Gateway, to(own, "192.0.2.50", UDP, &offer(other))),
            ("DHCP offer, cut", Gateway, to(own, "192.0.2.50", UDP, &offer(own)[..30])),
            ("DHCP offer, fragment", Gateway, fragment(to(own, "192.0.2.50", UDP, &offer(own)), [0, 9])),
            ("DHCP request to elsewhere", Gateway, to(own, "192.0.2.50", UDP, &ports(67, &offer(own)))),
            ("SSH to us", Kernel, to(own, LOCAL4, TCP, &ports(22, b""))),
            ("SSH to us over IPv6", Kernel, to(own, LOCAL6, TCP, &ports(22, b""))),
            ("TCP 4500 to us", Kernel, to(own, LOCAL4, TCP, &ports(4500, b""))),
            ("ESP to us behind an extension header", Kernel, to(own, LOCAL6, 60, &[50, 0, 0, 0, 0, 0, 0, 0])),
            ("neighbour solicitation, unicast", Kernel, to(own, LINK_LOCAL, ICMPV6, &solicitation)),
            ("link-local, not ours", Kernel, to(own, "fe80::2", UDP, &ports(9, b""))),
            (
                "neighbour solicitation",
                Kernel,
                to([0x33, 0x33, 0xff, 0, 0, 1], "ff02::1:ff00:1", ICMPV6, &solicitation),
            ),
            ("multicast address, own MAC", Kernel, to(own, "224.0.0.5", 89, b"hello")),
            ("multicast address, own MAC, IPv6", Kernel, to(own, "ff02::5", 89, b"hello")),
            ("broadcast address, own MAC", Kernel, to(own, "255.255.255.255", UDP, &ports(67, b""))),
            ("broadcast", Kernel, to([0xff; 6], "192.0.2.255", UDP, &ports(9, b""))),
            ("another MAC", Kernel, to(other, "192.0.2.1", UDP, &ports(9, b""))),
            ("ESP, another MAC", Kernel, to(other, LOCAL4, ESP, &esp)),
            ("ARP request", Kernel, ethernet([0xff; 6], from, 0x0806, &arp)),
            ("ARP reply", Kernel, ethernet(own, from, 0x0806, &arp)),
            ("IPv4 to elsewhere in a VLAN", Kernel, tagged(to(own, "192.0.2.1", UDP, &ports(9, b"x")))),
            ("ESP to us in a VLAN", Kernel, tagged(to(own, LOCAL4, ESP, &esp))),
            (
                "IPv4 to elsewhere, a priority",
                Gateway,
                behind(&[PRIORITY], to(own, "192.0.2.1", TCP, &ports(22, b""))),
            ),
            (
                "802.1ad, a priority",
                Gateway,
                behind(&[OUTER_PRIORITY], to(own, "192.0.2.1", TCP, &ports(22, b""))),
            ),
            (
                "IPv6, a priority",
                Gateway,
                behind(&[PRIORITY], to(own, "2001:db8:1::1", TCP, &ports(22, b""))),
            ),
            (
                "two priorities",
                Gateway,
                behind(&[OUTER_PRIORITY, PRIORITY], to(own, "192.0.2.1", TCP, &ports(22, b""))),
            ),
            (
                "two priorities, IPv6",
                Gateway,
                behind(&[PRIORITY; 2], to(own, "2001:db8:1::1", TCP, &ports(22, b""))),
            ),
            ("many priorities", Gateway, behind(&[PRIORITY; 9], to(own, "192.0.2.1", TCP, &ports(22, b"")))),
            ("ESP to us, a priority", Gateway, behind(&[PRIORITY], to(own, LOCAL4, ESP, &esp))),
            (
                "ESP to us behind IP options, two priorities",
                Gateway,
                behind(&[PRIORITY; 2], options(to(own, LOCAL4, ESP, &esp))),
            ),
            (
                "UDP 4500 to us over IPv6, a priority",
                Gateway,
                behind(&[PRIORITY], to(own, LOCAL6, UDP, &ports(4500, b"x"))),
            ),
            ("SSH to us, a priority", Kernel, behind(&[PRIORITY], to(own, LOCAL4, TCP, &ports(22, b"")))),
            (
                "SSH to us over IPv6, two priorities",
                Kernel,
                behind(&[PRIORITY; 2], to(own, LOCAL6, TCP, &ports(22, b""))),
            ),
            (
                "another MAC, a priority",
                Kernel,
                behind(&[PRIORITY], to(other, "192.0.2.1", UDP, &ports(9, b""))),
            ),
            ("ARP, a priority", Kernel, behind(&[PRIORITY], ethernet([0xff; 6], from, 0x0806, &arp))),
            (
                "in a VLAN behind a priority",
                Kernel,
                behind(&[PRIORITY, VLAN], to(own, "192.0.2.1", UDP, &ports(9, b"x"))),
            ),
            (
                "in a VLAN before a priority",
                Kernel,
                behind(&[VLAN, PRIORITY], to(own, "192.0.2.1", UDP, &ports(9, b"x"))),
            ),
            ("LLC and SNAP", Kernel, snap(to(own, "192.0.2.1", UDP, &ports(9, b"x")))),
            (
                "PPPoE",
                Kernel,
                ethernet(own, from, 0x8864, &[&[0x11, 0, 0, 1, 0, 30, 0, 0x21][..], &[0x45; 28]].concat()),
            ),
            ("IP in IP to us", Kernel, to(own, LOCAL4, 4, &[0x45; 28])),
            ("IPv6 in IPv4 to us", Kernel, to(own, LOCAL4, 41, &[0x60; 48])),
            ("GRE to us", Kernel, to(own, LOCAL4, 47, &[&[0, 0, 8, 0][..], &[0x45; 28]].concat())),
            ("ARP in a VLAN", Kernel, tagged(ethernet([0xff; 6], from, 0x0806, &arp))),
            ("not IP", Kernel, ethernet(own, from, 0x88b5, &[7; 40])),
            ("too short for IPv4", Kernel, ethernet(own, from, 0x0800, &[0x45; 12])),
            ("too short for IPv6", Kernel, ethernet(own, from, 0x86dd, &[0x60; 30])),
            ("IPv6 that says it is IPv4", Kernel, ihl(to(own, "2001:db8:1::1", UDP, b"12345678"), 0x45)),
            ("IPv4 that says it is IPv6", Kernel, ihl(to(own, "192.0.2.1", UDP, b"12345678"), 0x65)),
            ("IPv4 with a header too short", Kernel, ihl(to(own, "192.0.2.1", UDP, b"12345678"), 0x44)),
            ("IPv4 header longer than the frame", Kernel, ihl(to(own, LOCAL4, UDP, b"12345678"), 0x4f)),
        ];
        for (name, receiver, frame) in table {
            assert_eq!(self.receiver_of(frame), receiver, "{name}");
        }
        // The slow path received the neighbour messages, and nothing else.
        let mut buffer = [0; 2048];
        let mut received = Vec::new();
        while let Some(len) = self.neighbours.recv(&mut buffer) {
            received.push((buffer[12..14].to_vec(), if buffer[12] == 8 { 0 } else { buffer[54] }));
            assert!(len > 40);
        }
        let (arp, nd) = ((vec![8, 6], 0), (vec![0x86, 0xdd], 135));
        assert_eq!(received, [nd.clone(), nd, arp.clone(), arp.clone(), arp]);
        // Addresses are added and removed.
        let address = "192.0.2.1".parse().unwrap();
        let frame = to(own, "192.0.2.1", TCP, &ports(22, b""));
        self.classifier.set_local(address).unwrap();
        assert_eq!(self.receiver_of(frame.clone()), Kernel);
        self.classifier.remove_local(address).unwrap();
        self.classifier.remove_local(address).unwrap();
        assert_eq!(self.receiver_of(frame), Gateway);
    }
}

pub(crate) fn af_xdp(
    device: &Device,
    rules: &Rules,
    pool: &mut Pool,
    native: bool,
) -> (Box<dyn Port>, Arc<Classifier>) {
    let classifier = Arc::new(Classifier::xdp(device, 1, native, rules).unwrap());
    (Box::new(AfXdpPort::open(pool, device, 0, 128, &classifier).unwrap()), classifier)
}

pub(crate) fn af_packet(
    device: &Device,
    rules: &Rules,
    _pool: &mut Pool,
) -> (Box<dyn Port>, Arc<Classifier>) {
    let classifier = Arc::new(Classifier::packet(device, rules).unwrap());
    (Box::new(AfPacketPort::open(device, 1, 2048, &classifier).unwrap().remove(0)), classifier)
}

#[test]
fn xdp_in_the_driver() {
    let world = World::new(1, 1);
    Listener::open(&world, |device, rules, pool| af_xdp(device, rules, pool, true)).whole_table();
}

#[test]
fn xdp_in_the_kernel() {
    let world = World::new(1, 1);
    Listener::open(&world, |device, rules, pool| af_xdp(device, rules, pool, false)).whole_table();
}

#[test]
fn tcx_beside_af_packet() {
    let world = World::new(1, 1);
    Listener::open(&world, af_packet).whole_table();
}

#[test]
fn queue_without_a_socket_drops_the_gateways_frames() {
    let world = World::new(1, 1);
    let classifier = world.gw(|| Classifier::xdp(&Device::find("gw0").unwrap(), 1, true, &Rules::default()));
    let (kernel, peer) = (world.kernel("gw0", libc::ETH_P_ALL), world.peer("peer0"));
    let mac = world.gw(|| Device::find("gw0").unwrap().mac());
    peer.send(&frames::numbered(mac, peer.mac, 9, 1, 100));
    let arp = ethernet([0xff; 6], peer.mac, 0x0806, &[1; 46]);
    peer.send(&arp);
    assert_eq!(wait_for("the frame behind it", || kernel.try_recv()), arp);
    drop(classifier.unwrap());
}

#[test]
fn the_slow_path_sends_to_neighbours() {
    let world = World::new(1, 1);
    let (neighbours, mac) = world.gw(|| {
        let device = Device::find("gw0").unwrap();
        (NeighbourSocket::open(&device).unwrap(), device.mac())
    });
    let peer = world.peer("peer0");
    let arp = |number| ethernet([0xff; 6], mac, 0x0806, &[number; 46]);
    neighbours.send(&arp(1)).unwrap();
    assert_eq!(wait_for("a frame", || peer.try_recv()), arp(1));
    // A frame longer than the buffer is skipped, and sent frames are not received.
    peer.send(&ethernet([0xff; 6], peer.mac, 0x0806, &[2; 100]));
    peer.send(&ethernet([0xff; 6], peer.mac, 0x0806, &[3; 46]));
    let mut buffer = [0; 64];
    assert_eq!(wait_for("a frame", || neighbours.recv(&mut buffer)), 60);
    assert_eq!(buffer[14..60], [3; 46]);
    assert_eq!(neighbours.recv(&mut buffer), None);
}

#[test]
fn full_tables_refuse_more() {
    let world = World::new(1, 1);
    world.gw(|| {
        let device = Device::find("gw0").unwrap();
        let rules = Rules { udp_ports: (1..=17).collect(), ..Rules::default() };
        let error = Classifier::packet(&device, &rules).unwrap_err();
        assert_eq!(error.to_string(), "gw0: more than 16 UDP ports");
        let rules = Rules { udp_ports: (1..=16).collect(), ..Rules::default() };
        let classifier = Classifier::packet(&device, &rules).unwrap();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        (1..=MAX_LOCAL).for_each(|n| classifier.set_local(address(n)).unwrap());
        classifier.set_local(address(1)).unwrap();
        assert!(classifier.set_local(address(MAX_LOCAL + 1)).is_err());
        classifier.remove_local(address(1)).unwrap();
        classifier.set_local(address(MAX_LOCAL + 1)).unwrap();
    });
}

#[test]
fn kernel_does_not_forward_the_gateways_frames() {
    let world = World::new(2, 1);
    world.in_gw("sysctl -qw net.ipv4.ip_forward=1");
    world.in_gw("sysctl -qw net.ipv4.conf.all.rp_filter=0");
    world.in_gw("sysctl -qw net.ipv4.conf.gw0.rp_filter=0");
    world.in_gw("ip addr add 192.0.2.254/24 dev gw1");
    world.in_gw("ip addr add 10.9.9.1/24 dev gw0");
    let (inside, outside) = (world.peer("peer0"), world.peer("peer1"));
    world.in_gw("ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev gw1");
    let frame = |mac, number| frames::numbered(mac, inside.mac, 9, number, 100);
    let is_forwarded = |frame: &[u8], number| frame.len() == 100 && frames::number(frame) == number;
    let mac = world.gw(|| Device::find("gw0").unwrap().mac());
    // Without the gateway the kernel forwards, so this test can detect that.
    inside.send(&frame(mac, 1));
    wait_for("the kernel to forward", || outside.try_recv().filter(|f| is_forwarded(f, 1)));
    let mut listener = Listener::open(&world, af_packet);
    assert_eq!(listener.receiver_of(frame(mac, 9)), Gateway);
    drop(listener);
    // When the gateway is gone the kernel forwards again. The frame before never came.
    wait_for("the kernel to forward again", || {
        inside.send(&frame(mac, 3));
        let frame = outside.try_recv()?;
        assert!(frame[12..14] != [8, 0] || is_forwarded(&frame, 3), "forwarded in clear");
        is_forwarded(&frame, 3).then_some(())
    });
}

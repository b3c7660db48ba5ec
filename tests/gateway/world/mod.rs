//! A whole gateway turned by hand in one thread, on memory ports, with virtual time; and the peers around it.
//!
//! ```text
//! terminals ── outside (port 0) 203.0.113.1, 2001:db8:1::1 ── gateway ── 10.99.0.1, fd00:99::1 inside (port 1) ── hosts
//! ```

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

pub mod peer;

use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer::{
    config::model::*,
    control::protocol::{Answer, Command, Outcome, Reply, View},
    gateway::counters::WorkerCounters,
    launch::{Assembly, OpenPort, Seat},
    slow_path::neighbours::Stations,
};
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, OpenJob, SealJob, Suite},
    drop::DropReason,
    pool::Pool,
    port::{
        Mac, Port,
        memory::{self, Wire},
    },
    sa::{Df, Limits, Mode, Selector, Spi},
    wire::{
        arp::{Arp, Operation},
        esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
        nd, udp,
    },
};
use zeroize::Zeroizing;

pub const OUTSIDE: usize = 0;
pub const INSIDE: usize = 1;
/// The gateway's MAC addresses, by port.
pub const GATEWAY: [Mac; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];
/// The one station at the other end of each wire.
pub const STATION: [Mac; 2] = [[2, 0, 0, 0, 0, 0x20], [2, 0, 0, 0, 0, 0x21]];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A gateway and the wires of its ports.
pub struct World {
    pub assembly: Assembly,
    pub wires: Vec<Wire>,
    pub now: Duration,
    /// Whether the stations answer ARP and neighbour discovery.
    pub answer_neighbours: bool,
    /// What reached the far end of each wire, Ethernet header included, without neighbour discovery.
    pub out: [Vec<Vec<u8>>; 2],
}

pub fn config(tunnels: Vec<Tunnel>) -> Config {
    let gateway = Gateway {
        workers: None,
        control: None,
        idle_sleep: None,
        encap_ports: vec![4500, 14500],
        kernel_routes: false,
        mss_clamp: true,
        frames: 512,
        frame_size: 2048,
        tunnels: 64,
    };
    let routes = vec![
        Route { to: "0.0.0.0/0".parse().unwrap(), via: Some(ip("203.0.113.254")), port: OUTSIDE },
        Route { to: "::/0".parse().unwrap(), via: Some(ip("2001:db8:1::fe")), port: OUTSIDE },
    ];
    Config { gateway, ports: vec![], dpdk: None, routes, tunnels, policies: vec![], ike: Ike::default() }
}

/// Keying material that differs by `seed`.
pub fn material(suite: Suite, seed: u32) -> Vec<u8> {
    (0..suite.key_len()).map(|i| (seed as usize * 31 + i * 7 + 1) as u8).collect()
}

/// A selector between the inside networks and `remote`.
pub fn selector(local: &str, remote: &str) -> Selector {
    Selector::configured(local.parse().unwrap(), remote.parse().unwrap())
}

/// Tunnel number `n`: SPIs 0x1000 + n in and 0x2000 + n out, inner addresses 10.98.0.n and fd00:98::n.
pub fn tunnel(n: u32, suite: Suite) -> Tunnel {
    let sa = |spi, seed| Sa {
        spi: Spi(spi),
        cipher: suite,
        key: Zeroizing::new(material(suite, seed)),
        sequence: 0,
    };
    Tunnel {
        name: format!("t{n}"),
        mode: Mode::Tunnel,
        local: ip("203.0.113.1"),
        remote: Remote::Any,
        encap: Encapsulation::None,
        selectors: vec![
            selector("10.99.0.0/24", &format!("10.98.0.{n}")),
            selector("fd00:99::/64", &format!("fd00:98::{n:x}")),
        ],
        roam: Roam::Follow,
        pin_source: false,
        window: 1024,
        esn: false,
        dscp: None,
        df: Df::Copy,
        tfc: 0,
        mtu: None,
        udp6_checksum: true,
        keepalive: None,
        limits: Limits::NONE,
        soft_time: None,
        hard_time: None,
        inbound: sa(0x1000 + n, n),
        outbound: sa(0x2000 + n, n + 1000),
    }
}

/// The gateway's two ports with a queue for each of `workers`, and the far ends of those queues, by port.
pub fn open_ports(workers: usize, depth: usize) -> (Vec<OpenPort>, [Vec<Wire>; 2]) {
    let addresses = [
        [("203.0.113.1", "203.0.113.0/24"), ("2001:db8:1::1", "2001:db8:1::/64")],
        [("10.99.0.1", "10.99.0.0/24"), ("fd00:99::1", "fd00:99::/64")],
    ];
    let (mut ports, mut wires) = (vec![], [vec![], vec![]]);
    for (index, addresses) in addresses.into_iter().enumerate() {
        let mut queues: Vec<Box<dyn Port>> = vec![];
        for _ in 0..workers {
            let (port, wire) = memory::pair(depth, 2048);
            queues.push(Box::new(port));
            wires[index].push(wire);
        }
        ports.push(OpenPort {
            name: ["outside", "inside"][index].to_owned(),
            kind: "memory".to_owned(),
            mac: GATEWAY[index],
            mtu: 1500,
            fills_checksums: false,
            addresses: addresses.map(|(a, p)| (ip(a), p.parse().unwrap())).to_vec(),
            stations: Stations::Ask,
            is_host: false,
            device: None,
            shared: None,
            exception: None,
            monitor: None,
            queues,
        });
    }
    (ports, wires)
}

impl World {
    pub fn new(tunnels: Vec<Tunnel>) -> Self {
        Self::with(config(tunnels), 512)
    }

    /// A gateway with `config`'s tunnels, routes and policies, and wires of `depth` frames.
    pub fn with(config: Config, depth: usize) -> Self {
        Self::on(config, open_ports(1, depth))
    }

    /// A gateway whose inside is not a network but the host's own stack.
    pub fn host(tunnels: Vec<Tunnel>) -> Self {
        let (mut ports, wires) = open_ports(1, 512);
        ports[INSIDE].is_host = true;
        ports[INSIDE].stations = Stations::Only(STATION[INSIDE]);
        ports[INSIDE].addresses.clear();
        Self::on(config(tunnels), (ports, wires))
    }

    /// A gateway on ports like those of [`open_ports`].
    pub fn on(config: Config, (ports, wires): (Vec<OpenPort>, [Vec<Wire>; 2])) -> Self {
        let wires = wires.into_iter().flatten().collect();
        let pool = Pool::new(config.gateway.frames, config.gateway.frame_size).unwrap();
        let assembly = Assembly::new(&config, vec![Seat { pool, core: None }], ports).unwrap();
        Self { assembly, wires, now: Duration::ZERO, answer_neighbours: true, out: Default::default() }
    }

    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.assembly.handles[0].counters
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.counters().drops.of(reason)
    }

    /// Drops that the slow path counted.
    pub fn slow_drops(&mut self, reason: DropReason) -> u64 {
        let by_workers = self.drops(reason);
        match self.ask(Command::Show { what: View::Drops }).outcome {
            Outcome::Result(Reply::Drops(all)) => {
                all.iter().find(|d| d.reason == reason.name()).unwrap().packets - by_workers
            }
            other => panic!("{other:?}"),
        }
    }

    /// Drops of every reason that occurred.
    pub fn all_drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL.iter().map(|&r| (r, self.drops(r))).filter(|(_, n)| *n > 0).collect()
    }

    /// Turns everything until nothing moves any more.
    pub fn settle(&mut self) {
        loop {
            let mut busy = false;
            for (worker, _) in &mut self.assembly.workers {
                busy |= worker.turn();
            }
            busy |= self.assembly.slow_path.turn(self.now);
            busy |= self.collect();
            if !busy {
                return;
            }
        }
    }

    /// Has the gateway ask for the stations of both wires, so that no packet of the test waits for them.
    pub fn meet_neighbours(&mut self) {
        let reply = |port: usize, sender: [u8; 4]| {
            let reply = Arp {
                operation: Operation::Request,
                sender_mac: STATION[port],
                sender: sender.into(),
                target_mac: [0; 6],
                target: if port == OUTSIDE { [203, 0, 113, 1].into() } else { [10, 99, 0, 1].into() },
            };
            reply.frame(ethernet::BROADCAST)
        };
        assert!(self.wires[OUTSIDE].send(&reply(OUTSIDE, [203, 0, 113, 254])));
        assert!(self.wires[INSIDE].send(&reply(INSIDE, [10, 99, 0, 7])));
        self.settle();
        self.out = Default::default();
    }

    /// Lets `time` pass in steps that are short beside every timer.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_millis(50)).min(end);
            self.settle();
        }
    }

    fn collect(&mut self) -> bool {
        let mut busy = false;
        for index in [OUTSIDE, INSIDE] {
            while let Some(frame) = self.wires[index].receive(<[u8]>::to_vec) {
                busy = true;
                match answer_neighbour(&frame, STATION[index]) {
                    Some(reply) if self.answer_neighbours => assert!(self.wires[index].send(&reply)),
                    Some(_) => {}
                    None => self.out[index].push(frame),
                }
            }
        }
        busy
    }

    /// Sends an IP packet to the gateway by port `port` and settles.
    pub fn send(&mut self, port: usize, packet: &[u8]) {
        self.put(port, packet);
        self.settle();
    }

    /// Puts an IP packet on the wire without turning anything, so that several share a burst.
    pub fn put(&mut self, port: usize, packet: &[u8]) {
        assert!(self.wires[port].send(&frame(GATEWAY[port], STATION[port], packet)));
    }

    /// Takes the IP packets that came out of `port`.
    pub fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.out[port].drain(..).map(|f| f[ethernet::HEADER..].to_vec()).collect()
    }

    pub fn ask(&mut self, command: Command) -> Answer {
        let (tx, rx) = crossbeam::channel::bounded(1);
        self.assembly.requests.send((command, tx)).unwrap();
        self.settle();
        rx.try_recv().unwrap()
    }
}

/// An Ethernet frame around an IP packet.
pub fn frame(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|b| b >> 4 == 6) { ethernet::IPV6 } else { ethernet::IPV4 };
    let mut frame = vec![0; ethernet::HEADER];
    Ethernet { dst, src, ethertype }.emit(&mut frame);
    frame.extend_from_slice(packet);
    frame
}

/// The station's reply where `frame` asks for some address; `None` where it is no such question.
pub fn answer_neighbour(frame: &[u8], mac: Mac) -> Option<Vec<u8>> {
    let ethernet = Ethernet::parse(frame).ok()?;
    let body = &frame[ethernet::HEADER..];
    if ethernet.ethertype == ethernet::ARP {
        let ask = Arp::parse(body).ok().filter(|arp| arp.operation == Operation::Request)?;
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: ask.target,
            target_mac: ask.sender_mac,
            target: ask.sender,
        };
        return Some(reply.frame(ask.sender_mac));
    }
    let header = IpHeader::parse(body).ok()?;
    let ask = nd::Neighbour::parse(&header, body).ok().filter(|message| message.solicitation)?;
    let IpAddr::V6(asker) = header.src.into() else { return None };
    let reply = nd::Neighbour { solicitation: false, target: ask.target, mac: Some(mac), solicited: true };
    Some(reply.frame(mac, ask.target, ethernet.src, asker))
}

/// A UDP packet with a right checksum.
pub fn datagram(src: &str, dst: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (ip(src), ip(dst));
    let length = udp::HEADER + payload.len();
    let mut packet = vec![0; 40 + length];
    let ip_len = ip::emit(&mut packet, src, dst, protocol::UDP, length);
    packet.truncate(ip_len + length);
    let header = udp::Udp { src_port: ports.0, dst_port: ports.1, length, checksum: 0 };
    header.emit(&mut packet[ip_len..]);
    packet[ip_len + udp::HEADER..].copy_from_slice(payload);
    udp::set_checksum(&mut packet[ip_len..], src, dst);
    packet
}

/// The packet as a router passes it on.
pub fn forwarded(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    ip::decrement_hop_limit(&mut packet);
    packet
}

/// A terminal: the other end of one tunnel.
pub struct Terminal {
    pub spi_out: u32,
    seal: Key,
    open: Key,
    pub esn: bool,
    pub seq: u64,
    /// Its outer address and, behind a NAT or by choice, UDP port.
    pub address: IpAddr,
    pub port: Option<u16>,
    pub gateway: IpAddr,
    pub gateway_port: u16,
}

impl Terminal {
    /// The other end of [`tunnel`] `n`.
    pub fn new(n: u32, suite: Suite, address: &str) -> Self {
        let key = |seed| Key::new(suite, &material(suite, seed), Backend::Portable).unwrap();
        let address = ip(address);
        let gateway = if address.is_ipv4() { ip("203.0.113.1") } else { ip("2001:db8:1::1") };
        Self {
            spi_out: 0x1000 + n,
            seal: key(n),
            open: key(n + 1000),
            esn: false,
            seq: 0,
            address,
            port: None,
            gateway,
            gateway_port: 4500,
        }
    }

    /// Seals `inner` with the next number.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.seq += 1;
        let next = if inner[0] >> 4 == 4 { protocol::IPV4 } else { protocol::IPV6 };
        self.seal_as(inner, next, self.seq)
    }

    /// Seals any payload with any next header and number.
    pub fn seal_as(&self, payload: &[u8], next_header: u8, seq: u64) -> Vec<u8> {
        let suite = self.seal.suite();
        let start = esp::HEADER + suite.iv_len();
        let tail = esp::padding(payload.len(), suite.align()) + esp::TRAILER;
        let mut bytes = vec![0; start + payload.len() + tail + suite.icv_len()];
        bytes[start..start + payload.len()].copy_from_slice(payload);
        esp::emit_trailer(&mut bytes[start + payload.len()..][..tail], next_header);
        self.protect(bytes, seq)
    }

    /// Seals what stands where the plaintext belongs, trailer included.
    pub fn protect(&self, mut bytes: Vec<u8>, seq: u64) -> Vec<u8> {
        esp::emit_header(&mut bytes, self.spi_out, seq);
        crypto::seal(&mut [SealJob { key: &self.seal, seq, iv: seq, esn: self.esn, esp: &mut bytes }]);
        self.wrap(&bytes)
    }

    /// The outer headers around an ESP packet (or whatever bytes).
    pub fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        if let Some(port) = self.port {
            let (src, dst) = (self.address.to_string(), self.gateway.to_string());
            return datagram(&src, &dst, (port, self.gateway_port), bytes);
        }
        let mut packet = vec![0; 40];
        let length = ip::emit(&mut packet, self.address, self.gateway, protocol::ESP, bytes.len());
        packet.truncate(length);
        packet.extend_from_slice(bytes);
        packet
    }

    /// Opens a packet from the gateway: its outer header, number, plaintext without trailer, next header.
    pub fn open(&self, packet: &[u8]) -> (IpHeader, u64, Vec<u8>, u8) {
        let outer = IpHeader::parse(packet).unwrap();
        let at = outer.header_len() + if outer.protocol == protocol::UDP { udp::HEADER } else { 0 };
        let mut bytes = packet[at..outer.total_len()].to_vec();
        let (_, low) = esp::header(&bytes).unwrap();
        let seq = u64::from(low);
        let mut job = [OpenJob { key: &self.open, seq, esn: self.esn, esp: &mut bytes, authentic: false }];
        crypto::open(&mut job);
        assert!(job[0].authentic, "the gateway's packet does not authenticate");
        let suite = self.open.suite();
        let plain = &bytes[esp::HEADER + suite.iv_len()..bytes.len() - suite.icv_len()];
        let (length, next) = esp::trailer(plain).unwrap();
        (outer, seq, plain[..length].to_vec(), next)
    }
}

/// The suite with this name.
pub fn suite(name: &str) -> Suite {
    name.parse().unwrap()
}

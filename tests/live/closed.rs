//! A host whose kernel forwards does not let protected traffic pass in clear, in whatever form it
//! comes, and whether the gateway runs or not.
//!
//! ```text
//! core 10.98.0.7 ── g0 gw g1 ── srv 10.99.0.2 traffic between these needs the tunnel gw c0 ── box
//! 172.20.0.2 the host's own network
//! ```

use super::lab::{Gateway, Lab, PATIENCE, program, wait_for};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};
use wayfarer_dataplane::port::{Mac, device::Device, neighbour_socket::NeighbourSocket};

/// Packets of each kind that are sent at a time.
pub(crate) const COUNT: usize = 5;
const NEAR: [&str; 2] = ["10.99.0.2", "2001:db8:99::2"];
const FAR: [&str; 2] = ["10.98.0.7", "2001:db8:98::7"];
const PORT: u16 = 7000;

pub(crate) fn lab() -> Lab {
    let lab = Lab::new(&["core", "gw", "srv"]);
    link_outside(&lab);
    link_inside(&lab);
    lab.forward("gw");
    lab.run("core", "ip address add 10.98.0.7/32 dev lo");
    lab.run("core", "ip address add 2001:db8:98::7/128 dev lo nodad");
    lab
}

fn link_outside(lab: &Lab) {
    lab.link([
        ("core", "k1", &["192.0.2.254/24", "2001:db8:a::fe/64"]),
        ("gw", "g0", &["192.0.2.1/24", "2001:db8:a::1/64"]),
    ]);
    lab.run("core", "ip route add 10.99.0.0/24 via 192.0.2.1");
    lab.run("core", "ip route add 2001:db8:99::/64 via 2001:db8:a::1");
    lab.run("gw", "ip route add 10.98.0.7 via 192.0.2.254");
    lab.run("gw", "ip route add 2001:db8:98::7 via 2001:db8:a::fe");
}

fn link_inside(lab: &Lab) {
    lab.link([
        ("gw", "g1", &["10.99.0.1/24", "2001:db8:99::1/64"]),
        ("srv", "s0", &["10.99.0.2/24", "2001:db8:99::2/64"]),
    ]);
    lab.run("srv", "ip route add default via 10.99.0.1");
    lab.run("srv", "ip route add default via 2001:db8:99::1");
}

pub(crate) fn config(kind: &str) -> String {
    format!(
        r#"
[[port]]
name = "outside"
kind = "{kind}"
device = "g0"
addresses = ["192.0.2.1/24", "2001:db8:a::1/64"]
[[port]]
name = "inside"
kind = "{kind}"
device = "g1"
addresses = ["10.99.0.1/24", "2001:db8:99::1/64"]
[[tunnel]]
name = "far"
local = "192.0.2.1"
remote = "192.0.2.254"
inner_local = ["10.99.0.0/24", "2001:db8:99::/64"]
inner_remote = ["10.98.0.7/32", "2001:db8:98::7/128"]
inbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }}
outbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
"#
    )
}

pub(crate) fn bind(lab: &Lab, space: &str, address: &str, port: u16) -> UdpSocket {
    let socket = lab.enter(space, || UdpSocket::bind((address, port)).unwrap());
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Counts the datagrams that a socket has received so far, and removes them.
pub(crate) fn drain(socket: &UdpSocket) -> usize {
    std::iter::from_fn(|| socket.recv_from(&mut [0; 2048]).ok()).count()
}

/// Keeps this thread, and the programs that it starts, on one core while the value exists. The
/// kernel has a queue of packets per core, so only packets that one core sends stay in order all
/// the way.
pub(crate) struct OneCore(CpuSet);

impl OneCore {
    pub(crate) fn new() -> Self {
        let own = Pid::from_raw(0);
        let all = sched_getaffinity(own).unwrap();
        let mut one = CpuSet::new();
        one.set(sched_getcpu().unwrap()).unwrap();
        sched_setaffinity(own, &one).unwrap();
        Self(all)
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).unwrap();
    }
}

/// Waits until the kernel has forwarded or dropped all packets sent so far, by pings behind them on
/// both links. Holds only for packets sent on the same core, see [`OneCore`].
fn wait_for_forwarding(lab: &Lab) {
    lab.run("srv", "ping -c 2 -i 0.02 -W 5 10.99.0.1");
    lab.run("core", "ping -c 2 -i 0.02 -W 5 192.0.2.1");
}

/// Endpoints of flows that the tunnel protects, in IPv4 and IPv6.
struct Endpoints {
    near: [UdpSocket; 2],
    far: [UdpSocket; 2],
}

impl Endpoints {
    fn new(lab: &Lab) -> Self {
        let bind = |space, all: [&str; 2]| all.map(|at| bind(lab, space, at, PORT));
        let this = Self { near: bind("srv", NEAR), far: bind("core", FAR) };
        wait_for("the kernel to forward", || (this.send_in_clear(lab) == [COUNT; 4]).then_some(()));
        this
    }

    /// Sends packets in clear, and returns how many arrive: out and in over IPv4, out and in over
    /// IPv6.
    fn send_in_clear(&self, lab: &Lab) -> [usize; 4] {
        let _in_order = OneCore::new();
        self.near.iter().chain(&self.far).map(drain).for_each(drop);
        for family in [0, 1] {
            let (near, far) = (&self.near[family], &self.far[family]);
            for (from, to) in [(near, FAR[family]), (far, NEAR[family])] {
                for _ in 0..COUNT {
                    // Without a route, while a device is gone, the packet cannot leave in clear
                    // either.
                    let _ = from.send_to(b"in clear", (to, PORT));
                }
            }
        }
        wait_for_forwarding(lab);
        let [near, far] = [&self.near, &self.far].map(|all| [drain(&all[0]), drain(&all[1])]);
        [far[0], near[0], far[1], near[1]]
    }
}

/// Runs `wayfarer open-host` in the gateway's namespace; returns exit code and output.
pub(crate) fn open_host(lab: &Lab, devices: &str) -> (Option<i32>, String) {
    let output = lab.output("gw", format!("{} open-host {devices}", program()).trim_end());
    let output_text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(output_text).unwrap())
}

fn link_of(gateway: &Gateway, port: &str) -> Option<String> {
    gateway.ports().into_iter().find(|p| p.port == port).unwrap().link
}

/// Checks that nothing passes in clear while the gateway runs and after it has ended in any way,
/// even by a device that was made again, until the host is opened. The host itself stays reachable.
pub(crate) fn host_stays_closed_until_opened(kind: &str) {
    let lab = lab();
    let endpoints = Endpoints::new(&lab);
    assert_eq!(open_host(&lab, ""), (Some(0), "no device is closed\n".to_owned()));

    let mut gateway = lab.gateway("gw", &config(kind));
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "the gateway runs");
    gateway.signal("HUP");
    wait_for("a log line about the signal", || gateway.log().contains("was reloaded").then_some(()));
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "it has reloaded");
    lab.run("gw", "nft flush ruleset");
    let (code, output_text) = open_host(&lab, "");
    let holder = format!("another gateway (process {}) has this device", gateway.process());
    assert_eq!((code, output_text.contains(&holder)), (Some(1), true), "{output_text}");

    assert_eq!(link_of(&gateway, "inside").as_deref(), Some("up"));
    lab.run("gw", "ip link del g1");
    link_inside(&lab);
    let is_back = || gateway.log().contains("the device was opened again").then_some(());
    wait_for("a log line about the device", is_back);
    assert_eq!(link_of(&gateway, "outside").as_deref(), Some("up"));
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "a device was made again");

    assert!(gateway.stop().success());
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "the gateway was stopped");
    lab.run("gw", "ip link del g0");
    link_outside(&lab);
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "a device was made again without the gateway");
    lab.run("gw", "ip address add 192.0.2.99/24 dev g0");
    lab.run("core", "ping -c 1 -W 5 192.0.2.99");
    lab.run("core", "ping -c 1 -W 5 2001:db8:a::1");

    drop(lab.gateway("gw", &config(kind)));
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "the gateway was killed");
    assert_eq!(open_host(&lab, "g7"), (Some(1), "g7: no gateway has closed this device\n".to_owned()));
    let opened = "g0: the host may forward in clear again\ng1: the host may forward in clear again\n";
    assert_eq!(open_host(&lab, "g1 g0"), (Some(0), opened.to_owned()));
    assert_eq!(endpoints.send_in_clear(&lab), [COUNT; 4], "the host was opened");

    let missing = lab.config("missing", &config(kind).replace("\"g1\"", "\"eth77\""));
    let failed = lab.output("gw", &format!("{} gateway --config {}", program(), missing.display()));
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(endpoints.send_in_clear(&lab), [0; 4], "the gateway could not start");
    assert_eq!(open_host(&lab, "").0, Some(0));
    assert_eq!(endpoints.send_in_clear(&lab), [COUNT; 4], "the host was opened again");
}

/// A form of a packet on a wire.
struct Form {
    name: &'static str,
    /// Makes a frame to `to` from `from` that carries this IP packet.
    frame: fn(to: Mac, from: Mac, packet: &[u8], host: [u8; 4]) -> Vec<u8>,
    /// `true` if the kernel would forward the packet; `None` if newer kernels do not any more.
    is_forwarded: Option<bool>,
    /// `true` if the gateway processes the packet.
    is_processed: bool,
}

const PRIORITY: &[u8] = &[0x81, 0, 0xa0, 0];
const OUTER_PRIORITY: &[u8] = &[0x88, 0xa8, 0x40, 0];
const VLAN: &[u8] = &[0x81, 0, 0xa0, 5];
const IPV4: &[u8] = &[8, 0];
const VXLAN_MAC: Mac = [2, 0, 0, 0, 0, 0x77];

/// All forms in which the host's kernel might recognize the packet, and some similar ones.
const FORMS: [Form; 13] = [
    Form {
        name: "untagged",
        frame: |to, from, p, _| [&to[..], &from, IPV4, p].concat(),
        is_forwarded: Some(true),
        is_processed: true,
    },
    Form {
        name: "priority",
        frame: |to, from, p, _| [&to[..], &from, PRIORITY, IPV4, p].concat(),
        is_forwarded: Some(true),
        is_processed: true,
    },
    Form {
        name: "802.1ad, priority",
        frame: |to, from, p, _| [&to[..], &from, OUTER_PRIORITY, IPV4, p].concat(),
        is_forwarded: Some(true),
        is_processed: true,
    },
    Form {
        name: "two priorities",
        frame: |to, from, p, _| [&to[..], &from, OUTER_PRIORITY, PRIORITY, IPV4, p].concat(),
        is_forwarded: Some(true),
        is_processed: true,
    },
    Form {
        name: "nine priorities",
        frame: |to, from, p, _| [&to[..], &from, &PRIORITY.repeat(9), IPV4, p].concat(),
        is_forwarded: None,
        is_processed: true,
    },
    Form {
        name: "VLAN",
        frame: |to, from, p, _| [&to[..], &from, VLAN, IPV4, p].concat(),
        is_forwarded: Some(false),
        is_processed: false,
    },
    Form {
        name: "VLAN behind a priority",
        frame: |to, from, p, _| [&to[..], &from, PRIORITY, VLAN, IPV4, p].concat(),
        is_forwarded: Some(false),
        is_processed: false,
    },
    Form {
        name: "priority behind a VLAN",
        frame: |to, from, p, _| [&to[..], &from, VLAN, PRIORITY, IPV4, p].concat(),
        is_forwarded: Some(false),
        is_processed: false,
    },
    Form { name: "LLC and SNAP", frame: snap, is_forwarded: Some(false), is_processed: false },
    Form { name: "PPPoE", frame: pppoe, is_forwarded: Some(false), is_processed: false },
    Form { name: "in the host's tunnel", frame: vxlan, is_forwarded: Some(true), is_processed: false },
    Form {
        name: "loose source route",
        frame: |to, from, p, host| source_routed(to, from, p, host, 131),
        is_forwarded: Some(true),
        is_processed: false,
    },
    Form {
        name: "strict source route",
        frame: |to, from, p, host| source_routed(to, from, p, host, 137),
        is_forwarded: Some(true),
        is_processed: false,
    },
];

/// Makes an LLC and SNAP frame (RFC 1042).
fn snap(to: Mac, from: Mac, packet: &[u8], _host: [u8; 4]) -> Vec<u8> {
    let length = (packet.len() + 8) as u16;
    [&to[..], &from, &length.to_be_bytes(), &[0xaa, 0xaa, 3, 0, 0, 0], IPV4, packet].concat()
}

/// Makes a PPPoE frame of session 1 (RFC 2516 §5).
fn pppoe(to: Mac, from: Mac, packet: &[u8], _host: [u8; 4]) -> Vec<u8> {
    let length = (packet.len() + 2) as u16;
    let session = [&[0x11, 0, 0, 1][..], &length.to_be_bytes(), &[0, 0x21]].concat();
    [&to[..], &from, &[0x88, 0x64], &session, packet].concat()
}

/// Makes a VXLAN packet to the host itself (RFC 7348 §5). As with IP in IP or GRE, the classifier
/// only sees a packet to the host.
fn vxlan(to: Mac, from: Mac, packet: &[u8], host: [u8; 4]) -> Vec<u8> {
    let inner = [&VXLAN_MAC[..], &from, IPV4, packet].concat();
    let segment = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &inner].concat();
    let peer = [host[0], host[1], host[2], 2];
    [&to[..], &from, IPV4, &udp(peer, host, 4789, &segment)].concat()
}

/// Adds a source route via the host to the packet's destination (RFC 791 §3.1).
fn source_routed(to: Mac, from: Mac, packet: &[u8], host: [u8; 4], option: u8) -> Vec<u8> {
    let (header, rest) = packet.split_at(20);
    let route = [&[option, 7, 4][..], &header[16..], &[0]].concat();
    let mut header = [header, &route].concat();
    header[0] = 0x47;
    let length = (header.len() + rest.len()) as u16;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[16..20].copy_from_slice(&host);
    fill_checksum(&mut header);
    [&to[..], &from, IPV4, &header, rest].concat()
}

/// Makes devices accept source routes: their own setting is 1 by default, and this one is needed
/// too.
fn accept_source_routes(lab: &Lab, spaces: &[&str]) {
    for space in spaces {
        lab.run(space, "sysctl -qw net.ipv4.conf.all.accept_source_route=1");
    }
}

fn fill_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Makes a UDP datagram over IPv4, without the optional checksum.
fn udp(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((28 + payload.len()) as u16).to_be_bytes());
    header[8..10].copy_from_slice(&[64, 17]);
    header[12..16].copy_from_slice(&from);
    header[16..].copy_from_slice(&to);
    fill_checksum(&mut header);
    let length = (8 + payload.len()) as u16;
    let ports = [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    [&header[..], &ports, payload].concat()
}

/// A station that sends whole frames.
struct Station {
    wire: NeighbourSocket,
    from: Mac,
    to: Mac,
    packet: Vec<u8>,
    host: [u8; 4],
}

impl Station {
    /// Makes a station on `device` in `space` that sends to the gateway's device `other`. `from`
    /// and `to` are its packets' addresses, `host` the gateway's.
    fn new(lab: &Lab, [space, device, other]: [&str; 3], [from, to, host]: [[u8; 4]; 3]) -> Self {
        let find = |space, name| lab.enter(space, || Device::find(name).unwrap());
        let own = find(space, device);
        let wire = lab.enter(space, || NeighbourSocket::open(&own).unwrap());
        Self {
            wire,
            from: own.mac(),
            to: find("gw", other).mac(),
            packet: udp(from, to, PORT, b"in clear"),
            host,
        }
    }

    fn send(&self, form: &Form) {
        let frame = (form.frame)(self.to, self.from, &self.packet, self.host);
        (0..COUNT).for_each(|_| self.wire.send(&frame).unwrap());
    }
}

/// Checks that a packet passes the host in no form, neither out nor in, and that the gateway
/// processes every form that it knows.
pub(crate) fn no_form_of_a_packet_passes_in_clear(kind: &str) {
    let lab = lab();
    let endpoints = Endpoints::new(&lab);
    lab.run("gw", "ip link add vx0 address 02:00:00:00:00:77 type vxlan id 7 dstport 4789");
    lab.run("gw", "ip link set vx0 up");
    // Strict source routes may only lead to neighbours.
    lab.run("gw", "ip route replace 10.98.0.7 dev g0");
    accept_source_routes(&lab, &["core", "gw", "srv"]);
    let (near, far) = ([10, 99, 0, 2], [10, 98, 0, 7]);
    let inside = Station::new(&lab, ["srv", "s0", "g1"], [near, far, [10, 99, 0, 1]]);
    let outside = Station::new(&lab, ["core", "k1", "g0"], [far, near, [192, 0, 2, 1]]);
    // Counts the packets that arrive out and in.
    let pass = |form: &Form| {
        let _in_order = OneCore::new();
        drain(&endpoints.near[0]);
        drain(&endpoints.far[0]);
        inside.send(form);
        outside.send(form);
        wait_for_forwarding(&lab);
        [drain(&endpoints.far[0]), drain(&endpoints.near[0])]
    };
    let open = |when: &str| {
        for form in &FORMS {
            let passed = pass(form);
            let expected = if form.is_forwarded.unwrap_or(passed[0] > 0) { COUNT } else { 0 };
            assert_eq!(passed, [expected; 2], "{}, {when}", form.name);
        }
    };
    open("without a gateway");
    let gateway = lab.gateway("gw", &config(kind));
    let mut expected = 0;
    for form in &FORMS {
        assert_eq!(pass(form), [0; 2], "{}, with the gateway", form.name);
        expected += if form.is_processed { COUNT as u64 } else { 0 };
        let counts = || (gateway.sa().outbound.packets, gateway.dropped("Unprotected"));
        wait_for(form.name, || (counts() == (expected, expected)).then_some(()));
    }
    drop(gateway);
    for form in &FORMS {
        assert_eq!(pass(form), [0; 2], "{}, after the gateway was killed", form.name);
    }
    assert_eq!(open_host(&lab, "").0, Some(0));
    open("after the host was opened");
}

/// Checks that the host still forwards unprotected traffic, between other devices and by a port
/// behind the host's own address, but no protected traffic.
pub(crate) fn unprotected_traffic_is_still_forwarded(kind: &str) {
    let lab = lab();
    let endpoints = Endpoints::new(&lab);
    for (space, device, end, net) in [("box", "c0", "b0", "172.20.0"), ("bay", "d0", "e0", "172.21.0")] {
        lab.add_space(space);
        let (host, own) = (format!("{net}.1/24"), format!("{net}.2/24"));
        lab.link([("gw", device, &[&host]), (space, end, &[&own])]);
        lab.run(space, &format!("ip route add default via {net}.1"));
    }
    lab.nft(
        "gw",
        "table ip nat {\nchain post { type nat hook postrouting priority srcnat; oifname g0 ip saddr 172.20.0.0/24 masquerade; }\n}\n",
    );
    accept_source_routes(&lab, &["core", "gw", "box"]);
    let inward = Station::new(&lab, ["srv", "s0", "g1"], [[10, 99, 0, 2], [172, 20, 0, 2], [10, 99, 0, 1]]);
    let routed = Station::new(&lab, ["box", "b0", "c0"], [[172, 20, 0, 2], [10, 98, 0, 7], [172, 20, 0, 1]]);
    let by_source_route = FORMS.iter().find(|form| form.name == "loose source route").unwrap();
    let [boxed, bay, core] = [("box", "172.20.0.2"), ("bay", "172.21.0.2"), ("core", "192.0.2.254")]
        .map(|(space, at)| bind(&lab, space, at, PORT));
    let exchange = |to: &UdpSocket, at: &str| {
        boxed.send_to(b"hello", (at, PORT)).unwrap();
        let mut from: Option<SocketAddr> = None;
        wait_for("a packet from the host's own network", || {
            from = to.recv_from(&mut [0; 64]).ok().map(|(_, from)| from);
            from
        });
        to.send_to(b"hello", from.unwrap()).unwrap();
        wait_for("its answer", || boxed.recv_from(&mut [0; 64]).ok());
    };
    let all = |when: &str| {
        let _in_order = OneCore::new();
        exchange(&bay, "172.21.0.2");
        exchange(&core, "192.0.2.254");
        drain(&endpoints.far[0]);
        boxed.send_to(b"in clear", (FAR[0], PORT)).unwrap();
        routed.send(by_source_route);
        exchange(&core, "192.0.2.254");
        assert_eq!(drain(&endpoints.far[0]), 0, "{when}");
        inward.send(by_source_route);
        wait_for_forwarding(&lab);
        assert_eq!(drain(&boxed), 0, "{when}");
    };
    let gateway = lab.gateway("gw", &config(kind));
    all("while the gateway runs");
    drop(gateway);
    all("after it was killed");
    assert_eq!(open_host(&lab, "").0, Some(0));
    inward.send(by_source_route);
    wait_for("a packet by a source route", || boxed.recv_from(&mut [0; 64]).ok());
    let patience = PATIENCE.min(Duration::from_secs(20));
    endpoints.far[0].set_nonblocking(false).unwrap();
    endpoints.far[0].set_read_timeout(Some(patience)).unwrap();
    boxed.send_to(b"in clear", (FAR[0], PORT)).unwrap();
    endpoints.far[0].recv_from(&mut [0; 64]).expect("the host forwards again");
    routed.send(by_source_route);
    endpoints.far[0].recv_from(&mut [0; 64]).expect("the host follows source routes again");
}

//! Paths between two gateways whose routers take less than their ports, or say nothing of it.
//!
//! ```text
//!  ha ── gwa ── core ── far ── gwb ── hb       the link between the routers changes
//! ```

use super::{
    lab::{Gateway, Lab, wait_for, wait_longer},
    taps,
    traffic::{IperfServer, Run, WebServer, iperf_command, wait_for_packets, wait_for_ping},
    world::{Outside, two_gateways_with},
};
use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(1);
/// How long an echo may take before what a NIC holds back is pushed out.
const PUSH: Duration = Duration::from_millis(20);
/// Bytes of the longest packet between the hosts, which may leave in fragments.
const LONGEST: usize = 9000;
/// Addresses of `ha` and `hb`, by family.
const HOSTS: [[&str; 2]; 2] = [["10.1.0.2", "10.2.0.2"], ["2001:db8:1::2", "2001:db8:2::2"]];

/// Returns the largest MTU that all devices get with ports of this kind.
fn largest_mtu(kind: &str) -> usize {
    match kind {
        // A veth pair with a program for AF_XDP takes 3506.
        "af_xdp" => 3500,
        // DPDK's frames in these tests hold no more than its NICs take.
        "net_tap" => 1500,
        _ => 9000,
    }
}

/// Starts two gateways with a router more between them. All links take packets of `mtu` bytes.
fn routers(kind: &str, outside: Outside, tunnel: &str, mtu: usize) -> (Lab, Gateway, Gateway) {
    let frames = match (kind, mtu) {
        (_, ..=1500) => "",
        ("af_xdp", _) => "frame_size = 4096\n",
        _ => "frame_size = 9728\n",
    };
    let (lab, a, b) = match kind {
        "tap" => taps::two_gateways(outside, [frames, tunnel]),
        _ => two_gateways_with(kind, outside, [frames, tunnel]),
    };
    lab.add_space("far");
    lab.forward("far");
    lab.run("core", &format!("ip link set kb netns {}", lab.full("far")));
    lab.run("far", "ip address add 198.51.100.254/24 dev kb");
    lab.run("far", "ip address add 2001:db8:b::fe/64 dev kb nodad");
    lab.run("far", "ip link set kb up");
    lab.link([
        ("core", "c0", &["203.0.113.1/30", "2001:db8:c::1/64"]),
        ("far", "f0", &["203.0.113.2/30", "2001:db8:c::2/64"]),
    ]);
    for (router, net, via) in [
        ("core", "198.51.100.0/24", "203.0.113.2"),
        ("core", "2001:db8:b::/64", "2001:db8:c::2"),
        ("far", "192.0.2.0/24", "203.0.113.1"),
        ("far", "2001:db8:a::/64", "2001:db8:c::1"),
    ] {
        lab.run(router, &format!("ip route add {net} via {via}"));
    }
    if kind == "tap" {
        taps::route_to_second(&lab, "far");
    }
    if mtu > 1500 {
        let all = ["ha h0", "gwa a1", "gwa a0", "core ka", "core c0", "far f0", "far kb", "gwb b0", "gwb b1"];
        let others: &[&str] = if kind == "tap" { &["hb h0", "gwa wf1", "gwb wf0"] } else { &["hb h0"] };
        for device in all.iter().chain(others) {
            let (space, device) = device.split_once(' ').unwrap();
            lab.run(space, &format!("ip link set {device} mtu {mtu}"));
        }
        for gateway in [&a, &b] {
            wait_for("the ports to follow", || {
                gateway.ports().iter().all(|port| port.mtu == mtu).then_some(())
            });
        }
    }
    HOSTS.iter().for_each(|[_, to]| wait_for_ping(&lab, "ha", to));
    (lab, a, b)
}

fn set_mtu(lab: &Lab, mtu: usize) {
    for (router, device) in [("core", "c0"), ("far", "f0")] {
        lab.run(router, &format!("ip link set {device} mtu {mtu}"));
    }
}

/// What an exchange has lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Losses {
    /// Packets that did not come back, and no host was told why.
    silent: usize,
    /// Packets that were too big, which their sender heard and repeated.
    reported: usize,
}

/// One end of an exchange. Since its socket is connected, it hears of packets that were too big.
struct End {
    socket: UdpSocket,
    reports: AtomicUsize,
}

impl End {
    fn new(lab: &Lab, space: &str, address: &str) -> Self {
        let at = SocketAddr::new(address.parse().unwrap(), 9999);
        let socket = lab.enter(space, || UdpSocket::bind(at).unwrap());
        socket.set_read_timeout(Some(if lab.holds_back.get() { PUSH } else { ECHO })).unwrap();
        Self { socket, reports: AtomicUsize::new(0) }
    }

    fn connect(&self, to: &Self) {
        self.socket.connect(to.socket.local_addr().unwrap()).unwrap();
    }

    fn send(&self, payload: &[u8]) {
        // The system first tells of the last packet.
        while self.socket.send(payload).is_err_and(|why| self.is_report(&why)) {}
    }

    /// Returns whether an error is a report that a packet was too big, and counts it.
    fn is_report(&self, why: &io::Error) -> bool {
        let is_report = why.raw_os_error() == Some(nix::libc::EMSGSIZE);
        self.reports.fetch_add(is_report.into(), Relaxed);
        is_report
    }

    /// Sends `payload`, and again upon each report, until it comes back. Returns whether it does.
    fn has_echo(&self, payload: &[u8], holds_back: bool) -> bool {
        let deadline = Instant::now() + ECHO;
        let mut received = [0; LONGEST];
        self.send(payload);
        while Instant::now() < deadline {
            match self.socket.recv(&mut received) {
                Ok(length) if received[..length] == *payload => return true,
                // An earlier one.
                Ok(_) => {}
                Err(why) if self.is_report(&why) => self.send(payload),
                Err(_) if holds_back => self.send(&[]),
                Err(_) => {}
            }
        }
        false
    }

    /// Sends back what comes, and the last payload again upon each report.
    fn echo(&self, is_done: &AtomicBool) {
        let (mut bytes, mut last) = ([0; LONGEST], 0);
        while !is_done.load(Relaxed) {
            match self.socket.recv(&mut bytes) {
                // Only pushes out what a NIC holds back, or is the shortest packet.
                Ok(0) => self.send(&[]),
                Ok(length) => {
                    last = length;
                    self.send(&bytes[..last]);
                }
                Err(why) if self.is_report(&why) => self.send(&bytes[..last]),
                Err(_) => {}
            }
        }
    }
}

/// Sends UDP packets of these sizes, IP header included, from `ha` to `hb`, which sends them back. Those
/// that are too short for their headers are left out. Repeats each until it has passed both ways.
fn exchange(lab: &Lab, [from, to]: [&str; 2], sizes: impl IntoIterator<Item = usize>) -> Losses {
    let (here, there) = (End::new(lab, "ha", from), End::new(lab, "hb", to));
    here.connect(&there);
    there.connect(&here);
    let headers = if to.contains(':') { 48 } else { 28 };
    let is_done = AtomicBool::new(false);
    let mut silent = 0;
    thread::scope(|scope| {
        scope.spawn(|| there.echo(&is_done));
        for size in sizes.into_iter().filter(|size| *size >= headers) {
            let payload: Vec<u8> = (0..size - headers).map(|at| (at / 8 + size) as u8).collect();
            let lost = (0..5).take_while(|_| !here.has_echo(&payload, lab.holds_back.get())).count();
            silent += lost;
            is_done.store(lost == 5, Relaxed);
            assert!(lost < 5, "{size} bytes from {from} to {to}");
        }
        is_done.store(true, Relaxed);
        // The other end looks at that once something comes.
        here.send(&[]);
    });
    Losses { silent, reported: [here, there].map(|end| end.reports.into_inner()).iter().sum() }
}

/// Returns sizes of packets: the shortest ones; all around each of these MTUs, and around what a tunnel over
/// `outside` leaves of it; and some of those between, up to [`LONGEST`].
fn sizes(outside: Outside, mtus: &[usize]) -> BTreeSet<usize> {
    let header = if outside == Outside::V4 { 20 } else { 40 };
    // ESP with AES-GCM-16 (RFC 4303, RFC 4106): 8 + 8 + 16, and payload + 2 a multiple of 4.
    let inside = |mtu: usize| (mtu - header - 32) / 4 * 4 - 2;
    let limits = mtus.iter().flat_map(|mtu| [*mtu, inside(*mtu)]);
    let near = limits.flat_map(|limit| limit - 16..=limit + 16);
    let all = (28..=64).chain(near).chain((64..LONGEST).step_by(93)).chain([LONGEST]);
    all.filter(|size| *size <= LONGEST).collect()
}

/// Checks that packets of every size pass both ways, or are repeated by hosts that have heard why they
/// were lost, and that TCP passes each path.
pub(crate) fn links_of_every_mtu(kind: &str) {
    let largest = largest_mtu(kind);
    for outside in [Outside::V4, Outside::V6] {
        let (lab, a, b) = routers(kind, outside, "", largest);
        let (mut server, web) = (IperfServer::start(&lab, "hb"), WebServer::start(&lab, "hb"));
        for mtu in [largest, 1492, 1400, 1280] {
            set_mtu(&lab, mtu);
            for hosts in HOSTS {
                let Losses { silent, reported } =
                    exchange(&lab, hosts, sizes(outside, &[largest, mtu, 1280]));
                // One each way, by which the gateway hears of the path.
                assert!(silent <= 2, "{mtu}: {silent} lost");
                // Each host hears of the tunnel; on a busy machine, once more before it has repeated a packet.
                assert!((2..=4).contains(&reported), "{mtu}: {reported} reports");
            }
            for options in ["", "-R"] {
                assert!(server.run(&lab, "ha", HOSTS[0][1], options).received > 100_000, "{mtu}");
            }
            for at in [HOSTS[0][1].to_owned(), format!("[{}]", HOSTS[1][1])] {
                web.fetch(&lab, "ha", &at);
            }
            let learnt = (mtu < largest).then_some(mtu as u16);
            assert_eq!([a.sa().path_mtu, b.sa().path_mtu], [learnt; 2]);
        }
        for gateway in [&a, &b] {
            assert_eq!(gateway.sa().forged + gateway.sa().replayed, 0);
            gateway.assert_no_drops();
        }
    }
}

#[test]
fn links_of_every_mtu_between_tap_devices() {
    links_of_every_mtu("tap");
}

/// Checks that a TCP stream goes on while its path gets smaller, and while it gets larger again.
pub(crate) fn stream_goes_on_while_its_path_changes(kind: &str) {
    let (lab, a, b) = routers(kind, Outside::V4, "", 1500);
    let mut server = IperfServer::start(&lab, "hb");
    server.listen();
    let client = lab.spawn("ha", &iperf_command(HOSTS[0][1], 10, ""));
    wait_for_packets(&b, 500);
    set_mtu(&lab, 1300);
    wait_for("the router's report", || (a.sa().path_mtu == Some(1300)).then_some(()));
    wait_for_packets(&b, 500);
    set_mtu(&lab, 1500);
    wait_for_packets(&b, 500);
    let run = Run::read(&client.finish());
    let last = &run.intervals[run.intervals.len() - 2..];
    assert!(run.received > 100_000 && last.iter().all(|bytes| *bytes > 0), "{:?}", run.intervals);
    a.assert_no_drops();
}

/// Has the routers never say why they drop.
fn filter_icmp(lab: &Lab) {
    for router in ["core", "far"] {
        let rule = "type filter hook output priority 0; icmp type destination-unreachable drop; \
                    icmpv6 type packet-too-big drop;";
        lab.nft(router, &format!("table inet quiet {{\n  chain c {{ {rule} }}\n}}"));
    }
}

/// Checks that TCP passes routers that never say why they drop, once the gateways' probes in dummy packets
/// have found what they take.
pub(crate) fn routers_that_filter_icmp_are_probed(kind: &str) {
    let (lab, a, b) = routers(kind, Outside::V4, "encap = \"udp\"", 1500);
    filter_icmp(&lab);
    set_mtu(&lab, 1400);
    // Nothing is looked for while nothing is sent.
    let _pings = lab.spawn("ha", &format!("ping -i 0.1 -s 1000 -w 180 {}", HOSTS[0][1]));
    for gateway in [&a, &b] {
        wait_longer("probes to find the MTU", || (gateway.sa().path_mtu == Some(1400)).then_some(()));
    }
    let mut server = IperfServer::start(&lab, "hb");
    for options in ["", "-R"] {
        assert!(server.run(&lab, "ha", HOSTS[0][1], options).received > 100_000);
    }
    for gateway in [&a, &b] {
        assert_eq!(gateway.dropped("Dummy"), 0);
        gateway.assert_no_drops();
    }
}

/// Checks that outer fragments pass routers that never say why they drop, and that inner hosts notice
/// nothing.
pub(crate) fn routers_that_filter_icmp(kind: &str) {
    for (outside, keys) in
        [(Outside::V4, "outer_fragments = true"), (Outside::V6, "outer_fragments = true\nmtu = 1280")]
    {
        let (lab, a, b) = routers(kind, outside, keys, 1500);
        set_mtu(&lab, 1280);
        filter_icmp(&lab);
        for hosts in HOSTS {
            let sizes = sizes(outside, &[1500, 1280]).into_iter().filter(|size| *size <= 1500);
            assert_eq!(exchange(&lab, hosts, sizes), Losses::default(), "{hosts:?}");
        }
        let mut server = IperfServer::start(&lab, "hb");
        for options in ["", "-R"] {
            assert!(server.run(&lab, "ha", HOSTS[0][1], options).received > 100_000);
        }
        for gateway in [&a, &b] {
            assert_eq!(gateway.sa().path_mtu, None);
            gateway.assert_no_drops();
        }
    }
}

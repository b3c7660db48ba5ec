//! Paths between two gateways whose routers take less than their ports, or say nothing of it.
//!
//! ```text
//!  ha ── gwa ── core ── far ── gwb ── hb       the link between the routers changes
//! ```

use super::{
    lab::{Gateway, Lab, wait_for, wait_longer},
    traffic::{IperfServer, Run, WebServer, iperf_command, wait_for_packets, wait_for_ping},
    world::{Outside, two_gateways_with},
};
use std::{
    iter,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(1);
/// Addresses of `ha` and `hb`, by family.
const HOSTS: [[&str; 2]; 2] = [["10.1.0.2", "10.2.0.2"], ["2001:db8:1::2", "2001:db8:2::2"]];

/// Starts two gateways with a router more between them. All links take packets of `mtu` bytes.
fn routers(kind: &str, outside: Outside, tunnel: &str, mtu: usize) -> (Lab, Gateway, Gateway) {
    let frames = if mtu > 1500 { "frame_size = 9728\n" } else { "" };
    let (lab, a, b) = two_gateways_with(kind, outside, [frames, tunnel]);
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
    if mtu > 1500 {
        let all = ["ha h0", "gwa a1", "gwa a0", "core ka", "core c0", "far f0", "far kb", "gwb b0", "gwb b1"];
        for device in all.into_iter().chain(["hb h0"]) {
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

/// Sends UDP packets from `ha` to `hb`, which sends them back: one without payload, and one of each of
/// these sizes, IP header included. Repeats each until it has passed both ways, and returns how many
/// were lost.
fn exchange(lab: &Lab, [from, to]: [&str; 2], sizes: impl IntoIterator<Item = usize>) -> usize {
    let bind = |space: &str, address: &str| {
        let end = SocketAddr::new(address.parse().unwrap(), 9999);
        let socket = lab.enter(space, || UdpSocket::bind(end).unwrap());
        socket.set_read_timeout(Some(ECHO)).unwrap();
        socket
    };
    let (here, there) = (bind("ha", from), bind("hb", to));
    let to: SocketAddr = there.local_addr().unwrap();
    let headers = if to.is_ipv4() { 28 } else { 48 };
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 10_000];
            while !is_done.load(Relaxed) {
                if let Ok((length, from)) = there.recv_from(&mut bytes) {
                    there.send_to(&bytes[..length], from).unwrap();
                }
            }
        });
        let mut lost = 0;
        let mut received = [0; 10_000];
        for size in iter::once(headers).chain(sizes) {
            let sent: Vec<u8> = (0..size - headers).map(|at| (at / 8 + size) as u8).collect();
            let passes = (0..5).any(|_| {
                here.send_to(&sent, to).unwrap();
                while let Ok(length) = here.recv(&mut received) {
                    if received[..length] == sent {
                        return true;
                    }
                }
                lost += 1;
                false
            });
            is_done.store(!passes, Relaxed);
            assert!(passes, "{size} bytes from {from} to {to}");
        }
        is_done.store(true, Relaxed);
        lost
    })
}

/// Returns sizes of packets from the shortest up to `largest`, each one around the limits of tunnels.
fn sizes(largest: usize) -> impl Iterator<Item = usize> {
    (48..1200).step_by(47).chain(1200..1500.min(largest)).chain((1500..=largest).step_by(93)).chain([largest])
}

/// Checks that packets of every size pass both ways, or are repeated by hosts that have heard why they
/// were lost, and that TCP passes each path.
pub(crate) fn links_of_every_mtu(kind: &str) {
    for outside in [Outside::V4, Outside::V6] {
        // A veth pair with a program for AF_XDP takes no longer packets.
        let largest = if kind == "af_packet" { 9000 } else { 1500 };
        let (lab, a, b) = routers(kind, outside, "", largest);
        let (mut server, web) = (IperfServer::start(&lab, "hb"), WebServer::start(&lab, "hb"));
        for mtu in [9000, 1492, 1400, 1280].into_iter().filter(|mtu| *mtu <= largest) {
            set_mtu(&lab, mtu);
            for hosts in HOSTS {
                // Each way, one is lost for the gateway to hear of the path, and one for the host to
                // hear of the tunnel. Another tells the host what the port takes.
                let lost = exchange(&lab, hosts, sizes(largest));
                assert!(lost <= 6, "{mtu}: {lost} lost");
            }
            for options in ["", "-R"] {
                assert!(server.run(&lab, "ha", HOSTS[0][1], options).received > 100_000, "{mtu}");
            }
            for at in [HOSTS[0][1].to_owned(), format!("[{}]", HOSTS[1][1])] {
                web.fetch(&lab, "ha", &at);
            }
            let learnt = (mtu < 1500).then_some(mtu as u16);
            assert_eq!([a.sa().path_mtu, b.sa().path_mtu], [learnt; 2]);
        }
        for gateway in [&a, &b] {
            assert_eq!(gateway.sa().forged + gateway.sa().replayed, 0);
            gateway.assert_no_drops();
        }
    }
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
            assert_eq!(exchange(&lab, hosts, sizes(1500).filter(|size| *size <= 1500)), 0, "{hosts:?}");
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

//! Traffic through one gateway and through two.

use super::{
    lab::{Lab, Program, wait_for},
    traffic::{IperfServer, ping, wait_for_ping},
    world::{
        BY_CORE, Outside, SERVER, TERMINAL, gateway_config, start, start_terminal, terminal_lab, two_gateways,
    },
};
use std::{net::UdpSocket, time::Duration};

/// A capture by tcpdump on a device of `core`.
struct Capture<'a> {
    lab: &'a Lab,
    _tcpdump: Program,
}

impl<'a> Capture<'a> {
    fn start(lab: &'a Lab, device: &str) -> Self {
        // tcpdump reports on standard error that it listens.
        let mut command = lab.command("core", "sh -c");
        let tcpdump = format!("exec tcpdump -Z root -i {device} --immediate-mode -U -w capture.pcap 2>&1");
        let mut tcpdump = Program::start(command.arg(tcpdump));
        tcpdump.wait_for_line("listening on");
        Self { lab, _tcpdump: tcpdump }
    }

    /// Counts the packets so far that match a filter.
    fn count(&self, filter: &str) -> usize {
        let read = self.lab.output("core", &format!("tcpdump -Z root -nr capture.pcap {filter}"));
        String::from_utf8(read.stdout).unwrap().lines().count()
    }
}

/// Checks that ping, TCP in both directions and UDP pass between terminal and server, and are
/// encrypted on the way.
pub(crate) fn terminal_to_server(kind: &str) {
    for (remote, sealed) in [("192.0.2.1", "esp"), ("192.0.2.1:4500", "udp port 4500")] {
        let lab = terminal_lab();
        let (gateway, terminal) = start(&lab, kind, remote);
        let capture = Capture::start(&lab, "k1");
        ping(&lab, "term", SERVER, 20);
        ping(&lab, "srv", TERMINAL, 20);
        // Requests and replies in both directions, all sealed.
        wait_for("the capture of all pings", || (capture.count(sealed) >= 80).then_some(()));
        assert_eq!(capture.count(&format!("host {TERMINAL} or host {SERVER}")), 0);
        let mut server = IperfServer::start(&lab, "srv");
        for options in ["", "-R", "-u -b 5M -l 1000"] {
            let run = server.run(&lab, "term", SERVER, options);
            assert!(run.received > 100_000, "{options}: {}", run.received);
            assert!(run.lost_percent < 1.0, "{options}: {}", run.lost_percent);
        }
        assert_eq!(gateway.sa().state, "up");
        gateway.assert_no_drops();
        terminal.assert_no_drops();
    }
}

/// Checks that two workers share the devices' queues and one tunnel.
pub(crate) fn two_workers(kind: &str) {
    let lab = terminal_lab();
    let gateway = lab.gateway("gw", &format!("workers = [0, 1]\n{}", gateway_config(kind, BY_CORE)));
    let terminal = start_terminal(&lab, kind, "192.0.2.1");
    // Each datagram is a flow of its own, so they spread over the queues.
    wait_for("both workers to receive", || {
        let socket = lab.enter("srv", || UdpSocket::bind((SERVER, 0)).unwrap());
        socket.send_to(b"spread", (TERMINAL, 9)).unwrap();
        gateway.received().iter().all(|received| *received > 0).then_some(())
    });
    let mut server = IperfServer::start(&lab, "srv");
    for options in ["-P 4", "-P 4 -R"] {
        assert!(server.run(&lab, "term", SERVER, options).received > 100_000);
    }
    let sa = gateway.sa();
    assert_eq!((sa.replayed, sa.forged, sa.moves), (0, 0, 0), "{sa:?}");
    gateway.assert_no_drops();
    terminal.assert_no_drops();
}

/// Checks that both families pass inside tunnels over each family.
pub(crate) fn gateway_to_gateway(kind: &str) {
    for outside in [Outside::V4, Outside::V6] {
        let (lab, a, b) = two_gateways(kind, outside);
        for (to, back) in [("10.2.0.2", "10.1.0.2"), ("2001:db8:2::2", "2001:db8:1::2")] {
            ping(&lab, "ha", to, 20);
            ping(&lab, "hb", back, 20);
        }
        let mut server = IperfServer::start(&lab, "hb");
        for to in ["10.2.0.2", "2001:db8:2::2"] {
            assert!(server.run(&lab, "ha", to, "").received > 100_000);
        }
        a.assert_no_drops();
        b.assert_no_drops();
    }
}

/// Checks that packets too big for the tunnel are fragmented, or that the sender gets the size that
/// fits.
pub(crate) fn too_big(kind: &str) {
    let (lab, a, _b) = two_gateways(kind, Outside::V4);
    lab.run("ha", "ping -c 2 -i 0.02 -W 2 -s 1472 -M dont 10.2.0.2");
    lab.run("hb", "ping -c 2 -i 0.02 -W 2 -s 4000 -M dont 10.1.0.2");
    for (to, size, headers, message) in [
        ("10.2.0.2", 1472, 28, "Frag needed and DF set (mtu = "),
        ("2001:db8:2::2", 1452, 48, "Packet too big: mtu="),
    ] {
        let refused = lab.output("ha", &format!("ping -c 1 -W 2 -s {size} -M do {to}"));
        let output = String::from_utf8_lossy(&refused.stdout).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{output}");
        let (_, rest) = output.split_once(message).unwrap_or_else(|| panic!("no {message:?} in {output}"));
        let mtu: usize = rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
        assert!((1280..1500).contains(&mtu), "{output}");
        // Exactly this size passes, but not one byte more.
        lab.run("ha", &format!("ping -c 1 -W 2 -s {} -M do {to}", mtu - headers));
        let more = lab.output("ha", &format!("ping -c 1 -W 1 -s {} -M do {to}", mtu - headers + 1));
        assert!(!more.status.success());
    }
    assert_eq!(a.dropped("TooBig"), 2);
}

/// Checks that packets of ESP that a router cuts are opened, whichever worker they come to, and that the
/// kernel answers nothing to them.
pub(crate) fn fragments(kind: &str) {
    for remote in ["192.0.2.1", "192.0.2.1:4500"] {
        let lab = terminal_lab();
        let gateway = lab.gateway("gw", &format!("workers = [0, 1]\n{}", gateway_config(kind, BY_CORE)));
        let terminal = start_terminal(&lab, kind, remote);
        // Packets to the gateway are cut, as their DF bit allows.
        lab.run("core", "ip link set k1 mtu 1280");
        lab.run("term", "sysctl -qw net.ipv4.ip_no_pmtu_disc=1");
        let bind =
            |space: &str, address: &str| lab.enter(space, || UdpSocket::bind((address, 9999)).unwrap());
        let (from, to) = (bind("term", TERMINAL), bind("srv", SERVER));
        let patience = if lab.holds_back.get() { 200 } else { 10_000 };
        to.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
        for number in 0..100u8 {
            let sent = [number; 1350];
            from.send_to(&sent, (SERVER, 9999)).unwrap();
            let mut received = [0; 2000];
            let length = wait_for("the datagram", || match to.recv(&mut received) {
                Ok(1) => None,
                Ok(length) => Some(length),
                Err(why) => {
                    assert!(lab.holds_back.get(), "{why}");
                    // Pushes out what a NIC holds back.
                    from.send_to(b"x", (SERVER, 9999)).unwrap();
                    None
                }
            });
            assert_eq!(received[..length], sent);
        }
        assert!(lab.counted("core", "Ip", "FragCreates") >= 200);
        gateway.assert_no_drops();
        terminal.assert_no_drops();
        assert_eq!(lab.counted("gw", "Icmp", "OutDestUnreachs"), 0);
    }
}

/// Checks that next hops are resolved by ARP and neighbour discovery, and that packets to a silent
/// one are counted.
pub(crate) fn neighbours(kind: &str) {
    let (lab, a, b) = two_gateways(kind, Outside::V6);
    // A router outside, and a host with both families inside.
    for gateway in [&a, &b] {
        let found: Vec<_> = gateway.ports().iter().map(|port| port.neighbours).collect();
        assert!(found[0] >= 1 && found[1] >= 2, "{found:?}");
    }
    assert_eq!(b.dropped("NeighbourFailed"), 0);
    for (nobody, failed) in [("10.2.0.99", 3), ("2001:db8:2::99", 6)] {
        let output = lab.output("ha", &format!("ping -c 3 -i 0.02 -W 1 {nobody}"));
        assert!(!output.status.success());
        wait_for("the gateway to give up", || (b.dropped("NeighbourFailed") == failed).then_some(()));
    }
    wait_for_ping(&lab, "ha", "10.2.0.2");
}

/// Checks that a gateway with `routes = "kernel"` follows the kernel's routes.
pub(crate) fn kernel_routes(kind: &str) {
    let lab = terminal_lab();
    lab.link([("core", "k2", &["192.0.3.254/24"]), ("gw", "g2", &["192.0.3.1/24"])]);
    lab.run("gw", "ip route add default via 192.0.2.254 dev g0");
    let second = format!(
        "[[port]]\nname = \"second\"\nkind = \"{kind}\"\ndevice = \"g2\"\naddresses = [\"192.0.3.1/24\"]\n"
    );
    let gateway = lab.gateway("gw", &format!("routes = \"kernel\"\n{}", gateway_config(kind, &second)));
    let _terminal = start_terminal(&lab, kind, "192.0.2.1");
    let sent = |port: &str| gateway.ports().iter().find(|p| p.port == port).unwrap().tx_packets;
    assert_eq!(sent("second"), 0);
    ping(&lab, "term", SERVER, 20);
    assert_eq!(sent("second"), 0);
    lab.run("gw", "ip route change default via 192.0.3.254 dev g2");
    wait_for("the first packet by the new route", || {
        lab.run("term", &format!("ping -c 1 -W 2 {SERVER}"));
        (sent("second") > 0).then_some(())
    });
    let (outside, second) = (sent("outside"), sent("second"));
    ping(&lab, "term", SERVER, 20);
    assert_eq!((sent("outside"), sent("second")), (outside, second + 20));
}

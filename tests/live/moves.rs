//! Terminals whose address or NAT mapping changes under traffic. The gateway follows, and the
//! traffic goes on.

use super::{
    lab::{Gateway, Lab, wait_for},
    traffic::{IperfServer, Run, in_flight, iperf_command, lost, wait_for_packets, wait_for_ping},
    world::{Outside, SERVER, start, terminal_lab, two_gateways},
};

/// The NAT in `core`, which gives the terminal's packets the address of the outer device.
const NAT: &str = "table ip nat {
  chain post { type nat hook postrouting priority 100; oifname \"k1\" ip saddr 198.51.100.7 masquerade random; }
}";

/// Starts a gateway, and a terminal behind a NAT at 192.0.2.100.
fn behind_nat(kind: &str, remote: &str) -> (Lab, Gateway, Gateway) {
    let lab = terminal_lab();
    lab.run("core", "sysctl -qw net.ipv4.conf.all.promote_secondaries=1");
    lab.run("core", "ip address add 192.0.2.100/24 dev k1");
    // By its scope, the NAT does not use the router's own address.
    lab.run("core", "ip address del 192.0.2.254/24 dev k1");
    lab.run("core", "ip address add 192.0.2.254/32 dev k1 scope link");
    lab.nft("core", NAT);
    let (gateway, terminal) = start(&lab, kind, remote);
    (lab, gateway, terminal)
}

/// Gives the NAT another address, and removes the old one with all its mappings.
fn rebind(lab: &Lab, from: u8, to: u8) {
    lab.run("core", &format!("ip address add 192.0.2.{to}/24 dev k1"));
    lab.run("core", &format!("ip address del 192.0.2.{from}/24 dev k1"));
    // A mapping that was just being made can escape the kernel's clean-up, and traffic would keep
    // it alive. A second removal catches it. The new address comes first now, so no new mapping
    // takes the old one meanwhile.
    lab.run("core", &format!("ip address add 192.0.2.{from}/24 dev k1"));
    lab.run("core", &format!("ip address del 192.0.2.{from}/24 dev k1"));
}

/// Waits until the gateway sends to this address of the NAT.
fn wait_for_remote(gateway: &Gateway, address: u8) {
    let remote = format!("192.0.2.{address}");
    wait_for("the gateway to follow", || {
        let now = gateway.sa().remote?;
        (now == remote || now.starts_with(&format!("{remote}:"))).then_some(())
    });
}

/// Checks that pings go on while the terminal moves, with ESP in UDP and with plain ESP.
pub(crate) fn ping_goes_on(kind: &str) {
    for (remote, encap) in [("192.0.2.1:4500", "udp"), ("192.0.2.1", "esp")] {
        let (lab, gateway, terminal) = behind_nat(kind, remote);
        wait_for_remote(&gateway, 100);
        let moves = gateway.sa().moves;
        let mut ping = lab.spawn("term", &format!("ping -i 0.02 -w 60 {SERVER}"));
        ping.wait_for_line("icmp_seq=30 ");
        rebind(&lab, 100, 101);
        ping.wait_for_line("icmp_seq=70 ");
        wait_for_remote(&gateway, 101);
        rebind(&lab, 101, 102);
        wait_for_remote(&gateway, 102);
        let output = ping.interrupt();
        assert!(lost(&output) <= in_flight(2), "{encap}: {output}");
        let sa = gateway.sa();
        assert_eq!(sa.moves, moves + 2, "{sa:?}");
        assert_eq!(sa.encap.as_deref(), Some(encap));
        assert_eq!((sa.replayed, sa.forged, sa.selector), (0, 0, 0));
        terminal.assert_no_drops();
    }
}

/// Checks the same over IPv6, between two gateways of which one is behind a NAT.
pub(crate) fn ping_goes_on_over_ipv6(kind: &str) {
    let (lab, _a, b) = two_gateways(kind, Outside::V6);
    // The NAT does not use a deprecated address.
    lab.run("core", "ip address change 2001:db8:b::fe/64 dev kb preferred_lft 0");
    lab.run("core", "ip address add 2001:db8:b::100/64 dev kb nodad");
    lab.nft(
        "core",
        "table ip6 nat {
  chain post { type nat hook postrouting priority 100; oifname \"kb\" ip6 saddr 2001:db8:a::1 masquerade; }
}",
    );
    let follows = |remote: &str| {
        wait_for("the gateway to follow", || (b.sa().remote.as_deref() == Some(remote)).then_some(()));
    };
    wait_for_ping(&lab, "ha", "10.2.0.2");
    follows("2001:db8:b::100");
    let moves = b.sa().moves;
    let mut ping = lab.spawn("ha", "ping -i 0.02 -w 60 10.2.0.2");
    ping.wait_for_line("icmp_seq=30 ");
    lab.run("core", "ip address add 2001:db8:b::101/64 dev kb nodad");
    lab.run("core", "ip address del 2001:db8:b::100/64 dev kb");
    follows("2001:db8:b::101");
    let output = ping.interrupt();
    assert!(lost(&output) <= in_flight(1), "{output}");
    assert_eq!(b.sa().moves, moves + 1);
}

/// Checks that a TCP connection survives two moves.
pub(crate) fn tcp_goes_on(kind: &str) {
    let (lab, gateway, _terminal) = behind_nat(kind, "192.0.2.1:4500");
    let mut server = IperfServer::start(&lab, "srv");
    server.listen();
    let moves = gateway.sa().moves;
    let client = lab.spawn("term", &iperf_command(SERVER, 4, ""));
    wait_for_packets(&gateway, 500);
    rebind(&lab, 100, 101);
    wait_for_remote(&gateway, 101);
    wait_for_packets(&gateway, 500);
    rebind(&lab, 101, 102);
    wait_for_remote(&gateway, 102);
    wait_for_packets(&gateway, 500);
    let run = Run::read(&client.finish());
    assert!(run.received > 0);
    let last = &run.intervals[run.intervals.len() - 2..];
    assert!(last.iter().any(|bytes| *bytes > 0), "{:?}", run.intervals);
    let sa = gateway.sa();
    assert_eq!(sa.moves, moves + 2, "{sa:?}");
}

//! Checksum offloads of net_tap.

use crate::lab::{Gateway, Lab, Program, wait_for};
use std::net::UdpSocket;

/// An address at the other end of the tunnel.
const PEER: &str = "10.98.0.7:9";

/// Starts a gateway between a host and a peer, with ESP in UDP over IPv6.
fn start() -> (Lab, Gateway) {
    let lab = Lab::new(&["far", "gw", "srv"]);
    lab.link([("far", "f0", &["2001:db8:a::2/64"]), ("gw", "g0", &[])]);
    lab.link([("gw", "g1", &[]), ("srv", "s0", &["10.99.0.2/24"])]);
    lab.run("srv", "ip route add default via 10.99.0.1");
    let gateway = lab.gateway(
        "gw",
        r#"
[[port]]
name = "outside"
kind = "net_tap"
device = "g0"
addresses = ["2001:db8:a::1/64"]
[[port]]
name = "inside"
kind = "net_tap"
device = "g1"
addresses = ["10.99.0.1/24"]
[[tunnel]]
name = "alice"
local = "2001:db8:a::1"
remote = "[2001:db8:a::2]:4500"
inner_local = "10.99.0.0/24"
inner_remote = "10.98.0.7"
path_mtu_probing = "off"
inbound = { spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }
outbound = { spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }
"#,
    );
    let socket = lab.enter("srv", || UdpSocket::bind("10.99.0.2:0").unwrap());
    let mut sent = 0;
    wait_for("the stations to be known", || {
        socket.send_to(b"first", PEER).unwrap();
        sent += 1;
        (gateway.ports().iter().all(|port| port.neighbours == 1)).then_some(())
    });
    wait_for("all datagrams to be sealed", || (gateway.sa().outbound.packets == sent).then_some(()));
    (lab, gateway)
}

/// Checks that ESP in UDP over IPv6 leaves with a valid checksum, which the device fills in.
#[test]
fn udp_over_ipv6_leaves_with_its_checksum() {
    let (lab, gateway) = start();
    let outside = &gateway.ports()[0];
    assert!(outside.kind.starts_with("dpdk (net_tap"), "{}", outside.kind);
    assert!(outside.kind.contains("fills in UDP checksums"), "{}", outside.kind);
    let mut capture = lab.command("far", "timeout 20 sh -c");
    capture.arg("exec tcpdump -Z root -lnvvi f0 --immediate-mode -c 20 udp port 4500 2>&1");
    let mut capture = Program::start(&mut capture);
    capture.wait_for_line("listening on");
    // tcpdump verifies the checksums, because the kernel does not verify those of packets from a
    // veth.
    let socket = lab.enter("srv", || UdpSocket::bind("10.99.0.2:0").unwrap());
    let sealed = gateway.sa().outbound.packets;
    for length in 1..=20 {
        socket.send_to(&vec![length; usize::from(length) * 37], PEER).unwrap();
    }
    let output = capture.finish();
    assert_eq!(output.matches("udp sum ok").count(), 20, "{output}");
    wait_for("the gateway to count the packets", || {
        (gateway.sa().outbound.packets == sealed + 20).then_some(())
    });
    gateway.assert_no_drops();
}

/// Sends packets for the tunnel by net_tap's kernel device, because a bridge might verify checksums
/// itself. Their IPv4 header checksum is XORed with `flip`.
fn send(lab: &Lab, gateway: &Gateway, count: u32, flip: u16) {
    let script = format!(
        "from scapy.all import *\n\
         ip = IP(raw(IP(src='10.99.0.2', dst='10.98.0.7') / UDP(sport=1, dport=2)))\n\
         ip.chksum ^= {flip}\n\
         sendp(Ether(src='02:00:00:00:00:99', dst='{}') / ip, iface='tap-g1', count={count}, verbose=False)\n",
        gateway.ports()[1].mac
    );
    let python = lab.command("gw", "timeout 30 /usr/bin/python3 -B -c").arg(script).output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
}

/// Checks that the gateway trusts a verifying device only about checksums that it reports as good.
#[test]
fn drops_packets_with_a_wrong_ipv4_checksum() {
    let (lab, gateway) = start();
    let inside = &gateway.ports()[1];
    assert!(inside.kind.contains("verifies IPv4 checksums"), "{}", inside.kind);
    let sealed = gateway.sa().outbound.packets;
    send(&lab, &gateway, 5, 0x0100);
    wait_for("the wrong checksums to be counted", || (gateway.dropped("IpChecksum") == 5).then_some(()));
    assert_eq!(gateway.sa().outbound.packets, sealed);
    send(&lab, &gateway, 7, 0);
    wait_for("packets with valid checksums to pass", || {
        (gateway.sa().outbound.packets == sealed + 7).then_some(())
    });
    assert_eq!(gateway.dropped("IpChecksum"), 5);
}

//! Ports in VLANs: two gateways whose tunnel runs in a VLAN, beside the kernels' own traffic on the
//! same devices. The kernel needs no devices for VLANs.
//!
//! ```text
//!  ha ── a1 gwa a0 ══ b0 gwb b1 ── hb
//!  ha ── a1 gwa ══ wf0 gwb b1 ── hb      on a TAP device, both in one namespace
//! ```

use super::{
    devices::wait_for_lines,
    lab::{Gateway, Lab, wait_for},
    traffic::{IperfServer, ping, wait_for_ping},
    world::{two_hosts, wait_for_pair},
};

/// The host behind the second gateway.
const FAR: &str = "10.2.0.2";
const FAR_V6: &str = "2001:db8:2::2";
/// The port of the gateways in no VLAN, on the device of the tunnel.
pub(crate) const PLAIN: &str = "[[port]]\nname = \"plain\"\n$\naddresses = [\"198.51.100.@/24\"]\n";

/// Makes both gateways' networks.
pub(crate) fn lab() -> Lab {
    let lab = Lab::new(&["ha", "gwa", "gwb", "hb"]);
    connect_outside(&lab);
    two_hosts(&lab, ["gwa", "gwb"]);
    lab
}

fn connect_outside(lab: &Lab) {
    lab.link([("gwa", "a0", &["198.51.100.1/24"]), ("gwb", "b0", &["198.51.100.2/24"])]);
}

/// Configures gateway `own`, 1 or 2, with a tunnel to the other one in the VLAN `vlan`. Its devices outside
/// and inside are given as kind and name. `plain` are further ports, in which `$` stands for the device
/// outside and `@` for `own`.
fn config(own: u8, devices: [[&str; 2]; 2], vlan: &str, plain: &str) -> String {
    let peer = 3 - own;
    let [spi_in, spi_out] = [own, peer].map(|end| u32::from(end) << 8);
    let [key_in, key_out] = if own == 1 { ["up", "down"] } else { ["down", "up"] };
    let [outside, inside] = devices.map(|[kind, name]| format!("kind = \"{kind}\"\ndevice = \"{name}\""));
    let plain = plain.replace('$', &outside).replace('@', &own.to_string());
    format!(
        r#"
[[port]]
name = "outside"
{outside}
vlan = {vlan}
addresses = ["192.0.2.{own}/24", "2001:db8:a::{own}/64"]
{plain}
[[port]]
name = "inside"
{inside}
addresses = ["10.{own}.0.1/24", "2001:db8:{own}::1/64"]
[[tunnel]]
name = "other"
local = "192.0.2.{own}"
remote = "192.0.2.{peer}"
inner_local = ["10.{own}.0.0/24", "2001:db8:{own}::/64"]
inner_remote = ["10.{peer}.0.0/24", "2001:db8:{peer}::/64"]
# On a small machine, a worker that shares the SA may be delayed for long.
window = 65536
inbound = {{ spi = {spi_in}, cipher = "aes128gcm16", key_file = "{key_in}" }}
outbound = {{ spi = {spi_out}, cipher = "aes128gcm16", key_file = "{key_out}" }}
[[route]]
to = "10.{peer}.0.0/24"
via = "192.0.2.{peer}"
[[route]]
to = "2001:db8:{peer}::/64"
via = "2001:db8:a::{peer}"
"#
    )
}

/// Starts both gateways, on devices of these kinds and with these further ports, and waits until their
/// tunnel works.
pub(crate) fn start(lab: &Lab, kinds: [&str; 2], vlan: &str, plain: [&str; 2]) -> [Gateway; 2] {
    let a = config(1, ["a0", "a1"].map(|device| [kinds[0], device]), vlan, plain[0]);
    let b = config(2, ["b0", "b1"].map(|device| [kinds[1], device]), vlan, plain[1]);
    let gateways = [lab.gateway("gwa", &a), lab.gateway("gwb", &b)];
    wait_for_pair(lab);
    gateways
}

/// Starts both gateways at the ends of a TAP device, the first one with this further port.
fn start_on_tap(vlan: &str, plain: &str) -> (Lab, [Gateway; 2]) {
    let lab = Lab::new(&["ha", "gw", "hb"]);
    two_hosts(&lab, ["gw", "gw"]);
    let a = config(1, [["tap", "wf0"], ["af_packet", "a1"]], vlan, plain);
    let b = config(2, [["af_packet", "wf0"], ["af_packet", "b1"]], vlan, "");
    let gateways =
        [("a", a), ("b", b)].map(|(name, config)| lab.gateway_from_file("gw", &lab.config(name, &config)));
    wait_for_pair(&lab);
    (lab, gateways)
}

/// Checks that `longest` bytes pass both ways in a packet that must not be fragmented, and that no more
/// do.
fn check_longest(lab: &Lab, longest: usize) {
    // A second ping pushes out one that a NIC holds back.
    let count = 1 + u32::from(lab.holds_back.get());
    for (from, to) in [("ha", FAR), ("hb", "10.1.0.2")] {
        let one = |length: usize| {
            lab.output(from, &format!("ping -c {count} -i 0.02 -W 2 -M do -s {} {to}", length - 28))
        };
        assert!(one(longest).status.success(), "{longest} bytes from {from}");
        assert!(!one(longest + 1).status.success(), "{} bytes from {from}", longest + 1);
    }
}

/// Checks that a tunnel in a VLAN works, with all packets of the ports' MTU and none longer.
pub(crate) fn check(lab: &Lab, gateways: &[Gateway; 2], kinds: [&str; 2], vlan: &str, mtu: usize) {
    for (from, to) in [("ha", FAR), ("ha", FAR_V6), ("hb", "10.1.0.2")] {
        ping(lab, from, to, 20);
    }
    let mut server = IperfServer::start(lab, "hb");
    assert!(server.run(lab, "ha", FAR, "").received > 100_000);
    // RFC 4303 tunnel over IPv4 with AES-GCM-16: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4.
    check_longest(lab, mtu - 54);
    for (gateway, kind) in gateways.iter().zip(kinds) {
        let outside = gateway.ports().remove(0);
        assert!(outside.kind.starts_with(kind), "{}", outside.kind);
        assert!(outside.kind.ends_with(&format!(", VLAN {vlan}")), "{}", outside.kind);
        // The only station behind a TAP device is known.
        let neighbours = usize::from(kind != "tap");
        assert_eq!((outside.mtu, outside.neighbours), (mtu, neighbours));
        assert_eq!(gateway.dropped("DeviceRefused"), 0);
        gateway.assert_no_drops();
    }
}

/// Checks that a tunnel works in a VLAN and in one within another, while the kernels use the devices in no
/// VLAN.
pub(crate) fn tunnel_in_a_vlan(kind: &str) {
    for (vlan, plain, mtu) in [("100", "", 1500), ("[7, 100]", PLAIN, 1492)] {
        let lab = lab();
        let gateways = start(&lab, [kind; 2], vlan, [plain; 2]);
        ping(&lab, "gwa", "198.51.100.2", 20);
        check(&lab, &gateways, [kind; 2], vlan, mtu);
    }
}

/// The gateway gives the TAP device an MTU that has room for the tags.
#[test]
fn tunnel_in_a_vlan_of_a_tap_device() {
    for vlan in ["100", "[7, 100]"] {
        let (lab, gateways) = start_on_tap(vlan, "");
        check(&lab, &gateways, ["tap", "af_packet"], vlan, 1500);
    }
}

#[test]
fn all_ports_of_a_tap_device_that_is_made_again_come_back() {
    let (lab, gateways) = start_on_tap("[7, 100]", PLAIN);
    lab.run("gw", "ip link del wf0");
    for gateway in &gateways {
        wait_for_lines(gateway, "the device was opened again", 1);
    }
    wait_for_pair(&lab);
    ping(&lab, "ha", FAR, 20);
    let ports = gateways[0].ports();
    let shown: Vec<_> = ports.iter().map(|port| (&port.kind[..], port.mtu, port.link.as_deref())).collect();
    assert_eq!(shown[..2], [("tap, VLAN [7, 100]", 1500, Some("up")), ("tap", 1508, Some("up"))]);
}

/// Checks that all ports of a device that is made again come back, and follow its MTU.
pub(crate) fn all_ports_follow_their_device(kind: &str) {
    let lab = lab();
    let gateways = start(&lab, [kind; 2], "[7, 100]", [PLAIN; 2]);
    lab.run("gwa", "ip link del a0");
    let state = |gateway: &Gateway, link: &str| {
        let ports = gateway.ports();
        ports[..2].iter().all(|port| port.link.as_deref() == Some(link)).then_some(())
    };
    for gateway in &gateways {
        wait_for("both ports to be gone", || state(gateway, "gone"));
    }
    connect_outside(&lab);
    for (space, device) in [("gwa", "a0"), ("gwb", "b0")] {
        lab.run(space, &format!("ip link set {device} mtu 1400"));
    }
    for gateway in &gateways {
        wait_for("both ports to be up", || state(gateway, "up"));
        wait_for("both ports to follow", || {
            let mtus: Vec<_> = gateway.ports().iter().map(|port| port.mtu).collect();
            (mtus == [1392, 1400, 1500]).then_some(())
        });
        let outside = gateway.ports().remove(0);
        assert_eq!(outside.kind, "af_packet, VLAN [7, 100]");
    }
    wait_for_ping(&lab, "ha", FAR);
    ping(&lab, "ha", FAR, 20);
    ping(&lab, "ha", FAR_V6, 20);
    check_longest(&lab, 1338);
    ping(&lab, "gwa", "198.51.100.2", 20);
}

/// Asks for the gateway's address in VLANs of a device, and prints the tags of the answers.
const ASK: &str = "\
import sys
from scapy.all import ARP, Dot1AD, Dot1Q, Ether, conf, srp1
conf.verb = 0
conf.iface = sys.argv[1]
for tags in [Dot1Q(vlan=100, prio=3), Dot1AD(vlan=7) / Dot1Q(vlan=100), Dot1Q(vlan=101)]:
    request = Ether(dst='ff:ff:ff:ff:ff:ff') / tags / ARP(psrc='192.0.2.9', pdst='192.0.2.1')
    answer = srp1(request, iface=conf.iface, timeout=2)
    print(answer.sprintf('%Dot1AD.vlan% %Dot1Q.vlan% %Dot1Q.prio% %ARP.psrc%') if answer else 'silence')
";

/// Checks with scapy's eyes that the gateway answers in its VLANs, and in no other.
pub(crate) fn scapy_sees_answers_only_in_the_vlan(kind: &str) {
    // The host itself is at the other end of a TAP device.
    let [device, space, other_end] = if kind == "tap" { ["wf0", "gwa", "wf0"] } else { ["a0", "gwb", "b0"] };
    for (vlan, expected) in [
        ("100\npcp = 5", "?? 100 5 192.0.2.1\nsilence\nsilence\n"),
        ("[7, 100]", "silence\n7 100 0 192.0.2.1\nsilence\n"),
    ] {
        let lab = Lab::new(&["gwa", "gwb"]);
        connect_outside(&lab);
        let config = format!(
            "[[port]]\nname = \"outside\"\nkind = \"{kind}\"\ndevice = \"{device}\"\nvlan = {vlan}\n\
             addresses = [\"192.0.2.1/24\"]\n"
        );
        let _gateway = lab.gateway("gwa", &config);
        std::fs::write(lab.path("ask.py"), ASK).unwrap();
        let ask = format!("/usr/bin/python3 -B ask.py {other_end}");
        assert_eq!(lab.run(space, &ask), expected, "{vlan}");
    }
}

#[test]
fn scapy_sees_answers_only_in_the_vlan_of_a_tap_device() {
    scapy_sees_answers_only_in_the_vlan("tap");
}

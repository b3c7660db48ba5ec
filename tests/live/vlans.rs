//! Ports in VLANs: two gateways whose tunnel runs in a VLAN, beside the kernels' own traffic on the
//! same devices. The kernel needs no devices for VLANs.
//!
//! ```text
//!  ha ── a1 gwa a0 ══ b0 gwb b1 ── hb
//! ```

use super::{
    lab::{Gateway, Lab, wait_for},
    traffic::{IperfServer, ping, wait_for_ping},
};

/// The host behind the second gateway.
const FAR: &str = "10.2.0.2";
const FAR_V6: &str = "2001:db8:2::2";
/// The port of the gateways in no VLAN, on the device of the tunnel.
const PLAIN: &str = "[[port]]\nname = \"plain\"\n$\naddresses = [\"198.51.100.@/24\"]\n";

/// Makes both gateways' networks.
fn lab() -> Lab {
    let lab = Lab::new(&["ha", "gwa", "gwb", "hb"]);
    connect_outside(&lab);
    for (gateway, host, n) in [("gwa", "ha", 1), ("gwb", "hb", 2)] {
        let device = if n == 1 { "a1" } else { "b1" };
        let [near, far] = [2, 1].map(|end| [format!("10.{n}.0.{end}/24"), format!("2001:db8:{n}::{end}/64")]);
        lab.link([(host, "h0", &[&near[0], &near[1]]), (gateway, device, &[&far[0], &far[1]])]);
        lab.run(host, &format!("ip route add default via 10.{n}.0.1"));
        lab.run(host, &format!("ip route add default via 2001:db8:{n}::1"));
    }
    lab
}

fn connect_outside(lab: &Lab) {
    lab.link([("gwa", "a0", &["198.51.100.1/24"]), ("gwb", "b0", &["198.51.100.2/24"])]);
}

/// Starts both gateways with a tunnel in the VLAN `vlan`, and waits until it works. `plain` are further
/// ports.
fn start(lab: &Lab, kind: &str, vlan: &str, plain: &str) -> [Gateway; 2] {
    let config = |own: u8, [outside, inside]: [&str; 2], keys: [&str; 2]| {
        let peer = 3 - own;
        let ([spi_in, spi_out], [key_in, key_out]) = ([u32::from(own) << 8, u32::from(peer) << 8], keys);
        let device = format!("kind = \"{kind}\"\ndevice = \"{outside}\"");
        let plain = plain.replace('$', &device).replace('@', &own.to_string());
        format!(
            r#"
[[port]]
name = "outside"
{device}
vlan = {vlan}
addresses = ["192.0.2.{own}/24", "2001:db8:a::{own}/64"]
{plain}
[[port]]
name = "inside"
kind = "{kind}"
device = "{inside}"
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
    };
    let a = lab.gateway("gwa", &config(1, ["a0", "a1"], ["up", "down"]));
    let b = lab.gateway("gwb", &config(2, ["b0", "b1"], ["down", "up"]));
    wait_for_ping(lab, "ha", FAR);
    wait_for_ping(lab, "ha", FAR_V6);
    [a, b]
}

/// Checks that `longest` bytes pass both ways in a packet that must not be fragmented, and that no more
/// do.
fn check_longest(lab: &Lab, longest: usize) {
    for (from, to) in [("ha", FAR), ("hb", "10.1.0.2")] {
        let one = |length: usize| lab.output(from, &format!("ping -c 1 -W 2 -M do -s {} {to}", length - 28));
        assert!(one(longest).status.success(), "{longest} bytes from {from}");
        assert!(!one(longest + 1).status.success(), "{} bytes from {from}", longest + 1);
    }
}

/// Checks that a tunnel works in a VLAN and in one within another, with all packets of its MTU, while
/// the kernels use the devices in no VLAN.
pub(crate) fn tunnel_in_a_vlan(kind: &str) {
    // RFC 4303 tunnel over IPv4 with AES-GCM-16: 20 + 8 + 8 + 16, and payload + 2 a multiple of 4.
    for (vlan, plain, mtu, longest) in [("100", "", 1500, 1446), ("[7, 100]", PLAIN, 1492, 1438)] {
        let lab = lab();
        let gateways = start(&lab, kind, vlan, plain);
        for (from, to) in [("ha", FAR), ("ha", FAR_V6), ("hb", "10.1.0.2")] {
            ping(&lab, from, to, 20);
        }
        let mut server = IperfServer::start(&lab, "hb");
        assert!(server.run(&lab, "ha", FAR, "").received > 100_000);
        check_longest(&lab, longest);
        ping(&lab, "gwa", "198.51.100.2", 20);
        for gateway in &gateways {
            let ports = gateway.ports();
            let outside = ports.iter().find(|port| port.port == "outside").unwrap();
            assert!(outside.kind.starts_with(kind), "{}", outside.kind);
            assert!(outside.kind.ends_with(&format!(", VLAN {vlan}")), "{}", outside.kind);
            assert_eq!((outside.mtu, outside.neighbours), (mtu, 1));
            assert_eq!(gateway.dropped("DeviceRefused"), 0);
            gateway.assert_no_drops();
        }
    }
}

/// Checks that all ports of a device that is made again come back, and follow its MTU.
pub(crate) fn all_ports_follow_their_device(kind: &str) {
    let lab = lab();
    let gateways = start(&lab, kind, "[7, 100]", PLAIN);
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

/// Asks for the gateway's address in a VLAN, and prints the tags of the answer.
const ASK: &str = "\
from scapy.all import ARP, Dot1AD, Dot1Q, Ether, conf, srp1
conf.verb = 0
for tags in [Dot1Q(vlan=100, prio=3), Dot1AD(vlan=7) / Dot1Q(vlan=100), Dot1Q(vlan=101)]:
    request = Ether(dst='ff:ff:ff:ff:ff:ff') / tags / ARP(psrc='192.0.2.9', pdst='192.0.2.1')
    answer = srp1(request, iface='b0', timeout=2)
    print(answer.sprintf('%Dot1AD.vlan% %Dot1Q.vlan% %Dot1Q.prio% %ARP.psrc%') if answer else 'silence')
";

/// Checks with scapy's eyes that the gateway answers in its VLANs, and in no other.
pub(crate) fn scapy_sees_answers_only_in_the_vlan(kind: &str) {
    for (vlan, expected) in [
        ("100\npcp = 5", "?? 100 5 192.0.2.1\nsilence\nsilence\n"),
        ("[7, 100]", "silence\n7 100 0 192.0.2.1\nsilence\n"),
    ] {
        let lab = Lab::new(&["gwa", "gwb"]);
        connect_outside(&lab);
        let config = format!(
            "[[port]]\nname = \"outside\"\nkind = \"{kind}\"\ndevice = \"a0\"\nvlan = {vlan}\n\
             addresses = [\"192.0.2.1/24\"]\n"
        );
        let _gateway = lab.gateway("gwa", &config);
        std::fs::write(lab.path("ask.py"), ASK).unwrap();
        assert_eq!(lab.run("gwb", "python3 ask.py"), expected, "{vlan}");
    }
}

//! Ports in VLANs of DPDK's devices.

use crate::{
    lab::Lab,
    traffic::{ping, wait_for_ping},
    vlans::{PLAIN, check, lab, start},
};

/// Checks a tunnel in a VLAN of a device whose port in no VLAN has an exception path. The other gateway
/// uses AF_PACKET. `powers` is what the device does itself.
fn check_tunnel(driver: &str, powers: &str, vlan: &str, mtu: usize) {
    let lab = lab();
    let with_exception = PLAIN.replace('$', "$\nexception = \"wf-plain\"");
    let gateways = start(&lab, [driver, "af_packet"], vlan, [&with_exception, PLAIN]);
    lab.run("gwa", "ip address add 198.51.100.1/24 dev wf-plain");
    wait_for_ping(&lab, "gwa", "198.51.100.2");
    ping(&lab, "gwa", "198.51.100.2", 20);
    check(&lab, &gateways, [&format!("dpdk ({driver}{powers}"), "af_packet"], vlan, mtu);
}

#[test]
fn tunnel_in_a_vlan_of_net_af_packet() {
    check_tunnel("net_af_packet", ", takes VLAN tags off, puts VLAN tags on)", "100", 1500);
}

#[test]
fn tunnel_in_a_vlan_of_net_tap() {
    check_tunnel("net_tap", "", "100", 1500);
}

#[test]
fn tunnel_in_a_vlan_within_another_of_net_tap() {
    check_tunnel("net_tap", "", "[7, 100]", 1492);
}

/// Three ports of one device, two of them with an exception path.
const THREE_PORTS: &str = r#"
frames = 4096
[dpdk]
hugepages = false
vdev = ["net_tap0,iface=wire0"]
[[port]]
name = "single"
kind = "dpdk"
device = "net_tap0"
vlan = 100
addresses = ["192.0.2.1/24"]
exception = "wf-single"
[[port]]
name = "double"
kind = "dpdk"
device = "net_tap0"
vlan = [7, 100]
addresses = ["192.0.3.1/24"]
[[port]]
name = "plain"
kind = "dpdk"
device = "net_tap0"
addresses = ["198.51.100.1/24"]
exception = "wf-plain"
"#;

/// Sends frames of a station in VLANs by one device, and prints which tags they have at another one.
const SEND: &str = "\
from itertools import count
from threading import Event
from scapy.all import ARP, AsyncSniffer, Dot1AD, Dot1Q, Ether, conf, sendp
conf.verb = 0
STATION, HOST, FENCES = '02:00:00:00:00:99', '192.0.2.1', count(77)
NONE, SINGLE, DOUBLE = [], [Dot1Q(vlan=100)], [Dot1AD(vlan=7), Dot1Q(vlan=100)]
OTHERS = [[Dot1Q(vlan=101)], [Dot1AD(vlan=7)], [Dot1AD(vlan=7), Dot1Q(vlan=101)]]

def send(device, tags, target):
    frame = Ether(src=STATION, dst='ff:ff:ff:ff:ff:ff')
    for tag in tags:
        frame /= tag
    sendp(frame / ARP(hwsrc=STATION, psrc='192.0.2.9', pdst=target), iface=device)

def cross(here, there, all_tags, fence_tags):
    ready, fence = Event(), f'192.0.2.{next(FENCES)}'
    sniffer = AsyncSniffer(
        iface=there,
        lfilter=lambda frame: frame.src == STATION and ARP in frame,
        stop_filter=lambda frame: frame[ARP].pdst == fence,
        started_callback=ready.set,
        timeout=10,
    )
    sniffer.start()
    ready.wait()
    for tags in all_tags:
        send(here, tags, HOST)
    # The device may hold the last frame back until another one comes.
    while sniffer.running:
        send(here, fence_tags, fence)
        sniffer.join(0.1)
    sniffer.join()
    frames = [frame for frame in sniffer.results if frame[ARP].pdst == HOST]
    print([[tag.vlan for tag in frame.iterpayloads() if isinstance(tag, Dot1Q)] for frame in frames])

cross('wire0', 'wf-plain', [NONE, SINGLE, DOUBLE, *OTHERS], NONE)
cross('wire0', 'wf-single', [NONE, SINGLE, DOUBLE, *OTHERS], SINGLE)
cross('wf-plain', 'wire0', [NONE, *OTHERS], NONE)
cross('wf-single', 'wire0', [NONE], NONE)
";

#[test]
fn kernel_gets_the_frames_of_vlans_that_no_port_has() {
    let lab = Lab::new(&["gw"]);
    let gateway = lab.gateway("gw", THREE_PORTS);
    let ports = gateway.ports();
    let shown: Vec<_> = ports.iter().map(|port| (&port.kind[..], port.mtu)).collect();
    let whole = shown[2].0;
    assert!(whole.starts_with("dpdk (net_tap"), "{whole}");
    let [single, double] = ["100", "[7, 100]"].map(|vlan| format!("{whole}, VLAN {vlan}"));
    let taps = ["single", "plain"].map(|port| format!("tap (exception of {port})"));
    let kinds = [&single[..], &double[..], whole, &taps[0][..], &taps[1][..]];
    assert_eq!(shown, kinds.into_iter().zip([1500, 1492, 1500, 1500, 1500]).collect::<Vec<_>>());
    std::fs::write(lab.path("send.py"), SEND).unwrap();
    let expected = "[[], [101], [7], [7, 101]]\n[[]]\n[[], [101], [7], [7, 101]]\n[[100]]\n";
    assert_eq!(lab.run("gw", "/usr/bin/python3 -B send.py"), expected);
}

//! Files by the driver net_pcap: scapy seals packets for the gateway and opens the gateway's, and
//! compares them byte for byte, in no VLAN and in VLANs.

use crate::{
    dpdk::set_ups::assert_only_info_logged,
    lab::{Lab, PATIENCE, wait_for},
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Instant};
use wayfarer::sim::frames::{datagram, frame};

/// Packets of every case in each direction, as in pcap_peer.py.
const ROUNDS: u64 = 2;

/// Lists all combinations of ESP with and without UDP, and both families outside and inside. No
/// more: all packets come in one turn of the worker and wait for their next hops, and a turn punts
/// at most 32.
fn cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for (outer, inner) in [(4, 4), (4, 6), (6, 4), (6, 6)] {
        for udp in [false, true] {
            let index = cases.len();
            let of = |family, v4: String, v6: String| if family == 4 { v4 } else { v6 };
            cases.push(json!({
                "name": format!("{inner}in{outer}{}", if udp { "/udp" } else { "" }),
                "suite": "aes128gcm16",
                "mode": "tunnel",
                "esn": false,
                "udp": udp,
                "spi_in": 0x1000 + index,
                "spi_out": 0x2000 + index,
                "key_in": "11".repeat(20),
                "key_out": "22".repeat(20),
                "gateway": of(outer, "203.0.113.1".into(), "2001:db8:1::1".into()),
                "peer": of(outer, format!("198.18.0.{}", index + 1), format!("2001:db8:2::{index:x}")),
                "inside": of(inner, "10.99.0.7".into(), "fd00:99::7".into()),
                "terminal": of(inner, format!("10.98.0.{}", index + 1), format!("fd00:98::{index:x}")),
            }));
        }
    }
    cases
}

/// Configures a gateway for these cases, whose ports are in VLANs with these numbers, or in none.
fn config(lab: &Lab, cases: &[Value], vlans: [&[u16]; 2]) -> String {
    let file = |name: &str| lab.path(name).display().to_string();
    let vdev = |port: &str, number| {
        let (rx, tx) = (file(&format!("{port}-in.pcap")), file(&format!("{port}-out.pcap")));
        format!("net_pcap{number},rx_pcap={rx},tx_pcap={tx}")
    };
    let [outside, inside] = vlans.map(|numbers| match numbers {
        [] => String::new(),
        numbers => format!("vlan = {numbers:?}"),
    });
    let mut text = format!(
        r#"
[dpdk]
hugepages = false
vdev = ["{}", "{}"]
[[port]]
name = "outside"
kind = "dpdk"
device = "net_pcap0"
{outside}
addresses = ["203.0.113.1/24", "2001:db8:1::1/64"]
[[port]]
name = "inside"
kind = "dpdk"
device = "net_pcap1"
{inside}
addresses = ["10.99.0.1/24", "fd00:99::1/64"]
[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
[[route]]
to = "::/0"
via = "2001:db8:1::fe"
"#,
        vdev("outside", 0),
        vdev("inside", 1)
    );
    for case in cases {
        let encap = if case["udp"] == true { "udp" } else { "none" };
        text += &format!(
            "[[tunnel]]\nname = {}\nlocal = {}\nremote = {}\nencap = \"{encap}\"\ninner_local = {}\ninner_remote = {}\n\
             inbound = {{ spi = {}, cipher = \"aes128gcm16\", key_file = \"up\" }}\n\
             outbound = {{ spi = {}, cipher = \"aes128gcm16\", key_file = \"down\" }}\n",
            case["name"],
            case["gateway"],
            case["peer"],
            case["inside"],
            case["terminal"],
            case["spi_in"],
            case["spi_out"]
        );
    }
    text
}

/// Runs the peers, which scapy plays; returns their output.
fn scapy(lab: &Lab, command: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    // Debian's own Python, because Debian's packages are installed there.
    let mut python = Command::new("/usr/bin/python3");
    python.arg("-B").arg(tests.join("live/dpdk/pcap_peer.py")).arg(command).arg(lab.path("."));
    let output = python.env("PYTHONPATH", tests.join("peers")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Checks that scapy and the gateway open each other's packets on ports in VLANs with these numbers.
fn check(vlans: [&[u16]; 2]) {
    let lab = Lab::new(&["gw"]);
    let cases = cases();
    let all = ROUNDS * cases.len() as u64;
    let world = json!({ "cases": cases, "vlans": { "outside": vlans[0], "inside": vlans[1] } });
    fs::write(lab.path("world.json"), serde_json::to_vec(&world).unwrap()).unwrap();
    scapy(&lab, "make");
    let mut gateway = lab.gateway("gw", &config(&lab, &cases, vlans));
    let ports = gateway.ports();
    let macs: Vec<_> = ports.iter().map(|port| &port.mac[..]).collect();
    assert_eq!(macs, ["02:70:63:61:70:00", "02:70:63:61:70:01"]);
    assert!(ports.iter().all(|port| port.kind.starts_with("dpdk (net_pcap)")), "{ports:?}");
    // The gateway does not notice the end of these files.
    let deadline = Instant::now() + PATIENCE;
    wait_for("every packet to pass", || {
        let (sas, ports) = (gateway.tunnels(), gateway.ports());
        let opened: u64 = sas.iter().map(|sa| sa.inbound.packets).sum();
        let sealed: u64 = sas.iter().map(|sa| sa.outbound.packets).sum();
        // The gateway also answers two requests of the stations.
        let left = ports.iter().all(|port| port.neighbours == 2 && port.tx_packets >= all + 2);
        assert!(Instant::now() < deadline, "{opened} {sealed} {ports:?} {:?}", gateway.drops());
        (opened == all && sealed == all && left).then_some(())
    });
    assert!(gateway.stop().success(), "{}", gateway.log());
    assert_only_info_logged(&gateway);
    assert_eq!(scapy(&lab, "check"), format!("{all} {all}\n"));
}

#[test]
fn scapy_and_the_gateway_open_each_others_packets() {
    check([&[], &[]]);
}

#[test]
fn scapy_and_the_gateway_open_each_others_packets_in_vlans() {
    check([&[100], &[7, 100]]);
}

/// Runs `conf/dpdk-pcap.toml`, except for its control socket, with a capture of one frame.
#[test]
fn example_seals_a_capture_over_and_over_for_a_static_neighbour() {
    let lab = Lab::new(&["gw"]);
    let packet = datagram("10.99.0.7", "10.98.0.7", (53, 1000), b"over and over");
    let frame = frame([0x02, 0x70, 0x63, 0x61, 0x70, 0x00], [2, 0, 0, 0, 0, 7], &packet);
    let length = frame.len() as u32;
    let words = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 0, 0, length, length];
    let mut capture: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    capture.extend(frame);
    let file = lab.path("inside.pcap");
    fs::write(&file, capture).unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keys");
    lab.run("gw", "mkdir keys");
    for key in ["example-alice-up", "example-alice-down"] {
        lab.run("gw", &format!("install -m 600 {} keys/{key}", keys.join(key).display()));
    }
    let config = include_str!("../../../conf/dpdk-pcap.toml")
        .replace("rx_pcap=inside.pcap", &format!("rx_pcap={}", file.display()))
        .replace("[gateway]\n", "[gateway]\ncontrol = \"gw.sock\"\n");
    fs::write(lab.path("gw.toml"), config).unwrap();
    let mut gateway = lab.gateway_from_file("gw", &lab.path("gw.toml"));
    let sealed = || gateway.tunnels()[0].outbound.packets;
    wait_for("packets to be sealed", || (sealed() > 10_000).then_some(()));
    let neighbours = gateway.command("show neighbours");
    let lines: Vec<Vec<&str>> = neighbours.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1..], [["outside", "203.0.113.254", "02:00:00:00:00:fe", "static"]]);
    gateway.assert_no_drops();
    assert!(gateway.stop().success(), "{}", gateway.log());
    assert_only_info_logged(&gateway);
}

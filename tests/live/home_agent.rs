//! A mobile node made by scapy, with its own ESP and its own Mobile IP, and tshark as the judge of its messages.

use super::{
    lab::Lab,
    traffic::{lost, wait_for_ping},
    world::terminal_lab,
};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};

/// The terminal's home address.
const HOME: &str = "10.97.0.7";
/// The number of moves, each of which is a registration.
const MOVES: u64 = 50;

fn config(kind: &str) -> String {
    format!(
        r#"
[[port]]
name = "outside"
kind = "{kind}"
device = "g0"
addresses = ["192.0.2.1/24"]
[[port]]
name = "inside"
kind = "{kind}"
device = "g1"
addresses = ["10.99.0.1/24"]
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.254"
[home_agent]
address = "10.99.0.1"
network = "10.97.0.0/24"
store = "bindings"
[[home_agent.terminal]]
home = "{HOME}"
spi = 300
secret_file = "secret"
[[tunnel]]
name = "van"
local = "192.0.2.1"
remote = "any"
roam = "home_agent"
home = "{HOME}"
inner_local = "10.99.0.1"
inner_remote = "0.0.0.0/0"
inbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }}
outbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
[[policy]]
action = "bypass"
local = "10.99.0.0/24"
remote = "10.97.0.0/24"
"#
    )
}

fn mobile_lab() -> Lab {
    let lab = terminal_lab();
    lab.run("term", "ip route add default via 198.51.100.254");
    for n in 8..12 {
        lab.run("term", &format!("ip address add 198.51.100.{n}/24 dev t0"));
    }
    let digits: String = (0..32).map(|byte| format!("{byte:02x}")).collect();
    fs::write(lab.path("secret"), format!("0x{digits}\n")).unwrap();
    fs::set_permissions(lab.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    lab
}

#[test]
fn a_mobile_node_of_scapy_moves_and_loses_no_ping() {
    let lab = mobile_lab();
    let gateway = lab.gateway("gw", &config("af_packet"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/mip_terminal.py");
    let addresses = "198.51.100.7 198.51.100.8 198.51.100.9 198.51.100.10 198.51.100.11";
    let node = lab.spawn("term", &format!("timeout 100 /usr/bin/python3 -B {script} {MOVES} {addresses}"));
    // Before it has registered, nobody answers.
    wait_for_ping(&lab, "srv", HOME);
    // scapy takes some 20 ms for a packet.
    let output = lab.run("srv", &format!("ping -q -i 0.2 -c 130 -W 5 {HOME}"));
    assert_eq!(lost(&output), 0, "{output}");
    let seen: Value = serde_json::from_str(node.finish().trim()).unwrap();
    let count = |what: &str| seen[what].as_u64().unwrap();
    assert_eq!((count("registered"), count("denied")), (MOVES, 0), "{seen}");
    assert!(count("pings") >= 130, "{seen}");
    assert_eq!(gateway.sa().moves, MOVES - 1);
    let dissected = lab
        .run("gw", "tshark -r mip.pcap -T fields -E separator=, -e mip.type -e mip.ext.type -e _ws.expert");
    let lines: Vec<_> = dissected.lines().filter(|line| !line.starts_with("Running")).collect();
    // Requests and replies, each with an authenticator, and nothing that tshark takes for an error.
    let of = |message: &str| lines.iter().filter(|line| **line == message).count();
    let (requests, replies) = (of("1,32,"), of("3,32,"));
    assert_eq!(requests + replies, lines.len(), "{dissected}");
    assert!(replies as u64 >= MOVES, "{dissected}");
    // It is killed, and knows the last binding afterwards.
    drop(gateway);
    let gateway = lab.gateway("gw", &config("af_packet"));
    let bindings = gateway.command("show bindings");
    assert!(bindings.contains(HOME) && bindings.contains("198.51.100.11"), "{bindings}");
}

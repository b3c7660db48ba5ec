//! strongSwan without RFC 7383, with certificates of 4 KB, behind a path with an MTU of 1280 bytes: IKE
//! and ESP come and go in IP fragments.

use super::{SERVER, charon::Charon, gateway_head, mobile_lab, wait_for_peers};
use crate::{
    lab::{Lab, wait_for},
    traffic::wait_for_ping,
};

const TERMINAL: &str = r#"
connections { gw {
  version = 2
  fragmentation = no
  remote_addrs = 203.0.113.1
  vips = 0.0.0.0
  local { auth = pubkey
    certs = long-cl.crt
    id = cl.test }
  remote { auth = pubkey
    id = gw.test }
  children { net { remote_ts = 10.99.0.0/24 } }
} }
"#;

const OFFICE: &str = r#"
connections { gw {
  version = 2
  fragmentation = no
  pools = vip
  local { auth = pubkey
    certs = long-gw.crt
    id = gw.test }
  remote { auth = pubkey
    id = cl.test }
  children { net { local_ts = 10.99.0.0/24 } }
} }
pools { vip { addrs = 10.98.0.0/24 } }
"#;

/// Makes the lab, whose terminal reaches the rest by its second network, with this MTU.
fn small_path() -> Lab {
    let lab = mobile_lab();
    lab.run("term", "ip link set c2 mtu 1280");
    lab.run("core", "ip link set k2 mtu 1280");
    lab.run("term", "ip route replace default via 198.51.100.1 dev c2 metric 50");
    lab
}

#[test]
fn terminal_connects_and_its_traffic_passes() {
    let lab = small_path();
    let connection = r#"
[[connection]]
name = "certificate"
local = "203.0.113.1"
local_id = "gw.test"
remote_id = "cl.test"
auth = "certificate"
certificate = "pki/long-gw.crt"
private_key = "pki/long-gw.key"
authorities = "pki/ca.crt"
inner_local = ["10.99.0.0/24"]
pool = "terminals"
"#;
    let gateway = lab.gateway("gw", &(gateway_head("") + connection));
    let client = Charon::start(&lab, "term", TERMINAL, "");
    client.swanctl("--initiate --child net");
    wait_for_peers(&gateway, 1);
    wait_for_ping(&lab, "term", SERVER);
    // In ESP, both directions of these are longer than the path's MTU.
    lab.run("term", &format!("ping -i 0.02 -c 20 -W 2 -s 1300 -M dont {SERVER}"));
    gateway.assert_no_drops();
    assert_eq!(lab.counted("gw", "Icmp", "OutDestUnreachs"), 0);
}

#[test]
fn our_terminal_connects_to_a_gateway() {
    let lab = small_path();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", OFFICE, "");
    let config = r#"routes = "kernel"
[[port]]
name = "network"
kind = "af_packet"
device = "c2"
addresses = ["198.51.100.2/24"]
[[port]]
name = "programs"
kind = "tap"
device = "tap0"
addresses = ["10.97.0.1/24"]
[[connection]]
name = "office"
remote = "203.0.113.1"
local_id = "cl.test"
remote_id = "gw.test"
auth = "certificate"
certificate = "pki/long-cl.crt"
private_key = "pki/long-cl.key"
authorities = "pki/ca.crt"
request_address = true
inner_remote = ["10.99.0.0/24"]
"#;
    let terminal = lab.gateway("term", config);
    wait_for("the connection", || terminal.peers().pop());
    wait_for_ping(&lab, "term", SERVER);
    terminal.assert_no_drops();
    assert_eq!(lab.counted("term", "Icmp", "OutDestUnreachs"), 0);
    assert!(gateway.swanctl("--list-sas").contains("ESTABLISHED"));
}

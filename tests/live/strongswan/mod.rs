//! Tests against unmodified strongSwan, as a mobile terminal of our gateway and as the gateway of
//! our terminal.
//!
//! ```text
//! term c1 10.1.0.2 ── 10.1.0.1 nat  192.0.2.2 ── 192.0.2.1 ┐
//! term c2 198.51.100.2 ───────────── 198.51.100.1         core ── 203.0.113.254 ── 203.0.113.1 gw 10.99.0.1 ── 10.99.0.2 srv
//! term c3 10.3.0.2 ── 10.3.0.1 nat2 192.0.3.2 ── 192.0.3.1 ┘
//! ```

mod as_gateway;
mod as_terminal;
mod certificates;
mod charon;
mod defaults;
mod fragments;
mod host_name;
mod internet;
mod machine;
mod moves;
mod path_mtu;
mod ppk;
mod renewals;
mod restart;
mod road_warrior;

use crate::lab::{Gateway, Lab, wait_for};
use charon::Charon;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};

const SERVER: &str = "10.99.0.2";
const CLIENT: &str = include_str!("client.conf");

/// Makes the networks of the drawing, with certificates and secrets, without running programs.
fn mobile_lab() -> Lab {
    let lab = Lab::new(&["term", "nat", "nat2", "core", "gw", "srv"]);
    lab.link([("term", "c1", &["10.1.0.2/24"]), ("nat", "in", &["10.1.0.1/24"])]);
    lab.link([("term", "c2", &["198.51.100.2/24"]), ("core", "k2", &["198.51.100.1/24"])]);
    lab.link([("term", "c3", &["10.3.0.2/24"]), ("nat2", "in", &["10.3.0.1/24"])]);
    lab.link([("nat", "out", &["192.0.2.2/24"]), ("core", "k1", &["192.0.2.1/24"])]);
    lab.link([("nat2", "out", &["192.0.3.2/24"]), ("core", "k3", &["192.0.3.1/24"])]);
    lab.link([("core", "k0", &["203.0.113.254/24"]), ("gw", "g0", &["203.0.113.1/24"])]);
    lab.link([("gw", "g1", &["10.99.0.1/24"]), ("srv", "s0", &["10.99.0.2/24"])]);
    for (via, device, metric) in
        [("10.1.0.1", "c1", 100), ("198.51.100.1", "c2", 200), ("10.3.0.1", "c3", 300)]
    {
        lab.run("term", &format!("ip route add default via {via} dev {device} metric {metric}"));
    }
    lab.run("nat", "ip route add default via 192.0.2.1");
    lab.run("nat2", "ip route add default via 192.0.3.1");
    lab.run("gw", "ip route add default via 203.0.113.254");
    lab.run("srv", "ip route add default via 10.99.0.1");
    for space in ["nat", "nat2", "core"] {
        lab.forward(space);
    }
    for space in ["nat", "nat2"] {
        let masquerade = "table ip nat { chain post { type nat hook postrouting priority 100; oifname \"out\" masquerade random\n}\n}";
        lab.nft(space, masquerade);
    }
    let pki = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/strongswan/pki");
    let made = Command::new(pki).arg(lab.path("pki")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (file, secret) in [
        ("psk", "lab-psk-0123456789"),
        ("ppk", "a post-quantum secret of both sides"),
        ("password", "wonderland"),
        ("users", "alice = \"wonderland\""),
    ] {
        let path = lab.path(file);
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    lab
}

/// Returns our gateway's ports, route and pool; `ike` is the content of `[ike]`.
fn gateway_head(ike: &str) -> String {
    format!(
        r#"
[[port]]
name = "outside"
kind = "af_packet"
device = "g0"
addresses = ["203.0.113.1/24"]
[[port]]
name = "inside"
kind = "af_packet"
device = "g1"
addresses = ["10.99.0.1/24"]
[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
[ike]
{ike}
[[pool]]
name = "terminals"
addresses = "10.98.0.0/24"
"#
    )
}

/// Returns a connection by shared key, with `more` keys.
fn psk(more: &str) -> String {
    format!(
        r#"
[[connection]]
name = "psk"
local = "203.0.113.1"
local_id = "gw.test"
remote_id = "cl.test"
auth = "psk"
psk_file = "psk"
inner_local = ["10.99.0.0/24"]
pool = "terminals"
{more}
"#
    )
}

const CERTIFICATES: &str = r#"
[[connection]]
name = "certificate"
local = "203.0.113.1"
local_id = "gw.test"
remote_id = "cl.test"
auth = "certificate"
certificate = "pki/gw.crt"
private_key = "pki/gw.key"
authorities = "pki/ca.crt"
inner_local = ["10.99.0.0/24"]
pool = "terminals"
[[connection]]
name = "eap"
local = "203.0.113.1"
local_id = "gw.test"
auth = "eap-mschapv2"
certificate = "pki/gw.crt"
private_key = "pki/gw.key"
users_file = "users"
inner_local = ["10.99.0.0/24"]
pool = "terminals"
"#;

/// Starts our gateway and strongSwan's terminal, and connects them by the terminal's child `child`.
fn connected(lab: &Lab, config: &str, options: &str, child: &str) -> (Gateway, Charon) {
    let gateway = lab.gateway("gw", config);
    let client = Charon::start(lab, "term", CLIENT, options);
    client.swanctl(&format!("--initiate --child {child}"));
    crate::traffic::wait_for_ping(lab, "term", SERVER);
    (gateway, client)
}

/// Waits until the gateway has this many connected peers.
fn wait_for_peers(gateway: &Gateway, count: usize) {
    wait_for("peers to come or go", || (gateway.peers().len() == count).then_some(()));
}

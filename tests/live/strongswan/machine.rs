//! `wayfarer check` on a machine where another IKE daemon runs.

use super::{CLIENT, charon::Charon, mobile_lab, psk};
use crate::lab::program;
use std::fs;

#[test]
fn check_sees_the_devices_and_the_other_daemon() {
    let lab = mobile_lab();
    let _daemon = Charon::start(&lab, "term", CLIENT, "");
    let port = "[[port]]\nname = \"outside\"\ndevice = \"c1\"\nmtu = 9000\naddresses = \"203.0.113.1/24\"\n";
    let pool = "[[pool]]\nname = \"terminals\"\naddresses = \"10.98.0.0/24\"\n";
    fs::write(lab.path("a.toml"), [port, pool, &psk("")].concat()).unwrap();
    let out = lab.run("term", &format!("{} check a.toml", program()));
    for warning in [
        "a.toml:4: warning: port.mtu: c1 sends at most 1500 bytes: lower mtu, or raise the device's",
        "has UDP port 500 and 4500 open on this machine",
        "a.toml: valid, with 4 warnings: 1 port, ",
    ] {
        assert!(out.contains(warning), "{warning}: {out}");
    }
}

//! The documentation's page from nothing to a phone, run as its reader would; strongSwan connects
//! by the profiles that it makes.

use super::{SERVER, charon::Charon, mobile_lab, wait_for_peers};
use crate::{
    lab::program,
    traffic::{ping, wait_for_ping},
};
use std::{fs, os::unix::fs::symlink, path::Path};

const PAGE: &str = include_str!("../../../docs/road-warrior.md");

/// The page's last command, which does not end by itself.
const RUN: &str = "wayfarer gateway --config gateway.toml\n";

/// Returns the commands of the page, with the test's devices.
fn commands() -> String {
    let blocks = PAGE.split("\n```sh\n").skip(1).map(|rest| rest.split_once("```\n").unwrap().0);
    let all: String = blocks.collect();
    let script = all.strip_suffix(RUN).expect("the page ends by running the gateway");
    script
        .replace("\"eth0\"", "\"g0\"\nkind = \"af_packet\"")
        .replace("\"eth1\"", "\"g1\"\nkind = \"af_packet\"")
}

/// Returns a profile for the address instead of the name, which nobody resolves here.
fn profile(path: &Path, password: &str) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.replace("remote_addrs = \"vpn.example.org\"", "remote_addrs = 203.0.113.1")
        .replace("PASSWORD", password)
}

#[test]
fn page_leads_from_nothing_to_a_connection() {
    let lab = mobile_lab();
    // The page makes its own certificates and users.
    fs::remove_dir_all(lab.path("pki")).unwrap();
    fs::remove_file(lab.path("users")).unwrap();
    fs::create_dir(lab.path("bin")).unwrap();
    symlink(program(), lab.path("bin/wayfarer")).unwrap();
    fs::write(lab.path("page"), commands()).unwrap();
    let path = format!("{}:{}", lab.path("bin").display(), std::env::var("PATH").unwrap());
    let mut bash = lab.command("gw", "timeout -k 1 60 bash -euo pipefail page");
    let output = bash.env("PATH", path).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(err, "");

    let gateway = lab.gateway("gw", &fs::read_to_string(lab.path("gateway.toml")).unwrap());
    let users = fs::read_to_string(lab.path("users")).unwrap();
    let password = users.split('"').nth(1).unwrap();
    for (file, child, identity) in
        [("swanctl.conf", "people", "alice"), ("device.conf", "devices", "alice@example.org")]
    {
        let client = Charon::start(&lab, "term", &profile(&lab.path(file), password), "");
        client.swanctl(&format!("--initiate --child {child}"));
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "term", SERVER, 10);
        let peers = gateway.peers();
        let [peer] = &peers[..] else { panic!("{peers:?}") };
        assert_eq!((peer.connection.as_deref(), peer.identity.as_deref()), (Some(child), Some(identity)));
        client.swanctl(&format!("--terminate --ike {child}"));
        wait_for_peers(&gateway, 0);
    }
    gateway.assert_no_drops();

    let revoke = format!("{} pki revoke alice@example.org", program());
    assert_eq!(lab.run("gw", &revoke), "pki/ca.crl\n");
    gateway.command("reload");
    let client = Charon::start(&lab, "term", &profile(&lab.path("device.conf"), password), "");
    assert!(!client.try_swanctl("--initiate --child devices").status.success());
    let failed = gateway.command("show peers --failed");
    assert!(failed.contains("revoked"), "{failed}");
}

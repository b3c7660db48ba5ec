//! Our gateway reads its configuration again, or crashes.

use super::{CERTIFICATES, SERVER, connected, gateway_head, mobile_lab, psk, wait_for_peers};
use crate::{
    lab::{Gateway, program, wait_for},
    traffic::{lost, ping, wait_for_ping},
};
use std::{fs, process::Command};

/// Has the gateway reload, which it refuses; returns why.
fn refused_reload(gateway: &Gateway) -> String {
    let output = Command::new(program()).args(["reload", "--socket"]).arg(gateway.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", gateway.log());
    String::from_utf8(output.stderr).unwrap()
}

/// Sends SIGHUP, and waits until the log has this many lines about a reload that contain `text`.
fn hang_up(gateway: &Gateway, text: &str, count: usize) {
    gateway.signal("HUP");
    wait_for("the reload", || (gateway.log().matches(text).count() == count).then_some(()));
}

const RELOADED: &str = "the configuration was reloaded";
const REFUSED: &str = "the configuration was not reloaded, and nothing has changed";

#[test]
fn strongswan_stays_connected_while_the_gateway_reloads() {
    let lab = mobile_lab();
    fs::write(lab.path("users"), "bob = \"builder\"").unwrap();
    // strongSwan does not mind the crash tokens that it is given.
    let config = gateway_head("crash_secret_file = \"state/crash-secret\"") + &psk("") + CERTIFICATES;
    let (gateway, client) = connected(&lab, &config, "", "net");
    assert!(!client.try_swanctl("--initiate --child eapnet").status.success());
    let peer = gateway.peers().remove(0).peer;
    let pings = lab.spawn("term", &format!("ping -q -i 0.01 -W 2 {SERVER}"));

    fs::write(lab.path("users"), "alice = \"wonderland\"").unwrap();
    hang_up(&gateway, RELOADED, 1);
    gateway.command("reload");
    client.swanctl("--rekey --ike psk");
    client.swanctl("--rekey --child net");
    gateway.command("peer rekey cl.test --ike");

    // Nothing changes by a wrong file, nor by one with a change that needs a restart.
    let good = fs::read_to_string(lab.path("gw.toml")).unwrap();
    let other = psk("").replace("cl.test", "other.test").replace("name = \"psk\"", "name = \"other\"");
    for (wrong, why) in [
        (good.replace("auth = \"psk\"", "auth = \"pks\""), "gw.toml:"),
        (
            good.replace("203.0.113.254", "203.0.113.253") + &other,
            "a [[route]] has changed, which needs a restart",
        ),
    ] {
        fs::write(lab.path("gw.toml"), wrong).unwrap();
        let before = gateway.log().matches(REFUSED).count();
        let answer = refused_reload(&gateway);
        assert!(answer.contains(why), "{answer}");
        hang_up(&gateway, REFUSED, before + 2);
    }
    fs::write(lab.path("gw.toml"), good).unwrap();
    gateway.command("reload");

    let output = pings.interrupt();
    // The last one may still be on its way.
    assert!(lost(&output) <= 1, "{output}");
    assert_eq!(gateway.peers().iter().map(|peer| peer.peer).collect::<Vec<_>>(), [peer]);
    client.swanctl("--initiate --child eapnet");
    wait_for_peers(&gateway, 2);
    ping(&lab, "term", SERVER, 5);
}

#[test]
fn revoked_certificate_is_refused_after_a_reload() {
    let lab = mobile_lab();
    let (gateway, client) = connected(&lab, &(gateway_head("") + CERTIFICATES), "", "certnet");
    let sign =
        ["--signcrl", "--cacert", "ca.crt", "--cakey", "ca.key", "--cert", "cl.crt", "--outform", "pem"];
    let crl = Command::new("pki").args(sign).current_dir(lab.path("pki")).output().unwrap();
    assert!(crl.status.success(), "{}", String::from_utf8_lossy(&crl.stderr));
    fs::write(lab.path("pki").join("ca.crl"), crl.stdout).unwrap();
    let file = lab.path("gw.toml");
    let config = fs::read_to_string(&file).unwrap();
    let with_crl = "authorities = \"pki/ca.crt\"\ncrls = \"pki/ca.crl\"";
    fs::write(&file, config.replace("authorities = \"pki/ca.crt\"", with_crl)).unwrap();
    gateway.command("reload");
    ping(&lab, "term", SERVER, 5);
    client.swanctl("--terminate --ike cert");
    wait_for_peers(&gateway, 0);
    assert!(!client.try_swanctl("--initiate --child certnet").status.success());
    let failed = gateway.command("show peers --failed");
    assert!(failed.contains("was revoked on"), "{failed}");
}

#[test]
fn terminal_of_ours_notices_that_the_gateway_has_crashed() {
    let lab = mobile_lab();
    let config = gateway_head("crash_secret_file = \"state/crash-secret\"") + &psk("");
    let gateway = lab.gateway("gw", &config);
    let terminal = lab.gateway(
        "term",
        r#"
[[port]]
name = "network"
kind = "af_packet"
device = "c1"
addresses = ["10.1.0.2/24"]
[[port]]
name = "programs"
kind = "tap"
device = "tap0"
addresses = ["10.97.0.1/24"]
[[route]]
to = "0.0.0.0/0"
via = "10.1.0.1"
[[connection]]
name = "office"
remote = "203.0.113.1"
remote_id = "gw.test"
local_id = "cl.test"
auth = "psk"
psk_file = "psk"
request_address = true
inner_remote = ["10.99.0.0/24"]
liveness = "2s"
"#,
    );
    wait_for_ping(&lab, "term", SERVER);
    // Killed, so that it tells nobody.
    drop(gateway);
    let _again = lab.gateway("gw", &config);
    wait_for("the terminal to notice", || {
        terminal.log().contains("the peer no longer has it, as after a crash").then_some(())
    });
    wait_for_ping(&lab, "term", SERVER);
    assert_eq!((terminal.counted("established"), terminal.counted("ended")), (2, 1));
}

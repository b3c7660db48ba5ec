//! strongSwan as the gateway of our terminal.

use super::{SERVER, charon::Charon, mobile_lab};
use crate::{
    lab::{Gateway, Lab, wait_for, wait_longer},
    traffic::{lost, ping, wait_for_ping},
};

pub(super) const SERVE: &str = include_str!("gateway.conf");

/// Starts our terminal, with two networks, its own stack behind a TAP, and a connection that
/// authenticates by `proof`.
pub(super) fn terminal(lab: &Lab, proof: &str) -> Gateway {
    let terminal = lab.gateway("term", &terminal_config("203.0.113.1", proof));
    wait_for("the connection", || terminal.peers().pop());
    wait_for_ping(lab, "term", SERVER);
    terminal
}

/// Configures that terminal, with a connection to `remote`.
pub(super) fn terminal_config(remote: &str, proof: &str) -> String {
    format!(
        r#"routes = "kernel"
[[port]]
name = "first"
kind = "af_packet"
device = "c1"
addresses = ["10.1.0.2/24"]
[[port]]
name = "second"
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
remote = ["{remote}"]
remote_id = "gw.test"
request_address = true
inner_remote = ["10.99.0.0/24"]
liveness = "2s"
{proof}
"#
    )
}

pub(super) const PSK: &str = "local_id = \"cl.test\"\nauth = \"psk\"\npsk_file = \"psk\"";
pub(super) const CERTIFICATE: &str = "auth = \"certificate\"\ncertificate = \"pki/cl.crt\"\nprivate_key = \"pki/cl.key\"\nauthorities = \"pki/ca.crt\"\nfragment = 600";
pub(super) const EAP: &str = "local_id = \"alice@test\"\nauth = \"eap-mschapv2\"\nuser = \"alice\"\npassword_file = \"password\"\nauthorities = \"pki/ca.crt\"";

#[test]
fn connects_by_every_kind_of_proof() {
    let lab = mobile_lab();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", SERVE, "fragment_size = 600");
    for proof in [PSK, CERTIFICATE, EAP] {
        let mut terminal = terminal(&lab, proof);
        ping(&lab, "term", SERVER, 20);
        let peer = terminal.peers().remove(0);
        assert_eq!(
            (&*peer.nat, peer.inner.len()),
            ("both", 1),
            "charon claims to be behind a NAT, to get UDP encapsulation: {peer:?}"
        );
        terminal.command("peer down office");
        assert!(terminal.stop().success());
        wait_for("the gateway to end the IKE SA", || gateway.swanctl("--list-sas").is_empty().then_some(()));
    }
}

#[test]
fn our_address_is_put_on_a_device_that_is_made_again() {
    let lab = mobile_lab();
    lab.forward("gw");
    let _gateway = Charon::start(&lab, "gw", SERVE, "");
    let terminal = terminal(&lab, PSK);
    let shown = || lab.run("term", "ip -o address show dev tap0 scope global");
    let before = shown();
    lab.run("term", "ip link del tap0");
    wait_for("the device", || terminal.log().contains("the device was opened again").then_some(()));
    wait_for_ping(&lab, "term", SERVER);
    ping(&lab, "term", SERVER, 20);
    let inner = |text: &str| text.split_whitespace().nth(3).map(str::to_owned);
    assert_eq!(inner(&shown()), inner(&before));
    assert_eq!(terminal.counted("established"), 1);
}

#[test]
fn both_sides_rekey_without_loss() {
    let lab = mobile_lab();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", SERVE, "");
    let terminal = terminal(&lab, PSK);
    let pings = lab.spawn("term", &format!("ping -q -i 0.005 -c 1000 -W 2 {SERVER}"));
    for _ in 0..2 {
        gateway.swanctl("--rekey --child net");
        gateway.swanctl("--rekey --ike psk");
        terminal.command("peer rekey office");
        terminal.command("peer rekey office --ike");
    }
    let output = pings.finish();
    assert_eq!(lost(&output), 0, "{output}");
    let peer = terminal.peers().remove(0);
    assert!(peer.rekeys >= 8, "{peer:?}");
}

#[test]
fn our_terminal_moves() {
    let lab = mobile_lab();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", SERVE, "");
    let terminal = terminal(&lab, PSK);
    for (via, device, address) in [("198.51.100.1", "c2", "198.51.100.2"), ("10.1.0.1", "c1", "10.1.0.2")] {
        // The host's default route decides which network is used.
        let pings = lab.spawn("term", &format!("ping -q -i 0.02 -c 150 -W 1 {SERVER}"));
        lab.run("term", &format!("ip route replace default via {via} dev {device} metric 50"));
        wait_for("our new address", || {
            terminal.peers().iter().any(|peer| peer.local.starts_with(address)).then_some(())
        });
        let output = pings.finish();
        assert!(lost(&output) < 50, "{output}");
    }
    assert_eq!(terminal.counted("established"), 1);
    assert!(terminal.peers()[0].moves >= 2);
    assert!(gateway.swanctl("--list-sas").contains("cl.test"));
}

#[test]
fn reconnects_to_a_restarted_gateway() {
    let lab = mobile_lab();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", SERVE, "");
    let terminal = terminal(&lab, PSK);
    drop(gateway);
    let _again = Charon::start(&lab, "gw", SERVE, "");
    // The terminal reconnects when all its retransmissions have gone unanswered.
    wait_longer("a new connection", || (terminal.counted("established") == 2).then_some(()));
    wait_for_ping(&lab, "term", SERVER);
}

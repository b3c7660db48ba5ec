//! Post-quantum pre-shared keys (RFC 8784) with strongSwan, in both roles and with every kind of proof.

use super::{
    CERTIFICATES, SERVER,
    as_gateway::{CERTIFICATE, EAP, PSK, SERVE, terminal},
    charon::Charon,
    connected, gateway_head, mobile_lab, psk, wait_for_peers,
};
use crate::{lab::wait_for, traffic::ping};

const KEY: &str = "ppk = { id = \"shared-ppk\", file = \"ppk\", required = true }";
/// A key that strongSwan does not have, and that it may do without.
const OTHER_KEY: &str = "ppk = { id = \"our-ppk\", file = \"ppk\" }";

#[test]
fn strongswan_connects_to_our_gateway_only_with_the_key_that_is_required() {
    let lab = mobile_lab();
    let eap = "users_file = \"users\"";
    let config = gateway_head("") + &psk(KEY) + &CERTIFICATES.replace(eap, &format!("{eap}\n{KEY}"));
    let (gateway, client) = connected(&lab, &config, "", "ppknet");
    for (child, next) in [("ppk", "eapppknet"), ("eapppk", "")] {
        ping(&lab, "term", SERVER, 5);
        client.swanctl(&format!("--terminate --ike {child}"));
        wait_for_peers(&gateway, 0);
        if !next.is_empty() {
            client.swanctl(&format!("--initiate --child {next}"));
        }
    }
    for (child, claimed) in [("net", "cl.test"), ("eapnet", "alice")] {
        let refused = client.try_swanctl(&format!("--initiate --child {child}"));
        assert!(!refused.status.success(), "nobody connects without the key");
        let failed = gateway.command("show peers --failed");
        let is_it = |line: &&str| line.contains(claimed) && line.contains("wrong proof of identity");
        assert!(failed.lines().any(|line| is_it(&line)), "{failed}");
    }
}

#[test]
fn strongswan_connects_to_our_gateway_without_a_key_that_nobody_requires() {
    let lab = mobile_lab();
    let config = gateway_head("") + &psk(&KEY.replace("true", "false"));
    let (_gateway, client) = connected(&lab, &config, "", "otherppknet");
    ping(&lab, "term", SERVER, 5);
    client.swanctl("--terminate --ike otherppk");
    client.swanctl("--initiate --child net");
    ping(&lab, "term", SERVER, 5);
}

#[test]
fn our_terminal_connects_to_strongswan_with_the_key_and_without_one() {
    let lab = mobile_lab();
    lab.forward("gw");
    let gateway = Charon::start(&lab, "gw", SERVE, "");
    let outcomes = [
        (KEY, "using PPK for PPK_ID 'shared-ppk'"),
        (OTHER_KEY, "no PPK available, using NO_PPK_AUTH notify"),
    ];
    for proof in [PSK, CERTIFICATE, EAP] {
        for (key, outcome) in outcomes {
            let before = gateway.logged(outcome);
            let mut terminal = terminal(&lab, &format!("{proof}\n{key}"));
            ping(&lab, "term", SERVER, 5);
            assert_eq!(gateway.logged(outcome), before + 1, "{proof} {key}: {}", gateway.log());
            terminal.command("peer down office");
            assert!(terminal.stop().success());
            wait_for("the gateway to end the IKE SA", || {
                gateway.swanctl("--list-sas").is_empty().then_some(())
            });
        }
    }
}

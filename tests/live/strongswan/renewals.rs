//! Authentication whose time is limited (RFC 4478), by either side.

use super::{
    CLIENT, SERVER,
    as_gateway::{PSK, SERVE, terminal},
    charon::Charon,
    gateway_head, mobile_lab, psk,
};
use crate::{
    lab::wait_longer,
    traffic::{lost, wait_for_ping},
};

/// Has strongSwan's connection "psk" limit authentication to this many seconds.
fn limited(connections: &str, seconds: u32) -> String {
    let limit = format!(
        "dpd_delay = 5s\n reauth_time = {seconds}s\n rekey_time = 0s\n rand_time = 0s\n over_time = 10s"
    );
    connections.replace("dpd_delay = 5s", &limit).replace("unique = replace", "unique = no")
}

#[test]
fn our_terminal_authenticates_again_as_strongswan_asks() {
    let lab = mobile_lab();
    lab.forward("gw");
    let _gateway = Charon::start(&lab, "gw", &limited(SERVE, 24), "");
    let terminal = terminal(&lab, PSK);
    let inner = terminal.peers().remove(0).inner;
    let pings = lab.spawn("term", &format!("ping -q -i 0.01 -W 2 {SERVER}"));
    wait_longer("two more connections", || (terminal.counted("established") >= 3).then_some(()));
    wait_longer("the old ones to go", || (terminal.peers().len() == 1).then_some(()));
    let output = pings.interrupt();
    // The last one may still be on its way.
    assert!(lost(&output) <= 1, "{output}");
    assert_eq!(terminal.peers().remove(0).inner, inner);
}

#[test]
fn strongswan_authenticates_again_to_our_gateway() {
    // With charon's default, the old link ends before the new one begins.
    for (make_before_break, most_lost) in [("yes", 1), ("no", 200)] {
        let lab = mobile_lab();
        let gateway = lab.gateway("gw", &(gateway_head("") + &psk("")));
        let options = format!("make_before_break = {make_before_break}");
        let client = Charon::start(&lab, "term", &limited(CLIENT, 5), &options);
        client.swanctl("--initiate --child net");
        wait_for_ping(&lab, "term", SERVER);
        let inner = gateway.peers().remove(0).inner;
        let pings = lab.spawn("term", &format!("ping -q -i 0.01 -W 2 {SERVER}"));
        wait_longer("three more connections", || (gateway.counted("established") >= 4).then_some(()));
        wait_for_ping(&lab, "term", SERVER);
        let output = pings.interrupt();
        assert!(lost(&output) <= most_lost, "make before break: {make_before_break}: {output}");
        assert!(gateway.peers().iter().all(|peer| peer.inner == inner), "{:?}", gateway.peers());
    }
}

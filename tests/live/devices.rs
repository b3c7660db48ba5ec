//! Devices that change while the gateway runs.

use super::{
    lab::{Gateway, Lab, wait_for},
    traffic::{IperfServer, ping},
    world::{BY_CORE, SERVER, TERMINAL, gateway_config, start, terminal_lab},
};
use wayfarer::control::protocol::PortView;

fn port(gateway: &Gateway, name: &str) -> PortView {
    gateway.ports().into_iter().find(|port| port.port == name).expect("a port of this name")
}

/// Checks that senders hear of a lower MTU of a device, that nothing is lost in silence, and that a
/// higher one is used.
pub(crate) fn mtu_is_followed(kind: &str) {
    let lab = terminal_lab();
    let (gateway, terminal) = start(&lab, kind, "192.0.2.1");
    let one = |size: usize, df: &str| {
        lab.output("srv", &format!("ping -c 1 -W 2 -M {df} -s {} {TERMINAL}", size - 28))
    };
    assert!(one(1400, "do").status.success());
    let set = |mtu: usize| {
        for (space, device) in [("gw", "g0"), ("core", "k1")] {
            lab.run(space, &format!("ip link set {device} mtu {mtu}"));
        }
        wait_for("the port to follow", || (port(&gateway, "outside").mtu == mtu).then_some(()));
    };
    set(1400);
    let refused = one(1400, "do");
    let output = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && output.contains("Frag needed"), "{output}");
    assert!(one(1400, "dont").status.success());
    let mut server = IperfServer::start(&lab, "term");
    assert!(server.run(&lab, "srv", TERMINAL, "").received > 100_000);
    set(1500);
    lab.run("srv", "ip route flush cache");
    assert!(one(1400, "do").status.success());
    let lines = gateway.log().lines().filter(|line| line.contains("the device's MTU has changed")).count();
    assert_eq!(lines, 2, "{}", gateway.log());
    gateway.assert_no_drops();
    terminal.assert_no_drops();
}

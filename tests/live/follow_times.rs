//! How soon the gateway follows each kind of change of a device. Every change but the first one comes as
//! soon as the one before is seen: a gateway that looked every few seconds would just have looked.

use super::{
    devices::{GONE, OPENED, RENAMED, count_lines, port},
    lab::{Gateway, Lab},
    world::{BY_CORE, gateway_config, terminal_lab},
};

const DOWN: &str = "the device is down";
const UP: &str = "the device is up";
const MAC: &str = "02:00:00:00:00:77";

fn start(kind: &str) -> (Lab, Gateway) {
    let lab = terminal_lab();
    let gateway = lab.gateway("gw", &gateway_config(kind, BY_CORE));
    (lab, gateway)
}

/// Changes name, MTU and MAC address. `show ports` asks the device itself for its name, so the log tells
/// when the gateway follows that.
pub(crate) fn name_mtu_and_mac_address(kind: &str) {
    let (lab, gateway) = start(kind);
    for (count, [from, to]) in (1..).zip([["g0", "wan0"], ["wan0", "g0"]]) {
        let command = format!("ip link set {from} name {to}");
        lab.change("gw", &command, || count_lines(&gateway, RENAMED) == count);
    }
    for mtu in [1400, 1500] {
        lab.change("gw", &format!("ip link set g0 mtu {mtu}"), || port(&gateway, "outside").mtu == mtu);
    }
    lab.change("gw", &format!("ip link set g0 address {MAC}"), || port(&gateway, "outside").mac == MAC);
}

/// Takes the carrier away and gives it back, and so the device. `show ports` asks the device itself whether
/// it is up or gone, so the log tells when the gateway follows that.
pub(crate) fn carrier_removal_and_return(kind: &str) {
    let (lab, gateway) = start(kind);
    for count in 1..=2 {
        lab.change("core", "ip link set k1 down", || count_lines(&gateway, DOWN) == count);
        lab.change("core", "ip link set k1 up", || count_lines(&gateway, UP) == count);
    }
    lab.change("gw", "ip link del g0", || count_lines(&gateway, GONE) == 1);
    let core = lab.full("core");
    lab.run("gw", &format!("ip link add g0 address {MAC} type veth peer name k1 netns {core}"));
    lab.run("core", "ip link set k1 up");
    // A device that is down is not opened.
    lab.change("gw", "ip link set g0 up", || count_lines(&gateway, OPENED) == 1);
    assert_eq!(port(&gateway, "outside").mac, MAC);
}

#[test]
fn tap_device() {
    let lab = Lab::new(&["gw"]);
    let config =
        "[[port]]\nname = \"programs\"\nkind = \"tap\"\ndevice = \"wf0\"\naddresses = [\"10.98.0.1/24\"]\n";
    let gateway = lab.gateway("gw", config);
    let logs = |text: &str| count_lines(&gateway, text) == 1;
    lab.change("gw", "ip link set wf0 name vpn0", || logs(RENAMED));
    lab.change("gw", "ip link set vpn0 mtu 1400", || port(&gateway, "programs").mtu == 1400);
    let command = format!("ip link set vpn0 address {MAC}");
    lab.change("gw", &command, || logs("the host's MAC address on the device has changed"));
    lab.change("gw", "ip link set vpn0 down", || logs(DOWN));
    lab.change("gw", "ip link set vpn0 up", || logs(UP));
    // It is made again at once.
    lab.change("gw", "ip link del vpn0", || logs(OPENED));
    assert_eq!(port(&gateway, "programs").device.as_deref(), Some("wf0"));
}

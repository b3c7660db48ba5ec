//! DPDK's devices in `wayfarer show ports`.

use crate::{
    devices::{count_lines, wait_for_link},
    dpdk::set_ups::assert_only_info_logged,
    lab::{Gateway, wait_for},
    traffic::wait_for_ping,
    world::{BY_CORE, SERVER, TERMINAL, gateway_config, start, start_terminal, terminal_lab},
};
use wayfarer::control::protocol::PortView;

fn outside(gateway: &Gateway) -> PortView {
    gateway.ports().into_iter().find(|port| port.port == "outside").unwrap()
}

fn counter(port: &PortView, name: &str) -> u64 {
    port.counters
        .iter()
        .find(|counter| counter.name == name)
        .unwrap_or_else(|| panic!("no {name}: {port:?}"))
        .value
}

/// Checks that a socket device shows its kernel device's MAC address and MTU, and the same counts
/// as the gateway.
#[test]
fn shows_a_devices_state_and_counters() {
    let lab = terminal_lab();
    let config = gateway_config("net_af_packet", BY_CORE);
    let config = config.replacen("device = \"g0\"", "device = \"g0\"\npromiscuous = true\nmtu = 1400", 1);
    let gateway = lab.gateway("gw", &config);
    let _terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    let mac = lab.run("gw", "cat /sys/class/net/g0/address");
    let [port, inside] = [outside(&gateway), gateway.ports().remove(1)];
    assert_eq!(port.kind, "dpdk (net_af_packet)");
    assert_eq!((&port.mac[..], port.mtu, inside.mtu), (mac.trim(), 1400, 1500));
    assert_eq!(
        (port.link.as_deref(), port.speed_mbps, port.full_duplex),
        (Some("up"), Some(10_000), Some(true))
    );
    assert_eq!((port.promiscuous, inside.promiscuous), (Some(true), Some(false)));
    assert_eq!((port.rx_missed, port.rx_errors, port.rx_oversize, port.tx_errors), (0, 0, 0, 0));
    assert!(port.rx_packets > 0 && port.tx_packets > 0);
    wait_for("equal counters of device and gateway", || {
        let port = outside(&gateway);
        let counted = |way| {
            (counter(&port, &format!("{way}_good_packets")), counter(&port, &format!("{way}_good_bytes")))
        };
        let same = counted("rx") == (port.rx_packets, port.rx_bytes)
            && counted("tx") == (port.tx_packets, port.tx_bytes);
        same.then_some(())
    });
    assert!(gateway.command("show ports").contains("  up 10G promiscuous  "));
}

/// Checks that a device that goes down is shown and logged, and works again once it is up.
#[test]
fn shows_and_logs_a_device_that_goes_down() {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, "net_tap", "192.0.2.1");
    let is = |state: &str| (outside(&gateway).link.as_deref() == Some(state)).then_some(());
    wait_for("the device to be up", || is("up"));
    let logged =
        |text: &str| gateway.log().lines().any(|line| line.contains(text) && line.contains("outside"));
    lab.change("gw", "ip link set tap-g0 down", || logged("the device is down"));
    assert_eq!(is("down"), Some(()));
    lab.change("gw", "ip link set tap-g0 up", || logged("the device is up"));
    assert_eq!(is("up"), Some(()));
    wait_for_ping(&lab, "term", SERVER);
    assert_only_info_logged(&gateway);
}

/// Checks that a device is gone with the kernel's device that its driver uses, and that packets to it are
/// dropped and counted.
fn check_removal(driver: &str, interface: &str) {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, driver, "192.0.2.1");
    let gone = "this port has none until the gateway is started again";
    lab.change("gw", &format!("ip link del {interface}"), || count_lines(&gateway, gone) == 1);
    wait_for_link(&gateway, "outside", "gone");
    let before = gateway.dropped("PortGone");
    // The driver of the other port may hold the last one back.
    assert!(!lab.output("srv", &format!("ping -c 4 -i 0.02 -W 1 {TERMINAL}")).status.success());
    wait_for("the drops to be counted", || (gateway.dropped("PortGone") >= before + 3).then_some(()));
    let inside = gateway.ports().into_iter().find(|port| port.port == "inside").unwrap();
    assert_eq!(inside.link.as_deref(), Some("up"));
}

#[test]
fn net_af_packet_is_gone_with_its_interface() {
    check_removal("net_af_packet", "g0");
}

#[test]
fn net_tap_is_gone_with_its_interface() {
    check_removal("net_tap", "tap-g0");
}

//! A TCP stream through a device that changes meanwhile.

use super::{
    devices::{assert_none_in_clear, count_lines, port, watch_for_clear},
    traffic::{IperfServer, wait_for_packets},
    world::{SERVER, start, terminal_lab},
};

/// Packets of the stream that must pass after each change.
const COUNT: u64 = 300;
const MAC: &str = "02:00:00:00:00:77";

/// Checks that a stream goes on while the device that it comes by gets another MTU, another MAC
/// address, and goes down and up, and that nothing of it passes in clear.
pub(crate) fn stream_goes_on_while_its_device_changes(kind: &str) {
    let lab = terminal_lab();
    let (gateway, terminal) = start(&lab, kind, "192.0.2.1");
    watch_for_clear(&lab);
    let mut server = IperfServer::start(&lab, "srv");
    server.listen();
    let _stream = lab.spawn("term", &format!("iperf3 -t 600 -b 5M -c {SERVER}"));
    let goes_on = || wait_for_packets(&gateway, COUNT);
    let set_mtu = |mtu: usize| {
        lab.run("core", &format!("ip link set k1 mtu {mtu}"));
        lab.change("gw", &format!("ip link set g0 mtu {mtu}"), || port(&gateway, "outside").mtu == mtu);
    };
    goes_on();
    set_mtu(1400);
    goes_on();
    lab.change("gw", &format!("ip link set g0 address {MAC}"), || port(&gateway, "outside").mac == MAC);
    goes_on();
    lab.change("gw", "ip link set g0 down", || count_lines(&gateway, "the device is down") == 1);
    lab.change("gw", "ip link set g0 up", || count_lines(&gateway, "the device is up") == 1);
    // The kernel's route went with the device.
    lab.run("gw", "ip route replace 10.98.0.0/24 via 192.0.2.254");
    goes_on();
    set_mtu(1500);
    goes_on();
    assert_none_in_clear(&lab);
    // Once the device is back, packets wait for their next hop, as many as may wait.
    gateway.assert_no_drops_but(&["PortDown", "TxRingFull", "SlowPathLimit"]);
    terminal.assert_no_drops();
}

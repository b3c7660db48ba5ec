//! Work that senders leave to their devices: checksums, and cutting what they joined.

use super::{
    devices::port,
    lab::Lab,
    traffic::IperfServer,
    world::{Outside, start_two_gateways},
};

#[test]
fn joined_frames_of_tcp_pass_both_ways_with_the_devices_as_they_are() {
    let lab = Lab::new(&["ha", "gwa", "core", "gwb", "hb"]);
    lab.offloads.set(true);
    let gateways = start_two_gateways(&lab, "auto", Outside::V4, [""; 2]);
    let mut server = IperfServer::start(&lab, "hb");
    for to in ["10.2.0.2", "2001:db8:2::2"] {
        for options in ["", "-R", "-P 4 --bidir"] {
            assert!(server.run(&lab, "ha", to, options).received > 1_000_000, "{to} {options}");
        }
    }
    for (gateway, space, device) in [(&gateways[0], "gwa", "a1"), (&gateways[1], "gwb", "b1")] {
        gateway.assert_no_drops();
        let port = port(gateway, "inside");
        assert_eq!((&port.kind[..], port.rx_oversize, port.rx_errors), ("af_packet", 0, 0));
        // The kernel counts a joined frame once, and frames that are not the gateway's as well.
        let counted = lab.run(space, &format!("cat /sys/class/net/{device}/statistics/rx_packets"));
        let counted: u64 = counted.trim().parse().unwrap();
        assert!(port.rx_packets > counted, "{} {counted}", port.rx_packets);
        let log = gateway.log();
        let reason =
            format!("not af_xdp (native): {device}: AF_XDP would lose what senders on this machine leave");
        assert_eq!(log.lines().filter(|line| line.contains(&reason)).count(), 1, "{log}");
        assert!(!log.contains("ethtool"), "{log}");
    }
}

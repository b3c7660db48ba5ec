//! Devices without Ethernet, which carry bare IP packets to one far side: here TUN devices.

use super::{
    devices::{port, wait_for_lines, wait_for_link},
    lab::{Gateway, Lab, Program, wait_for},
    traffic::{IperfServer, ping, wait_for_ping},
    world::{pair_configs, two_hosts, wait_for_pair},
};

const ENDS: [[&str; 2]; 2] = [["192.0.2.1/30", "192.0.2.2/30"], ["2001:db8:a::1/64", "2001:db8:a::2/64"]];

/// Joins the gateways by a pair of TUN devices, which go with the result.
fn join(lab: &Lab) -> Program {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/tun_pair.py");
    let [a, b] = ["gwa", "gwb"].map(|space| lab.full(space));
    let mut cable = lab.spawn("gwa", &format!("/usr/bin/python3 -B {script} {a} tun0 {b} tun0"));
    cable.wait_for_line("ready");
    for (space, end) in [("gwa", 0), ("gwb", 1)] {
        for ends in ENDS {
            lab.run(space, &format!("ip address add {} dev tun0", ends[end]));
        }
    }
    cable
}

/// Starts both gateways before their outer devices are there.
fn start(lab: &Lab, ends: [&str; 2]) -> [Gateway; 2] {
    two_hosts(lab, ["gwa", "gwb"]);
    let outside = "device = \"tun0\"\n";
    let configs = pair_configs("auto", ["tun0"; 2], ends, [""; 2]);
    let optional = |config: String| config.replace(outside, &format!("{outside}optional = true\n"));
    let [a, b] = configs.map(optional);
    [lab.gateway("gwa", &a), lab.gateway("gwb", &b)]
}

#[test]
fn both_families_pass_and_the_device_may_come_and_go() {
    for ends in ENDS {
        let lab = Lab::new(&["ha", "gwa", "gwb", "hb"]);
        let gateways = start(&lab, ends);
        let mut cable = join(&lab);
        for round in 1..=2 {
            gateways.iter().for_each(|gateway| wait_for_link(gateway, "outside", "up"));
            wait_for_pair(&lab);
            for (to, back) in [("10.2.0.2", "10.1.0.2"), ("2001:db8:2::2", "2001:db8:1::2")] {
                ping(&lab, "ha", to, 20);
                ping(&lab, "hb", back, 20);
            }
            let shown = port(&gateways[0], "outside");
            assert_eq!((&shown.kind[..], &shown.mac[..]), ("af_packet (bare IP)", "02:00:00:00:00:01"));
            assert_eq!((shown.neighbours, shown.rx_errors, shown.tx_errors), (0, 0, 0));
            drop(cable);
            for gateway in &gateways {
                wait_for_lines(gateway, "there is no device: this port waits for it", round + 1);
            }
            let before = gateways[0].dropped("PortGone");
            assert!(!lab.output("ha", "ping -c 3 -i 0.02 -W 1 10.2.0.2").status.success());
            wait_for("the drops to be counted", || {
                (gateways[0].dropped("PortGone") >= before + 3).then_some(())
            });
            cable = join(&lab);
        }
    }
}

#[test]
fn tcp_passes_and_the_kernel_answers_nothing() {
    for ends in ENDS {
        let lab = Lab::new(&["ha", "gwa", "gwb", "hb"]);
        let _cable = join(&lab);
        two_hosts(&lab, ["gwa", "gwb"]);
        let [a, b] = pair_configs("auto", ["tun0"; 2], ends, ["", "window = 65536"]);
        let gateways = [lab.gateway("gwa", &format!("workers = [0, 1]\n{a}")), lab.gateway("gwb", &b)];
        wait_for_pair(&lab);
        let mut server = IperfServer::start(&lab, "hb");
        for to in ["10.2.0.2", "2001:db8:2::2"] {
            for options in ["", "-R"] {
                assert!(server.run(&lab, "ha", to, options).received > 1_000_000, "{to} {options}");
            }
        }
        for (gateway, space) in gateways.iter().zip(["gwa", "gwb"]) {
            // The queue of a TUN device is short, so TCP finds its end.
            gateway.assert_no_drops_but(&["TxRingFull"]);
            assert_eq!(lab.counted(space, "Icmp", "OutDestUnreachs"), 0);
        }
        // The kernel still answers for the host itself.
        wait_for_ping(&lab, "gwa", ends[1].split_once('/').unwrap().0);
    }
}

#[test]
fn other_ways_to_open_it_are_refused_in_one_line() {
    let lab = Lab::new(&["ha", "gwa", "gwb", "hb"]);
    let _cable = join(&lab);
    two_hosts(&lab, ["gwa", "gwb"]);
    let [config, _] = pair_configs("af_xdp", ["tun0"; 2], ENDS[0], [""; 2]);
    super::host::assert_refused(
        &lab,
        "gwa",
        "",
        "af_xdp",
        &config,
        &["port outside", "tun0: AF_XDP needs Ethernet, but this device carries bare IP packets"],
    );
}

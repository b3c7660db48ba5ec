//! Paths through a NAT whose routers drop long packets without a word, with strongSwan at its defaults
//! in both roles: probes find what a path takes.

use super::{
    SERVER,
    as_gateway::{PSK, SERVE, terminal},
    charon::Charon,
    gateway_head, mobile_lab, psk,
};
use crate::{
    lab::{Gateway, Lab, wait_longer},
    traffic::{IperfServer, wait_for_ping},
};

const TERMINAL: &str = r#"
connections { gw {
  remote_addrs = 203.0.113.1
  vips = 0.0.0.0
  local { auth = psk
    id = cl.test }
  remote { auth = psk
    id = gw.test }
  children { net { remote_ts = 10.99.0.0/24 } }
} }
secrets { ike { secret = "lab-psk-0123456789" } }
"#;

/// Makes the lab, whose routers send no ICMP error.
fn silent_lab() -> Lab {
    let lab = mobile_lab();
    let quiet = "table inet quiet {\n chain out { type filter hook output priority 0; icmp type destination-unreachable drop;\n}\n}";
    let masquerade = "table ip nat {\n chain post { type nat hook postrouting priority 100; oifname \"out\" masquerade random\n}\n}";
    lab.nft("core", quiet);
    lab.nft("nat", &format!("{quiet}\n{masquerade}"));
    lab
}

/// Sets the MTU of the link between the NAT and the router behind it.
fn set_mtu(lab: &Lab, mtu: usize) {
    for (router, device) in [("nat", "out"), ("core", "k1")] {
        lab.run(router, &format!("ip link set {device} mtu {mtu}"));
    }
}

fn path_mtu(gateway: &Gateway) -> Option<u16> {
    gateway.peers().first().and_then(|peer| peer.path_mtu)
}

/// Checks that TCP passes both ways between the terminal and the server.
fn assert_passes(lab: &Lab) {
    let mut server = IperfServer::start(lab, "srv");
    for options in ["", "-R"] {
        assert!(server.run(lab, "term", SERVER, options).received > 100_000, "{options}");
    }
}

#[test]
fn gateway_finds_the_path_of_a_terminal() {
    let lab = silent_lab();
    set_mtu(&lab, 1400);
    let gateway = lab.gateway("gw", &(gateway_head("") + &psk("")));
    let client = Charon::start(&lab, "term", TERMINAL, "");
    client.swanctl("--initiate --child net");
    wait_for_ping(&lab, "term", SERVER);
    wait_longer("probes to find the MTU", || (path_mtu(&gateway) == Some(1400)).then_some(()));
    assert_passes(&lab);
    assert_eq!(gateway.peers().len(), 1);
    gateway.assert_no_drops();
    wait_longer("the end of the search", || {
        gateway.log().contains("probes have found the MTU").then_some(())
    });
}

#[test]
fn terminal_finds_its_path_to_a_gateway() {
    let lab = silent_lab();
    lab.forward("gw");
    set_mtu(&lab, 1400);
    let _office = Charon::start(&lab, "gw", SERVE, "");
    let terminal = terminal(&lab, PSK);
    wait_longer("probes to find the MTU", || (path_mtu(&terminal) == Some(1400)).then_some(()));
    assert_passes(&lab);
    terminal.assert_no_drops();
}

#[test]
fn stream_goes_on_while_a_silent_path_changes() {
    let lab = silent_lab();
    let gateway = lab.gateway("gw", &(gateway_head("") + &psk("")));
    let client = Charon::start(&lab, "term", TERMINAL, "");
    client.swanctl("--initiate --child net");
    wait_for_ping(&lab, "term", SERVER);
    let mut server = IperfServer::start(&lab, "srv");
    server.listen();
    let _stream = lab.spawn("term", &format!("iperf3 -t 600 -b 5M -c {SERVER} -R"));
    let flows = || {
        let sent = || gateway.sa().outbound.packets;
        let before = sent();
        // TCP may wait for a minute before it sends again what was lost.
        wait_longer("the stream to go on", || (sent() >= before + 1000).then_some(()));
    };
    flows();
    assert_eq!(path_mtu(&gateway), None);
    set_mtu(&lab, 1300);
    wait_longer("probes to notice", || (path_mtu(&gateway) == Some(1300)).then_some(()));
    flows();
    set_mtu(&lab, 1500);
    flows();
    wait_longer("probes to notice that it has grown", || path_mtu(&gateway).is_none().then_some(()));
    flows();
    assert_eq!(gateway.peers().len(), 1);
    gateway.assert_no_drops();
}

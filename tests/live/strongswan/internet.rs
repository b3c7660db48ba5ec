//! The example for road warriors as it stands: all traffic of a terminal goes through the gateway, to a
//! web server beyond a router that knows no inner address.

use super::{charon::Charon, mobile_lab};
use crate::{
    lab::{Lab, PATIENCE, wait_for},
    traffic::{IperfServer, WebServer, ping, wait_for_ping},
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
};

const EXAMPLE: &str = include_str!("../../../conf/road-warrior.toml");
const USERS: &str = include_str!("../../../conf/keys/example-users");
const WEB: &str = "192.0.4.2";
const CLIENT: &str = "connections { all {
  version = 2
  remote_addrs = 203.0.113.1
  vips = 0.0.0.0
  keyingtries = 1
  local { auth = pubkey
           certs = cl.crt
           id = cl.test }
  remote { auth = pubkey
           id = gw.test }
  children { all { remote_ts = 0.0.0.0/0 } }
} }
";

/// Keeps the daemon's own packets out of the tunnel, which takes all others.
const MARKS: &str = "plugins { kernel-netlink { fwmark = !0x42 }\n socket-default { fwmark = 0x42 } }\n";

/// Returns the example with the lab's devices and files.
fn example(lab: &Lab, kind: &str) -> String {
    fs::create_dir_all(lab.path("keys")).unwrap();
    fs::write(lab.path("keys/example-users"), USERS).unwrap();
    fs::set_permissions(lab.path("keys/example-users"), fs::Permissions::from_mode(0o600)).unwrap();
    let device = |name: &str| format!("device = \"{name}\"\nkind = \"{kind}\"");
    EXAMPLE
        .replace("device = \"eth0\"", &device("g0"))
        .replace("device = \"eth1\"", &device("g1"))
        .replace("/var/lib/wayfarer/", "")
        .replace("$PKI", "pki")
}

/// Checks that a program of the host is reached from outside at the gateway's own address.
fn host_answers(lab: &Lab) {
    let at = "203.0.113.1:22";
    let listener = lab.enter("gw", || TcpListener::bind(at).unwrap());
    let mut outside =
        lab.enter("core", || TcpStream::connect_timeout(&at.parse().unwrap(), PATIENCE).unwrap());
    let (mut host, _) = listener.accept().unwrap();
    for stream in [&outside, &host] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut line = [0; 5];
    outside.write_all(b"hello").unwrap();
    host.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello");
}

#[test]
fn all_traffic_of_a_road_warrior_goes_through_the_gateway() {
    for kind in ["af_packet", "af_xdp"] {
        let lab = mobile_lab();
        lab.add_space("web");
        lab.link([("core", "k4", &["192.0.4.254/24"]), ("web", "w0", &["192.0.4.2/24"])]);
        lab.run("web", "ip route add default via 192.0.4.254");
        lab.etc("term", "resolv.conf", "");

        let gateway = lab.gateway("gw", &example(&lab, kind));
        let client = Charon::start(&lab, "term", CLIENT, MARKS);
        client.swanctl("--initiate --child all");
        wait_for_ping(&lab, "term", WEB);
        ping(&lab, "term", WEB, 20);
        lab.run("term", &format!("ping -c 3 -i 0.02 -W 2 -s 3000 -M dont {WEB}"));

        let mut web = WebServer::start(&lab, "web");
        web.fetch(&lab, "term", WEB);
        // The server sees the gateway.
        web.wait_for_client("203.0.113.1");
        let mut iperf = IperfServer::start(&lab, "web");
        for options in ["", "-R", "-u -b 5M -l 1000"] {
            let run = iperf.run(&lab, "term", WEB, options);
            assert!(run.received > 100_000 && run.lost_percent < 1.0, "{options}: {}", run.received);
        }
        // The gateway and the router behind it show up, as in a traceroute.
        for (hops, router) in [(1, "203.0.113.1"), (2, "203.0.113.254")] {
            let output = lab.output("term", &format!("ping -c 1 -W 2 -t {hops} {WEB}"));
            let output = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.contains(&format!("From {router} ")) && output.contains("exceeded"), "{output}");
        }
        // So does the whole path, by packets of UDP.
        let path = lab.run("term", &format!("tracepath -n -m 5 {WEB}"));
        let hops = [" 1:  203.0.113.1 ", " 2:  203.0.113.254 ", " 3:  192.0.4.2 "];
        assert!(hops.iter().all(|hop| path.contains(hop)) && path.contains("reached"), "{path}");
        host_answers(&lab);
        lab.run("core", "ping -c 3 -i 0.02 -W 2 203.0.113.1");
        // The host's own, with an identifier of the NAT's range.
        lab.run("gw", "ping -c 3 -i 0.02 -W 2 -e 20000 203.0.113.254");
        let shown = gateway.command("show nat");
        assert!(shown.contains("203.0.113.1") && shown.contains("10.98."), "{shown}");
        // The host has answered nothing that was the terminal's.
        assert_eq!(lab.counted("gw", "Tcp", "OutRsts"), 0);
        assert_eq!(lab.counted("gw", "Icmp", "OutDestUnreachs"), 0);
        assert!(gateway.sa().inbound.packets > 100, "through the tunnel");
        gateway.assert_no_drops();
        // Whoever gets the terminal's address next gets none of its packets.
        client.swanctl("--terminate --ike all");
        wait_for("the mappings to end", || (!gateway.command("show nat").contains("10.98.")).then_some(()));
    }
}

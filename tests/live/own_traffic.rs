//! The host itself and the far side of a tunnel: what should go through the tunnel passes in clear
//! neither way, and everything else of the host goes on.
//!
//! ```text
//! core 10.98.0.7, 10.98.0.8 ── g0 gw 10.99.0.1 g1 ── srv 10.99.0.2
//! ```

use super::{
    closed::{self, COUNT, OneCore, bind, drain, open_host},
    lab::{Lab, wait_for, wait_longer},
};
use std::{fs, net::UdpSocket, os::unix::fs::PermissionsExt};

/// A payload that leaves in fragments.
const IN_CLEAR: [u8; 3000] = [7; 3000];

/// A flow between the host and another station: the host's address, the other's namespace and address.
struct Flow {
    host: UdpSocket,
    other: UdpSocket,
}

impl Flow {
    fn new(lab: &Lab, host: &str, (space, other): (&str, &str), port: u16) -> Self {
        Self { host: bind(lab, "gw", host, port), other: bind(lab, space, other, port) }
    }

    /// Sends packets both ways. Returns how many arrive at the other station and at the host.
    fn exchange(&self, lab: &Lab) -> [usize; 2] {
        self.send(lab, &[(&self.host, &self.other), (&self.other, &self.host)])
    }

    /// Sends packets from the host. Returns how many arrive.
    fn send_out(&self, lab: &Lab) -> usize {
        self.send(lab, &[(&self.host, &self.other)])[0]
    }

    fn send(&self, lab: &Lab, ways: &[(&UdpSocket, &UdpSocket)]) -> [usize; 2] {
        let _in_order = OneCore::new();
        for socket in [&self.host, &self.other] {
            drain(socket);
        }
        for (from, to) in (0..COUNT).flat_map(|_| ways) {
            // The kernel tells the host's own programs that it does not send this.
            let _ = from.send_to(&IN_CLEAR, to.local_addr().unwrap());
        }
        // Behind the packets on both links, between addresses that no tunnel is for.
        lab.run("srv", "ping -c 2 -i 0.02 -W 5 10.99.0.1");
        lab.run("core", "ping -c 2 -i 0.02 -W 5 -I 10.98.0.7 192.0.2.1");
        [&self.other, &self.host].map(drain)
    }
}

/// Checks that a tunnel's traffic of the host itself passes in clear neither way, while the gateway runs
/// and after it has ended, and that the rest passes: what a policy bypasses, what no tunnel is for, and
/// the host's own segments.
pub(crate) fn only_what_no_tunnel_is_for_passes_in_clear(kind: &str) {
    let lab = closed::lab();
    for address in ["10.98.0.8/32", "2001:db8:98::8/128"] {
        lab.run("core", &format!("ip address add {address} dev lo"));
    }
    lab.run("gw", "ip route add 10.98.0.8 via 192.0.2.254");
    lab.run("gw", "ip route add 2001:db8:98::8 via 2001:db8:a::fe");
    let config = closed::config(kind)
        .replace(r#""10.98.0.7/32", "2001:db8:98::7/128""#, r#""10.98.0.0/24", "2001:db8:98::/64""#)
        + r#"
[[policy]]
action = "bypass"
remote = ["10.98.0.8/32", "2001:db8:98::8/128"]
protocol = "udp"
ports = 7001
"#;
    let ports = std::cell::Cell::new(7100);
    let flow = |host: &str, other: (&str, &str)| {
        ports.set(ports.get() + 1);
        Flow::new(&lab, host, other, ports.get())
    };
    let protected = [
        flow("10.99.0.1", ("core", "10.98.0.7")),
        flow("2001:db8:99::1", ("core", "2001:db8:98::7")),
        flow("10.99.0.1", ("core", "10.98.0.8")),
        flow("2001:db8:99::1", ("core", "2001:db8:98::8")),
    ];
    let open = [
        flow("192.0.2.1", ("core", "10.98.0.7")),
        flow("10.99.0.1", ("core", "192.0.2.254")),
        flow("2001:db8:99::1", ("core", "2001:db8:a::fe")),
        flow("10.99.0.1", ("srv", "10.99.0.2")),
        flow("2001:db8:99::1", ("srv", "2001:db8:99::2")),
        Flow::new(&lab, "10.99.0.1", ("core", "10.98.0.8"), 7001),
        Flow::new(&lab, "2001:db8:99::1", ("core", "2001:db8:98::8"), 7001),
    ];
    lab.run("gw", "ip address add 172.20.0.1/32 dev lo");
    let container = flow("172.20.0.1", ("core", "10.98.0.7"));
    assert_eq!(container.send_out(&lab), COUNT);
    let check = |when: &str, expected: usize| {
        for (index, flow) in protected.iter().enumerate() {
            assert_eq!(flow.exchange(&lab), [expected; 2], "protected flow {index}, {when}");
        }
        for (index, flow) in open.iter().enumerate() {
            assert_eq!(flow.exchange(&lab), [COUNT; 2], "open flow {index}, {when}");
        }
    };
    wait_for("the host to send", || (protected[1].exchange(&lab) == [COUNT; 2]).then_some(()));
    check("without a gateway", COUNT);
    let gateway = lab.gateway("gw", &config);
    check("while the gateway runs", 0);
    gateway.signal("HUP");
    wait_for("a log line about the signal", || gateway.log().contains("was reloaded").then_some(()));
    check("after a reload", 0);
    // A container's traffic that the kernel sends as the host's own.
    let nat = "table ip nat {\nchain post { type nat hook postrouting priority srcnat; \
               ip saddr 172.20.0.1 snat to 10.99.0.1; }\n}\n";
    fs::write(lab.path("nat.nft"), nat).unwrap();
    lab.run("gw", "nft -f nat.nft");
    assert_eq!(container.send_out(&lab), 0, "a container's traffic");
    drop(gateway);
    check("after it was killed", 0);
    assert_eq!(open_host(&lab, "").0, Some(0));
    check("after the host was opened", COUNT);
}

/// Checks that traffic of the host with a peer is kept from passing in clear from when the peer has
/// connected until it has gone, if it is only known where we connect to.
pub(crate) fn peers_traffic_is_closed_while_it_is_connected(kind: &str) {
    let lab = closed::lab();
    let psk = lab.path("psk");
    fs::write(&psk, "lab-psk-0123456789").unwrap();
    fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).unwrap();
    let config = |device: &str, own: &str, more: &str| {
        format!(
            "[[port]]\nname = \"outside\"\nkind = \"{kind}\"\ndevice = \"{device}\"\naddresses = [\"{own}/24\"]\n\
             [[connection]]\nname = \"hosts\"\nauth = \"psk\"\npsk_file = \"psk\"\nmode = \"transport\"\n{more}"
        )
    };
    let flows = [
        Flow::new(&lab, "192.0.2.1", ("core", "192.0.2.254"), 7000),
        Flow::new(&lab, "192.0.2.1", ("core", "10.98.0.7"), 7001),
    ];
    let pass = || flows.each_ref().map(|flow| flow.exchange(&lab) == [COUNT; 2]);
    let dials = "remote = \"192.0.2.254\"\nlocal_id = \"gw.test\"\nremote_id = \"core.test\"\n";
    let gateway = lab.gateway("gw", &config("g0", "192.0.2.1", dials));
    wait_for("the host to send", || (pass() == [true; 2]).then_some(()));
    let more = "local_id = \"core.test\"\nremote_id = \"gw.test\"\n";
    let connect = || {
        let peer = lab.gateway("core", &config("k1", "192.0.2.254", more));
        let have_tunnels = || [&gateway, &peer].iter().all(|side| side.tunnels().len() == 1);
        wait_longer("both sides' tunnel", || have_tunnels().then_some(()));
        peer
    };
    let open_peers_host = || lab.run("core", &format!("{} open-host", super::lab::program()));
    let mut peer = connect();
    assert_eq!(flows[0].exchange(&lab), [0; 2], "while it is connected");
    assert_eq!(flows[1].exchange(&lab), [COUNT; 2], "with another address");
    assert!(peer.stop().success());
    open_peers_host();
    wait_for("the tunnel to end", || gateway.tunnels().is_empty().then_some(()));
    assert_eq!(pass(), [true; 2], "after it has gone");
    // Without the peer's own barrier. The gateway does not know yet that the peer has gone.
    drop(connect());
    open_peers_host();
    assert_eq!(flows[0].exchange(&lab), [0; 2], "at this side");
}

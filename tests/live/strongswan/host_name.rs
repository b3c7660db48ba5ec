//! Our terminal finds strongSwan by a host name, which a DNS server knows.

use super::{
    SERVER,
    as_gateway::{PSK, SERVE, terminal_config},
    charon::Charon,
    mobile_lab,
};
use crate::{
    lab::{Gateway, Lab, Program, wait_for},
    traffic::wait_for_ping,
};
use std::{
    fs::{self, File},
    path::PathBuf,
};

/// dnsmasq at the terminal's router, which ends on drop.
struct NameServer {
    log: PathBuf,
    _daemon: Program,
}

impl NameServer {
    /// Starts a server that knows `gw.test` at these addresses; without any, there is no such name.
    fn start(lab: &Lab, addresses: &str) -> Self {
        let log = lab.path("dns.log");
        File::create(&log).unwrap();
        let record = if addresses.is_empty() { "" } else { " --host-record=gw.test," };
        let command = format!(
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
             --listen-address=10.1.0.1 --bind-interfaces --log-queries --log-facility={} --local=/test/{record}{addresses}",
            log.display(),
        );
        let this = Self { _daemon: lab.spawn("nat", &command), log };
        wait_for("dnsmasq", || this.logged(": started").then_some(()));
        this
    }

    fn logged(&self, text: &str) -> bool {
        self.times_logged(text) > 0
    }

    fn times_logged(&self, text: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().matches(text).count()
    }

    /// Waits until the name was looked up so many times.
    fn wait_for_look_ups(&self, count: usize) {
        wait_for("look-ups", || (self.times_logged("query[A] gw.test ") >= count).then_some(()));
    }
}

/// Waits until the terminal is connected to this address of the name.
fn wait_for_link(lab: &Lab, terminal: &Gateway, address: &str) {
    let peer = wait_for("the connection", || terminal.peers().pop());
    assert_eq!(
        (peer.remote.rsplit_once(':').unwrap().0, peer.remote_name.as_deref()),
        (address, Some("gw.test"))
    );
    wait_for_ping(lab, "term", SERVER);
}

#[test]
fn each_try_goes_where_the_hosts_resolver_says() {
    let lab = mobile_lab();
    lab.forward("gw");
    lab.run("gw", "ip address add 203.0.113.2/24 dev g0");
    let both = SERVE.replace("local_addrs = 203.0.113.1\n", "local_addrs = 203.0.113.1, 203.0.113.2\n");
    let gateway = Charon::start(&lab, "gw", &both, "");
    lab.etc("term", "resolv.conf", "nameserver 10.1.0.1\n");
    lab.etc("term", "nsswitch.conf", "hosts: dns\n");

    let names = NameServer::start(&lab, "");
    let terminal = lab.gateway("term", &terminal_config("gw.test", PSK));
    names.wait_for_look_ups(2);
    drop(names);
    let names = NameServer::start(&lab, "203.0.113.1");
    wait_for_link(&lab, &terminal, "203.0.113.1");
    drop(names);

    let names = NameServer::start(&lab, "");
    gateway.swanctl("--terminate --ike psk");
    names.wait_for_look_ups(1);
    assert!(terminal.peers().is_empty());
    drop(names);
    // There is no way to the second address.
    let _names = NameServer::start(&lab, "203.0.113.2,2001:db8::1");
    wait_for_link(&lab, &terminal, "203.0.113.2");
    let log = terminal.log();
    assert_eq!(log.matches("the peer's host name cannot be used").count(), 1, "{log}");
}

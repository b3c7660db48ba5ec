//! NAT of hosts that leave in clear, to a router that knows no inner address, on every kind of port.

use super::{
    lab::wait_for,
    traffic::{IperfServer, ping, ping_with, wait_for_ping},
    world::{BY_CORE, SERVER, gateway_config, terminal_lab},
};

const ROUTER: &str = "192.0.2.254";
/// The gateway's address outside.
const OUTER: &str = "192.0.2.1";
const CLEAR: &str = "[[policy]]\naction = \"bypass\"\nlocal = \"10.99.0.0/24\"\n\
                     [[nat]]\ninside = \"10.99.0.0/24\"\nport = \"outside\"\n";

/// Checks that pings, also in fragments, and TCP both ways pass between a host inside and the router,
/// which sees the gateway's address.
pub(crate) fn hosts_reach_a_router_that_does_not_know_them(kind: &str) {
    let lab = terminal_lab();
    let gateway = lab.gateway("gw", &gateway_config(kind, &(BY_CORE.to_owned() + CLEAR)));
    lab.nft(
        "core",
        &format!(
            "table ip watch {{ chain c {{ type filter hook prerouting priority 0; \
             ip saddr {SERVER} counter; ip saddr {OUTER} tcp dport 5201 counter;\n}}\n}}"
        ),
    );
    wait_for_ping(&lab, "srv", ROUTER);
    ping(&lab, "srv", ROUTER, 20);
    ping_with(&lab, "srv", ROUTER, 5, "-s 1600 -M dont");
    let mut server = IperfServer::start(&lab, "core");
    for options in ["", "-R"] {
        assert!(server.run(&lab, "srv", ROUTER, options).received > 100_000, "{options}");
    }
    let counted = lab.run("core", "nft list table ip watch");
    let packets: Vec<_> = counted.split("counter packets ").skip(1).collect();
    assert!(packets[0].starts_with("0 ") && !packets[1].starts_with("0 "), "{counted}");
    wait_for("the mappings to be shown", || gateway.command("show nat").contains(SERVER).then_some(()));
    gateway.assert_no_drops();
}

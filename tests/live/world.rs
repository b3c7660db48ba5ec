//! The tests' networks, and the configurations of their gateways.
//!
//! ```text
//!  term ── core ── gw ── srv            a terminal, with a gateway and a TAP of its own
//!  ha ── gwa ── core ── gwb ── hb       two gateways
//! ```

use super::{
    lab::{Gateway, Lab},
    traffic::wait_for_ping,
};

/// The terminal's address inside the tunnel.
pub(crate) const TERMINAL: &str = "10.98.0.7";
/// The server's address.
pub(crate) const SERVER: &str = "10.99.0.2";

/// Makes `term`, `core` (a router), `gw` and `srv` with addresses and routes, without running
/// programs.
pub(crate) fn terminal_lab() -> Lab {
    let lab = Lab::new(&["term", "core", "gw", "srv"]);
    lab.link([("term", "t0", &["198.51.100.7/24"]), ("core", "k0", &["198.51.100.254/24"])]);
    lab.link([("core", "k1", &["192.0.2.254/24"]), ("gw", "g0", &["192.0.2.1/24"])]);
    lab.link([("gw", "g1", &["10.99.0.1/24"]), ("srv", "s0", &["10.99.0.2/24"])]);
    lab.forward("core");
    lab.run("srv", "ip route add default via 10.99.0.1");
    lab
}

/// Configures the gateway of [`terminal_lab`], with `more` lines after its ports.
pub(crate) fn gateway_config(kind: &str, more: &str) -> String {
    format!(
        r#"
[[port]]
name = "outside"
kind = "{kind}"
device = "g0"
addresses = ["192.0.2.1/24"]
[[port]]
name = "inside"
kind = "{kind}"
device = "g1"
addresses = ["10.99.0.1/24"]
{more}
[[tunnel]]
name = "alice"
local = "192.0.2.1"
remote = "any"
inner_local = "10.99.0.0/24"
inner_remote = "10.98.0.7"
# On a small machine, a worker that shares the SA may be delayed for long.
window = 65536
inbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }}
outbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
"#
    )
}

/// The gateway's route to the terminal.
pub(crate) const BY_CORE: &str = "[[route]]\nto = \"0.0.0.0/0\"\nvia = \"192.0.2.254\"\n";

/// Starts the gateway, and a terminal whose tunnel leads to `remote`; waits until a ping gets
/// through.
pub(crate) fn start(lab: &Lab, kind: &str, remote: &str) -> (Gateway, Gateway) {
    let gateway = lab.gateway("gw", &gateway_config(kind, BY_CORE));
    (gateway, start_terminal(lab, kind, remote))
}

/// Starts only the terminal, and waits until a ping gets through.
pub(crate) fn start_terminal(lab: &Lab, kind: &str, remote: &str) -> Gateway {
    let terminal = lab.gateway(
        "term",
        &format!(
            r#"
[[port]]
name = "network"
kind = "{kind}"
device = "t0"
addresses = ["198.51.100.7/24"]
[[port]]
name = "programs"
kind = "tap"
device = "wf0"
addresses = ["10.98.0.1/24"]
[[route]]
to = "0.0.0.0/0"
via = "198.51.100.254"
[[tunnel]]
name = "home"
local = "198.51.100.7"
remote = "{remote}"
inner_local = "10.98.0.7"
inner_remote = "10.99.0.0/24"
pin_source = true
# A path that takes less would be known, and routers would have nothing to cut.
path_mtu_probing = "off"
# On a small machine, a gateway's worker that shares the SA may be delayed for long.
window = 65536
inbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "down" }}
outbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "up" }}
"#
        ),
    );
    use_tap(lab);
    terminal
}

/// Puts the terminal's address on its TAP device, and waits until a ping gets through.
pub(crate) fn use_tap(lab: &Lab) {
    lab.run("term", "ip address add 10.98.0.7/24 dev wf0");
    lab.run("term", "ip route add 10.99.0.0/24 via 10.98.0.1");
    wait_for_ping(lab, "term", SERVER);
}

/// The address family between two gateways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outside {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Starts two gateways with a host behind each, which has both families.
pub(crate) fn two_gateways(kind: &str, outside: Outside) -> (Lab, Gateway, Gateway) {
    two_gateways_with(kind, outside, [""; 2])
}

/// Does the same, with more lines in the sections `[gateway]` and `[[tunnel]]`.
pub(crate) fn two_gateways_with(kind: &str, outside: Outside, more: [&str; 2]) -> (Lab, Gateway, Gateway) {
    let lab = Lab::new(&["ha", "gwa", "core", "gwb", "hb"]);
    let [a, b] = start_two_gateways(&lab, kind, outside, more);
    (lab, a, b)
}

/// Does the same as [`two_gateways_with`] in a lab that has the namespaces.
pub(crate) fn start_two_gateways(lab: &Lab, kind: &str, outside: Outside, more: [&str; 2]) -> [Gateway; 2] {
    let [a, b] = lay_out_pair(lab, kind, outside, more);
    let gateways = [lab.gateway("gwa", &a), lab.gateway("gwb", &b)];
    wait_for_pair(lab);
    gateways
}

/// Connects the namespaces of two gateways and their hosts, and returns the gateways' configurations.
pub(crate) fn lay_out_pair(lab: &Lab, kind: &str, outside: Outside, more: [&str; 2]) -> [String; 2] {
    two_hosts(lab, ["gwa", "gwb"]);
    lab.link([
        ("gwa", "a0", &["192.0.2.1/24", "2001:db8:a::1/64"]),
        ("core", "ka", &["192.0.2.254/24", "2001:db8:a::fe/64"]),
    ]);
    lab.link([
        ("core", "kb", &["198.51.100.254/24", "2001:db8:b::fe/64"]),
        ("gwb", "b0", &["198.51.100.1/24", "2001:db8:b::1/64"]),
    ]);
    lab.forward("core");
    let (ends, routers, all) = match outside {
        Outside::V4 => (["192.0.2.1/24", "198.51.100.1/24"], ["192.0.2.254", "198.51.100.254"], "0.0.0.0/0"),
        Outside::V6 => {
            (["2001:db8:a::1/64", "2001:db8:b::1/64"], ["2001:db8:a::fe", "2001:db8:b::fe"], "::/0")
        }
    };
    let [a, b] = pair_configs(kind, ["a0", "b0"], ends, more);
    [(a, routers[0]), (b, routers[1])]
        .map(|(config, via)| format!("{config}[[route]]\nto = \"{all}\"\nvia = \"{via}\"\n"))
}

/// Makes a host behind each of two gateways, which run in these namespaces.
pub(crate) fn two_hosts(lab: &Lab, [a, b]: [&str; 2]) {
    for (host, gateway, device, n) in [("ha", a, "a1", 1), ("hb", b, "b1", 2)] {
        let [of_host, of_gateway] =
            [2, 1].map(|end| [format!("10.{n}.0.{end}/24"), format!("2001:db8:{n}::{end}/64")]);
        lab.link([
            (host, "h0", &[&of_host[0], &of_host[1]]),
            (gateway, device, &[&of_gateway[0], &of_gateway[1]]),
        ]);
        lab.run(host, &format!("ip route add default via 10.{n}.0.1"));
        lab.run(host, &format!("ip route add default via 2001:db8:{n}::1"));
    }
}

/// Waits until the hosts of [`two_hosts`] reach each other.
pub(crate) fn wait_for_pair(lab: &Lab) {
    for to in ["10.2.0.2", "2001:db8:2::2"] {
        wait_for_ping(lab, "ha", to);
    }
}

/// Configures two gateways, without routes, whose outer devices and addresses are `devices` and `ends`,
/// with more lines in the sections `[gateway]` and `[[tunnel]]`.
pub(crate) fn pair_configs(
    kind: &str,
    devices: [&str; 2],
    ends: [&str; 2],
    [of_gateway, of_tunnel]: [&str; 2],
) -> [String; 2] {
    let config = |[ours, theirs]: [usize; 2], inside: &str, keys: [&str; 2]| {
        let (device, own) = (devices[ours - 1], ends[ours - 1]);
        let [local, remote] = [ours, theirs].map(|n| ends[n - 1].split_once('/').expect("a subnet").0);
        let ([spi_in, spi_out], [key_in, key_out]) = ([ours, theirs].map(|n| n << 8), keys);
        format!(
            r#"{of_gateway}
[[port]]
name = "outside"
kind = "{kind}"
device = "{device}"
addresses = ["{own}"]
[[port]]
name = "inside"
kind = "{kind}"
device = "{inside}"
addresses = ["10.{ours}.0.1/24", "2001:db8:{ours}::1/64"]
[[tunnel]]
name = "other"
local = "{local}"
remote = "{remote}"
inner_local = ["10.{ours}.0.0/24", "2001:db8:{ours}::/64"]
inner_remote = ["10.{theirs}.0.0/24", "2001:db8:{theirs}::/64"]
{of_tunnel}
inbound = {{ spi = {spi_in}, cipher = "aes128gcm16", key_file = "{key_in}" }}
outbound = {{ spi = {spi_out}, cipher = "aes128gcm16", key_file = "{key_out}" }}
"#
        )
    };
    [config([1, 2], "a1", ["up", "down"]), config([2, 1], "b1", ["down", "up"])]
}

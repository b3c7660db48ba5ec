//! Two gateways of which each has a TAP device in place of a NIC: the first one inside, the second one
//! outside. Their hosts route to it.
//!
//! ```text
//!  ha ── a1 host wf1 ══ gwa a0 ── core ── b0 host wf0 ══ gwb b1 ── hb
//! ```

use super::{
    lab::{Gateway, Lab},
    world::{Outside, lay_out_pair, wait_for_pair},
};

/// The second gateway's outer addresses, which its host routes to the TAP device, and those of the host
/// itself.
const OUTER: [[&str; 2]; 2] = [["198.51.100.1", "198.51.100.2"], ["2001:db8:b::1", "2001:db8:b::2"]];

/// Starts both gateways with more lines in the sections `[gateway]` and `[[tunnel]]`.
pub(crate) fn two_gateways(outside: Outside, more: [&str; 2]) -> (Lab, Gateway, Gateway) {
    let lab = Lab::new(&["ha", "gwa", "core", "gwb", "hb"]);
    let [a, b] = lay_out_pair(&lab, "af_packet", outside, more);
    for ([gateway, host], length) in OUTER.iter().zip([24, 64]) {
        lab.run("gwb", &format!("ip address del {gateway}/{length} dev b0"));
        let nodad = if length == 64 { " nodad" } else { "" };
        lab.run("gwb", &format!("ip address add {host}/{length} dev b0{nodad}"));
    }
    for space in ["gwa", "gwb"] {
        lab.forward(space);
    }
    let a = lab.gateway("gwa", &with_tap_inside(a));
    for (address, to, via) in [
        ("10.3.0.2/24", "10.2.0.0/24", "10.3.0.1"),
        ("2001:db8:3::2/64 nodad", "2001:db8:2::/64", "2001:db8:3::1"),
    ] {
        lab.run("gwa", &format!("ip address add dev wf1 {address}"));
        lab.run("gwa", &format!("ip route add {to} via {via}"));
    }
    let b = lab.gateway("gwb", &b.replace("\"af_packet\"\ndevice = \"b0\"", "\"tap\"\ndevice = \"wf0\""));
    for ([gateway, _], router) in OUTER.iter().zip(["198.51.100.254", "2001:db8:b::fe"]) {
        lab.run("gwb", &format!("ip route add {gateway} dev wf0"));
        lab.run("gwb", &format!("ip route add default via {router}"));
    }
    route_to_second(&lab, "core");
    wait_for_pair(&lab);
    (lab, a, b)
}

/// Gives a gateway a TAP device as its inside, in another network than its hosts.
fn with_tap_inside(config: String) -> String {
    let inside = "kind = \"af_packet\"\ndevice = \"a1\"\naddresses = [\"10.1.0.1/24\", \"2001:db8:1::1/64\"]";
    let tap = "kind = \"tap\"\ndevice = \"wf1\"\naddresses = [\"10.3.0.1/24\", \"2001:db8:3::1/64\"]";
    assert!(config.contains(inside), "{config}");
    let hosts = [("10.1.0.0/24", "10.3.0.2"), ("2001:db8:1::/64", "2001:db8:3::2")];
    let routes = hosts.map(|(to, via)| format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n"));
    config.replace(inside, tap) + &routes.concat()
}

/// Has the router next to the second gateway reach it by its host.
pub(crate) fn route_to_second(lab: &Lab, router: &str) {
    for [gateway, host] in OUTER {
        lab.run(router, &format!("ip route add {gateway} via {host}"));
    }
}

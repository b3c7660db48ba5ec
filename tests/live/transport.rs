//! Two hosts whose own traffic goes through a pair of SAs in transport mode.
//!
//! ```text
//!  one 192.0.2.1 ── two 192.0.2.2       each has a TAP device that leads to the other
//! ```

use super::{
    lab::{Lab, wait_for},
    traffic::{lost, wait_for_ping},
};

/// Addresses of the hosts, by family.
const ENDS: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8:a::1", "2001:db8:a::2"]];

/// Checks that packets pass that the hosts' kernels cut, for the MTU of their TAP devices or because they
/// have heard of a smaller one.
pub(crate) fn fragments_of_hosts_pass(kind: &str) {
    for [here, there] in ENDS {
        let length = if here.contains(':') { 64 } else { 24 };
        let lab = Lab::new(&["one", "two"]);
        let [first, second] = [here, there].map(|address| format!("{address}/{length}"));
        lab.link([("one", "n0", &[&first[..]]), ("two", "n0", &[&second[..]])]);
        let one = ["one", here, there, "0x1001", "up", "0x2001", "down"];
        let two = ["two", there, here, "0x2001", "down", "0x1001", "up"];
        let gateways = [one, two].map(|[space, own, peer, spi_in, key_in, spi_out, key_out]| {
            let gateway = lab.gateway(
                space,
                &format!(
                    r#"
[[port]]
name = "outside"
kind = "{kind}"
device = "n0"
addresses = ["{own}/{length}"]
[[port]]
name = "programs"
kind = "tap"
device = "wf0"
[[tunnel]]
name = "peer"
mode = "transport"
local = "{own}"
remote = "{peer}"
roam = "ignore"
inbound = {{ spi = {spi_in}, cipher = "aes128gcm16", key_file = "{key_in}" }}
outbound = {{ spi = {spi_out}, cipher = "aes128gcm16", key_file = "{key_out}" }}
"#
                ),
            );
            lab.run(space, &format!("ip route add {peer} dev wf0 src {own}"));
            gateway
        });
        wait_for_ping(&lab, "one", there);
        for size in [1600, 3000, 9000, 30_000] {
            let output = lab.run("one", &format!("ping -c 5 -i 0.02 -W 5 -s {size} {there}"));
            assert_eq!(lost(&output), 0, "{output}");
        }
        // This one fits the TAP device. The host has to hear first of what fits outside.
        wait_for("a packet that the kernel cuts for the path", || {
            lab.output("one", &format!("ping -c 1 -W 1 -s 1450 {there}")).status.success().then_some(())
        });
        gateways.iter().for_each(|gateway| gateway.assert_no_drops());
    }
}

//! ESP in IP fragments, which one gateway makes and the other one joins, on every kind of port.
//!
//! ```text
//!  ha ── a1 gwa a0 ══ b0 gwb b1 ── hb
//!  ha ── a1 gwa ══ wf0 gwb b1 ── hb      on a TAP device, both in one namespace
//! ```

use super::{
    lab::{Gateway, Lab, wait_for},
    traffic::ping_with,
    world::two_hosts,
};

/// The outer addresses of the gateways, by family.
const OUTSIDE: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["2001:db8:a::1", "2001:db8:a::2"]];
/// Pings in each direction of each tunnel.
const COUNT: u32 = 10;
/// Bytes of a ping that fits Ethernet whole, but not the outer path.
const LONG: usize = 1400;

/// Lists the tunnels: the family outside, and how ESP is carried. The hosts have an address for each.
fn tunnels() -> impl Iterator<Item = (usize, usize, &'static str)> {
    let all = [0, 1].into_iter().flat_map(|family| ["none", "udp"].map(|encap| (family, encap)));
    (2..).zip(all).map(|(host, (family, encap))| (host, family, encap))
}

/// Configures gateway `own`, 1 or 2, with its devices outside and inside given as kind and name.
fn config(own: usize, devices: [[&str; 2]; 2]) -> String {
    let peer = 3 - own;
    let [outside, inside] = devices.map(|[kind, name]| format!("kind = \"{kind}\"\ndevice = \"{name}\""));
    let [v4, v6] = OUTSIDE.map(|ends| ends[own - 1]);
    let mut config = format!(
        r#"
[[port]]
name = "outside"
{outside}
addresses = ["{v4}/24", "{v6}/64"]
[[port]]
name = "inside"
{inside}
addresses = ["10.{own}.0.1/24"]
[[route]]
to = "10.{peer}.0.0/24"
via = "192.0.2.{peer}"
"#
    );
    let [key_in, key_out] = if own == 1 { ["up", "down"] } else { ["down", "up"] };
    for (host, family, encap) in tunnels() {
        let [local, remote] = [own, peer].map(|end| OUTSIDE[family][end - 1]);
        let [spi_in, spi_out] = [own, peer].map(|end| end << 8 | host);
        config += &format!(
            r#"
[[tunnel]]
name = "tunnel-{host}"
local = "{local}"
remote = "{remote}"
encap = "{encap}"
inner_local = "10.{own}.0.{host}"
inner_remote = "10.{peer}.0.{host}"
mtu = 1280
outer_fragments = true
inbound = {{ spi = {spi_in}, cipher = "aes128gcm16", key_file = "{key_in}" }}
outbound = {{ spi = {spi_out}, cipher = "aes128gcm16", key_file = "{key_out}" }}
"#
        );
    }
    config
}

/// Starts two gateways, the first one on ports of this kind, and gives their hosts all addresses.
fn start(kind: &str) -> (Lab, [Gateway; 2], [&'static str; 2]) {
    let spaces = if kind == "tap" { ["gw"; 2] } else { ["gwa", "gwb"] };
    let lab = Lab::new(if kind == "tap" { &["ha", "gw", "hb"] } else { &["ha", "gwa", "gwb", "hb"] });
    two_hosts(&lab, spaces);
    for (host, side) in [("ha", 1), ("hb", 2)] {
        for (address, ..) in tunnels().skip(1) {
            lab.run(host, &format!("ip address add 10.{side}.0.{address}/24 dev h0"));
        }
    }
    let gateways = if kind == "tap" {
        // The kernel's end of the device is the second gateway's port.
        let a = config(1, [["tap", "wf0"], ["af_packet", "a1"]]);
        let b = config(2, [["af_packet", "wf0"], ["af_packet", "b1"]]);
        [("a", a), ("b", b)].map(|(name, config)| lab.gateway_from_file("gw", &lab.config(name, &config)))
    } else {
        lab.link([
            ("gwa", "a0", &["192.0.2.1/24", "2001:db8:a::1/64"]),
            ("gwb", "b0", &["192.0.2.2/24", "2001:db8:a::2/64"]),
        ]);
        let a = lab.gateway("gwa", &config(1, [[kind, "a0"], [kind, "a1"]]));
        [a, lab.gateway("gwb", &config(2, [["af_packet", "b0"], ["af_packet", "b1"]]))]
    };
    (lab, gateways, spaces)
}

/// Returns how many packets a gateway has sealed, and how many frames have left by its outside.
fn sealed_and_sent(gateway: &Gateway) -> [u64; 2] {
    let sealed = gateway.tunnels().iter().map(|sa| sa.outbound.packets).sum();
    [sealed, gateway.ports()[0].tx_packets]
}

/// Checks that packets of ESP are cut and joined: over IPv4 and IPv6, plain and in UDP. Hosts notice
/// nothing, and the kernel answers nothing to the fragments.
pub(crate) fn pass_both_ways(kind: &str) {
    let (lab, gateways, spaces) = start(kind);
    for (host, family, encap) in tunnels() {
        for (from, [here, there]) in [("ha", [1, 2]), ("hb", [2, 1])] {
            let [own, to] = [here, there].map(|side| format!("10.{side}.0.{host}"));
            wait_for("the first ping", || {
                lab.output(from, &format!("ping -c 1 -W 1 -I {own} {to}")).status.success().then_some(())
            });
            ping_with(&lab, from, &to, COUNT, &format!("-I {own} -M do -s {LONG}"));
        }
        let opened = |gateway: &Gateway| {
            let tunnels = gateway.tunnels();
            let sa = tunnels.iter().find(|sa| sa.tunnel == format!("tunnel-{host}")).expect("the tunnel");
            sa.inbound.packets
        };
        // Requests of one side and answers to the other's.
        assert!(gateways.iter().all(|gateway| opened(gateway) > 2 * u64::from(COUNT)), "{family} {encap}");
    }
    // Each request and each answer went in two fragments.
    let cut = 4 * 2 * u64::from(COUNT);
    for (gateway, space) in gateways.iter().zip(spaces) {
        wait_for("the fragments to be counted", || {
            let [sealed, sent] = sealed_and_sent(gateway);
            (sent >= sealed + cut).then_some(())
        });
        gateway.assert_no_drops();
        assert_eq!(lab.counted(space, "Icmp", "OutDestUnreachs"), 0);
    }
}

#[test]
fn pass_both_ways_on_a_tap_device() {
    pass_both_ways("tap");
}

//! The program on DPDK ports with virtual devices, in network namespaces with traffic from scapy,
//! ping, iperf3 and the kernel's own stack. Needs root, DPDK's drivers, the tools of the other live
//! tests, and python3-scapy.

mod checksums;
mod exception;
mod files;
mod huge_pages;
mod links;
mod set_ups;
mod vlans;

use crate::{devices, moves, nat, outer_fragments, path_mtu, paths};

/// Uses net_tap, which leaves fragments alone: net_af_packet has the kernel reassemble them over IPv4, and
/// truncates packets longer than its frames.
#[test]
fn too_big() {
    paths::too_big("net_tap");
}

/// Uses net_tap for the same reason.
#[test]
fn fragments() {
    paths::fragments("net_tap");
}

/// Uses net_tap for the same reason.
#[test]
fn links_of_every_mtu() {
    path_mtu::links_of_every_mtu("net_tap");
}

/// Uses net_af_packet, which is on the very device whose MTU changes.
#[test]
fn mtu_is_followed() {
    devices::mtu_is_followed("net_af_packet");
}

/// Uses net_af_packet, which always says that it is up.
#[test]
fn packets_to_a_device_that_is_down_are_counted_as_such() {
    devices::packets_to_a_device_that_is_down_are_counted_as_such("net_af_packet");
}

/// Makes a test of each function for both drivers that work on a kernel device.
macro_rules! for_each_driver {
    ($($module:ident::$test:ident,)*) => {
        mod net_af_packet {
            $(#[test] fn $test() { super::$module::$test("net_af_packet") })*
        }
        mod net_tap {
            $(#[test] fn $test() { super::$module::$test("net_tap") })*
        }
    };
}

for_each_driver! {
    paths::terminal_to_server,
    paths::two_workers,
    paths::gateway_to_gateway,
    paths::neighbours,
    outer_fragments::pass_both_ways,
    nat::hosts_reach_a_router_that_does_not_know_them,
    moves::ping_goes_on,
    moves::ping_goes_on_over_ipv6,
    exception::kernel_shares_a_port,
    exception::flood_to_the_kernel_is_limited,
}

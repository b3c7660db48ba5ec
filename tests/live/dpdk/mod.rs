//! The program on DPDK's ports: its own virtual devices, in network namespaces with traffic from
//! scapy, ping, iperf3 and the kernel's own stack. Needs root, DPDK's drivers, what the tests of
//! `live` need, and python3-scapy.

mod checksums;
mod exception;
mod files;
mod huge_pages;
mod links;
mod set_ups;

use crate::{moves, paths};

/// On a driver that leaves fragments alone: net_af_packet has the kernel join them, and cuts what
/// exceeds its frames.
#[test]
fn too_big() {
    paths::too_big("net_tap");
}

/// Each of these on both drivers that have a kernel device at their other end.
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
    moves::ping_goes_on,
    moves::ping_goes_on_over_ipv6,
    exception::the_kernel_has_its_part_of_a_port,
    exception::a_flood_to_the_kernel_is_limited,
}

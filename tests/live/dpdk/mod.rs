//! The program on DPDK's ports: its own virtual devices, in network namespaces with traffic from scapy, ping, iperf3 and the
//! kernel's own stack. Needs root, DPDK's drivers, what the tests of `live` need, and python3-scapy.

#[path = "dpdk/checksums.rs"]
mod checksums;
#[path = "dpdk/exception.rs"]
mod exception;
#[path = "dpdk/files.rs"]
mod files;
#[path = "dpdk/huge_pages.rs"]
mod huge_pages;
#[path = "live/lab.rs"]
#[allow(dead_code, reason = "the other tests of live have use for the rest")]
mod lab;
#[path = "dpdk/links.rs"]
mod links;
#[path = "live/moves.rs"]
#[allow(dead_code, reason = "as above")]
mod moves;
#[path = "live/nics.rs"]
mod nics;
#[path = "live/paths.rs"]
#[allow(dead_code, reason = "as above")]
mod paths;
#[path = "dpdk/set_ups.rs"]
mod set_ups;
#[path = "live/traffic.rs"]
#[allow(dead_code, reason = "as above")]
mod traffic;
#[path = "live/world.rs"]
mod world;

/// On a driver that leaves fragments alone: net_af_packet has the kernel join them, and cuts what exceeds its frames.
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

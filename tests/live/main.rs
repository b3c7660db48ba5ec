//! The program at work in network namespaces with real veth devices, its traffic from ping, iperf3
//! and the kernel's own stack. Needs root, and `ip`, `ethtool`, `nft`, `ping`, `iperf3`, `tcpdump`,
//! `setpriv`.

mod closed;
#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "bench")]
mod exception;
mod host;
mod lab;
mod moves;
mod nics;
mod paths;
#[cfg(feature = "bench")]
mod rate;
mod strongswan;
mod traffic;
mod walkthrough;
mod world;

/// Each of these for both kinds of port.
macro_rules! for_each_kind {
    ($($(#[$when:meta])? $module:ident::$test:ident,)*) => {
        mod af_xdp {
            $($(#[$when])? #[test] fn $test() { super::$module::$test("af_xdp") })*
        }
        mod af_packet {
            $($(#[$when])? #[test] fn $test() { super::$module::$test("af_packet") })*
        }
    };
}

for_each_kind! {
    paths::terminal_to_server,
    paths::two_workers,
    paths::gateway_to_gateway,
    paths::too_big,
    paths::neighbours,
    paths::kernel_routes,
    moves::ping_goes_on,
    moves::ping_goes_on_over_ipv6,
    moves::tcp_goes_on,
    closed::stays_closed,
    closed::every_form,
    closed::others_are_left_alone,
    host::host_stays_reachable,
    host::wrong_set_ups,
    host::one_gateway_and_its_end,
    #[cfg(feature = "bench")]
    rate::rate_of_a_cable,
    #[cfg(feature = "bench")]
    rate::rate_through_a_router,
}

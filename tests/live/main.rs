//! Tests of the program in network namespaces with real veth devices, with traffic from ping,
//! iperf3 and the kernel's own stack. They need root, and `ip`, `ethtool`, `nft`, `ping`, `tracepath`,
//! `iperf3`, `tcpdump`, `setpriv`, `dnsmasq`, `curl`, `python3-scapy`.

mod closed;
mod devices;
#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "bench")]
mod exception;
mod follow_times;
mod home_agent;
mod host;
mod lab;
mod moves;
mod nat;
mod nics;
mod offloads;
mod outer_fragments;
mod overtaking;
mod own_traffic;
mod path_mtu;
mod paths;
mod point_to_point;
#[cfg(feature = "bench")]
mod rate;
mod strongswan;
mod taps;
mod traffic;
mod transport;
mod under_traffic;
mod vlans;
mod walkthrough;
mod world;

/// Makes a test of each function for both kinds of port.
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
    paths::fragments,
    outer_fragments::pass_both_ways,
    nat::hosts_reach_a_router_that_does_not_know_them,
    paths::neighbours,
    paths::kernel_routes,
    path_mtu::links_of_every_mtu,
    path_mtu::stream_goes_on_while_its_path_changes,
    path_mtu::routers_that_filter_icmp,
    path_mtu::routers_that_filter_icmp_are_probed,
    moves::ping_goes_on,
    moves::ping_goes_on_over_ipv6,
    moves::tcp_goes_on,
    devices::mtu_is_followed,
    devices::device_that_is_made_again_is_opened_again,
    devices::device_with_another_name_stays_the_ports,
    devices::mac_address_is_followed_and_announced,
    devices::packets_to_a_device_that_is_down_are_counted_as_such,
    follow_times::name_mtu_and_mac_address,
    follow_times::carrier_removal_and_return,
    under_traffic::stream_goes_on_while_its_device_changes,
    closed::host_stays_closed_until_opened,
    closed::no_form_of_a_packet_passes_in_clear,
    closed::unprotected_traffic_is_still_forwarded,
    own_traffic::only_what_no_tunnel_is_for_passes_in_clear,
    own_traffic::peers_traffic_is_closed_while_it_is_connected,
    overtaking::fragments_reach_whom_they_are_for_in_any_order,
    transport::fragments_of_hosts_pass,
    host::host_stays_reachable,
    host::wrong_set_ups_end_with_one_line,
    host::one_gateway_per_device_and_clean_end,
    vlans::tunnel_in_a_vlan,
    vlans::all_ports_follow_their_device,
    vlans::scapy_sees_answers_only_in_the_vlan,
    #[cfg(feature = "bench")]
    rate::rate_of_a_cable,
    #[cfg(feature = "bench")]
    rate::rate_through_a_router,
    #[cfg(feature = "bench")]
    rate::every_test_of_a_cable,
    #[cfg(feature = "bench")]
    rate::capture_through_a_cable,
    #[cfg(feature = "bench")]
    rate::tunnels_of_a_gateway,
    #[cfg(feature = "bench")]
    rate::signal_ends_a_run_with_a_report,
}

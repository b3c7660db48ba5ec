//! The kernel's side of a port whose NIC the kernel cannot use: a real TAP device with the kernel's
//! own stack. The NIC is a wire in memory.

use super::lab::{Lab, PATIENCE};
use std::{
    net::{IpAddr, Ipv6Addr},
    process::Command,
    time::{Duration, Instant},
};
use wayfarer::sim::{fixtures::*, frames::*, world::World};
use wayfarer::{
    config::model::{Policy, PolicyAction},
    launch::{Exception, OpenPort},
    slow_path::neighbours::Stations,
};
use wayfarer_dataplane::{
    drop::DropReason::NotForUs,
    port::{
        classifier::Rules,
        device::Device,
        open::{Reopener, TapSettings},
    },
    wire::ip::{self, protocol},
};

const TAP: &str = "kernel0";

/// Makes a gateway with a TAP device as the kernel's side of its outside port.
fn gateway(kernel_routes: bool) -> World {
    let mut config = config(vec![]);
    config.gateway.kernel_routes = kernel_routes;
    config.routes.clear();
    let everything = selector("0.0.0.0/0", "0.0.0.0/0");
    config.policies = vec![Policy { action: PolicyAction::Bypass, selector: everything }];
    let (mut ports, wires) = open_ports(1, 512);
    let reopener = Reopener {
        device: TAP.to_owned(),
        rules: Rules::default(),
        workers: 1,
        frame_size: 0,
        tap: Some(TapSettings { mtu: 1400, mac: Some(GATEWAY_MAC[OUTSIDE]) }),
    };
    let opened = reopener.open(TAP, []).unwrap();
    ports[OUTSIDE].device = Some(opened.index);
    // It has followed its device since the TAP device was made.
    ports[OUTSIDE].mtu = 1300;
    ports.push(OpenPort {
        name: TAP.to_owned(),
        kind: "tap".to_owned(),
        device_name: Some(opened.name),
        exception: Some(Exception { of: OUTSIDE, rate: 1000 }),
        monitor: Some(opened.monitor),
        reopener: Some(reopener),
        ..bare_port(OUTSIDE, Stations::Ask, opened.ports)
    });
    World::on(config, (ports, wires))
}

/// Sends `packet` by `port` until a packet that `is_expected` leaves by the outside.
fn until_out(world: &mut World, port: usize, packet: &[u8], is_expected: impl Fn(&[u8]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        world.put(port, packet);
        let next = Instant::now() + Duration::from_millis(100);
        while Instant::now() < next {
            world.settle();
            if world.take(OUTSIDE).iter().any(|packet| is_expected(packet)) {
                return;
            }
        }
        assert!(Instant::now() < deadline, "the expected packet does not come out: {:?}", world.all_drops());
    }
}

fn ip_command(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
}

/// Makes the TAP device, which stays without a gateway.
fn make_tap() {
    ip_command(&format!("tuntap add {TAP} mode tap"));
}

/// Puts the host's addresses, of which the first one is the gateway's too, and its route on the TAP device.
fn set_up_tap() {
    ip_command(&format!("link set {TAP} up"));
    ip_command(&format!("address add 203.0.113.1/24 dev {TAP}"));
    ip_command(&format!("address add 203.0.113.11/32 dev {TAP}"));
    ip_command(&format!("route add 198.51.100.0/24 via 203.0.113.9 dev {TAP}"));
}

/// Runs `test` in a namespace with the TAP device.
fn with_tap(test: impl FnOnce() + Send) {
    Lab::new(&["gw"]).enter("gw", || {
        make_tap();
        ip_command(&format!("link set {TAP} address 02:00:00:00:00:10"));
        set_up_tap();
        test();
    });
}

fn by_the_kernels_route() -> Vec<u8> {
    datagram("10.99.0.7", "198.51.100.5", (1, 2), b"by the kernel's route")
}

/// Checks that the kernel answers pings through the NIC, and that its route is followed.
fn check_both_ways(world: &mut World) {
    for own in [[203, 0, 113, 1], [203, 0, 113, 11]] {
        let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        let ping = ip_packet(ip("203.0.113.254"), IpAddr::from(own), protocol::ICMP, &echo);
        // The kernel resolves the station through the NIC.
        until_out(world, OUTSIDE, &ping, |out| {
            out.get(9) == Some(&protocol::ICMP)
                && out.get(12..16) == Some(&own)
                && out.get(16..20) == Some(&[203, 0, 113, 254])
        });
    }
    let passing = by_the_kernels_route();
    until_out(world, INSIDE, &passing, |out| out == forwarded(&passing));
}

#[test]
fn kernel_answers_through_the_nic_and_its_routes_are_followed() {
    with_tap(|| check_both_ways(&mut gateway(true)));
}

#[test]
fn device_that_is_deleted_is_made_again_or_taken_from_whoever_made_it() {
    with_tap(|| {
        let mut world = gateway(true);
        check_both_ways(&mut world);
        for is_made_by_others in [false, true] {
            ip_command(&format!("link del {TAP}"));
            if is_made_by_others {
                make_tap();
                set_up_tap();
            }
            // Two polls of the devices.
            world.pass(Duration::from_secs(2));
            let device = Device::find(TAP).unwrap();
            assert_eq!((device.mac(), device.mtu().unwrap()), (GATEWAY_MAC[OUTSIDE], 1300));
            if !is_made_by_others {
                let passing = by_the_kernels_route();
                world.send(INSIDE, &passing);
                assert!(
                    !world.take(OUTSIDE).contains(&forwarded(&passing)),
                    "its route went with the device"
                );
                set_up_tap();
            }
            check_both_ways(&mut world);
        }
    });
}

#[test]
fn packets_to_the_hosts_addresses_go_to_the_kernel_while_it_has_them() {
    with_tap(|| {
        let address = |change: &str, address: &str| {
            ip_command(&format!("address {change} {address} dev {TAP}"));
        };
        let mut world = gateway(false);
        address("add", "203.0.113.10/32");
        let is_icmp_from = |out: &[u8], own: [u8; 4], kind: [u8; 2]| {
            out.get(9) == Some(&protocol::ICMP)
                && out.get(12..16) == Some(&own)
                && out.get(20..22) == Some(&kind)
        };
        let (protocol_unreachable, port_unreachable) = ([3, 2], [3, 3]);
        let mut esp = vec![0; 40];
        let length = ip::emit(&mut esp, ip("203.0.113.254"), ip("203.0.113.10"), protocol::ESP, 16);
        esp.resize(length + 16, 9);
        until_out(&mut world, OUTSIDE, &esp, |out| {
            is_icmp_from(out, [203, 0, 113, 10], protocol_unreachable)
        });
        // The ports of ESP in UDP and of IKE.
        for port in [4500, 500] {
            let datagram = datagram("203.0.113.254", "203.0.113.10", (9, port), &[7; 40]);
            let answers = |out: &[u8]| is_icmp_from(out, [203, 0, 113, 10], port_unreachable);
            until_out(&mut world, OUTSIDE, &datagram, answers);
        }
        let own: Ipv6Addr = "fe80::ff:fe00:10".parse().unwrap();
        let by_link = datagram("fe80::9", &own.to_string(), (547, 546), b"DHCPv6");
        until_out(&mut world, OUTSIDE, &by_link, |out| {
            out.get(8..24) == Some(&own.octets()) && out.get(40..42) == Some(&[1, 4])
        });
        address("del", "203.0.113.1/24");
        address("del", "203.0.113.10/32");
        let passing = datagram("10.99.0.7", "203.0.113.10", (1, 2), b"to a station");
        until_out(&mut world, INSIDE, &passing, |out| out == forwarded(&passing));
        // The gateway's own address stays the gateway's.
        let before = world.drops(NotForUs);
        world.send(INSIDE, &datagram("10.99.0.7", "203.0.113.1", (1, 2), b"to the gateway"));
        assert_eq!((world.take(OUTSIDE), world.drops(NotForUs)), (vec![], before + 1));
    });
}

//! Frames to and from the kernel's side of a port, and the fate of all others.

use super::kernel::*;
use std::time::Duration;
use wayfarer::config::model::{Policy, PolicyAction};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal};
use wayfarer_dataplane::{
    drop::DropReason::*,
    port::Mac,
    sa::PortRange,
    wire::{
        arp::{Arp, Operation},
        ethernet::{self},
        ip::{self, protocol},
    },
};

/// What a DHCP server sends to the client with this MAC address (RFC 2131 §2).
fn offer(client: Mac) -> Vec<u8> {
    [&[2, 1, 6, 0][..], &[0; 24], &client, &[0; 202]].concat()
}

#[test]
fn passes_the_kernels_frames_on_unchanged() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let ssh = packet("192.0.2.9", "203.0.113.1", protocol::TCP, &[0x16; 20]);
    let mut padded = outside(&ssh);
    padded.extend_from_slice(b"padding");
    for sent in [
        arp([203, 0, 113, 254], [203, 0, 113, 77]),
        solicitation(),
        ospf("203.0.113.254"),
        frame([0x33, 0x33, 0, 0, 0, 1], STATION_MAC[OUTSIDE], &packet("fe80::1", "ff02::1", 58, &[134; 16])),
        frame(
            ethernet::BROADCAST,
            STATION_MAC[OUTSIDE],
            &datagram("0.0.0.0", "255.255.255.255", (68, 67), b"?"),
        ),
        lldp(),
        ethertype(GATEWAY_MAC[OUTSIDE], 0x8864, &[0x11; 1500]),
        tagged(&outside(&ssh), &[7]),
        outside(&ssh),
        padded,
        outside(&packet("192.0.2.9", "203.0.113.1", protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])),
        outside(&datagram("2001:db8:2::9", "2001:db8:1::1", (9, 22), b"by IPv6")),
        outside(&datagram("192.0.2.9", "10.99.0.1", (9, 22), b"to an address of another port")),
        outside(&datagram("fe80::9", "fe80::1:1", (547, 546), b"DHCPv6")),
        outside(&datagram("203.0.113.254", "203.0.113.50", (67, 68), &offer(GATEWAY_MAC[OUTSIDE]))),
        outside(&fragments(&datagram("2001:db8:2::9", "2001:db8:1::1", (9, 53), b"alone"), 1280, 7)[0]),
        outside(&packet("2001:db8:1::fe", "fe80::1:1", protocol::ESP, &[9; 40])),
        outside(&datagram("192.0.2.9", "169.254.1.1", (1, 4500), &[9; 40])),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &sent), [sent], "{:?}", world.all_drops());
    }
    assert_eq!(world.all_drops(), []);
    assert_eq!(world.out, [const { Vec::<Vec<u8>>::new() }; 2]);
    // The slow path answers a request for the gateway's MAC address as ever; the kernel gets the
    // request too.
    let request = arp([203, 0, 113, 254], [203, 0, 113, 1]);
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &request), [request]);
    let answer = Arp::parse(&world.out[OUTSIDE][0][ethernet::HEADER..]).unwrap();
    assert_eq!((answer.operation, answer.sender_mac), (Operation::Reply, GATEWAY_MAC[OUTSIDE]));
}

#[test]
fn keeps_the_gateways_own_frames_from_the_kernel() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    let sealed = outside(&terminal.seal(&up));
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &sealed).len(), 0);
    assert_eq!(world.take(INSIDE), [forwarded(&up)]);
    let mut unknown = terminal.wrap(&[0x55; 60]);
    unknown[20..24].copy_from_slice(&[9; 4]);
    terminal.port = Some(4500);
    let keepalive = terminal.wrap(&[0xff]);
    terminal.port = Some(500);
    terminal.gateway_port = 500;
    let ike = terminal.wrap(&[0; 28]);
    let passing = datagram("198.51.100.1", "198.51.100.2", (1, 2), b"passing by");
    let for_others = datagram("203.0.113.254", "203.0.113.50", (67, 68), &offer(STATION_MAC[OUTSIDE]));
    let loopback = datagram("198.51.100.1", "127.0.0.1", (1, 2), b"to nobody");
    let mut foreign = outside(&passing);
    foreign[5] ^= 1;
    let mut lie = outside(&passing);
    lie[ethernet::HEADER + 10] ^= 1;
    for (frame, reason) in [
        (outside(&unknown), Some(UnknownSpi)),
        (outside(&keepalive), Some(Keepalive)),
        (outside(&ike), None),
        (outside(&passing), Some(NoPolicy)),
        (outside(&for_others), None),
        (outside(&loopback), Some(Martian)),
        (foreign, Some(ForeignMac)),
        (lie, Some(IpChecksum)),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0, "{reason:?}");
        assert!(reason.is_none_or(|reason| world.drops(reason) == 1), "{reason:?}: {:?}", world.all_drops());
    }
    assert_eq!(world.all_drops().len(), 6);
    assert_eq!(world.slow_drops(NoKeyExchange), 1, "the IKE message went to the slow path");
}

#[test]
fn keeps_tunnelled_packets_to_the_gateway_from_the_kernel() {
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1")]
    });
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let inner = terminal.seal(&datagram("10.98.0.1", "203.0.113.1", (1, 22), b"ssh, through the tunnel"));
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &outside(&inner)).len(), 0);
    assert_eq!((world.all_drops(), world.counters().opened.value()), (vec![(NotForUs, 1)], 1));
}

#[test]
fn port_without_a_kernel_side_drops_the_kernels_frames() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let host = to_gateway(INSIDE, &datagram("10.99.0.7", "10.99.0.1", (9, 22), b"ssh"));
    let by_link = to_gateway(INSIDE, &datagram("fe80::9", "fe80::1", (9, 22), b"ssh"));
    for (frame, reason) in
        [(lldp(), UnknownEthertype), (ospf("10.99.0.9"), Multicast), (host, NotForUs), (by_link, Martian)]
    {
        assert_eq!(at_kernel(&mut world, &kernel, INSIDE, &frame).len(), 0);
        assert_eq!(world.drops(reason), 1);
    }
    let arp_request = arp([10, 99, 0, 9], [10, 99, 0, 77]);
    assert_eq!(at_kernel(&mut world, &kernel, INSIDE, &arp_request).len(), 0);
    assert_eq!(world.all_drops().len(), 4);
}

#[test]
fn kernel_gets_no_clear_packet_that_a_tunnel_protects() {
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1"), selector("::/0", "::/0")];
    });
    let spoofed = outside(&datagram("10.98.0.1", "203.0.113.1", (1, 22), b"as if from the terminal"));
    let by_link = outside(&datagram("10.98.0.1", "169.254.1.1", (1, 22), b"as if from the terminal"));
    let priority = [&[0][..], &[0, 0], &[0; 9]].map(|tags| tagged(&spoofed, tags));
    let frames = [spoofed.clone()].into_iter().chain(priority).chain([ospf("10.98.0.1"), by_link]);
    for (count, frame) in (1..).zip(frames) {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0);
        assert_eq!(world.all_drops(), [(Unprotected, count)]);
    }
    // More tags than are parsed, a truncated tag, and tags around a truncated IP packet.
    for (frame, reason) in [
        (tagged(&spoofed, &[1, 2, 3]), UnknownEthertype),
        (tagged(&spoofed, &[0])[..17].to_vec(), RuntFrame),
        (tagged(&spoofed, &[0])[..30].to_vec(), IpTruncated),
    ] {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &frame).len(), 0);
        assert_eq!(world.drops(reason), 1, "{:?}", world.all_drops());
    }
    // Neighbour discovery works even with a tunnel for everything.
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &solicitation()), [solicitation()]);
}

#[test]
fn sends_the_kernels_frames_unchanged_and_unread() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let punted = world.counters().punted.value();
    let ssh = packet("203.0.113.1", "192.0.2.9", protocol::TCP, &[0x16; 20]);
    let mut padded = inside_out(&ssh);
    padded.extend_from_slice(b"padding");
    // A request that the gateway would answer if it came from the wire.
    let mut request_for_gateway = arp([203, 0, 113, 9], [203, 0, 113, 1]);
    request_for_gateway[ethernet::HEADER + 7] = 2;
    for sent in [
        request_for_gateway,
        ospf("203.0.113.1"),
        lldp(),
        ethertype([9; 6], LLDP, &[]),
        inside_out(&ssh),
        padded,
        tagged(&inside_out(&ssh), &[1, 2]),
        inside_out(&datagram("2001:db8:1::1", "2001:db8:2::9", (22, 9), &[6; 1400])),
    ] {
        assert_eq!(from_kernel(&mut world, &kernel, &sent), [sent], "{:?}", world.all_drops());
    }
    assert_eq!((world.all_drops(), world.counters().punted.value()), (vec![], punted));
}

#[test]
fn kernel_cannot_send_in_clear_what_policy_protects() {
    let https = |remote: &str| wayfarer_dataplane::sa::Selector {
        protocol: Some(protocol::UDP),
        remote_ports: PortRange { first: 443, last: 443 },
        ..selector("0.0.0.0/0", remote)
    };
    let (mut world, kernel) = gateway(1_000_000, 512, |config| {
        config.tunnels[0].selectors = vec![selector("0.0.0.0/0", "10.98.0.1"), selector("::/0", "::/0")];
        config.tunnels[1].selectors = vec![https("10.98.0.0/24"), selector("0.0.0.0/0", "10.98.0.2")];
        config.tunnels[1].hard_time = Some(Duration::from_secs(10));
        let policy = |action, remote| Policy { action, selector: selector("0.0.0.0/0", remote) };
        config.policies =
            vec![policy(PolicyAction::Discard, "10.97.0.0/24"), policy(PolicyAction::Bypass, "10.97.0.9")];
    });
    world.pass(Duration::from_secs(11));
    world.out = Default::default();
    let to = |dst: &str| inside_out(&datagram("203.0.113.1", dst, (22, 9), b"in clear"));
    let mut later = datagram("203.0.113.1", "10.98.0.77", (22, 9), &[0; 64]);
    later[7] = 8;
    ip::set_total_len(&mut later, 20, 92);
    let mut lie = to("192.0.2.9");
    lie[ethernet::HEADER + 10] ^= 1;
    let mut version = to("192.0.2.9");
    version[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    let by_ipv6 = inside_out(&datagram("2001:db8:1::1", "2001:db8:2::9", (22, 9), b"in clear"));
    for (frame, reason) in [
        (to("10.98.0.1"), Unprotected),
        (tagged(&to("10.98.0.1"), &[0]), Unprotected),
        (tagged(&to("10.98.0.1"), &[1, 2]), Unprotected),
        (tagged(&to("10.98.0.1"), &[1, 2, 3]), UnknownEthertype),
        (by_ipv6, Unprotected),
        // The SA has expired, but clear packets are still not allowed.
        (to("10.98.0.2"), Unprotected),
        (inside_out(&later), FragmentPorts),
        (to("10.97.0.1"), Discard),
        (lie, IpChecksum),
        (version, IpVersion),
        (to("192.0.2.9")[..30].to_vec(), IpTruncated),
    ] {
        let before = world.drops(reason);
        assert_eq!(from_kernel(&mut world, &kernel, &frame).len(), 0, "{reason:?}");
        assert_eq!(world.drops(reason), before + 1, "{:?}", world.all_drops());
    }
    for sent in [to("10.97.0.9"), to("192.0.2.9"), to("10.98.0.77"), solicitation()] {
        assert!(kernel.send(&sent));
        let (worker, _) = &mut world.assembly.workers[0];
        worker.turn();
        assert_eq!(received(&world.wires[OUTSIDE]), [sent]);
    }
}

#[test]
fn kernel_gets_its_own_datagrams_in_fragments_once_they_are_complete() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let message = |port| datagram("192.0.2.9", "203.0.113.1", (500, port), &[7; 3000]);
    let frames = |port, id| -> Vec<Vec<u8>> {
        fragments(&message(port), 1500, id).iter().map(|fragment| outside(fragment)).collect()
    };
    let (kernels, ours) = (frames(53, 1), frames(4500, 2));
    for frame in kernels[1..].iter().chain(&ours) {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, frame).len(), 0);
    }
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &kernels[0]), kernels, "{:?}", world.all_drops());
}

#[test]
fn counts_and_drops_runt_frames_from_both_sides() {
    let (mut world, kernel) = gateway(1_000_000, 512, |_| {});
    let lldp = lldp();
    for length in 0..ethernet::HEADER {
        assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, &lldp[..length]).len(), 0);
        assert_eq!(from_kernel(&mut world, &kernel, &lldp[..length]).len(), 0);
        assert_eq!(world.all_drops(), [(RuntFrame, 2 * (length as u64 + 1))]);
    }
    let bare = &lldp[..ethernet::HEADER];
    assert_eq!(at_kernel(&mut world, &kernel, OUTSIDE, bare), [bare]);
}

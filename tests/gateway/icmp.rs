//! ICMP errors about tunnel traffic (RFC 4301 §6.2), and the gateway's own answers through tunnels.

mod bypassed;

use std::time::Duration;
use wayfarer::{
    config::model::{Config, Policy, PolicyAction, Remote},
    sim::{fixtures::*, frames::*, terminal::Terminal, world::World},
};
use wayfarer_dataplane::{
    drop::DropReason::{self, *},
    sa::{Mode, PortRange, Selector},
    wire::{
        checksum,
        ip::{self, IpHeader, protocol},
    },
};

const SUITE: &str = "aes128gcm16";
/// A port of the traffic of `narrow` tunnels.
const PORT: u16 = 6000;

/// An ICMP error, each with its type and code, over IPv4 and IPv6.
const TOO_BIG: [(u8, u8); 2] = [(3, 4), (2, 0)];
const TIME_EXCEEDED: [(u8, u8); 2] = [(11, 0), (3, 0)];
const HOST_UNREACHABLE: [(u8, u8); 2] = [(3, 1), (1, 3)];
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 0)];
const PORT_UNREACHABLE: [(u8, u8); 2] = [(3, 3), (1, 4)];

/// Makes a gateway with tunnels to two terminals at known addresses.
fn gateway(change: impl FnOnce(&mut Config)) -> World {
    let mut config = config(vec![tunnel(1, suite(SUITE)), tunnel(2, suite(SUITE))]);
    for (n, tunnel) in (1..).zip(&mut config.tunnels) {
        tunnel.remote = Remote::At(ip(&format!("192.0.2.{n}")), 0);
    }
    change(&mut config);
    let mut world = World::with(config, 512);
    world.meet_neighbours();
    world
}

/// Has the tunnels carry everything.
fn wide(_: &mut Config) {}

/// Has the first tunnel carry only UDP to one port of this side.
fn narrow(config: &mut Config) {
    for selector in &mut config.tunnels[0].selectors {
        selector.protocol = Some(protocol::UDP);
        selector.local_ports = PortRange { first: PORT, last: PORT };
    }
}

fn terminal(n: u32) -> Terminal {
    Terminal::new(n, suite(SUITE), &format!("192.0.2.{n}"))
}

/// A packet of terminal 1 to a host on this side, over IPv4 or IPv6, and one back.
fn traffic(v6: bool) -> [Vec<u8>; 2] {
    let (peer, host) = if v6 { ("fd00:98::1", "fd00:99::7") } else { ("10.98.0.1", "10.99.0.7") };
    [datagram(peer, host, (5000, PORT), &[1; 40]), datagram(host, peer, (PORT, 5000), &[2; 40])]
}

fn source(packet: &[u8]) -> String {
    std::net::IpAddr::from(IpHeader::parse(packet).unwrap().src).to_string()
}

/// Makes an ICMP message with any type, code and content.
fn message(src: &str, dst: &str, (kind, code): (u8, u8), content: &[u8]) -> Vec<u8> {
    let (src, dst) = (ip(src), ip(dst));
    let protocol = if src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
    let mut packet = vec![0; 48 + content.len()];
    let at = ip::emit(&mut packet, src, dst, protocol, 8 + content.len());
    packet.truncate(at + 8 + content.len());
    packet[at..at + 2].copy_from_slice(&[kind, code]);
    packet[at + 8..].copy_from_slice(content);
    let pseudo =
        if src.is_ipv4() { 0 } else { checksum::pseudo_header(src, dst, protocol, packet.len() - at) };
    let sum = checksum::finish(checksum::add(pseudo, &packet[at..]));
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Makes an ICMP error from `src` to the sender of `packet`, with as little of it as there may be.
fn error(src: &str, kinds: [(u8, u8); 2], packet: &[u8]) -> Vec<u8> {
    let header = IpHeader::parse(packet).unwrap();
    let kind = kinds[usize::from(!header.is_ipv4())];
    message(src, &source(packet), kind, &packet[..header.header_len() + 8])
}

/// Sends a packet and returns what came out of the other port, or why nothing did.
fn fate(world: &mut World, port: usize, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    let before = world.all_drops();
    world.send(port, packet);
    let other = if port == INSIDE { OUTSIDE } else { INSIDE };
    match world.take(other).pop() {
        Some(out) => Ok(out),
        None => Err(world.all_drops().into_iter().find(|drop| !before.contains(drop)).unwrap().0),
    }
}

#[test]
fn errors_of_any_router_go_through_the_tunnel_of_what_they_quote() {
    for change in [wide as fn(&mut Config), narrow] {
        let mut world = gateway(change);
        for kinds in [TOO_BIG, TIME_EXCEEDED, HOST_UNREACHABLE, [(12, 0), (4, 1)], [(4, 0), (3, 1)]] {
            for (v6, routers) in
                [(false, ["172.31.5.1", "10.99.0.254"]), (true, ["fd00:77::1", "fd00:99::fe"])]
            {
                for router in routers {
                    let error = error(router, kinds, &traffic(v6)[0]);
                    let out = fate(&mut world, INSIDE, &error).expect(router);
                    assert_eq!(terminal(1).open(&out).2, forwarded(&error), "{router} {kinds:?}");
                }
            }
        }
    }
}

#[test]
fn each_error_of_a_burst_goes_where_its_own_quote_says() {
    let mut world = gateway(|_| {});
    let ours = error("172.31.5.1", TIME_EXCEEDED, &traffic(false)[0]);
    let elsewhere = datagram("10.98.0.1", "198.51.100.7", (5000, PORT), &[1; 40]);
    let others = error("172.31.5.1", TIME_EXCEEDED, &elsewhere);
    for packet in [&others, &ours, &others, &ours] {
        world.put(INSIDE, packet);
    }
    world.settle();
    let opened: Vec<_> = world.take(OUTSIDE).iter().map(|packet| terminal(1).open(packet).2).collect();
    assert_eq!((opened, world.all_drops()), (vec![forwarded(&ours); 2], vec![(NoPolicy, 2)]));
}

#[test]
fn quote_that_is_not_the_return_traffic_opens_no_tunnel() {
    let mut world = gateway(|config| {
        narrow(config);
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "10.98.0.2")];
    });
    let packet = &traffic(false)[0];
    let from_router = |kind, content: &[u8]| message("172.31.5.1", "10.98.0.1", kind, content);
    let other_port = datagram("10.98.0.1", "10.99.0.7", (5000, PORT + 1), b"eight bytes or more");
    let other_sender = datagram("10.98.0.2", "10.99.0.7", (5000, PORT), b"eight bytes or more");
    let mut wrong_length = packet[..28].to_vec();
    wrong_length[0] = 0x4f;
    for (name, error) in [
        ("cut", from_router((3, 4), &packet[..27])),
        ("no quote", from_router((3, 4), &[])),
        ("header beyond the quote", from_router((3, 4), &wrong_length)),
        ("another family", from_router((3, 4), &traffic(true)[0])),
        ("redirect", from_router((5, 1), packet)),
        ("echo", from_router((8, 0), packet)),
        ("another port", from_router((3, 4), &other_port)),
        ("of another sender", from_router((3, 4), &other_sender)),
    ] {
        assert_eq!(fate(&mut world, INSIDE, &error), Err(NoPolicy), "{name}");
    }
    // Nobody outside can tell a terminal about its packets inside, nor be a terminal.
    let error = error("172.31.5.1", TOO_BIG, packet);
    world.send(OUTSIDE, &error);
    assert_eq!((world.drops(SourcePort), world.out[OUTSIDE].len()), (1, 0));
    let error = message("10.98.0.2", "10.98.0.1", (3, 4), packet);
    assert_eq!(fate(&mut world, INSIDE, &error), Err(Unprotected));
}

#[test]
fn errors_of_any_router_behind_a_peer_pass_if_they_quote_its_traffic() {
    for change in [wide as fn(&mut Config), narrow] {
        let mut world = gateway(change);
        let mut one = terminal(1);
        for kinds in [TOO_BIG, TIME_EXCEEDED] {
            for (v6, routers) in [(false, ["10.77.0.1", "10.98.0.1"]), (true, ["fd00:77::1", "fd00:98::1"])] {
                for router in routers {
                    let error = error(router, kinds, &traffic(v6)[1]);
                    let out = fate(&mut world, OUTSIDE, &one.seal(&error));
                    assert_eq!(out, Ok(forwarded(&error)), "{router} {kinds:?}");
                }
            }
        }
    }
}

#[test]
fn peer_cannot_tell_of_packets_that_did_not_go_through_its_tunnel() {
    let mut world = gateway(|config| {
        // A second tunnel to the first terminal.
        let mut more = tunnel(3, suite(SUITE));
        more.remote = Remote::At(ip("192.0.2.1"), 0);
        config.tunnels.push(more);
    });
    let mut one = terminal(1);
    let mut refused = |packet: &[u8]| fate(&mut world, OUTSIDE, &one.seal(packet));
    let to = |dst: &str| datagram("10.99.0.7", dst, (PORT, 5000), &[2; 40]);
    for dst in ["198.51.100.9", "10.98.0.2"] {
        assert_eq!(refused(&error("10.98.0.1", TOO_BIG, &to(dst))), Err(IcmpQuote), "{dst}");
        assert_eq!(refused(&error("10.77.0.1", TOO_BIG, &to(dst))), Err(InnerSelector), "{dst}");
    }
    let ours = &traffic(false)[1];
    assert_eq!(refused(&message("10.98.0.1", "10.99.0.7", (3, 4), &ours[..27])), Err(IcmpQuote));
    assert_eq!(refused(&message("10.98.0.1", "10.99.0.8", (3, 4), ours)), Err(IcmpQuote));
    // A quote does not lead to addresses that the tunnel does not lead to.
    assert_eq!(refused(&message("10.77.0.1", "198.51.100.9", (3, 4), ours)), Err(InnerSelector));
    assert_eq!(refused(&message("10.77.0.1", "10.99.0.7", (8, 0), ours)), Err(InnerSelector));
    // What is no error, or about another tunnel of the same peer, passes.
    for passes in [
        message("10.98.0.1", "10.99.0.7", (8, 0), b"echo"),
        message("10.98.0.1", "10.99.0.7", (5, 1), ours),
        error("10.98.0.1", TOO_BIG, &to("10.98.0.3")),
    ] {
        assert_eq!(refused(&passes), Ok(forwarded(&passes)));
    }
}

#[test]
fn policies_of_longer_prefixes_go_before_a_quote() {
    let everything = || selector("0.0.0.0/0", "0.0.0.0/0");
    let router = |prefix| selector(prefix, "10.98.0.0/30");
    let icmp = |selector| Selector { protocol: Some(protocol::ICMP), ..selector };
    let error = |packet: &[u8]| error("172.31.5.1", TOO_BIG, packet);
    for (action, selector, expected) in [
        (PolicyAction::Bypass, everything(), Ok(true)),
        (PolicyAction::Discard, everything(), Ok(true)),
        (PolicyAction::Discard, icmp(router("172.31.0.0/16")), Err(DropReason::Discard)),
        (PolicyAction::Bypass, icmp(router("172.31.0.0/16")), Ok(false)),
    ] {
        let mut world = gateway(|config| {
            config.tunnels.truncate(1);
            config.tunnels[0].selectors =
                vec![wayfarer::sim::fixtures::selector("10.99.0.0/24", "10.98.0.0/24")];
            config.policies = vec![Policy { action, selector: selector.clone() }];
        });
        let sealed = fate(&mut world, INSIDE, &error(&traffic(false)[0])).map(|out| out[9] == protocol::ESP);
        assert_eq!(sealed, expected, "{action:?} {selector:?}");
    }
    // Nobody in clear can tell a host inside about its packets to a terminal.
    let mut world = gateway(|config| {
        config.policies = vec![Policy { action: PolicyAction::Bypass, selector: everything() }];
    });
    assert_eq!(fate(&mut world, OUTSIDE, &error(&traffic(false)[1])), Err(Unprotected));
    let in_clear = error(&datagram("10.99.0.7", "198.51.100.9", (1, 2), b"in clear"));
    assert_eq!(fate(&mut world, OUTSIDE, &in_clear), Ok(forwarded(&in_clear)));
}

/// Hosts act on such errors, so a bypass must not let them through.
#[test]
fn error_in_clear_must_show_of_which_packet_it_tells() {
    for change in [wide as fn(&mut Config), narrow] {
        let mut world = gateway(|config| {
            change(config);
            let bypass = |all| Policy { action: PolicyAction::Bypass, selector: selector(all, all) };
            config.policies = ["0.0.0.0/0", "::/0"].map(bypass).to_vec();
        });
        for v6 in [false, true] {
            let (router, kinds) = (if v6 { "2001:db8:5::1" } else { "172.31.5.1" }, HOST_UNREACHABLE);
            let packet = &traffic(v6)[1];
            let mut refused = |error: &[u8]| {
                let fate = fate(&mut world, OUTSIDE, error);
                assert!(matches!(fate, Err(Unprotected | IcmpQuote)), "{v6} {fate:?}");
            };
            let to = source(packet);
            let kind = kinds[usize::from(v6)];
            let header = IpHeader::parse(packet).unwrap().header_len();
            let mut quotes = Vec::new();
            for total in [0, header as u16, header as u16 + 7] {
                let mut quote = packet[..header + 8].to_vec();
                let at = if v6 { 4 } else { 2 };
                let total = if v6 { total.saturating_sub(header as u16) } else { total };
                quote[at..at + 2].copy_from_slice(&total.to_be_bytes());
                quotes.push(quote);
            }
            quotes.push(packet[..header].to_vec());
            if v6 {
                // Hosts read on behind any number of extension headers.
                let mut long = packet[..header].to_vec();
                long[6] = 60;
                for next in [60, 17] {
                    let mut options = vec![0; 256];
                    options[..2].copy_from_slice(&[next, 31]);
                    long.extend(options);
                }
                long.extend(&packet[header..]);
                quotes.push(long);
            }
            quotes.iter().map(|quote| message(router, &to, kind, quote)).for_each(|error| refused(&error));
        }
        // A host with another address that a bypass is for.
        let elsewhere = message("172.31.5.1", "10.99.0.8", (3, 1), &traffic(false)[1][..28]);
        assert_eq!(fate(&mut world, OUTSIDE, &elsewhere), Err(IcmpQuote));
    }
}

#[test]
fn nobody_in_clear_tells_the_host_about_its_packets_to_a_peer() {
    let mut tunnel = tunnel(1, suite(SUITE));
    tunnel.remote = Remote::At(ip("192.0.2.1"), 0);
    tunnel.selectors = vec![selector("203.0.113.1", "10.98.0.1")];
    let mut world = World::host(vec![tunnel]);
    world.meet_neighbours();
    let [ours, others] =
        ["10.98.0.1", "198.51.100.9"].map(|to| datagram("203.0.113.1", to, (PORT, 5000), &[2; 40]));
    let router = "198.51.100.1";
    assert_eq!(fate(&mut world, OUTSIDE, &error(router, TIME_EXCEEDED, &ours)), Err(Unprotected));
    let cut = message(router, "203.0.113.1", (11, 0), &ours[..27]);
    assert_eq!(fate(&mut world, OUTSIDE, &cut), Err(IcmpQuote));
    let in_clear = error(router, TIME_EXCEEDED, &others);
    assert_eq!(fate(&mut world, OUTSIDE, &in_clear), Ok(in_clear));
}

#[test]
fn error_between_two_tunnels_never_leaves_in_clear() {
    let mut world = gateway(|config| {
        config.tunnels[0].selectors = vec![selector("10.96.0.0/11", "10.98.0.1")];
        config.tunnels[1].selectors = vec![selector("0.0.0.0/0", "10.98.0.2")];
    });
    let to_two = datagram("10.98.0.1", "10.98.0.2", (1, 2), b"to the other terminal");
    // The router behind the second terminal is in no selector of the first tunnel.
    let error = error("172.31.5.1", HOST_UNREACHABLE, &to_two);
    world.send(OUTSIDE, &terminal(2).seal(&error));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    assert_eq!(terminal(1).open(&out[0]).2, forwarded(&error));
}

#[test]
fn gateways_answers_go_back_through_tunnels_of_protocols_and_ports() {
    for v6 in [false, true] {
        let mut config = config(vec![tunnel(1, suite(SUITE))]);
        config.tunnels[0].remote = Remote::At(ip("192.0.2.1"), 0);
        narrow(&mut config);
        let (mut ports, wires) = open_ports(1, 512);
        ports[INSIDE].mtu = 1300;
        let mut world = World::on(config, (ports, wires));
        let mut one = terminal(1);
        let [up, _] = traffic(v6);
        let mut big = datagram(&source(&up), &source(&traffic(v6)[1]), (5000, PORT), &[1; 1300]);
        let mut last_hop = up.clone();
        let index = usize::from(v6);
        let hop_limit = if v6 { 7 } else { 8 };
        last_hop[hop_limit] = 1;
        if !v6 {
            ip::set_total_len(&mut last_hop, 20, up.len());
            big[6] = 0x40;
            let total = big.len();
            ip::set_total_len(&mut big, 20, total);
        }
        for (packet, kind) in [(&big, TOO_BIG[index]), (&last_hop, TIME_EXCEEDED[index])] {
            world.send(OUTSIDE, &one.seal(packet));
            let out = world.take(OUTSIDE);
            assert_eq!(out.len(), 1, "{kind:?} {:?}", world.all_drops());
            let answer = one.open(&out[0]).2;
            let header = IpHeader::parse(&answer).unwrap();
            let message = header.payload(&answer);
            assert_eq!(((message[0], message[1]), header.dst), (kind, ip(&source(&up)).into()));
            assert!(packet.starts_with(&message[8..]));
        }
    }
}

#[test]
fn traceroute_shows_a_gateway_whose_addresses_are_in_no_selector() {
    let mut world = gateway(|config| {
        config.tunnels[0].selectors = vec![selector("10.55.0.0/24", "10.98.0.1")];
    });
    let mut one = terminal(1);
    let mut last_hop = datagram("10.98.0.1", "10.55.0.7", (1, 2), b"traceroute");
    last_hop[8] = 1;
    ip::set_total_len(&mut last_hop, 20, 38);
    world.send(OUTSIDE, &one.seal(&last_hop));
    let out = world.take(OUTSIDE);
    assert_eq!(out.len(), 1, "{:?}", world.all_drops());
    let answer = one.open(&out[0]).2;
    assert_eq!((answer[20], source(&answer)), (11, "203.0.113.1".to_owned()));
    assert_eq!(answer[28..], last_hop);
}

#[test]
fn host_hears_of_the_size_that_fits_from_the_peer_in_transport_mode() {
    let mut transport = tunnel(1, suite(SUITE));
    transport.mode = Mode::Transport;
    transport.remote = Remote::At(ip("192.0.2.1"), 0);
    transport.selectors =
        vec![Selector { protocol: Some(protocol::UDP), ..selector("203.0.113.1", "192.0.2.1") }];
    let mut world = World::host(vec![transport]);
    world.send(INSIDE, &datagram("203.0.113.1", "192.0.2.1", (1, 2), &[0; 1472]));
    assert_eq!(world.all_drops(), [(TooBig, 1)]);
    let answers = world.take(INSIDE);
    assert_eq!(answers.len(), 1);
    assert_eq!((source(&answers[0]), &answers[0][20..22]), ("192.0.2.1".to_owned(), &[3, 4][..]));
    // An error of a router on the way is no packet of the host.
    let returned = datagram("192.0.2.1", "203.0.113.1", (1, 2), b"from the peer");
    let own = error("203.0.113.1", HOST_UNREACHABLE, &returned);
    assert_eq!(fate(&mut world, INSIDE, &own).unwrap()[9], protocol::ESP);
    let others = error("10.99.0.254", HOST_UNREACHABLE, &returned);
    assert_eq!(fate(&mut world, INSIDE, &others), Err(NoPolicy));
}

#[test]
fn host_hears_of_errors_at_the_peer_in_transport_mode() {
    for (local, peer, icmp) in
        [("203.0.113.1", "192.0.2.1", protocol::ICMP), ("2001:db8:1::1", "2001:db8:2::1", protocol::ICMPV6)]
    {
        let mut transport = tunnel(1, suite(SUITE));
        transport.mode = Mode::Transport;
        (transport.local, transport.remote) = (ip(local), Remote::At(ip(peer), 0));
        transport.selectors = vec![Selector { protocol: Some(protocol::UDP), ..selector(local, peer) }];
        let mut world = World::host(vec![transport]);
        let terminal = Terminal::new(1, suite(SUITE), peer);
        let sent = datagram(local, peer, (1, 2), b"to a closed port");
        let answer = error(peer, PORT_UNREACHABLE, &sent);
        let header = IpHeader::parse(&answer).unwrap().header_len();
        let sealed = terminal.seal_as(&answer[header..], icmp, 1);
        assert_eq!(fate(&mut world, OUTSIDE, &sealed).as_ref(), Ok(&answer));
        let echo = message(local, peer, ECHO[usize::from(icmp == protocol::ICMPV6)], b"of another protocol");
        let others = error(peer, PORT_UNREACHABLE, &echo);
        let sealed = terminal.seal_as(&others[header..], icmp, 2);
        assert_eq!(fate(&mut world, OUTSIDE, &sealed), Err(InnerSelector));
    }
}

/// A site behind a tunnel has more senders than all tunnels together would have shares.
#[test]
fn problems_of_one_tunnel_do_not_keep_others_from_hearing_of_theirs() {
    let mut world = gateway(|config| {
        config.tunnels[0].selectors = vec![selector("10.99.0.0/24", "10.97.0.0/24")];
    });
    let (mut site, mut other) = (terminal(1), terminal(2));
    let last_hop = |from: &str| {
        let mut packet = datagram(from, "10.99.0.7", (1, 2), b"last hop");
        packet[8] = 1;
        let length = packet.len();
        ip::set_total_len(&mut packet, 20, length);
        packet
    };
    let mut flood = |world: &mut World, hosts: std::ops::RangeInclusive<u8>| {
        for host in hosts {
            world.put(OUTSIDE, &site.seal(&last_hop(&format!("10.97.0.{host}"))));
        }
    };
    let answers = |world: &mut World| {
        let (out, ends) = (world.take(OUTSIDE), [terminal(1), terminal(2)]);
        ends.map(|end| out.iter().filter(|packet| end.try_open(packet).is_some()).count())
    };
    // Within one burst the worker limits the reports to the slow path.
    flood(&mut world, 1..=63);
    world.put(OUTSIDE, &other.seal(&last_hop("10.98.0.2")));
    world.settle();
    let [first, others] = answers(&mut world);
    assert!((32..48).contains(&first) && others == 1, "{first} and {others} answers");
    // From burst to burst, the slow path limits its answers.
    for _ in 0..10 {
        flood(&mut world, 1..=32);
        world.settle();
    }
    world.send(OUTSIDE, &other.seal(&last_hop("10.98.0.2")));
    assert_eq!(answers(&mut world), [200 - first, 1]);
}

#[test]
fn senders_hear_of_a_station_that_does_not_answer() {
    for v6 in [false, true] {
        let everything = |to: &str| selector(to, to);
        let mut world = gateway(|config| {
            config.policies = ["0.0.0.0/0", "::/0"]
                .map(|all| Policy { action: PolicyAction::Bypass, selector: everything(all) })
                .into();
        });
        let mut one = terminal(1);
        world.send(OUTSIDE, &one.seal(&traffic(v6)[0]));
        world.answer_neighbours = false;
        world.out = Default::default();
        let (silent, outside) =
            if v6 { ("fd00:99::99", "2001:db8:1::99") } else { ("10.99.0.99", "203.0.113.99") };
        let [up, down] = traffic(v6);
        let from_tunnel = datagram(&source(&up), silent, (1, 2), b"up");
        let from_inside = datagram(&source(&down), outside, (1, 2), b"in clear");
        world.put(OUTSIDE, &one.seal(&from_tunnel));
        world.put(INSIDE, &from_inside);
        world.settle();
        world.pass(Duration::from_secs(4));
        assert_eq!(world.slow_drops(NeighbourFailed), 2);
        let through_tunnel: Vec<_> = world.take(OUTSIDE).iter().map(|out| one.open(out).2).collect();
        for (answers, lost) in [(through_tunnel, from_tunnel), (world.take(INSIDE), from_inside)] {
            assert_eq!(answers.len(), 1, "{:?}", world.all_drops());
            let header = IpHeader::parse(&answers[0]).unwrap();
            let message = header.payload(&answers[0]);
            assert_eq!((message[0], message[1]), HOST_UNREACHABLE[usize::from(v6)]);
            assert_eq!(message[8..], forwarded(&lost));
        }
    }
}

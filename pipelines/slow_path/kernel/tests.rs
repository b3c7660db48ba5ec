use super::*;
use crate::namespace::alone;
use netlink_packet_core::{NLM_F_MULTIPART, NLMSG_DONE};
use netlink_packet_route::route::RouteNextHop;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// The kernel's indices of two devices, and the ports that they are.
const DEVICES: [(u32, u16); 2] = [(7, 3), (8, 4)];
/// The index of a device that is no port's.
const FOREIGN: u32 = 9;

fn kernel() -> Kernel {
    Kernel::follow(DEVICES.to_vec(), true).unwrap()
}

/// Returns the IPv4 default route with these attributes.
fn default_route(attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.kind = RouteType::Unicast;
    route.attributes = attributes;
    route
}

/// Returns the default route with these paths, each with the index of its device.
fn multipath(paths: &[(u32, RouteNextHopFlags, RouteAttribute)]) -> RouteMessage {
    let paths = paths.iter().map(|(device, flags, router)| {
        let mut path = RouteNextHop::default();
        (path.interface_index, path.flags) = (*device, *flags);
        path.attributes = vec![router.clone()];
        path
    });
    default_route(vec![RouteAttribute::MultiPath(paths.collect())])
}

fn v4(host: u8) -> RouteAttribute {
    RouteAttribute::Gateway(RouteAddress::Inet([192, 0, 2, host].into()))
}

fn v6() -> RouteAttribute {
    RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()))
}

fn hop(port: u16, via: &str) -> Option<NextHop> {
    Some(NextHop::Port { port, via: Some(via.parse().unwrap()) })
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_router() {
    let kernel = kernel();
    assert_eq!(kernel.hop(&default_route(vec![v6(), RouteAttribute::Oif(7)])), hop(3, "fe80::1"));
    assert_eq!(kernel.hop(&multipath(&[(8, RouteNextHopFlags::empty(), v6())])), hop(4, "fe80::1"));
    let direct = kernel.hop(&default_route(vec![RouteAttribute::Oif(7)]));
    assert_eq!(direct, Some(NextHop::Port { port: 3, via: None }));
    assert_eq!(kernel.hop(&default_route(vec![v6(), RouteAttribute::Oif(FOREIGN)])), None);
}

#[test]
fn the_first_path_that_is_alive_and_ours_counts() {
    let kernel = kernel();
    let (alive, dead) = (RouteNextHopFlags::empty(), RouteNextHopFlags::Dead);
    let down = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    for (first, flags, expected) in [
        (7, alive, hop(3, "192.0.2.1")),
        (7, dead, hop(4, "192.0.2.2")),
        (7, down, hop(4, "192.0.2.2")),
        (FOREIGN, alive, hop(4, "192.0.2.2")),
    ] {
        let route = multipath(&[(first, flags, v4(1)), (8, alive, v4(2))]);
        assert_eq!(kernel.hop(&route), expected, "{first} {flags:?}");
    }
    assert_eq!(kernel.hop(&multipath(&[(7, dead, v4(1)), (8, dead, v4(2))])), None);
}

/// The kernel removes a route whose path has died since it was added.
#[test]
fn a_route_that_is_gone_is_asked_for_whatever_path_it_had() {
    let (mut kernel, mut changes) = (kernel(), Vec::new());
    let alive = RouteNextHopFlags::empty();
    kernel.add(&multipath(&[(7, alive, v4(1)), (8, alive, v4(2))]), false, &mut changes);
    kernel.needs_dump = false;
    kernel.remove(&multipath(&[(7, RouteNextHopFlags::Dead, v4(1)), (8, alive, v4(2))]), &mut changes);
    assert!(kernel.needs_dump);
}

/// Returns the end of a list, as the kernel sends it.
fn end_of_list(flags: u16, code: i32) -> Vec<u8> {
    let (length, code) = (20u32.to_ne_bytes(), code.to_ne_bytes());
    [&length[..], &NLMSG_DONE.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], &code].concat()
}

#[test]
fn addresses_that_an_incomplete_dump_leaves_out_stay() {
    let address = IpAddr::from([192, 0, 2, 1]);
    for (flags, code, is_kept) in [
        (NLM_F_MULTIPART | NLM_F_DUMP_INTR, 0, true),
        (NLM_F_MULTIPART, -nix::libc::EMSGSIZE, true),
        (NLM_F_MULTIPART, 0, false),
    ] {
        let (mut kernel, mut changes) = (Kernel::follow(vec![], false).unwrap(), Vec::new());
        kernel.addresses.insert((address, 7, 24));
        kernel.handle(&end_of_list(flags, code), &mut changes);
        let removed = Change::Address { address, devices: vec![] };
        assert_eq!(changes, if is_kept { vec![] } else { vec![removed] });
        assert_eq!(kernel.addresses().collect::<Vec<_>>().contains(&address), is_kept);
        assert_eq!(kernel.needs_dump, is_kept, "it is asked for again");
    }
}

/// Reads all that the kernel has to say at time `now`, with the dumps that this takes.
fn read_all(kernel: &mut Kernel, now: Duration, changes: &mut Vec<Change>) {
    while kernel.poll(now, changes) || kernel.dump.is_some() {}
}

#[test]
fn a_dump_that_failed_is_tried_again_after_a_while() {
    let (mut kernel, mut changes) = (Kernel::follow(vec![], false).unwrap(), Vec::new());
    read_all(&mut kernel, Duration::ZERO, &mut changes);
    kernel.abandon_dump();
    for (now, is_tried) in [(Duration::ZERO, false), (RETRY / 2, false), (RETRY, true)] {
        kernel.poll(now, &mut changes);
        assert_eq!(kernel.dump.is_some(), is_tried, "{now:?}");
    }
}

/// Runs `ip -batch` with one `line` for each of [`MANY`] destinations.
fn for_many(line: impl Fn(String) -> String) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let destination = |number: usize| format!("198.18.{}.{}", number >> 8, number & 0xff);
    let lines: String = (0..MANY).map(|number| line(destination(number)) + "\n").collect();
    ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
}

/// A number of changes that [`SMALL_BUFFER`] has no room for.
const MANY: usize = 2000;
/// Bytes of a receive buffer that has room for more changes than are read in one call.
const SMALL_BUFFER: i32 = 1 << 17;

/// After the kernel has said that it dropped messages, it goes on to drop them until the queue is empty.
#[test]
fn changes_that_overflow_the_queue_are_asked_for_once_it_is_empty() {
    alone(|| {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let device = nix::net::if_::if_nametoindex("lo").unwrap();
        let (mut kernel, mut changes) = (Kernel::follow(vec![(device, 3)], true).unwrap(), Vec::new());
        read_all(&mut kernel, Duration::ZERO, &mut changes);
        let own = kernel.table.len();
        kernel.socket.set_rx_buf_sz(SMALL_BUFFER).unwrap();
        for (line, routes) in [("add", MANY), ("del", 0)] {
            for_many(|to| format!("route {line} {to}/32 dev lo"));
            changes.clear();
            kernel.poll(Duration::ZERO, &mut changes);
            assert!(kernel.needs_dump && kernel.dump.is_none(), "more messages may be dropped");
            assert!(changes.contains(&Change::Device), "one of those may have been about a device");
            read_all(&mut kernel, Duration::ZERO, &mut changes);
            assert_eq!(kernel.table.len(), own + routes);
        }
    });
}

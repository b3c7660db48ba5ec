//! Tables of devices, in network namespaces of the running kernel.

mod names;
mod vlans;

use super::*;
use crate::namespace::alone;
use std::time::{Duration, Instant};
use wayfarer_dataplane::{sa::PortRange, table::Prefix};

/// Replaces a device's table by one that protects these addresses.
fn replace(nftables: &Nftables, device: &str, taps: &[String], protected: &Ranges) -> io::Result<()> {
    with_contents(device, taps, protected, |contents| super::replace(nftables, contents))
}

fn with_contents<R>(
    device: &str,
    taps: &[String],
    protected: &Ranges,
    f: impl FnOnce(&Contents<'_>) -> R,
) -> R {
    let (host, segments) = (HostTraffic::default(), BTreeSet::new());
    f(&Contents { device, taps, protected, host: &host, segments: &segments })
}

/// Repeats `f` until it succeeds. A command that another test is just starting has a copy of a lock, or of the
/// socket that owns a table, for a moment.
fn once_unlocked<R, E: std::fmt::Debug>(mut f: impl FnMut() -> Result<R, E>) -> R {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match f() {
            Ok(done) => return done,
            Err(why) => assert!(Instant::now() < end, "{why:?}"),
        }
        std::thread::yield_now();
    }
}

fn tables() -> Vec<String> {
    Nftables::open().unwrap().tables().unwrap()
}

#[test]
fn takes_over_tables_of_a_gateway_that_has_ended() {
    alone(|| {
        let none = Ranges::default();
        let first = Nftables::open().unwrap();
        replace(&first, "eth0", &["tap0".to_owned()], &none).unwrap();
        replace(&first, "eth1", &[], &none).unwrap();
        let second = Nftables::open().unwrap();
        // Kernels before 6.9 have no table owners.
        if let Err(why) = replace(&second, "eth0", &[], &none) {
            assert_eq!(why.raw_os_error(), Some(nix::libc::EPERM), "{why}");
            assert!(open_host(&["eth0".to_owned()]).is_err());
        }
        drop(first);
        once_unlocked(|| replace(&second, "eth0", &[], &none));
        assert_eq!(tables(), ["wayfarer-eth1", "wayfarer-eth0"]);
        drop(second);
        assert_eq!(once_unlocked(|| open_host(&[])), ["eth1", "eth0"]);
        assert_eq!((once_unlocked(|| open_host(&[])), tables()), (vec![], vec![]));
    });
}

/// Returns a configuration with one port and the tables in `more`.
fn configured(device: &str, more: &str) -> Config {
    let port = format!(
        "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"{device}\"\n\
         addresses = [\"192.0.2.7/24\", \"2001:db8::7/64\"]\n{more}"
    );
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
    crate::config::parse(&port, &file).unwrap()
}

fn ip(arguments: &str) {
    let status = std::process::Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn closes_a_device_by_its_primary_name() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        // A missing device has only its configured name.
        for (device, name) in [("uplink", "eth0"), ("eth1", "eth1")] {
            drop(Barrier::raise(&configured(device, "")).unwrap());
            assert_eq!(tables(), [table(name)]);
            assert_eq!(once_unlocked(|| open_host(&[device.to_owned()])), [name]);
        }
    });
}

#[test]
fn closes_a_device_that_appears_later_by_an_alternative_name() {
    alone(|| {
        let mut barrier = Barrier::raise(&configured("uplink", "")).unwrap();
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        (0..2).for_each(|_| barrier.close("outside", "eth0").unwrap());
        assert_eq!(tables(), [table("uplink"), table("eth0")]);
        assert!(matches!(DeviceLock::take("eth0"), Err(LockError::Taken(_))));
        drop(barrier);
        assert_eq!(once_unlocked(|| open_host(&["uplink".to_owned()])), ["uplink", "eth0"]);
    });
}

#[test]
fn devices_that_swap_their_names_are_closed_for_their_new_ports() {
    alone(|| {
        ip("link add eth0 type veth peer name eth1");
        let inside = "[[port]]\nname = \"inside\"\nkind = \"auto\"\ndevice = \"eth1\"\n\
                      addresses = [\"10.99.0.1/24\"]\n";
        let mut barrier = Barrier::raise(&configured("eth0", inside)).unwrap();
        for (outside, inside) in [("eth1", "eth0"), ("eth0", "eth1")] {
            barrier.close("outside", outside).unwrap();
            barrier.close("inside", inside).unwrap();
            let port_of = |name: &str| {
                let device = barrier.closed.iter().find(|device| device.name == name).unwrap();
                (&device.port[..], device.segments.len())
            };
            assert_eq!([port_of(outside), port_of(inside)], [("outside", 2), ("inside", 1)]);
        }
        assert_eq!((barrier.closed.len(), tables()), (2, vec![table("eth0"), table("eth1")]));
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}

#[test]
fn goes_on_protecting_what_a_new_configuration_does_not_have() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let pool = |addresses| format!("[[pool]]\nname = \"p\"\naddresses = \"{addresses}\"\n");
        let mut barrier = Barrier::raise(&configured("eth0", &pool("10.96.0.0-10.96.255.255"))).unwrap();
        barrier.protect(&configured("eth0", &pool("10.97.0.0-10.97.255.255"))).unwrap();
        let mut all = Ranges::default();
        all.add(ranges::of_prefix(Prefix::new([10, 96, 0, 0].into(), 15).unwrap()));
        assert_eq!(barrier.protected.of(true), all.of(true));
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}

#[test]
fn a_second_start_leaves_the_running_gateways_tables() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        ip("link property add dev eth0 altname uplink");
        let nftables = Nftables::open().unwrap();
        let mut older = Batch::new();
        older.add_table(&table("eth0"), SHARED);
        older.add_chain(&table("eth0"), "first", Hook::Forward, EARLY);
        nftables.commit(older).unwrap();
        let running = DeviceLock::take("eth0").unwrap();
        let free = "[[port]]\nname = \"inside\"\nkind = \"auto\"\ndevice = \"eth9\"\n\
                    addresses = [\"10.99.0.1/24\"]\n";
        let taken = format!("eth0: another gateway (process {}) has this device", std::process::id());
        for device in ["eth0", "uplink"] {
            let (port, why) = Barrier::raise(&configured(device, free)).unwrap_err();
            assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
        }
        let mut other_first = configured("eth0", free);
        other_first.ports.reverse();
        let (port, why) = Barrier::raise(&other_first).unwrap_err();
        assert_eq!((&port[..], why.to_string()), ("outside", taken.clone()));
        assert_eq!(open_host(&[]).unwrap_err().to_string(), taken);
        assert_eq!(tables(), [table("eth0")], "a table was made");
        // A chain that exists keeps its priority.
        let mut same = Batch::new();
        same.add_chain(&table("eth0"), "first", Hook::Forward, EARLY + 1);
        assert!(nftables.commit(same).is_err(), "the table was replaced");
        drop(running);
        drop(once_unlocked(|| Barrier::raise(&other_first)));
    });
}

/// A far side of all networks but 10.0.0.0/16. One of its entries has 10.98.0.7.
const ALL_BUT_ONE: &str = "inner_remote = [\"0.0.0.0/5\", \"8.0.0.0/7\", \"10.1.0.0/16\", \
     \"10.2.0.0/15\", \"10.4.0.0/14\", \"10.8.0.0/13\", \"10.16.0.0/12\", \"10.32.0.0/11\", \
     \"10.64.0.0/10\", \"10.128.0.0/9\", \"11.0.0.0/8\", \"12.0.0.0/6\", \"16.0.0.0/4\", \"32.0.0.0/3\", \
     \"64.0.0.0/2\", \"128.0.0.0/1\"]\n";

#[test]
fn networks_behind_peers_are_protected_in_every_notation() {
    let psk = "[[connection]]\nname = \"a\"\nauth = \"psk\"\npsk_file = \"keys/example-lab-psk\"\n\
               remote_id = \"gw.test\"\n";
    let asks = "remote = \"203.0.113.1\"\nrequest_address = true\n";
    let gives = "pool = \"p\"\ninner_local = [\"10.99.0.0/24\"]\n";
    let pool = "[[pool]]\nname = \"p\"\naddresses = \"10.96.0.0-10.96.0.255\"\n";
    for (more, texts) in [
        (format!("{psk}{asks}inner_remote = [\"10.95.0.0/24\"]\n"), vec!["10.95.0.0/24"]),
        (format!("{psk}{asks}"), vec![]),
        (format!("{psk}{gives}{pool}"), vec!["10.96.0.0/24"]),
        (
            format!("{psk}{gives}inner_remote = [\"10.95.0.0/24\"]\n{pool}"),
            vec!["10.95.0.0/24", "10.96.0.0/24"],
        ),
        (
            format!("{psk}inner_local = [\"10.99.0.0/24\"]\ninner_remote = [\"0.0.0.0/0\"]\n"),
            vec!["10.99.0.0/24"],
        ),
        (format!("{psk}inner_local = [\"10.99.0.0/24\"]\n{ALL_BUT_ONE}"), vec!["10.99.0.0/24"]),
        (
            format!("{psk}inner_local = [\"0.0.0.0/0\"]\ninner_remote = [\"10.0.0.0/7\"]\n"),
            vec!["10.0.0.0/7"],
        ),
        (format!("{psk}{asks}inner_remote = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n"), vec![]),
    ] {
        let mut expected = Ranges::default();
        for text in texts {
            let (address, length) = text.split_once('/').unwrap();
            let prefix = Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap();
            expected.add(ranges::of_prefix(prefix));
        }
        expected.merge();
        assert_eq!(protected(&configured("eth0", &more)).of(true), expected.of(true), "{more}");
    }
}

#[test]
fn a_table_without_an_owner_is_replaced_as_well() {
    alone(|| {
        let none = Ranges::default();
        let nftables = Nftables::open().unwrap();
        let batch = with_contents("eth0", &[], &none, |contents| replacement(contents, SHARED));
        nftables.commit(batch).unwrap();
        let mut foreign = Batch::new();
        foreign.add_table("other", SHARED);
        nftables.commit(foreign).unwrap();
        replace(&nftables, "eth0", &[], &none).unwrap();
        assert_eq!(once_unlocked(|| open_host(&[])), ["eth0"]);
        assert_eq!(tables(), ["other"], "tables of other programs stay");
    });
}

#[test]
fn any_number_of_networks_can_be_protected() {
    alone(|| {
        let mut many = Ranges::default();
        for i in 0..20_000u32 {
            let v4 = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 2 * i);
            let v6 = std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(2 * i));
            many.add((v4.into(), v4.into()));
            many.add((v6.into(), v6.into()));
        }
        many.add(([255; 4].into(), [255; 4].into()));
        many.merge();
        let nftables = Nftables::open().unwrap();
        replace(&nftables, "eth0", &[], &many).unwrap();
        replace(&nftables, "eth0", &[], &many).unwrap();
    });
}

#[test]
fn any_number_of_peers_can_be_protected_at_once() {
    alone(|| {
        let mut barrier = Barrier::raise(&configured("eth0", "")).unwrap();
        for number in 0..20_000u32 {
            let peer = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            let tunnel = [selector("192.0.2.7/32", &format!("{peer}/32"), 32)];
            barrier.host.add_tunnel(&tunnel).unwrap();
        }
        barrier.protect(&configured("eth0", "")).unwrap();
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}

/// A device by which the host sends, and sockets of the host.
const NETWORK: [&str; 10] = [
    "link add eth0 type veth peer name eth9",
    "link set eth9 up",
    "address add 192.0.2.7/24 dev eth0",
    "address add 2001:db8::7/64 dev eth0 nodad",
    "link set eth0 up",
    "route add 10.0.0.0/8 via 192.0.2.1",
    "route add 192.0.0.0/8 via 192.0.2.1",
    "route add 224.0.0.0/4 dev eth0",
    "neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0",
    "neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0",
];

/// Runs `test` in a namespace with [`NETWORK`], with the barrier around eth0 for a configuration with the
/// tables in `more`.
fn on_network(more: &str, test: impl FnOnce(Barrier) + Send) {
    alone(|| {
        NETWORK.into_iter().for_each(ip);
        test(Barrier::raise(&configured("eth0", more)).unwrap());
    });
}

/// Returns whether the kernel lets the host send a datagram from port 5000 of `from` to port 6000 of
/// `to`.
fn can_send(from: &str, to: &str) -> bool {
    // A program that another test starts at this moment has the last socket too until it runs.
    let until = Instant::now() + Duration::from_secs(30);
    let socket = loop {
        match std::net::UdpSocket::bind((from, 5000)) {
            Err(why) if why.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::yield_now();
            }
            bound => break bound.unwrap(),
        }
    };
    match socket.send_to(b"in clear", (to, 6000)) {
        Ok(_) => true,
        Err(why) => {
            assert_eq!(why.kind(), io::ErrorKind::PermissionDenied, "{why}");
            false
        }
    }
}

fn selector(local: &str, remote: &str, rank: u8) -> Selector {
    let [local, remote] = [local, remote].map(|text| {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
    });
    let mut selector = Selector::configured(local, remote);
    selector.rank.remote = rank;
    selector
}

const FAR: &str = "10.98.0.7";

#[test]
fn host_sends_nothing_in_clear_while_a_peers_tunnel_should_carry_it() {
    on_network("", |mut barrier| {
        let tunnel = [selector("192.0.2.7/32", "10.98.0.7/32", 32)];
        let other = [selector("192.0.2.0/24", "10.98.0.8/32", 0)];
        let is_open = || can_send("192.0.2.7", FAR);
        let is_other_open = || can_send("192.0.2.7", "10.98.0.8");
        assert!(is_open(), "without a tunnel");
        // The second is the first one's successor.
        for _ in 0..2 {
            assert!(barrier.add_tunnel(&tunnel));
            assert!(!is_open() && is_other_open());
        }
        barrier.add_tunnel(&other);
        assert!(!is_other_open() && can_send("192.0.2.7", "10.98.0.9"));
        barrier.protect(&configured("eth0", "")).unwrap();
        assert!(!is_open() && !is_other_open(), "after a reload");
        barrier.remove_tunnel(&other);
        barrier.remove_tunnel(&tunnel);
        assert!(!is_open() && is_other_open(), "one tunnel is left");
        barrier.remove_tunnel(&tunnel);
        assert!(is_open(), "the last tunnel has ended");
        barrier.add_tunnel(&tunnel);
        drop(barrier);
        assert!(!is_open(), "the gateway has ended");
        once_unlocked(|| open_host(&[]));
        assert!(is_open(), "the host was opened");
    });
}

#[test]
fn bypass_policies_of_longer_prefixes_go_first() {
    let policies = "[[policy]]\naction = \"bypass\"\nremote = \"10.98.0.0/16\"\n\
                    [[policy]]\naction = \"discard\"\n";
    on_network(policies, |mut barrier| {
        assert!(can_send("192.0.2.7", FAR), "what policy discards is no tunnel's");
        for (rank, is_open) in [(0, true), (15, true), (16, false), (32, false)] {
            let tunnel = [selector("192.0.2.7/32", "10.98.0.7/32", rank)];
            barrier.add_tunnel(&tunnel);
            assert_eq!(can_send("192.0.2.7", FAR), is_open, "{rank}");
            barrier.remove_tunnel(&tunnel);
        }
    });
}

#[test]
fn bypass_policy_of_all_traffic_goes_last() {
    let both = ["0.0.0.0/0", "::/0"]
        .map(|all| format!("[[policy]]\naction = \"bypass\"\nlocal = \"{all}\"\nremote = \"{all}\"\n"));
    on_network(&both.concat(), |mut barrier| {
        for (own, far, length) in [("192.0.2.7", FAR, 32), ("2001:db8::7", "2001:db8::9", 128)] {
            let [local, remote] = [own, far].map(|address| format!("{address}/{length}"));
            assert!(can_send(own, far));
            let tunnel = [selector(&local, &remote, 0)];
            barrier.add_tunnel(&tunnel);
            assert!(!can_send(own, far));
            barrier.remove_tunnel(&tunnel);
        }
    });
}

const PSK: &str = "[[connection]]\nname = \"a\"\nauth = \"psk\"\npsk_file = \"keys/example-lab-psk\"\n\
                   remote_id = \"gw.test\"\n";

#[test]
fn wider_far_sides_do_not_mean_the_hosts_own_segment_or_groups() {
    let inner = "inner_local = [\"192.0.2.0/24\"]\ninner_remote = [\"192.0.0.0/8\", \"224.0.0.0/8\"]\n";
    on_network(&format!("{PSK}{inner}"), |mut barrier| {
        assert!(!can_send("192.0.2.7", "192.0.9.1"));
        assert!(can_send("192.0.2.7", "192.0.2.9") && can_send("192.0.2.7", "224.0.0.5"));
        // A peer on the segment, whose own address its tunnel is for.
        barrier.add_tunnel(&[selector("192.0.2.7/32", "192.0.2.9/32", 0)]);
        assert!(!can_send("192.0.2.7", "192.0.2.9"));
    });
}

#[test]
fn only_the_protocol_and_ports_of_a_tunnel_are_dropped() {
    on_network("", |mut barrier| {
        let any = PortRange::ANY;
        let [own, other] = [5000, 5001].map(|port| PortRange { first: port, last: port });
        let far = PortRange { first: 6000, last: 6000 };
        for (protocol, local_ports, remote_ports, is_open) in [
            (Some(6), any, any, true),
            (Some(17), any, any, false),
            (Some(17), own, any, false),
            (Some(17), other, any, true),
            (Some(17), own, far, false),
            (None, any, far, false),
            // Ranges are left alone.
            (Some(17), PortRange { first: 1, last: 6000 }, any, true),
        ] {
            let tunnel = [Selector {
                protocol,
                local_ports,
                remote_ports,
                ..selector("0.0.0.0/0", "10.98.0.7/32", 32)
            }];
            barrier.add_tunnel(&tunnel);
            assert_eq!(can_send("192.0.2.7", FAR), is_open, "{tunnel:?}");
            barrier.remove_tunnel(&tunnel);
        }
    });
}

#[test]
fn peers_can_neither_make_many_tables_nor_lock_anybody_out() {
    on_network("", |mut barrier| {
        let wide = ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "10.98.0.0/31", "10.98.0.6/31"]
            .map(|remote| selector("0.0.0.0/0", remote, 0));
        assert!(barrier.add_tunnel(&wide) && can_send("192.0.2.7", FAR));
        let one = |port: u16| PortRange { first: port, last: port };
        let mut all = Vec::new();
        for local in 8..=32 {
            let base = selector(&format!("192.0.2.7/{local}"), "10.98.0.7/32", 0);
            let udp = Selector { protocol: Some(17), ..base.clone() };
            let by_port = Selector { local_ports: one(5000), ..udp.clone() };
            let by_ports = Selector { remote_ports: one(6000), ..by_port.clone() };
            all.extend([base, udp, by_port, by_ports].map(|selector| [selector]));
        }
        let sets = || {
            let listed = std::process::Command::new("nft").args(["list", "sets"]).output().unwrap();
            assert!(listed.status.success());
            String::from_utf8(listed.stdout).unwrap().matches("set p0-").count()
        };
        for _ in 0..2 {
            let kept: Vec<_> = all.iter().filter(|tunnel| barrier.add_tunnel(&tunnel[..])).collect();
            assert_eq!((kept.len(), sets(), can_send("192.0.2.7", FAR)), (64, 64, false));
            kept.iter().for_each(|tunnel| barrier.remove_tunnel(&tunnel[..]));
            assert_eq!((sets(), can_send("192.0.2.7", FAR)), (0, true));
        }
    });
}

#[test]
fn configuration_says_what_the_host_must_not_send_in_clear() {
    let pool = "[[pool]]\nname = \"p\"\naddresses = \"10.98.0.0-10.98.0.255\"\n";
    let wide_pool = "[[pool]]\nname = \"p\"\naddresses = \"10.0.0.0-12.255.255.255\"\n";
    let local = "inner_local = [\"192.0.2.0/24\"]\n";
    let elsewhere = "inner_local = [\"10.1.0.0/24\"]\n";
    let everything = "inner_local = [\"0.0.0.0/0\"]\n";
    let far = "inner_remote = [\"10.98.0.0/24\"]\n";
    let halves = "inner_remote = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n";
    let called = "remote = \"203.0.113.1\"\n";
    for (more, is_open) in [
        (format!("{PSK}{local}{far}"), false),
        (format!("{PSK}{elsewhere}{far}"), true),
        (format!("{PSK}{elsewhere}pool = \"p\"\n{pool}"), false),
        (format!("{PSK}{called}{elsewhere}{far}"), false),
        (format!("{PSK}{called}request_address = true\n"), true),
        (format!("{PSK}{local}"), true),
        (format!("{PSK}{local}{halves}"), true),
        (format!("{PSK}{local}{ALL_BUT_ONE}"), true),
        (format!("{PSK}{called}{elsewhere}{ALL_BUT_ONE}"), true),
        (format!("{PSK}{everything}{halves}"), true),
        (format!("{PSK}{called}{everything}{halves}"), true),
        (format!("{PSK}{local}inner_remote = [\"0.0.0.0/0\"]\n"), true),
        (format!("{PSK}{everything}pool = \"p\"\n{wide_pool}"), true),
    ] {
        on_network(&more, |_barrier| assert_eq!(can_send("192.0.2.7", FAR), is_open, "{more}"));
    }
}

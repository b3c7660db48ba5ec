//! Addresses, configurations, tunnels and ports of simulated gateways.
//!
//! ```text
//! terminals ── OUTSIDE 203.0.113.1, 2001:db8:1::1 ── gateway ── 10.99.0.1, fd00:99::1 INSIDE ── hosts
//! ```
//!
//! Tests have the networks of the picture inside, benchmarks and the demonstration only [`SERVER`].

use crate::{
    config::model::{Config, Encapsulation, Gateway, Ike, PathProbing, Remote, Roam, Route, Sa, Tunnel},
    launch::OpenPort,
    sim::ike::connections,
    slow_path::neighbours::Stations,
};
use std::net::{IpAddr, Ipv4Addr};
use wayfarer_dataplane::{
    crypto::Suite,
    port::{
        Mac, Port,
        memory::{self, Wire},
    },
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
};
use wayfarer_mobility::mip::siu::UDP_PORT;
use zeroize::Zeroizing;

/// Index of the port towards terminals.
pub const OUTSIDE: usize = 0;
/// Index of the port towards hosts.
pub const INSIDE: usize = 1;
/// The gateway's outer address.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::from_octets(connections::GATEWAY));
/// The host that all terminals of a benchmark talk to.
pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// The gateway's MAC addresses, by port.
pub const GATEWAY_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];
/// The MAC address of the one station at the other end of each port.
pub const STATION_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 0x20], [2, 0, 0, 0, 0, 0x21]];
/// Names of the ports.
const NAMES: [&str; 2] = ["outside", "inside"];

/// Parses an IP address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an address"))
}

/// Finds the suite of this name.
pub fn suite(name: &str) -> Suite {
    name.parse().unwrap_or_else(|_| panic!("{name} is not a suite"))
}

/// Makes a selector from the prefixes of the gateway's side and the peer's.
pub fn selector(local: &str, remote: &str) -> Selector {
    let prefix = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is not a prefix"));
    Selector::configured(prefix(local), prefix(remote))
}

/// Makes keying material that differs for each `seed`. It is never used outside this process.
pub fn material(suite: Suite, seed: u32) -> Zeroizing<Vec<u8>> {
    Zeroizing::new((0..suite.key_len()).map(|i| (seed >> (8 * (i % 4))) as u8 ^ i as u8).collect())
}

/// Makes a new SA with the keying material of `seed`.
pub fn sa(spi: u32, suite: Suite, seed: u32) -> Sa {
    Sa { spi: Spi(spi), cipher: suite, key: material(suite, seed), sequence: 0 }
}

/// Makes a tunnel with default settings and without selectors, whose peer may be anywhere. It sends
/// nothing of its own: the MTU of its path is not looked for.
pub fn bare_tunnel(name: String, inbound: Sa, outbound: Sa) -> Tunnel {
    Tunnel {
        name,
        mode: Mode::Tunnel,
        local: GATEWAY,
        remote: Remote::Any,
        encap: Encapsulation::None,
        selectors: vec![],
        roam: Roam::Follow,
        home: None,
        pin_source: false,
        window: 1024,
        esn: false,
        dscp: None,
        df: Df::Copy,
        tfc: 0,
        mtu: None,
        outer_fragments: false,
        path_probing: PathProbing::Off,
        udp6_checksum: true,
        keepalive: None,
        limits: Limits::NONE,
        soft_time: None,
        hard_time: None,
        inbound,
        outbound,
    }
}

/// Makes tunnel number `n` of a test: SPIs 0x1000 + n in and 0x2000 + n out, inner addresses
/// 10.98.0.n and fd00:98::n.
pub fn tunnel(n: u32, suite: Suite) -> Tunnel {
    let selectors = vec![
        selector("10.99.0.0/24", &format!("10.98.0.{n}")),
        selector("fd00:99::/64", &format!("fd00:98::{n:x}")),
    ];
    let (inbound, outbound) = (sa(0x1000 + n, suite, n), sa(0x2000 + n, suite, n + 1000));
    Tunnel { selectors, ..bare_tunnel(format!("t{n}"), inbound, outbound) }
}

/// Makes the `[gateway]` section for a gateway with this many tunnels.
pub fn gateway_settings(tunnels: usize) -> Gateway {
    Gateway {
        workers: None,
        control: None,
        idle_sleep: None,
        encap_ports: vec![4500],
        siu_port: UDP_PORT,
        kernel_routes: false,
        mss_clamp: true,
        frames: 512,
        frame_size: Some(2048),
        tunnels,
        flow_cache: Gateway::default_flow_cache(tunnels),
    }
}

/// Makes a configuration of only these parts.
pub fn bare_config(gateway: Gateway, routes: Vec<Route>, tunnels: Vec<Tunnel>) -> Config {
    Config {
        gateway,
        ports: vec![],
        dpdk: None,
        routes,
        neighbours: vec![],
        nats: vec![],
        home_agent: None,
        siu: vec![],
        tunnels,
        policies: vec![],
        ike: Ike::default(),
    }
}

/// Makes the configuration of a test, whose default routes lead outside.
pub fn config(tunnels: Vec<Tunnel>) -> Config {
    let default_route = |to: &str, via: &str| {
        let to = to.parse().unwrap_or_else(|_| unreachable!("a prefix"));
        Route { to, via: Some(ip(via)), port: OUTSIDE }
    };
    let routes = vec![default_route("0.0.0.0/0", "203.0.113.254"), default_route("::/0", "2001:db8:1::fe")];
    bare_config(Gateway { encap_ports: vec![4500, 14500], ..gateway_settings(64) }, routes, tunnels)
}

/// Makes the configuration of a benchmark: `terminals` are on the network of the outside port,
/// [`SERVER`] on that of the inside port.
pub fn two_port_config(gateway: Gateway, terminals: Prefix, tunnels: Vec<Tunnel>) -> Config {
    let routes = vec![
        Route { to: terminals, via: None, port: OUTSIDE },
        Route { to: Prefix::host(SERVER), via: None, port: INSIDE },
    ];
    bare_config(gateway, routes, tunnels)
}

/// Makes port `index` of a gateway, without addresses.
pub fn bare_port(index: usize, stations: Stations, queues: Vec<Box<dyn Port>>) -> OpenPort {
    OpenPort {
        name: NAMES[index].to_owned(),
        kind: "memory".to_owned(),
        mac: GATEWAY_MAC[index],
        mtu: 1500,
        mtu_limit: 1500,
        frames_hold: usize::MAX,
        fills_checksums: false,
        addresses: vec![],
        stations,
        is_host: false,
        device_name: None,
        device: None,
        vlan: None,
        sub_ports: vec![],
        shared: None,
        exception: None,
        monitor: None,
        capture: None,
        reopener: None,
        queues,
    }
}

/// Makes both ports of a benchmark's gateway from their queues, with one station at the other end
/// of each.
pub fn two_ports(queues: [Vec<Box<dyn Port>>; 2]) -> Vec<OpenPort> {
    let mut ports: Vec<_> = (0..)
        .zip(queues)
        .map(|(index, queues)| bare_port(index, Stations::Only(STATION_MAC[index]), queues))
        .collect();
    ports[OUTSIDE].addresses = vec![(GATEWAY, Prefix::host(GATEWAY))];
    ports
}

/// Makes both ports of a test's gateway with a queue for each of `workers`, and the far ends of the
/// queues by port.
pub fn open_ports(workers: usize, depth: usize) -> (Vec<OpenPort>, [Vec<Wire>; 2]) {
    let addresses = [
        [("203.0.113.1", "203.0.113.0/24"), ("2001:db8:1::1", "2001:db8:1::/64")],
        [("10.99.0.1", "10.99.0.0/24"), ("fd00:99::1", "fd00:99::/64")],
    ];
    let (mut ports, mut wires) = (vec![], [vec![], vec![]]);
    for (index, addresses) in addresses.into_iter().enumerate() {
        let mut queues: Vec<Box<dyn Port>> = vec![];
        for _ in 0..workers {
            let (port, wire) = memory::pair(depth, 2048);
            queues.push(Box::new(port));
            wires[index].push(wire);
        }
        let subnet = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("a prefix"));
        let addresses = addresses.map(|(address, prefix)| (ip(address), subnet(prefix))).to_vec();
        ports.push(OpenPort { addresses, ..bare_port(index, Stations::Ask, queues) });
    }
    (ports, wires)
}

/// As [`open_ports`], for one worker and with the host's own stack inside.
pub fn open_host_ports(depth: usize) -> (Vec<OpenPort>, [Vec<Wire>; 2]) {
    let (mut ports, wires) = open_ports(1, depth);
    ports[INSIDE].is_host = true;
    ports[INSIDE].stations = Stations::Only(STATION_MAC[INSIDE]);
    (ports, wires)
}

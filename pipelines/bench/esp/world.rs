//! The gateway that is measured, as its configuration says.
//!
//! ```text
//! terminals 100.64.0.0/10 ═ OUTSIDE ═ gateway 203.0.113.1 ═ INSIDE ═ server 10.0.0.2
//! ```
//!
//! Every terminal has an outer and an inner address of its own, and a pair of SAs. One station leads to all of them.

use super::port::{LoadPort, Plug};
use crate::{
    config::model::{Config, Encapsulation, Gateway, Ike, Remote, Roam, Route, Sa, Tunnel},
    launch::OpenPort,
    slow_path::neighbours::Stations,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use wayfarer_dataplane::{
    crypto::Suite,
    port::{Mac, Port},
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
};
use zeroize::Zeroizing;

pub(super) const OUTSIDE: usize = 0;
pub(super) const INSIDE: usize = 1;
/// The gateway's outer address.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Who all terminals talk to.
pub(super) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// The gateway's MAC addresses, by port.
pub(super) const GATEWAY_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
/// MAC addresses at the other end of each port.
pub(super) const STATION_MAC: [Mac; 2] = [[2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]];
/// Most tunnels that carry packets.
pub(super) const MOST_TUNNELS: u32 = 1 << 20;
/// Different keys in each direction. Every SA has a [`Key`](wayfarer_dataplane::crypto::Key) of its own all the same;
/// the terminals share theirs, so that the load does not cost the memory of a second gateway.
pub(super) const KEYS: u32 = 64;

const OUTER: u32 = 0x6440_0000;
const INNER: u32 = 0x0a80_0000;
const SPI_IN: u32 = 0x0100_0000;
const SPI_OUT: u32 = 0x0200_0000;

/// Where terminal `index` is, after a number of moves: there are four places.
pub(super) fn outer_address(index: u32, moves: u8) -> IpAddr {
    Ipv4Addr::from_bits(OUTER + u32::from(moves % 4) * MOST_TUNNELS + index % MOST_TUNNELS).into()
}

/// The inner address of terminal `index`.
pub(super) fn inner_address(index: u32) -> IpAddr {
    Ipv4Addr::from_bits(INNER + index).into()
}

/// The terminal with this inner address.
pub(super) fn terminal_at(address: IpAddr) -> Option<u32> {
    let IpAddr::V4(address) = address else { return None };
    address.to_bits().checked_sub(INNER).filter(|index| *index < MOST_TUNNELS)
}

/// The SPI of packets from terminal `index`.
pub(super) fn spi_in(index: u32) -> u32 {
    SPI_IN + index
}

/// The terminal to which packets with this SPI go.
pub(super) fn terminal_of(spi: u32) -> Option<u32> {
    spi.checked_sub(SPI_OUT).filter(|index| *index < MOST_TUNNELS)
}

/// The key of an SA of terminal `index`.
pub(super) fn material(suite: Suite, index: u32, inbound: bool) -> Zeroizing<Vec<u8>> {
    let seed = (index % KEYS) * 2 + u32::from(inbound);
    Zeroizing::new((0..suite.key_len()).map(|i| (seed as usize * 37 + i * 11 + 5) as u8).collect())
}

/// The name of the tunnel of terminal `index`.
pub(super) fn name(index: u32) -> String {
    format!("terminal-{index}")
}

/// A gateway with `tunnels` tunnels, for inner packets of up to `largest` bytes.
pub(super) fn config(tunnels: u32, suite: Suite, window: u32, largest: usize) -> Config {
    let gateway = Gateway {
        workers: None,
        control: None,
        idle_sleep: None,
        encap_ports: vec![4500],
        kernel_routes: false,
        mss_clamp: true,
        frames: 1024,
        frame_size: if mtu(largest) > 1500 { 9728 } else { 2048 },
        tunnels: tunnels as usize,
    };
    let terminals = Prefix::new(outer_address(0, 0), 10).unwrap_or(Prefix::host(outer_address(0, 0)));
    let routes = vec![
        Route { to: terminals, via: None, port: OUTSIDE },
        Route { to: Prefix::host(SERVER), via: None, port: INSIDE },
    ];
    let tunnels = (0..tunnels).map(|index| tunnel(index, suite, window)).collect();
    Config {
        gateway,
        ports: Vec::new(),
        dpdk: None,
        routes,
        tunnels,
        policies: Vec::new(),
        ike: Ike::default(),
    }
}

/// The MTU of ports over which inner packets of up to `largest` bytes travel in ESP.
fn mtu(largest: usize) -> usize {
    if largest <= 1420 { 1500 } else { 9216 }
}

/// The tunnel of terminal `index`.
pub(super) fn tunnel(index: u32, suite: Suite, window: u32) -> Tunnel {
    let sa =
        |spi, inbound| Sa { spi: Spi(spi), cipher: suite, key: material(suite, index, inbound), sequence: 0 };
    Tunnel {
        name: name(index),
        mode: Mode::Tunnel,
        local: GATEWAY,
        remote: Remote::At(outer_address(index, 0), 0),
        encap: Encapsulation::None,
        selectors: vec![Selector::configured(Prefix::host(SERVER), Prefix::host(inner_address(index)))],
        roam: Roam::Follow,
        pin_source: false,
        window,
        esn: false,
        dscp: None,
        df: Df::Copy,
        tfc: 0,
        mtu: None,
        udp6_checksum: true,
        keepalive: None,
        limits: Limits::NONE,
        soft_time: None,
        hard_time: None,
        inbound: sa(SPI_IN + index, true),
        outbound: sa(SPI_OUT + index, false),
    }
}

/// The gateway's two ports, with a queue for each of `workers`, and what is shared with those queues.
pub(super) fn ports(workers: usize, largest: usize) -> (Vec<OpenPort>, [Vec<Arc<Plug>>; 2]) {
    let plugs: [Vec<Arc<Plug>>; 2] = std::array::from_fn(|_| (0..workers).map(|_| Arc::default()).collect());
    let port = |index: usize| OpenPort {
        name: ["outside", "inside"][index].to_owned(),
        kind: "memory".to_owned(),
        mac: GATEWAY_MAC[index],
        mtu: mtu(largest),
        fills_checksums: false,
        addresses: if index == OUTSIDE { vec![(GATEWAY, Prefix::host(GATEWAY))] } else { vec![] },
        stations: Stations::Only(STATION_MAC[index]),
        is_host: false,
        device: None,
        shared: None,
        exception: None,
        monitor: None,
        queues: plugs[index].iter().map(|p| Box::new(LoadPort::new(p.clone())) as Box<dyn Port>).collect(),
    };
    (vec![port(OUTSIDE), port(INSIDE)], plugs)
}

//! The whole gateway in one process: real workers and slow path on memory ports, and a simulated fleet of terminals
//! behind simulated NATs that keep changing address. No root, no NIC, no configuration.
//!
//! ```text
//! fleet: terminals ─ NATs ═ memory wire ═ gateway ═ memory wire ═ an echo server
//! ```

mod fleet;
mod nat;
mod report;

pub use report::{LatencyReport, Report};

use crate::{
    config::model::{Config, Encapsulation, Gateway as GatewayConfig, Ike, Remote, Roam, Route, Sa, Tunnel},
    control::protocol::{Command, Outcome, Reply, View},
    launch::{Assembly, Gateway, OpenPort, Seat, StartError},
    slow_path::neighbours::Stations,
};
use fleet::Fleet;
use nat::{Mapping, Nats};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    crypto::Suite,
    pool::Pool,
    port::{Mac, memory},
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
    wire::esp,
};
use zeroize::Zeroizing;

/// The gateway's outer address.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The echo server.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// MAC addresses of the gateway's ports and of what is at the other ends.
const OUTSIDE: Mac = [2, 0, 0, 0, 0, 1];
const INSIDE: Mac = [2, 0, 0, 0, 0, 2];
const INTERNET: Mac = [2, 0, 0, 0, 0, 3];
const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 4];
/// Frames on each wire.
const DEPTH: usize = 1024;
/// How long the fleet waits at the end for echoes that are still on their way.
const DRAIN: Duration = Duration::from_millis(500);

/// What to demonstrate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long.
    pub duration: Duration,
    /// Terminals, at most [`Options::MOST`].
    pub terminals: u32,
    /// How often each of them moves, on average.
    pub move_every: Duration,
    /// Bytes of an inner packet, 64 to 1400.
    pub size: usize,
    /// A packet that arrives where a terminal was until so long ago was in flight when it moved.
    pub in_flight: Duration,
}

impl Options {
    /// Most terminals: as many as there are inner addresses.
    pub const MOST: u32 = 1 << 20;
}

/// Why there was no demonstration.
#[derive(Debug)]
pub enum DemoError {
    /// No memory for frames.
    Memory(io::Error),
    /// The gateway did not start.
    Start(StartError),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Start(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for DemoError {}

/// Runs the demonstration. `progress` is called about five times a second with what there is so far.
///
/// # Errors
/// See [`DemoError`].
pub fn run(options: &Options, mut progress: impl FnMut(&Report)) -> Result<Report, DemoError> {
    let mut fleet_nats = Nats::default();
    let mappings = fleet_nats.attach_all(Instant::now(), options.terminals);
    let config = config(&mappings);
    let (outside, internet) = memory::pair(DEPTH, 2048);
    let (inside, server) = memory::pair(DEPTH, 2048);
    let port = |name: &str, port, mac, station, addresses| OpenPort {
        name: name.to_owned(),
        kind: "memory".to_owned(),
        mac,
        mtu: 1500,
        fills_checksums: false,
        addresses,
        stations: Stations::Only(station),
        is_host: false,
        device: None,
        shared: None,
        exception: None,
        monitor: None,
        queues: vec![Box::new(port)],
    };
    let ports = vec![
        port("outside", outside, OUTSIDE, INTERNET, vec![(GATEWAY, Prefix::host(GATEWAY))]),
        port("inside", inside, INSIDE, SERVER_MAC, vec![]),
    ];
    let pool = Pool::new(config.gateway.frames, config.gateway.frame_size).map_err(DemoError::Memory)?;
    // The last core, so that the fleet and the slow path have the others.
    let core =
        core_affinity::get_core_ids().and_then(|cores| cores.last().copied().filter(|_| cores.len() > 1));
    let mut gateway = Assembly::new(&config, vec![Seat { pool, core }], ports)
        .and_then(Gateway::start)
        .map_err(DemoError::Start)?;

    let mut fleet = Fleet::new(&config.tunnels, fleet_nats, &mappings, internet, server, options);
    let start = Instant::now();
    let mut shown = start;
    while start.elapsed() < options.duration {
        fleet.turn(Instant::now(), true);
        if shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            progress(&report::of(&fleet, &gateway, start.elapsed(), options, 0));
        }
    }
    let elapsed = start.elapsed();
    let deadline = Instant::now() + DRAIN;
    while fleet.outstanding() > 0 && Instant::now() < deadline {
        fleet.turn(Instant::now(), false);
    }
    let followed = followed(&gateway);
    gateway.stop_workers();
    Ok(report::of(&fleet, &gateway, elapsed, options, followed))
}

/// Moves that the gateway followed.
fn followed(gateway: &Gateway) -> u64 {
    match gateway.ask(Command::Show { what: View::Sa }).map(|answer| answer.outcome) {
        Some(Outcome::Result(Reply::Sa(all))) => all.iter().map(|sa| sa.moves).sum(),
        _ => 0,
    }
}

/// The inner address of terminal `index`.
fn inner_address(index: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a80_0000 + index).into()
}

fn config(mappings: &[Mapping]) -> Config {
    let gateway = GatewayConfig {
        workers: None,
        control: None,
        idle_sleep: None,
        encap_ports: vec![4500],
        kernel_routes: false,
        mss_clamp: true,
        frames: 4 * DEPTH,
        frame_size: 2048,
        tunnels: mappings.len(),
    };
    let everywhere = |port, to| Route { to: Prefix::new(to, 8).unwrap_or(Prefix::host(to)), via: None, port };
    let routes = vec![
        everywhere(0, IpAddr::from([198, 0, 0, 0])),
        Route { to: Prefix::host(SERVER), via: None, port: 1 },
    ];
    let tunnels = (0..).zip(mappings).map(|(index, mapping)| tunnel(index, mapping)).collect();
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

fn tunnel(index: u32, mapping: &Mapping) -> Tunnel {
    let cipher = Suite::AES_128_GCM_16;
    // Keys of a demonstration that never leaves this process: all that matters is that they differ.
    let sa = |spi: u32| Sa {
        spi: Spi(spi),
        cipher,
        key: Zeroizing::new((0..cipher.key_len()).map(|i| (spi >> (8 * (i % 4))) as u8 ^ i as u8).collect()),
        sequence: 0,
    };
    Tunnel {
        name: format!("terminal-{index}"),
        mode: Mode::Tunnel,
        local: GATEWAY,
        remote: Remote::At(mapping.address, mapping.port.unwrap_or(0)),
        encap: mapping.port.map_or(Encapsulation::None, |_| Encapsulation::Udp(esp::NAT_T_PORT)),
        selectors: vec![Selector::configured(Prefix::host(SERVER), Prefix::host(inner_address(index)))],
        roam: Roam::Follow,
        pin_source: false,
        window: 1024,
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
        inbound: sa(0x0100_0000 + index),
        outbound: sa(0x0200_0000 + index),
    }
}

//! Demonstrates the whole gateway in one process: real workers and slow path on memory ports, with
//! simulated terminals that keep moving behind simulated NATs. It needs no root, NIC or
//! configuration.
//!
//! ```text
//! fleet: terminals ─ NATs ═ memory wire ═ gateway ═ memory wire ═ echo server
//! ```

mod fleet;
mod options;
mod report;
mod roaming;

pub use options::Options;
pub use report::{LatencyReport, Report};

use crate::{
    config::{
        frame_size,
        model::{Config, Encapsulation, Gateway as GatewayConfig, Remote, Tunnel},
    },
    control::protocol::{Command, Outcome, Reply, SaView, View},
    launch::{Assembly, Gateway, StartError, WorkerResources},
    sim::{
        addresses,
        fixtures::{SERVER, bare_tunnel, gateway_settings, sa, two_port_config, two_ports},
    },
};
use fleet::Fleet;
use roaming::Roaming;
use std::{
    fmt, io,
    net::SocketAddr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    crypto::Suite, pool::Pool, port::memory, sa::Selector, table::Prefix, wire::esp::NAT_T_PORT,
};

/// Frames on each wire.
const DEPTH: usize = 1024;
/// Turns of the worker without a packet after which none is on its way any more.
const IDLE_TURNS: u64 = 1000;
/// How long the fleet waits at the end for packets that are still on their way, at most. The
/// machine may keep the worker from running for a while.
const DRAIN: Duration = Duration::from_secs(10);

/// The reason why there was no demonstration.
#[derive(Debug)]
pub enum DemoError {
    /// Memory for frames could not be had.
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

/// Runs the demonstration and returns its results. Calls `progress` about five times a second with
/// the results so far.
///
/// # Errors
/// See [`DemoError`].
pub fn run(options: &Options, mut progress: impl FnMut(&Report)) -> Result<Report, DemoError> {
    let mut roaming = Roaming::new(options.terminals);
    let config =
        config((0..options.terminals).map(|index| tunnel(index, roaming.mapping(index as usize))).collect());
    let (outside, internet) = memory::pair(DEPTH, 2048);
    let (inside, server) = memory::pair(DEPTH, 2048);
    let ports = two_ports([vec![Box::new(outside)], vec![Box::new(inside)]]);
    let pool = Pool::new(config.gateway.frames, frame_size(&config)).map_err(DemoError::Memory)?;
    // The worker has the last core, so that the fleet and the slow path have the others.
    let core =
        core_affinity::get_core_ids().and_then(|cores| cores.last().copied().filter(|_| cores.len() > 1));
    let mut gateway = Assembly::new(&config, vec![WorkerResources { pool, core }], ports)
        .and_then(Gateway::start)
        .map_err(DemoError::Start)?;

    let mut fleet = Fleet::new(&config.tunnels, roaming, internet, server, options);
    let start = Instant::now();
    let mut shown = start;
    while start.elapsed() < options.duration {
        fleet.turn(Instant::now(), true);
        if shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            progress(&report::of(&fleet, &gateway, start.elapsed(), options));
        }
    }
    let elapsed = start.elapsed();
    drain(&mut fleet, &gateway);
    let sas = sas(&gateway);
    gateway.stop_workers();
    let (followed, astray) = (sas.iter().map(|sa| sa.moves).sum(), fleet.roaming.astray(&sas));
    Ok(Report { followed, astray, ..report::of(&fleet, &gateway, elapsed, options) })
}

/// Has the fleet receive the packets that are still on their way.
fn drain(fleet: &mut Fleet, gateway: &Gateway) {
    let turns = || gateway.counters().map(|counters| counters.turns.value()).sum::<u64>();
    let (deadline, mut quiet_since) = (Instant::now() + DRAIN, turns());
    while fleet.outstanding() > 0 && Instant::now() < deadline {
        let is_gateway_done = turns() >= quiet_since + IDLE_TURNS;
        if fleet.turn(Instant::now(), false) {
            quiet_since = turns();
        } else if is_gateway_done {
            return;
        }
    }
}

/// Returns the gateway's view of each terminal's tunnel.
fn sas(gateway: &Gateway) -> Vec<SaView> {
    match gateway.ask(Command::Show { what: View::Sa }).map(|answer| answer.outcome) {
        Some(Outcome::Result(Reply::Sa(all))) => all,
        _ => vec![],
    }
}

fn config(tunnels: Vec<Tunnel>) -> Config {
    let gateway = GatewayConfig { frames: 4 * DEPTH, ..gateway_settings(tunnels.len()) };
    two_port_config(gateway, addresses::all_outer(), tunnels)
}

fn tunnel(index: u32, mapping: SocketAddr) -> Tunnel {
    let sa = |spi| sa(spi, Suite::AES_128_GCM_16, spi);
    Tunnel {
        remote: Remote::At(mapping.ip(), mapping.port()),
        encap: if mapping.port() > 0 { Encapsulation::Udp(NAT_T_PORT) } else { Encapsulation::None },
        selectors: vec![Selector::configured(Prefix::host(SERVER), Prefix::host(addresses::inner(index)))],
        ..bare_tunnel(format!("terminal-{index}"), sa(0x0100_0000 + index), sa(0x0200_0000 + index))
    }
}

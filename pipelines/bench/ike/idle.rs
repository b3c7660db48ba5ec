//! Measures the memory of peers that are connected and silent.

use super::{
    BenchError, Mode, Options, Row, Target, fleet,
    gateway::{ProtocolOnly, Serve, WholeGateway},
    world::{Proof, World},
};
use crate::bench::resident;
use std::time::Duration;

/// Bytes per peer: 1.5 GiB for a hundred thousand.
const TARGET: f64 = 1.5 * (1 << 30) as f64 / 100_000.0;
/// How long a peer may be silent.
const LIVENESS: Duration = Duration::from_secs(600);

pub(super) fn measure(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    // Rows show all memory of the process: a difference would miss memory that earlier modes left
    // free.
    let world = World::new(Proof::Psk)?;

    let mut gateway = ProtocolOnly::new(&world, Some(LIVENESS));
    fill(&mut gateway, &world, options.peers)?;
    let bytes = resident();
    gateway.cpu = Duration::ZERO;
    gateway.pass(LIVENESS + Duration::from_secs(1));
    let ns_per_timer = gateway.cpu.as_nanos() as f64 / gateway.liveness_checks.max(1) as f64;
    each(&row(
        "protocol",
        options.peers,
        bytes,
        [("asked_after", gateway.liveness_checks as f64), ("ns_to_ask", ns_per_timer)],
    ));
    drop(gateway);

    let config = world.config(options.peers, Some(LIVENESS));
    let mut gateway = WholeGateway::new(&config)?;
    fill(&mut gateway, &world, options.peers)?;
    let bytes = resident();
    let tunnels = gateway.slow_path.tunnels().iter().count() as f64;
    each(&row("gateway", options.peers, bytes, [("tunnels", tunnels)]));
    Ok(())
}

/// Connects terminals, and drops their own state.
fn fill(gateway: &mut impl Serve, world: &World, peers: u32) -> Result<(), BenchError> {
    fleet::groups(world, peers).try_for_each(|mut group| group.connect(gateway))
}

fn row<const N: usize>(case: &'static str, peers: u32, bytes: u64, details: [(&'static str, f64); N]) -> Row {
    let per_peer = bytes as f64 / f64::from(peers);
    let mut row =
        Row::new(Mode::Idle, case, (per_peer, "bytes/peer"), Some(Target::AtMost(TARGET.floor())), details);
    row.details.extend([("peers", f64::from(peers)), ("mib", bytes as f64 / f64::from(1 << 20))]);
    row
}

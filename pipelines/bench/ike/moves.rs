//! Measures how many peers move per second. A move is UPDATE_SA_ADDRESSES with NAT detection and
//! COOKIE2, its answer, and the return routability check (RFC 4555 §3.5, §3.7).

use super::{
    BenchError, Mode, Options, Row, Target,
    fleet::{self, Group},
    gateway::{ProtocolOnly, Serve, WholeGateway},
    world::{Proof, World},
};
use std::time::Duration;

/// Moves per second that one core should follow.
const TARGET: f64 = 20_000.0;

pub(super) fn measure(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    let world = World::new(Proof::Psk)?;
    let peers = options.peers.min(Options::ACTIVE);

    let mut gateway = ProtocolOnly::new(&world, None);
    let mut groups = connect_all(&mut gateway, &world, peers)?;
    (gateway.cpu, gateway.moves) = Default::default();
    let moves = roam(&mut gateway, &mut groups, |gateway| gateway.cpu >= options.duration)?;
    if moves != gateway.moves {
        return Err(BenchError::Stuck("moves are answered but not reported"));
    }
    each(&row("protocol", moves, gateway.cpu, Duration::ZERO));
    drop((gateway, groups));

    let mut gateway = WholeGateway::new(&world.config(peers, None))?;
    let mut groups = connect_all(&mut gateway, &world, peers)?;
    (gateway.slow_cpu, gateway.worker_cpu) = Default::default();
    let moves = roam(&mut gateway, &mut groups, |gateway| gateway.slow_cpu >= options.duration)?;
    if moves != gateway.moves() {
        return Err(BenchError::Stuck("moves are answered but tunnels do not move"));
    }
    each(&row("slow path", moves, gateway.slow_cpu, gateway.worker_cpu));
    Ok(())
}

/// Connects `peers` terminals, and returns them.
fn connect_all(gateway: &mut impl Serve, world: &World, peers: u32) -> Result<Vec<Group>, BenchError> {
    let mut groups: Vec<Group> = fleet::groups(world, peers).collect();
    groups.iter_mut().try_for_each(|group| group.connect(gateway))?;
    Ok(groups)
}

/// Moves all terminals in turn until `is_enough`; returns the number of moves.
fn roam<G: Serve>(
    gateway: &mut G,
    groups: &mut [Group],
    is_enough: impl Fn(&G) -> bool,
) -> Result<u64, BenchError> {
    let mut moves = 0;
    loop {
        for group in &mut *groups {
            group.move_all(gateway)?;
            moves += group.terminals.len() as u64;
            if is_enough(gateway) {
                return Ok(moves);
            }
        }
    }
}

fn row(case: &'static str, moves: u64, cpu: Duration, worker: Duration) -> Row {
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / moves as f64;
    let rate = moves as f64 / cpu.max(Duration::from_nanos(1)).as_secs_f64();
    let details = [("moves", moves as f64), ("us_per_move", each(cpu)), ("worker_us_per_move", each(worker))];
    Row::new(Mode::Move, case, (rate, "moves/s"), Some(Target::AtLeast(TARGET)), details)
}

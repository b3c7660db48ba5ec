//! Groups of terminals, in lockstep with a gateway.

use super::{BenchError, gateway::Serve, terminal::Terminal, world::World};
use crate::sim::addresses;
use std::time::{Duration, Instant};
use wayfarer_mobility::transmit::Transmit;

/// Terminals that act at once: no more than a worker hands up in a turn.
pub(super) const GROUP: usize = 32;
/// How long a group may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects `group`, whose first terminal has index `first`.
pub(super) fn connect(
    gateway: &mut impl Serve,
    first: u32,
    group: &mut [Terminal],
) -> Result<(), BenchError> {
    let now = gateway.now();
    group.iter_mut().for_each(|terminal| terminal.connect(now));
    run_until(gateway, first, group, Terminal::is_connected, "peers do not connect")
}

/// Moves each terminal of `group` to its next address.
pub(super) fn move_all(
    gateway: &mut impl Serve,
    first: u32,
    group: &mut [Terminal],
) -> Result<(), BenchError> {
    let now = gateway.now();
    for terminal in group.iter_mut() {
        terminal.move_on(now);
        terminal.confirmed = 0;
    }
    run_until(gateway, first, group, |terminal| terminal.confirmed > 0, "moves are not answered")
}

/// Carries messages until there are none and every terminal of `group` `is_done`. Messages to an
/// address that a terminal has left are lost.
fn run_until(
    gateway: &mut impl Serve,
    first: u32,
    group: &mut [Terminal],
    is_done: impl Fn(&Terminal) -> bool,
    otherwise: &'static str,
) -> Result<(), BenchError> {
    let start = Instant::now();
    loop {
        let now = gateway.now();
        let up: Vec<Transmit> =
            group.iter_mut().flat_map(|terminal| terminal.send(now).collect::<Vec<_>>()).collect();
        let was_quiet = up.is_empty();
        let down = gateway.serve(&up);
        if was_quiet && down.is_empty() {
            if group.iter().all(&is_done) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(BenchError::Stuck(otherwise));
            }
            // A helper thread of the gateway is at work.
            std::thread::yield_now();
        }
        for transmit in &down {
            let to = transmit.addresses.remote.ip();
            let index = addresses::at_outer(to).and_then(|index| index.checked_sub(first));
            let terminal = index.and_then(|index| group.get_mut(index as usize));
            if let Some(terminal) = terminal.filter(|terminal| terminal.address() == to) {
                terminal.handle(now, transmit);
            }
        }
    }
}

/// Makes new terminals in groups, each with the index of its first terminal.
pub(super) fn groups(world: &World, terminals: u32) -> impl Iterator<Item = (u32, Vec<Terminal>)> {
    (0..terminals).step_by(GROUP).map(move |first| {
        let last = terminals.min(first + GROUP as u32);
        (first, (first..last).map(|index| Terminal::new(world, index)).collect())
    })
}

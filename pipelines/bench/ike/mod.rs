//! Key exchange and mobility: peers a second on one core, memory of a hundred thousand, and what a
//! worker's traffic notices of either.
//!
//! Peers are simulated in the same process, with the same state machines, and what they cost is not
//! counted: the figures are processor time of the gateway's own calls, and moments of its worker.
//!
//! | mode | gateway |
//! |---|---|
//! | `connect` | its endpoint and tasks, one core for both |
//! | `move` | its endpoint; and worker, slow path and tables, turned by hand |
//! | `idle` | the same two |
//! | `latency`, `rekey`, `flood` | worker and slow path in threads, under full traffic |

mod connect;
mod error;
mod fleet;
mod gateway;
mod idle;
mod live;
mod moves;
mod options;
mod report;
mod terminal;
mod world;

pub use error::BenchError;
pub use options::{Mode, Options, UnknownMode};
pub use report::{Row, Target};

/// Measures every mode, and hands over each row as soon as it is there.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core that no worker has, if there is one.
    super::apart(super::core_of(1), || {
        options.modes.iter().try_for_each(|mode| match mode {
            Mode::Connect => connect::measure(options, &mut each),
            Mode::Move => moves::measure(options, &mut each),
            Mode::Idle => idle::measure(options, &mut each),
            Mode::Latency | Mode::Rekey | Mode::Flood => live::measure(*mode, options, &mut each),
        })
    })
    .map_err(BenchError::Thread)?
}

//! Measures key exchange and mobility: peers per second on one core, memory of a hundred thousand
//! peers, and the effect of both on a worker's traffic.
//!
//! Peers are simulated in the same process, with the same state machines. Their cost is not
//! counted: the figures are the processor time of the gateway's own calls, and times of events that
//! its worker sees.
//!
//! | mode | gateway |
//! |---|---|
//! | `connect` | endpoint and tasks, one core for both |
//! | `move` | endpoint alone; then worker, slow path and tables, turned by hand |
//! | `idle` | as `move` |
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

/// Measures every mode, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core without a worker if there is one.
    super::run_on_core(super::core_of(1), || {
        options.modes.iter().try_for_each(|mode| match mode {
            Mode::Connect => connect::measure(options, &mut each),
            Mode::Move => moves::measure(options, &mut each),
            Mode::Idle => idle::measure(options, &mut each),
            Mode::Latency | Mode::Rekey | Mode::Flood => live::measure(*mode, options, &mut each),
        })
    })
    .map_err(BenchError::Thread)?
}

//! The whole way of a packet through a real gateway: the workers, tables, slow path and SAs of
//! `wayfarer gateway` on ports of memory.
//!
//! ```text
//! prepare a batch (another core) ─► workers carry it, timed ─► check samples of it ─► again
//! ```
//!
//! A packet is prepared like a peer's: fresh sequence number, fresh payload, of a terminal picked
//! at random. Frames lie in memory that another core wrote, as a device would have; batches are
//! larger than a core's own caches and smaller than the shared one, where a device puts packets
//! too. Within the timed part, each is copied whole into a fresh frame of the worker's pool,
//! carried through, counted and freed. What counts is the workers' processor time.

mod error;
mod hand;
mod load;
mod options;
mod port;
mod report;
mod rig;
mod unrest;
mod world;

pub use error::BenchError;
pub use load::Wrong;
pub use options::{Direction, Options, Size, Unknown};
pub use report::Row;

use rig::Rig;
use std::time::Duration;
use wayfarer_dataplane::crypto::Suite;

/// Measures every combination, and hands over each row as soon as it is there.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core that no worker has, if there is one: what this leaves in its caches shall not be
    // theirs.
    let core = super::core_of(options.workers);
    super::apart(core, || measure(options, &mut each)).map_err(BenchError::Thread)?
}

fn measure(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    for &cipher in &options.ciphers {
        for &sas in &options.sas {
            let mut rig = Rig::new(options, cipher, sas)?;
            for &direction in &options.directions {
                for &size in &options.sizes {
                    each(&rig.measure(options, direction, size)?);
                }
            }
        }
    }
    Ok(())
}

/// One gateway under one kind of load, for another harness than this one.
pub struct Traffic {
    rig: Rig,
    batches: rig::Batches,
    size: Size,
}

impl Traffic {
    /// A gateway with one worker and `sas` tunnels.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn new(direction: Direction, size: Size, sas: u32, cipher: Suite) -> Result<Self, BenchError> {
        let options = Options {
            directions: vec![direction],
            sizes: vec![size],
            sas: vec![sas],
            ciphers: vec![cipher],
            workers: 1,
            duration: Duration::ZERO,
            window: 1024,
            roam: 0,
            churn: 0,
        };
        let rig = Rig::new(&options, cipher, sas)?;
        Ok(Self { batches: rig.batches(direction, size), rig, size })
    }

    /// Carries `packets` packets, or some more to fill a batch, and checks samples of them; answers
    /// the processor time for `packets`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn carry(&mut self, packets: u64) -> Result<Duration, BenchError> {
        self.rig.carry(packets, &mut self.batches, self.size)
    }
}

//! Measures a packet's whole way through a real gateway: the workers, tables, slow path and SAs of
//! `wayfarer gateway` on ports of memory.
//!
//! ```text
//! prepare a batch (another core) ─► workers carry it, timed ─► check samples of it ─► repeat
//! ```
//!
//! Packets are prepared as peers would: each with a fresh sequence number and payload, from or to a
//! random terminal. As with a device, another core wrote the frames' memory. Batches are larger
//! than a core's own caches and smaller than the shared one, into which devices write too. In the
//! timed part, each packet is copied whole into a fresh frame of the worker's pool, carried
//! through, counted and freed. The figures are the workers' processor time.

mod control_load;
mod error;
mod load;
mod options;
mod port;
mod report;
mod rig;
mod worker;
mod world;

pub use error::BenchError;
pub use load::PacketError;
pub use options::{Direction, Fragments, Options, Size, Unknown};
pub use report::Row;

use rig::Rig;
use std::time::Duration;
use wayfarer_dataplane::crypto::Suite;

/// Checks that each of so many workers can have a core of its own.
///
/// # Errors
/// [`BenchError::Cores`].
pub fn check_cores(workers: usize) -> Result<(), BenchError> {
    match super::fewer_cores(workers) {
        Some(cores) => Err(BenchError::Cores { workers, cores }),
        None => Ok(()),
    }
}

/// Measures every combination, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    check_cores(options.workers)?;
    // On a core without a worker if there is one, so that preparing does not fill a worker's
    // caches.
    let core = super::core_of(options.workers);
    super::run_on_core(core, || measure(options, &mut each)).map_err(BenchError::Thread)?
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

/// One gateway under one kind of load, for other harnesses.
pub struct Traffic {
    rig: Rig,
    batches: rig::Batches,
    size: Size,
}

impl Traffic {
    /// Starts a gateway with one worker and `sas` tunnels.
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
            flow_cache: None,
            fragments: Fragments::default(),
        };
        let rig = Rig::new(&options, cipher, sas)?;
        Ok(Self { batches: rig.batches(direction, size), rig, size })
    }

    /// Carries `packets` packets, rounded up to whole batches, and checks samples of them; returns
    /// the processor time for `packets`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn carry(&mut self, packets: u64) -> Result<Duration, BenchError> {
        self.rig.carry(packets, &mut self.batches, self.size)
    }
}

//! Measures what people pay for: `wayfarer bench`. Every figure comes from a run whose output was
//! checked.

pub mod crypto;
pub mod esp;
pub mod ike;
pub mod ports;
pub mod rate;

use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use std::{fs, time::Duration};

/// Where the `nth` worker is pinned: to the last cores, so that the first one prepares the load.
/// `None` where cores do not suffice.
fn core_of(nth: usize) -> Option<core_affinity::CoreId> {
    let cores = core_affinity::get_core_ids()?;
    cores.len().checked_sub(nth + 1).map(|at| cores[at])
}

/// Runs `body` in a thread of its own, on `core` where there is one: where the caller runs is the
/// caller's affair.
fn apart<R: Send>(
    core: Option<core_affinity::CoreId>,
    body: impl FnOnce() -> R + Send,
) -> std::io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("wf-bench".to_owned()).spawn_scoped(scope, || {
            if let Some(core) = core {
                // Where it cannot be pinned, figures are only less steady.
                let _ = core_affinity::set_for_current(core);
            }
            body()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Returns a histogram of times in nanoseconds, up to a minute and to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("bounds and digits are allowed ones"))
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

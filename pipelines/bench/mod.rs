//! `wayfarer bench`: measures the gateway's performance. The output of every measured run is
//! checked.

pub mod crypto;
pub mod esp;
pub mod ike;
mod machine;
pub mod ports;
pub mod rate;

pub use machine::Machine;

use core_affinity::CoreId;
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};
use std::{fs, sync::OnceLock, time::Duration};

/// Returns the cores that this process may use; none if the system does not say. They are asked for
/// only once, because a thread that is pinned later has no other core than its own.
fn cores() -> &'static [CoreId] {
    static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();
    CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default())
}

/// Returns the number of cores if there are fewer than `threads`, which would then share one, and
/// whose figures would be those of the system's scheduler.
fn fewer_cores(threads: usize) -> Option<usize> {
    let cores = cores().len();
    (1..threads).contains(&cores).then_some(cores)
}

/// Returns the core of the `nth` worker, counted from the last, so that the first one prepares the
/// load; `None` if there are too few cores.
fn core_of(nth: usize) -> Option<CoreId> {
    let cores = cores();
    cores.len().checked_sub(nth + 1).map(|at| cores[at])
}

/// Runs `body` in a thread of its own, pinned to `core` if there is one, and returns its result.
/// The caller's thread stays where it is.
fn run_on_core<R: Send>(core: Option<CoreId>, body: impl FnOnce() -> R + Send) -> std::io::Result<R> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("wf-bench".to_owned()).spawn_scoped(scope, || {
            if let Some(core) = core {
                // Without pinning, figures are only less steady.
                let _ = core_affinity::set_for_current(core);
            }
            body()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Makes an empty histogram of times in nanoseconds, up to a minute and to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("bounds and digits are allowed ones"))
}

/// Returns this thread's processor time so far.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Returns this process's resident memory in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

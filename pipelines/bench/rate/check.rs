//! What can be checked before any device is opened.

use super::{
    error::RateError,
    options::{Direction, Options, Test, Traffic},
    procedure::LATENCY_TRIALS,
};
use crate::bench::{cores, fewer_cores};
use core_affinity::CoreId;
use std::fs;

/// Frames of 64 bytes per second in one direction of 10 Gbit/s: what a sender is taken for if no rate is
/// given.
const FASTEST: f64 = 14_880_952.0;

/// Checks the options; returns the threads' cores, none if the system chooses.
///
/// # Errors
/// [`RateError`], if they do not fit together or this machine.
pub(super) fn check(options: &Options) -> Result<Vec<CoreId>, RateError> {
    if options.threads > Options::THREADS {
        return Err(RateError::Threads(options.threads));
    }
    if let Some(cores) = fewer_cores(options.threads) {
        return Err(RateError::Cores { threads: options.threads, cores });
    }
    let needs_peer = options.directions.iter().any(|direction| *direction != Direction::Forward);
    let is_capture = matches!(options.traffic, Traffic::Capture(_));
    if is_capture && (needs_peer || options.tests.contains(&Test::Latency)) {
        return Err(RateError::CaptureTest);
    }
    if needs_peer && options.peer_port.is_none() {
        return Err(RateError::OnePort);
    }
    if options.tests.contains(&Test::Rate) && options.rate.is_none() {
        return Err(RateError::NoRate);
    }
    check_memory(options, available_memory())?;
    let find = |(nth, id): (usize, &usize)| {
        if options.cores[..nth].contains(id) {
            return Err(RateError::RepeatedCore(*id));
        }
        cores().iter().find(|core| core.id == *id).copied().ok_or(RateError::Core(*id))
    };
    options.cores.iter().enumerate().map(find).collect()
}

/// Refuses trials whose marks of frames may need more than half of `available` bytes. The other half is
/// for the frames themselves and for everything else, so that the system has no reason to end the program
/// in the middle of a run.
fn check_memory(options: &Options, available: Option<u64>) -> Result<(), RateError> {
    let needed = options.tests.iter().map(|test| marks(options, *test)).max().unwrap_or(0);
    match available {
        Some(available) if needed > available / 2 => Err(RateError::Marks { needed, available }),
        _ => Ok(()),
    }
}

/// Returns how many bytes the longest trial of a test may need to know each frame again: a bit for each
/// frame in every thread, if the device spreads them over all.
fn marks(options: &Options, test: Test) -> u64 {
    if matches!(options.traffic, Traffic::Capture(_)) {
        return 0;
    }
    let ways =
        options.directions.iter().map(|direction| direction.ways().map(usize::from).iter().sum::<usize>());
    let most = options.max_rate.map_or(FASTEST * ways.max().unwrap_or(1) as f64, f64::from);
    let fixed = options.rate.map(f64::from);
    let rate = match test {
        Test::Rate | Test::Latency => fixed.unwrap_or(most),
        _ => most,
    };
    let trials = if test == Test::Latency { LATENCY_TRIALS } else { 1 };
    (rate * (options.trial * trials).as_secs_f64() / 8.0 * options.threads as f64) as u64
}

/// Returns the bytes that this machine can give to programs; `None` if it does not say.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn options(tests: &[Test], seconds: u64) -> Options {
        Options { tests: tests.to_vec(), trial: Duration::from_secs(seconds), ..Options::sample() }
    }

    fn refused(options: &Options) -> String {
        check(options).unwrap_err().to_string()
    }

    #[test]
    fn cores_are_those_of_this_process_and_each_for_one_thread() {
        let first = cores()[0].id;
        let with = |cores: Vec<usize>| Options { cores, ..options(&[Test::Throughput], 1) };
        assert_eq!(check(&with(vec![first])).unwrap(), [cores()[0]]);
        assert!(check(&with(vec![])).unwrap().is_empty());
        // The number of threads is the caller's, so that one core is enough for this.
        let why = refused(&with(vec![first, first]));
        assert_eq!(why, format!("--cores: core {first} is in the list twice"));
        assert_eq!(
            refused(&with(vec![usize::MAX])).split(" core ").next(),
            Some("--cores: this process may not use")
        );
        let many = Options { threads: Options::THREADS + 1, ..options(&[Test::Throughput], 1) };
        assert_eq!(refused(&many), "65 threads are too many: at most 64");
    }

    #[test]
    fn trials_that_need_too_much_memory_are_refused() {
        const GIB: u64 = 1 << 30;
        let is_refused = |options: &Options, available| check_memory(options, Some(available)).is_err();
        let usual = options(&[Test::Throughput, Test::Latency], 60);
        assert!(!is_refused(&usual, GIB) && is_refused(&usual, GIB / 4));
        let long = options(&[Test::Latency], 3600);
        assert!(is_refused(&long, 16 * GIB) && !is_refused(&long, 32 * GIB));
        let threads = Options { threads: 8, ..options(&[Test::Latency], 60) };
        assert!(is_refused(&threads, 3 * GIB) && !is_refused(&threads, 4 * GIB));
        // As many frames again the other way, but a given rate is that of both.
        let both = |max_rate| Options {
            directions: vec![Direction::Both],
            max_rate,
            ..options(&[Test::Loss], 3600)
        };
        assert!(is_refused(&both(None), 24 * GIB) && !is_refused(&both(Some(100_000)), GIB));
        let slow = Options { rate: Some(1000), ..options(&[Test::Latency, Test::Rate], 3600) };
        assert!(!is_refused(&slow, GIB));
        let capture = Options { traffic: Traffic::Capture("in.pcap".into()), ..options(&[Test::Loss], 3600) };
        assert!(!is_refused(&capture, GIB) && check_memory(&long, None).is_ok());
        let why = check_memory(&long, Some(4 * GIB)).unwrap_err().to_string();
        assert!(why.contains("may need 12772 MiB") && why.contains("--max-rate"), "{why}");
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}

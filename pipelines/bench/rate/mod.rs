//! Measures the highest rate that a device under test carries without loss (RFC 2544 §26.1), and
//! its latency at that rate (§26.2).
//!
//! ```text
//! this program ═ --port ══► device under test, or a cable ══► --peer-port ═ this program
//! ```
//!
//! Frames are numbered and time-stamped UDP datagrams. One thread sends at an even rate and
//! receives. Only frames that were really sent count as offered.

mod error;
mod options;
mod tester;

pub use error::RateError;
pub use options::Options;
pub use tester::{Latency, TrialSummary};

use crate::launch::host_addresses;
use serde::Serialize;
use tester::{Tester, Trial};

/// The maximum number of trials of one search.
const TRIALS: usize = 30;

/// The figures of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Bytes of a frame, with its check sequence.
    pub size: u16,
    /// The drivers by which the devices were opened.
    pub drivers: Vec<String>,
    /// The highest rate at which no more than the tolerated loss occurred, in frames per second; 0
    /// if none was found.
    pub fps: f64,
    /// That rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// Frames offered at that rate.
    pub sent: u64,
    /// Frames lost at that rate.
    pub lost: u64,
    /// Latencies from sending to receiving at that rate.
    pub latency: Option<Latency>,
    /// Every trial of the search, in order.
    pub trials: Vec<TrialSummary>,
}

/// Searches for each size, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`RateError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row)) -> Result<(), RateError> {
    let host = host_addresses().map_err(|why| RateError::Host(Box::new(why)))?;
    let mut tester = Tester::open(options, host)?;
    for &size in &options.sizes {
        each(&search(options, &mut tester, size)?);
    }
    Ok(())
}

/// Bisects between a rate that passes and one that fails, and returns the best result.
fn search(options: &Options, tester: &mut Tester, size: u16) -> Result<Row, RateError> {
    tester.learn(size)?;
    let passes = |trial: &Trial| trial.lost() as f64 <= trial.sent as f64 * options.loss;
    let mut trials = Vec::new();
    let mut best: Option<Trial> = None;
    let (mut low, mut high) = (0.0, None);
    let mut rate = options.max_rate.map(f64::from);
    while trials.len() < TRIALS {
        let trial = tester.trial(size, rate, options.duration);
        trials.push(trial.summary());
        let target = rate.unwrap_or(trial.fps());
        if passes(&trial) {
            low = target;
            if best.as_ref().is_none_or(|best| best.fps() < trial.fps()) {
                best = Some(trial);
            }
        } else {
            // If the sender did not keep up, even the rate that was really offered was too high.
            high = Some(target.min(trial.fps()).max(low));
        }
        let Some(high) = high.filter(|high| high - low > options.resolution * high) else { break };
        rate = Some((low + high) / 2.0);
    }
    Ok(row(size, tester, best, trials))
}

fn row(size: u16, tester: &Tester, best: Option<Trial>, trials: Vec<TrialSummary>) -> Row {
    let fps = best.as_ref().map_or(0.0, Trial::fps);
    Row {
        size,
        drivers: tester.drivers().to_vec(),
        fps,
        mbps: fps * f64::from(size) * 8.0 / 1e6,
        sent: best.as_ref().map_or(0, |best| best.sent),
        lost: best.as_ref().map_or(0, Trial::lost),
        latency: best.as_ref().and_then(Trial::latency),
        trials,
    }
}

impl Row {
    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        format!(
            "{:>5} {:>12} {:>10} {:>10} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "SIZE", "FRAMES/S", "MBIT/S", "SENT", "LOST", "P50 µs", "P99 µs", "P99.9 µs", "MAX µs", "TRIALS"
        )
    }

    /// Returns the row as a line of a table.
    pub fn line(&self) -> String {
        let Self { size, fps, mbps, sent, lost, latency, trials, .. } = self;
        let latency = latency.map_or([0.0; 4], |l| [l.p50, l.p99, l.p999, l.max]);
        let [p50, p99, p999, max] = latency;
        format!(
            "{size:>5} {fps:>12.0} {mbps:>10.1} {sent:>10} {lost:>6} {p50:>9.1} {p99:>9.1} {p999:>9.1} {max:>9.1} \
             {:>6}",
            trials.len()
        )
    }
}

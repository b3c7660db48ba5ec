//! The figures of each test.

use super::{options::Test, tally::Trial};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of one trial, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The latency of the quickest frame.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The latency that 99 % of the frames did not exceed.
    pub p99: f64,
    /// The latency that 99.9 % of the frames did not exceed.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The latency of the slowest frame.
    pub max: f64,
}

impl Latency {
    /// Reads latencies from a histogram of nanoseconds. Returns `None` if it is empty.
    pub(super) fn new(nanoseconds: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
        (!nanoseconds.is_empty()).then(|| Self {
            min: nanoseconds.min() as f64 / 1000.0,
            mean: nanoseconds.mean() / 1000.0,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: nanoseconds.max() as f64 / 1000.0,
        })
    }
}

/// Counts of one trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TrialSummary {
    /// Frames per second that were really sent.
    pub fps: f64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that did not come back.
    pub lost: u64,
    /// How often a frame came again.
    pub duplicates: u64,
    /// ESP packets that did not authenticate.
    pub forged: u64,
    /// Frames that were left out because the sender was held up.
    pub skipped: u64,
}

impl TrialSummary {
    pub(super) fn new(trial: &Trial) -> Self {
        let Trial { fps, sent, duplicates, forged, skipped, .. } = *trial;
        Self { fps, sent, lost: trial.lost(), duplicates, forged, skipped }
    }

    /// Returns the lost frames in percent of those sent.
    pub fn loss_percent(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost as f64 * 100.0 / self.sent as f64 }
    }
}

/// How repeated figures differ. All are 0 if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub median: f64,
    /// The 1st percentile.
    pub p1: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Spread {
    /// Summarises figures: percentiles are figures that occurred, the median is between two if their
    /// number is even.
    pub(super) fn new(mut all: Vec<f64>) -> Self {
        if all.is_empty() {
            return Self::default();
        }
        all.sort_by(f64::total_cmp);
        let count = all.len();
        // The least figure that so many percent of the figures do not exceed.
        let percentile = |percent: usize| all[(count * percent).div_ceil(100).max(1) - 1];
        Self {
            mean: all.iter().sum::<f64>() / count as f64,
            median: (all[(count - 1) / 2] + all[count / 2]) / 2.0,
            p1: percentile(1),
            p99: percentile(99),
        }
    }
}

/// What keeps the throughput from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The device: at a higher rate, frames were lost.
    Device,
    /// This program: it could not send more.
    Sender,
    /// The highest rate that it was allowed to send.
    MaxRate,
}

impl Limit {
    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Sender => "sender",
            Self::MaxRate => "max-rate",
        }
    }
}

/// The highest rate without loss (RFC 2544 §26.1).
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// The highest rate at which no more than the tolerated loss occurred, in frames per second; 0 if
    /// none was found.
    pub fps: f64,
    /// That rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// Frames offered at that rate.
    pub sent: u64,
    /// Frames lost at that rate.
    pub lost: u64,
    /// What keeps it from being higher.
    pub limit: Limit,
    /// Latencies at that rate.
    pub latency: Option<Latency>,
    /// Every trial of the search, in order.
    pub trials: Vec<TrialSummary>,
}

/// Latencies at one rate, of several trials, in microseconds (RFC 2544 §26.2, RFC 8219 §7.2 and §7.3.1).
#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    /// The rate in frames per second.
    pub fps: f64,
    /// That rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// Frames offered in all trials.
    pub sent: u64,
    /// Frames lost in all trials.
    pub lost: u64,
    /// The trials' mean latencies.
    pub mean: Spread,
    /// Typical latency: the trials' medians.
    pub typical: Spread,
    /// Worst-case latency: what 99.9 % of a trial's frames did not exceed.
    pub worst: Spread,
    /// Packet delay variation: worst-case latency less the trial's lowest.
    pub variation: Spread,
    /// The latencies of each trial.
    pub repetitions: Vec<Latency>,
}

/// The loss at one rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Step {
    /// The rate in percent of the highest.
    pub percent: u32,
    /// The offered rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// The trial.
    #[serde(flatten)]
    pub summary: TrialSummary,
}

/// Losses at ever lower rates (RFC 2544 §26.3).
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The rates, from the highest on.
    pub steps: Vec<Step>,
}

/// The longest bursts without loss (RFC 2544 §26.4).
#[derive(Clone, Debug, Serialize)]
pub struct BackToBack {
    /// The rate of frames in a burst, per second: as many as can be sent, or as were allowed.
    pub fps: f64,
    /// That rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// The frames of the longest bursts.
    pub frames: Spread,
    /// How long the mean burst lasts, in milliseconds: the implied buffer time of RFC 9004.
    pub milliseconds: f64,
    /// `true` if the device took the longest burst in every search, so that no other limit was found.
    pub is_at_end: bool,
    /// The longest burst of each search, in frames.
    pub repetitions: Vec<u64>,
}

/// Losses and latencies at one rate.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FixedRate {
    /// The rate that was asked for, in frames per second.
    pub rate: f64,
    /// The offered rate in 10⁶ bits of frames per second.
    pub mbps: f64,
    /// The trial.
    #[serde(flatten)]
    pub summary: TrialSummary,
    /// Latencies of its frames.
    pub latency: Option<Latency>,
}

/// The figures of one test.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "test", rename_all = "kebab-case")]
pub enum Figures {
    /// The highest rate without loss.
    Throughput(Throughput),
    /// Latencies at one rate.
    Latency(Latencies),
    /// Losses at ever lower rates.
    Loss(Curve),
    /// The longest bursts without loss.
    BackToBack(BackToBack),
    /// Losses and latencies at one rate.
    Rate(FixedRate),
}

impl Figures {
    /// Returns the test that made them.
    pub fn test(&self) -> Test {
        match self {
            Self::Throughput(_) => Test::Throughput,
            Self::Latency(_) => Test::Latency,
            Self::Loss(_) => Test::Loss,
            Self::BackToBack(_) => Test::BackToBack,
            Self::Rate(_) => Test::Rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::latencies;

    #[test]
    fn spread_has_percentiles_that_occurred() {
        assert_eq!(Spread::new(vec![]), Spread::default());
        let one = Spread::new(vec![7.0]);
        assert_eq!((one.mean, one.median, one.p1, one.p99), (7.0, 7.0, 7.0, 7.0));
        let twenty = Spread::new((1..=20).rev().map(f64::from).collect());
        assert_eq!((twenty.mean, twenty.median, twenty.p1, twenty.p99), (10.5, 10.5, 1.0, 20.0));
        let many = Spread::new((1..=1000).map(f64::from).collect());
        assert_eq!((many.median, many.p1, many.p99), (500.5, 10.0, 990.0));
    }

    #[test]
    fn latencies_are_in_microseconds() {
        assert_eq!(Latency::new(&latencies()), None);
        let mut histogram = latencies();
        (1..=1000).for_each(|micros| histogram.saturating_record(micros * 1000));
        let Latency { min, mean, p50, p99, p999, max } = Latency::new(&histogram).unwrap();
        for (figure, expected) in
            [(min, 1.0), (mean, 500.5), (p50, 500.0), (p99, 990.0), (p999, 999.0), (max, 1000.0)]
        {
            assert!((figure - expected).abs() <= 0.002 * expected, "{figure} instead of {expected}");
        }
    }
}

//! Rows: the figures of one test with one kind of frames.

use super::{
    figures::{Figures, Latency, Spread, TrialSummary},
    options::{Direction, Size},
};
use crate::bench::Machine;
use serde::Serialize;

/// The figures of one test, and what they were measured with.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The direction of frames.
    pub direction: Direction,
    /// Bytes of a frame in clear, with its check sequence.
    pub size: Size,
    /// Mean bytes of a frame in clear, with its check sequence.
    pub mean_size: f64,
    /// 4 or 6: the version of IP of packets in clear.
    pub ip: u8,
    /// The names of the tunnels' ciphers, if frames are in ESP on the first device.
    pub ciphers: Vec<String>,
    /// The number of tunnels.
    pub tunnels: usize,
    /// The number of flows; 0 for a capture.
    pub flows: u64,
    /// Records of a capture that are not sent: no IP packets, too long, or of no known form.
    pub left_out: u64,
    /// The number of threads that sent and received.
    pub threads: usize,
    /// The drivers by which the devices were opened.
    pub drivers: Vec<String>,
    /// The lowest speed of the devices in Mbit/s, if they know it.
    pub link_mbps: Option<u32>,
    /// The machine before the test began.
    pub machine: Machine,
}

/// Bytes that a frame takes on an Ethernet cable besides its own: preamble, start delimiter and the gap
/// (IEEE 802.3).
const BETWEEN: f64 = 20.0;

/// The columns of one line of the table.
struct Line {
    percent: Option<u32>,
    fps: f64,
    mbps: f64,
    sent: u64,
    lost: u64,
    /// Median, 99 %, 99.9 % and the slowest.
    latency: Option<[f64; 4]>,
    count: usize,
}

impl Row {
    /// Returns the highest rate of such frames that the devices' speed allows, in both directions
    /// together, in frames per second; `None` also with tunnels, whose ESP makes frames longer.
    pub fn line_rate(&self) -> Option<f64> {
        let ways = self.direction.ways().into_iter().filter(|goes| *goes).count() as f64;
        let mbps = self.link_mbps.filter(|_| self.tunnels == 0);
        mbps.map(|mbps| ways * f64::from(mbps) * 1e6 / 8.0 / (self.mean_size + BETWEEN))
    }

    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        format!(
            "{:12} {:9} {:>7} {:>5} {:>12} {:>10} {:>11} {:>8} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "TEST",
            "DIRECTION",
            "SIZE",
            "RATE",
            "FRAMES/S",
            "MBIT/S",
            "SENT",
            "LOST",
            "P50 µs",
            "P99 µs",
            "P99.9 µs",
            "MAX µs",
            "TRIALS"
        )
    }

    /// Returns the row as a line of a table, or as several lines if it has several rates.
    pub fn line(&self) -> String {
        let test = self.figures.test();
        let lines = self.lines().into_iter().map(|line| {
            let Line { percent, fps, mbps, sent, lost, latency, count } = line;
            let rate = percent.map_or(String::new(), |percent| format!("{percent} %"));
            let start = format!("{test:12} {:9} {:>7} {rate:>5}", self.direction, self.size);
            let [p50, p99, p999, max] =
                latency.map_or([(); 4].map(|()| "-".to_owned()), |all| all.map(|us| format!("{us:.1}")));
            format!(
                "{start} {fps:>12.0} {mbps:>10.1} {sent:>11} {lost:>8} {p50:>9} {p99:>9} {p999:>9} {max:>9} \
                 {count:>6}"
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn lines(&self) -> Vec<Line> {
        let latencies = |latency: Option<Latency>| latency.map(|l| [l.p50, l.p99, l.p999, l.max]);
        let of_trial = |percent, mbps, summary: &TrialSummary, latency| {
            let TrialSummary { fps, sent, lost, .. } = *summary;
            Line { percent, fps, mbps, sent, lost, latency, count: 1 }
        };
        match &self.figures {
            Figures::Throughput(found) => vec![Line {
                percent: None,
                fps: found.fps,
                mbps: found.mbps,
                sent: found.sent,
                lost: found.lost,
                latency: latencies(found.latency),
                count: found.trials.len(),
            }],
            Figures::Latency(found) => {
                let all = &found.repetitions;
                let p99 = Spread::new(all.iter().map(|latency| latency.p99).collect());
                let max = all.iter().map(|latency| latency.max).fold(0.0, f64::max);
                let figures = [found.typical.median, p99.median, found.worst.median, max];
                vec![Line {
                    percent: None,
                    fps: found.fps,
                    mbps: found.mbps,
                    sent: found.sent,
                    lost: found.lost,
                    latency: (!all.is_empty()).then_some(figures),
                    count: all.len(),
                }]
            }
            Figures::Loss(curve) => {
                let steps = curve.steps.iter();
                steps.map(|step| of_trial(Some(step.percent), step.mbps, &step.summary, None)).collect()
            }
            Figures::BackToBack(found) => vec![Line {
                percent: None,
                fps: found.fps,
                mbps: found.mbps,
                sent: found.frames.mean.round() as u64,
                lost: 0,
                latency: None,
                count: found.repetitions.len(),
            }],
            Figures::Rate(found) => {
                vec![of_trial(None, found.mbps, &found.summary, latencies(found.latency))]
            }
        }
    }
}

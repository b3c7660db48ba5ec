//! Results one by one: each throughput, rate, step of a curve and repetition.

use super::super::{
    figures::{Figures, Latency, Limit, TrialSummary},
    row::Row,
};

/// One result. What a test has not measured is `None`.
pub(super) struct Record<'a> {
    pub(super) row: &'a Row,
    /// Number of the repetition, from 1 on.
    pub(super) repetition: Option<usize>,
    /// The rate in percent of the highest.
    pub(super) percent: Option<u32>,
    pub(super) fps: f64,
    pub(super) mbps: f64,
    /// Frames sent and lost.
    pub(super) counts: Option<(u64, u64)>,
    pub(super) trial: Option<TrialSummary>,
    pub(super) limit: Option<Limit>,
    /// Frames of the longest burst.
    pub(super) burst: Option<u64>,
    pub(super) latency: Option<Latency>,
}

impl<'a> Record<'a> {
    fn new(row: &'a Row, fps: f64, mbps: f64) -> Self {
        Self {
            row,
            repetition: None,
            percent: None,
            fps,
            mbps,
            counts: None,
            trial: None,
            limit: None,
            burst: None,
            latency: None,
        }
    }

    fn of_trial(row: &'a Row, mbps: f64, trial: TrialSummary) -> Self {
        let counts = Some((trial.sent, trial.lost));
        Self { counts, trial: Some(trial), ..Self::new(row, trial.fps, mbps) }
    }

    /// Returns the results of a row.
    pub(super) fn all(row: &'a Row) -> Vec<Self> {
        match &row.figures {
            Figures::Throughput(found) => vec![Self {
                counts: Some((found.sent, found.lost)),
                limit: Some(found.limit),
                latency: found.latency,
                ..Self::new(row, found.fps, found.mbps)
            }],
            Figures::Latency(found) => {
                let all = (1..).zip(&found.repetitions).map(|(repetition, latency)| Self {
                    repetition: Some(repetition),
                    latency: Some(*latency),
                    ..Self::new(row, found.fps, found.mbps)
                });
                all.collect()
            }
            Figures::Loss(curve) => {
                let all = curve.steps.iter().map(|step| Self {
                    percent: Some(step.percent),
                    ..Self::of_trial(row, step.mbps, step.summary)
                });
                all.collect()
            }
            Figures::BackToBack(found) => {
                let all = (1..).zip(&found.repetitions).map(|(repetition, frames)| Self {
                    repetition: Some(repetition),
                    burst: Some(*frames),
                    ..Self::new(row, found.fps, found.mbps)
                });
                all.collect()
            }
            Figures::Rate(found) => {
                vec![Self { latency: found.latency, ..Self::of_trial(row, found.mbps, found.summary) }]
            }
        }
    }

    /// Returns the lost frames in percent of those sent; `None` if none were.
    pub(super) fn loss_percent(&self) -> Option<f64> {
        let counts = self.counts.filter(|(sent, _)| *sent > 0);
        counts.map(|(sent, lost)| lost as f64 * 100.0 / sent as f64)
    }
}

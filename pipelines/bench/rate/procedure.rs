//! The tests of RFC 2544 §26, and RFC 8219's figures of latency, over any device.

use super::{
    error::RateError,
    figures::{
        BackToBack, Curve, Figures, FixedRate, Latencies, Latency, Limit, Spread, Step, Throughput,
        TrialSummary,
    },
    options::Test,
    schedule::{Demand, Stop},
    search::{Attempt, highest_rate, longest_burst},
    tally::Trial,
};
use std::time::Duration;

/// How often latencies are measured (RFC 2544 §26.2).
const LATENCIES: u32 = 20;
/// How many trials a stream lasts of which latencies are measured: those of the second one count.
pub(super) const LATENCY_TRIALS: u32 = 2;
/// How often bursts are measured (RFC 2544 §26.4).
const BURSTS: u32 = 50;
/// The longest burst at full rate (RFC 2544 §26.4).
const LONGEST: Duration = Duration::from_secs(2);
/// The rates of the test of losses, in percent of the highest (RFC 2544 §26.3).
const PERCENTS: [u32; 10] = [100, 90, 80, 70, 60, 50, 40, 30, 20, 10];
/// The least share of a rate that must have been offered to say that the sender kept up.
const KEPT_UP: f64 = 0.99;

/// A device under test and the frames that it gets, or a model of them.
pub(super) trait Device {
    /// Sends frames through the device, and counts those that come back.
    ///
    /// # Errors
    /// [`RateError`], if there is no result at all.
    fn trial(&mut self, demand: &Demand) -> Result<Trial, RateError>;
}

/// The parameters of all tests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Procedure {
    /// How long one trial sends.
    pub(super) trial: Duration,
    /// The highest rate in frames per second; `None` for as many as can be sent.
    pub(super) max_rate: Option<f64>,
    /// The searches' precision, as a fraction of the result.
    pub(super) resolution: f64,
    /// The fraction of the frames that may be lost.
    pub(super) loss: f64,
    /// How often latencies and bursts are measured; `None` for as often as the RFC asks for.
    pub(super) repeat: Option<u32>,
    /// Mean bytes of a frame, with its check sequence.
    pub(super) frame: f64,
}

impl Procedure {
    /// Looks for the highest rate without loss (RFC 2544 §26.1).
    ///
    /// # Errors
    /// The first error of a trial.
    pub(super) fn throughput(&self, device: &mut impl Device) -> Result<Throughput, RateError> {
        let mut trials = Vec::new();
        let mut best: Option<Trial> = None;
        let mut kept_up = true;
        let attempt = |rate: Option<f64>| -> Result<Attempt, RateError> {
            let trial = device.trial(&Demand::new(rate, self.trial))?;
            trials.push(TrialSummary::new(&trial));
            let attempt = Attempt { fps: trial.fps, passes: trial.passes(self.loss) };
            if attempt.passes && best.as_ref().is_none_or(|best| best.fps < trial.fps) {
                kept_up = rate.is_none_or(|rate| trial.fps >= rate * KEPT_UP);
                best = Some(trial);
            }
            Ok(attempt)
        };
        let has_failed = highest_rate(self.max_rate, self.resolution, attempt)?;
        let fps = best.as_ref().map_or(0.0, |best| best.fps);
        let limit = match self.max_rate {
            _ if has_failed && kept_up => Limit::Device,
            _ if has_failed => Limit::Sender,
            Some(rate) if fps >= rate * KEPT_UP => Limit::MaxRate,
            _ => Limit::Sender,
        };
        Ok(Throughput {
            fps,
            mbps: self.mbps(fps),
            sent: best.as_ref().map_or(0, |best| best.sent),
            lost: best.as_ref().map_or(0, Trial::lost),
            limit,
            latency: best.as_ref().and_then(|best| Latency::new(&best.latency)),
            trials,
        })
    }

    /// Measures latencies at a rate (RFC 2544 §26.2, RFC 8219 §7.2 and §7.3.1). A stream lasts for two
    /// trials, and frames of the second half count, so that with trials of 60 seconds the stream has the
    /// 120 seconds that the RFC asks for.
    ///
    /// # Errors
    /// The first error of a trial.
    pub(super) fn latency(&self, device: &mut impl Device, fps: f64) -> Result<Latencies, RateError> {
        let stop = Stop::After(LATENCY_TRIALS * self.trial);
        let demand = Demand { rate: Some(fps), stop, settled: self.trial };
        let (mut repetitions, mut sent, mut lost) = (Vec::new(), 0, 0);
        for _ in 0..self.repeat.unwrap_or(LATENCIES) {
            if fps <= 0.0 {
                break;
            }
            let trial = device.trial(&demand)?;
            sent += trial.sent;
            lost += trial.lost();
            repetitions.extend(Latency::new(&trial.latency));
        }
        let spread = |of: fn(&Latency) -> f64| Spread::new(repetitions.iter().map(of).collect());
        Ok(Latencies {
            fps,
            mbps: self.mbps(fps),
            sent,
            lost,
            mean: spread(|latency| latency.mean),
            typical: spread(|latency| latency.p50),
            worst: spread(|latency| latency.p999),
            variation: spread(|latency| latency.p999 - latency.min),
            repetitions,
        })
    }

    /// Measures losses at the highest rate, and then at ever lower ones until two in a row lose nothing
    /// (RFC 2544 §26.3).
    ///
    /// # Errors
    /// The first error of a trial.
    pub(super) fn loss(&self, device: &mut impl Device) -> Result<Curve, RateError> {
        let (mut highest, mut steps, mut good) = (self.max_rate, Vec::new(), 0);
        for percent in PERCENTS {
            let rate = highest.map(|highest| highest * f64::from(percent) / 100.0);
            let trial = device.trial(&Demand::new(rate, self.trial))?;
            // Without a given rate, it is the one that the first trial has shown.
            highest = highest.or(Some(trial.fps));
            good = if trial.sent > 0 && trial.lost() == 0 { good + 1 } else { 0 };
            steps.push(Step { percent, mbps: self.mbps(trial.fps), summary: TrialSummary::new(&trial) });
            if good == 2 {
                break;
            }
        }
        Ok(Curve { steps })
    }

    /// Looks for the longest burst without loss (RFC 2544 §26.4). Its time is the implied buffer time of RFC
    /// 9004; the corrected one, without what the device forwards meanwhile, is not computed.
    ///
    /// # Errors
    /// The first error of a trial.
    pub(super) fn back_to_back(&self, device: &mut impl Device) -> Result<BackToBack, RateError> {
        let (mut repetitions, mut is_at_end) = (Vec::new(), true);
        let (mut frames, mut seconds) = (0, 0.0);
        for _ in 0..self.repeat.unwrap_or(BURSTS) {
            let longest = device.trial(&Demand::new(self.max_rate, LONGEST.min(self.trial)))?;
            frames += longest.sent;
            seconds += if longest.fps > 0.0 { longest.sent as f64 / longest.fps } else { 0.0 };
            if longest.passes(self.loss) {
                repetitions.push(longest.sent);
                continue;
            }
            is_at_end = false;
            let attempt = |frames| -> Result<bool, RateError> {
                let trial = device.trial(&Demand::burst(self.max_rate, frames))?;
                // A burst that the sender did not finish says nothing of longer ones.
                Ok(trial.sent >= frames && trial.passes(self.loss))
            };
            repetitions.push(longest_burst(longest.sent, self.resolution, attempt)?);
        }
        let fps = if seconds > 0.0 { frames as f64 / seconds } else { 0.0 };
        let lengths = Spread::new(repetitions.iter().map(|frames| *frames as f64).collect());
        let milliseconds = if fps > 0.0 { lengths.mean / fps * 1000.0 } else { 0.0 };
        Ok(BackToBack { fps, mbps: self.mbps(fps), frames: lengths, milliseconds, is_at_end, repetitions })
    }

    /// Measures losses and latencies at one rate.
    ///
    /// # Errors
    /// That of the trial.
    pub(super) fn rate(&self, device: &mut impl Device, rate: f64) -> Result<FixedRate, RateError> {
        let trial = device.trial(&Demand::new(Some(rate), self.trial))?;
        Ok(FixedRate {
            rate,
            mbps: self.mbps(trial.fps),
            latency: Latency::new(&trial.latency),
            summary: TrialSummary::new(&trial),
        })
    }

    /// Returns a rate in 10⁶ bits of frames per second.
    fn mbps(&self, fps: f64) -> f64 {
        fps * self.frame * 8.0 / 1e6
    }
}

/// The tests of one kind of frames, which share the throughput.
#[derive(Debug, Default)]
pub(super) struct TestRun {
    /// The highest rate without loss, once it is known.
    fps: Option<f64>,
}

impl TestRun {
    /// Runs a test. `rate` is that of [`Test::Rate`] and, if it is given, of [`Test::Latency`]; otherwise
    /// latencies are measured at the throughput, which is looked for first unless it is known.
    ///
    /// # Errors
    /// [`RateError::NoRate`], or the first error of a trial.
    pub(super) fn run(
        &mut self,
        test: Test,
        rate: Option<f64>,
        procedure: &Procedure,
        device: &mut impl Device,
    ) -> Result<Figures, RateError> {
        Ok(match test {
            Test::Throughput => {
                let throughput = procedure.throughput(device)?;
                self.fps = Some(throughput.fps);
                Figures::Throughput(throughput)
            }
            Test::Latency => {
                let fps = match rate.or(self.fps) {
                    Some(fps) => fps,
                    None => *self.fps.insert(procedure.throughput(device)?.fps),
                };
                Figures::Latency(procedure.latency(device, fps)?)
            }
            Test::Loss => Figures::Loss(procedure.loss(device)?),
            Test::BackToBack => Figures::BackToBack(procedure.back_to_back(device)?),
            Test::Rate => Figures::Rate(procedure.rate(device, rate.ok_or(RateError::NoRate)?)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::latencies;

    /// A device that forwards `limit` frames a second, holds `buffer` frames beyond them, and gets at
    /// most `fastest` frames a second.
    struct Model {
        limit: f64,
        buffer: f64,
        fastest: f64,
        demands: Vec<Demand>,
    }

    impl Model {
        fn new(limit: f64, buffer: f64, fastest: f64) -> Self {
            Self { limit, buffer, fastest, demands: Vec::new() }
        }
    }

    impl Device for Model {
        fn trial(&mut self, demand: &Demand) -> Result<Trial, RateError> {
            self.demands.push(*demand);
            let fps = demand.rate.map_or(self.fastest, |rate| rate.min(self.fastest));
            let (sent, seconds) = match demand.stop {
                Stop::After(time) => ((fps * time.as_secs_f64()).round(), time.as_secs_f64()),
                Stop::Frames(frames) => (frames as f64, frames as f64 / fps),
            };
            let lost = (sent - self.limit * seconds - self.buffer).max(0.0).ceil();
            let mut latency = latencies();
            // Each trial is slower by a microsecond.
            let base = self.demands.len() as u64;
            for (micros, frames) in [(base, 1), (base + 10, 996), (base + 100, 3)] {
                latency.saturating_record_n(micros * 1000, frames);
            }
            let received = (sent - lost) as u64;
            Ok(Trial {
                sent: sent as u64,
                sent_ways: [sent as u64, 0],
                received,
                received_ways: [received, 0],
                duplicates: 0,
                forged: 0,
                skipped: 0,
                fps,
                latency,
            })
        }
    }

    const PROCEDURE: Procedure = Procedure {
        trial: Duration::from_secs(10),
        max_rate: None,
        resolution: 0.01,
        loss: 0.0,
        repeat: None,
        frame: 125.0,
    };

    fn run(test: Test, rate: Option<f64>, procedure: Procedure, device: &mut Model) -> Figures {
        TestRun::default().run(test, rate, &procedure, device).unwrap()
    }

    #[test]
    fn throughput_is_the_devices_limit_or_says_whose_it_is() {
        let throughput = |procedure, device: &mut Model| match run(Test::Throughput, None, procedure, device)
        {
            Figures::Throughput(throughput) => throughput,
            other => panic!("{other:?}"),
        };
        let mut device = Model::new(123_456.0, 0.0, 1e6);
        let found = throughput(PROCEDURE, &mut device);
        assert!((122_200.0..=123_456.0).contains(&found.fps), "{found:?}");
        assert_eq!((found.limit, found.lost), (Limit::Device, 0));
        assert!((found.mbps - found.fps / 1000.0).abs() < 1e-6, "{found:?}");
        assert_eq!((found.trials.len(), found.trials[0].fps), (device.demands.len(), 1e6));
        assert!(found.trials[0].loss_percent() > 87.0 && found.latency.is_some());
        let with = |max_rate| Procedure { max_rate: Some(max_rate), ..PROCEDURE };
        for (procedure, expected) in [
            (PROCEDURE, (5e4, Limit::Sender)),
            (with(3e4), (3e4, Limit::MaxRate)),
            (with(6e4), (5e4, Limit::Sender)),
        ] {
            let found = throughput(procedure, &mut Model::new(123_456.0, 0.0, 5e4));
            assert_eq!(((found.fps, found.limit), found.trials.len()), (expected, 1));
        }
        // Ten percent may be lost.
        let tolerant = Procedure { loss: 0.1, ..PROCEDURE };
        let found = throughput(tolerant, &mut Model::new(90_000.0, 0.0, 1e6));
        assert!((98_000.0..=100_000.0).contains(&found.fps) && found.lost > 0, "{found:?}");
        let nothing = throughput(PROCEDURE, &mut Model::new(0.0, 0.0, 1e6));
        assert_eq!((nothing.fps, nothing.sent, nothing.latency), (0.0, 0, None));
    }

    /// A device whose sender offers only a part of each rate, and which carries everything in the first
    /// `idle` trials.
    struct Uneven {
        model: Model,
        part: f64,
        idle: usize,
    }

    impl Device for Uneven {
        fn trial(&mut self, demand: &Demand) -> Result<Trial, RateError> {
            let limit = self.model.limit;
            if self.model.demands.len() < self.idle {
                self.model.limit = f64::INFINITY;
            }
            let trial =
                self.model.trial(&Demand { rate: demand.rate.map(|rate| rate * self.part), ..*demand });
            self.model.limit = limit;
            trial
        }
    }

    #[test]
    fn sender_that_does_not_keep_up_is_the_limit_even_if_higher_rates_failed() {
        let limit = |part| {
            let mut device = Uneven { model: Model::new(40_000.0, 0.0, 50_000.0), part, idle: 0 };
            PROCEDURE.throughput(&mut device).unwrap().limit
        };
        assert_eq!((limit(0.9), limit(1.0)), (Limit::Sender, Limit::Device));
    }

    #[test]
    fn bursts_are_at_their_end_only_if_all_are() {
        let at_end = |idle| {
            let mut device = Uneven { model: Model::new(5e5, 4096.0, 1e6), part: 1.0, idle };
            let found = Procedure { repeat: Some(2), ..PROCEDURE }.back_to_back(&mut device).unwrap();
            assert_eq!(found.repetitions.len(), 2);
            found.is_at_end
        };
        assert_eq!([0, 1, 2].map(at_end), [false, false, true]);
    }

    #[test]
    fn latencies_are_measured_at_the_throughput_in_the_second_half_of_a_stream() {
        let mut device = Model::new(40_000.0, 0.0, 50_000.0);
        let Figures::Latency(found) = run(Test::Latency, None, PROCEDURE, &mut device) else { panic!() };
        assert_eq!(found.repetitions.len(), 20);
        let streams = &device.demands[device.demands.len() - 20..];
        let expected = Demand {
            rate: Some(found.fps),
            stop: Stop::After(Duration::from_secs(20)),
            settled: Duration::from_secs(10),
        };
        assert!(streams.iter().all(|demand| *demand == expected), "{streams:?}");
        assert!((39_600.0..=40_000.0).contains(&found.fps), "{found:?}");
        let first = (device.demands.len() - 19) as f64;
        let close = |figure: f64, expected: f64| (figure - expected).abs() <= 0.002 * expected;
        assert!(close(found.typical.median, first + 9.5 + 10.0), "{found:?}");
        assert!(close(found.typical.p1, first + 10.0) && close(found.typical.p99, first + 19.0 + 10.0));
        assert!(close(found.worst.median, first + 9.5 + 100.0), "{found:?}");
        assert!(close(found.variation.median, 100.0) && close(found.mean.mean, first + 9.5 + 10.26));
        let mut device = Model::new(40_000.0, 0.0, 50_000.0);
        let thrice = Procedure { repeat: Some(3), ..PROCEDURE };
        run(Test::Latency, Some(777.0), thrice, &mut device);
        assert_eq!(device.demands.iter().map(|demand| demand.rate).collect::<Vec<_>>(), [Some(777.0); 3]);
    }

    #[test]
    fn throughput_is_looked_for_only_once() {
        let (mut device, mut tests) = (Model::new(40_000.0, 0.0, 50_000.0), TestRun::default());
        tests.run(Test::Throughput, None, &PROCEDURE, &mut device).unwrap();
        let search = device.demands.len();
        tests.run(Test::Latency, None, &PROCEDURE, &mut device).unwrap();
        assert_eq!(device.demands.len(), search + 20);
    }

    #[test]
    fn losses_are_measured_until_two_rates_lose_nothing() {
        let curve = |procedure, fastest| {
            let mut device = Model::new(550_000.0, 0.0, fastest);
            let Figures::Loss(curve) = run(Test::Loss, None, procedure, &mut device) else { panic!() };
            let steps = curve.steps.iter();
            steps
                .map(|step| (step.percent, step.summary.fps, step.summary.loss_percent()))
                .collect::<Vec<_>>()
        };
        let steps = curve(PROCEDURE, 1e6);
        let percents: Vec<_> = steps.iter().map(|(percent, ..)| *percent).collect();
        assert_eq!(percents, [100, 90, 80, 70, 60, 50, 40]);
        for (percent, fps, lost) in steps {
            assert!((fps - f64::from(percent) * 1e4).abs() < 1e-6, "{fps}");
            let expected = (100.0 - 5500.0 / f64::from(percent)).max(0.0);
            assert!((lost - expected).abs() < 0.001, "{percent} %: {lost}");
        }
        let below = Procedure { max_rate: Some(2e5), ..PROCEDURE };
        assert_eq!(curve(below, 1e6), [(100, 2e5, 0.0), (90, 1.8e5, 0.0)]);
    }

    #[test]
    fn longest_burst_is_the_devices_buffer_or_two_seconds() {
        let burst = |procedure, limit| {
            let mut device = Model::new(limit, 4096.0, 1e6);
            match run(Test::BackToBack, None, procedure, &mut device) {
                Figures::BackToBack(found) => (found, device.demands),
                other => panic!("{other:?}"),
            }
        };
        let exact = Procedure { resolution: 0.0, repeat: Some(3), ..PROCEDURE };
        // Half of the frames have to wait.
        let (found, demands) = burst(exact, 5e5);
        assert_eq!((found.repetitions, found.is_at_end), (vec![8192; 3], false));
        assert_eq!((found.frames.mean, found.fps), (8192.0, 1e6));
        assert!((found.milliseconds - 8.192).abs() < 1e-9);
        assert_eq!(demands[0], Demand::new(None, LONGEST));
        let (found, demands) = burst(PROCEDURE, 2e6);
        assert_eq!((found.repetitions, found.is_at_end), (vec![2_000_000; 50], true));
        assert_eq!(demands.len(), 50);
        let short = Procedure { trial: Duration::from_millis(100), ..exact };
        assert_eq!(burst(short, 2e6).0.repetitions, [100_000; 3]);
    }

    #[test]
    fn one_rate_needs_to_be_given() {
        let mut device = Model::new(40_000.0, 0.0, 50_000.0);
        let Figures::Rate(found) = run(Test::Rate, Some(45_000.0), PROCEDURE, &mut device) else { panic!() };
        assert_eq!((found.rate, found.summary.sent, found.summary.lost), (45_000.0, 450_000, 50_000));
        let refused = TestRun::default().run(Test::Rate, None, &PROCEDURE, &mut device);
        assert_eq!(refused.unwrap_err().to_string(), "--test rate needs --rate");
    }
}

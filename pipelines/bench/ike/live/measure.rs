//! Measures a gateway under traffic.

use super::{
    super::{
        BenchError, Mode, Options, Row, Target,
        terminal::Terminal,
        world::{Proof, World},
    },
    LiveGateway,
    port::Meter,
};
use crate::{
    bench::{ike::gateway::frame, latencies},
    sim::addresses,
};
use hdrhistogram::Histogram;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Terminals under traffic.
const TERMINALS: u32 = 1000;
/// Target of microseconds from a move's message to the first packet to the new address.
const LATENCY: f64 = 200.0;
/// IKE_SA_INIT requests per second of a flood.
const FLOOD: u32 = 20_000;
/// Pairs of a quiet and a flooded interval.
const PAIRS: u32 = 5;
/// The longest time between two readings of the worker's meter.
const READING: Duration = Duration::from_millis(20);

/// Measures one mode.
pub(in crate::bench::ike) fn measure(
    mode: Mode,
    options: &Options,
    each: &mut impl FnMut(&Row),
) -> Result<(), BenchError> {
    let world = World::new(Proof::Psk)?;
    let mut live = LiveGateway::new(&world, options.peers.min(TERMINALS))?;
    match mode {
        Mode::Rekey => rekey(&mut live, options, each),
        Mode::Flood => flood(&mut live, &world, options, each),
        _ => latency(&mut live, options, each),
    }
}

/// The figures of a series of moves.
struct MoveSeries {
    /// Nanoseconds from a move's message to the first packet to the new address.
    latency: Histogram<u64>,
    /// Packets to old addresses after a move's message.
    to_old_address: u64,
    /// Millions of packets that the worker sealed per second of its processor time.
    mpps: f64,
    /// IKE_SA_INIT requests received per second.
    flooded: f64,
}

impl MoveSeries {
    fn new() -> Self {
        Self { latency: latencies(), to_old_address: 0, mpps: 0.0, flooded: 0.0 }
    }

    /// Moves one terminal after the other for `time`.
    fn run(&mut self, live: &mut LiveGateway, time: Duration) -> Result<(), BenchError> {
        let (start, before) = (Instant::now(), live.line.meter());
        while start.elapsed() < time.max(READING) {
            let (latency, to_old_address) = live.move_one()?;
            self.latency.saturating_record(latency.as_nanos() as u64);
            self.to_old_address += to_old_address;
        }
        let (Meter { cpu, sealed, flooded }, elapsed) = (live.line.meter(), start.elapsed());
        let cpu = cpu.saturating_sub(before.cpu).max(Duration::from_nanos(1));
        self.mpps = (sealed - before.sealed) as f64 / cpu.as_secs_f64() / 1e6;
        self.flooded = (flooded - before.flooded) as f64 / elapsed.as_secs_f64();
        Ok(())
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }

    fn row(&self, mode: Mode, case: &'static str) -> Row {
        let moves = self.latency.len().max(1) as f64;
        let details = [
            ("p50", self.micros(0.5)),
            ("max", self.latency.max() as f64 / 1000.0),
            ("moves", moves),
            ("mpps", self.mpps),
            ("packets_to_old_place", self.to_old_address as f64 / moves),
        ];
        Row::new(mode, case, (self.micros(0.99), "us p99"), Some(Target::AtMost(LATENCY)), details)
    }
}

fn latency(live: &mut LiveGateway, options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    MoveSeries::new().run(live, READING)?;
    let mut moves = MoveSeries::new();
    moves.run(live, options.duration)?;
    each(&moves.row(Mode::Latency, "move"));
    Ok(())
}

fn rekey(live: &mut LiveGateway, options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    for (case, by_gateway) in
        [("rekey by terminal", Some(false)), ("rekey by gateway", Some(true)), ("move", None)]
    {
        let (before, sealed) = (live.losses(), live.line.meter().sealed);
        let (start, sent) = (Instant::now(), live.sent);
        let mut times = 0;
        while times == 0 || start.elapsed() < options.duration {
            match by_gateway {
                Some(by_gateway) => live.rekey_one(by_gateway)?,
                None => live.move_one().map(drop)?,
            }
            times += 1;
        }
        let losses = live.losses().since(before);
        let details = [
            ("times", f64::from(times)),
            ("packets_out", (live.line.meter().sealed - sealed) as f64),
            ("packets_in", (live.sent - sent) as f64),
            ("dropped", losses.dropped as f64),
            ("late", losses.late as f64),
            ("unopened", losses.unopened as f64),
            ("missing", losses.missing as f64),
        ];
        let lost = (losses.sum() as f64, "lost");
        each(&Row::new(Mode::Rekey, case, lost, Some(Target::AtMost(0.0)), details));
    }
    Ok(())
}

fn flood(
    live: &mut LiveGateway,
    world: &World,
    options: &Options,
    each: &mut impl FnMut(&Row),
) -> Result<(), BenchError> {
    let mut flooder = Terminal::new(world, Options::MOST - 1);
    flooder.connect(Duration::ZERO, addresses::outer(Options::MOST - 1, 0));
    let message = flooder.send(Duration::ZERO).next().and_then(|transmit| frame(&transmit));
    let message = Arc::new(message.ok_or(BenchError::Stuck("a terminal sends no first message"))?);
    let (mut quiet, mut flooded) = (MoveSeries::new(), MoveSeries::new());
    let (mut rates, mut floods) = ([vec![], vec![]], vec![]);
    for _ in 0..PAIRS {
        for (rate, moves) in [(0, &mut quiet), (FLOOD, &mut flooded)] {
            live.line.flood(rate, &message);
            moves.run(live, options.duration / (2 * PAIRS))?;
        }
        rates[0].push(quiet.mpps);
        rates[1].push(flooded.mpps);
        floods.push(flooded.flooded);
    }
    live.line.flood(0, &message);
    let ([quiet_mpps, flood_mpps], inits) = (rates.map(median), median(floods));
    let details = [("quiet_mpps", quiet_mpps), ("flood_mpps", flood_mpps), ("inits_per_s", inits)];
    let ratio = (100.0 * flood_mpps / quiet_mpps, "% of quiet");
    each(&Row::new(Mode::Flood, "forwarding", ratio, None, details));
    each(&quiet.row(Mode::Flood, "move when quiet"));
    each(&flooded.row(Mode::Flood, "move when flooded"));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

//! The results of a demonstration.

use super::{Options, fleet::Fleet};
use crate::launch::Gateway;
use serde::Serialize;
use std::{collections::BTreeMap, fmt, time::Duration};
use wayfarer_dataplane::drop::DropReason;

/// Explains why the rates are far below those of `wayfarer bench esp`.
const LIMIT: &str = "\
The simulated fleet shares this machine with the gateway and limits these rates: `wayfarer bench esp` measures the gateway.
";

/// All results. The field names are those of the JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Length of the run.
    pub seconds: f64,
    /// Number of terminals.
    pub terminals: u32,
    /// Number of worker cores.
    pub workers: usize,
    /// Packets that the gateway opened or sealed.
    pub packets: u64,
    /// Millions of those packets per second and worker core.
    pub mpps: f64,
    /// Gigabits of inner packets per second and worker core.
    pub gbps: f64,
    /// Times that a terminal changed its address, port or encapsulation.
    pub moves: u64,
    /// Moves that the gateway followed. It cannot see the first of two moves without a packet in
    /// between.
    pub followed: u64,
    /// Terminals that the gateway does not reach where they are in the end.
    #[serde(skip)]
    pub astray: usize,
    /// Packets to a mapping that the terminal had left for longer than a packet may be in flight,
    /// or since which it had been reached at its new one.
    pub lost_to_moves: u64,
    /// Packets in flight to a mapping that the terminal had just left.
    pub in_flight: u64,
    /// Packets lost for other reasons.
    pub lost_otherwise: u64,
    /// Round trips from a terminal through the gateway to the server and back.
    pub latency_us: LatencyReport,
    /// Dropped packets by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

/// Percentiles of round trips in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LatencyReport {
    /// The median.
    pub p50: f64,
    /// The time that 99 % did not exceed.
    pub p99: f64,
    /// The time that 99.9 % did not exceed.
    pub p999: f64,
    /// The slowest round trip.
    pub max: f64,
}

/// Reports the results of `elapsed` so far, without those that are known only in the end.
pub(super) fn of(fleet: &Fleet, gateway: &Gateway, elapsed: Duration, options: &Options) -> Report {
    let all: Vec<_> = gateway.counters().collect();
    let sum =
        |f: &dyn Fn(&crate::gateway::counters::WorkerCounters) -> u64| all.iter().map(|c| f(c)).sum::<u64>();
    let packets = sum(&|c| c.opened.value() + c.sealed.value());
    let bytes = sum(&|c| c.opened_bytes.value() + c.sealed_bytes.value());
    let drops = DropReason::ALL.iter().map(|&r| (r.name(), sum(&|c| c.drops.of(r)))).filter(|(_, n)| *n > 0);
    let seconds = elapsed.as_secs_f64();
    let core_seconds = seconds * all.len() as f64;
    let micros = |quantile| fleet.latency.value_at_quantile(quantile) as f64 / 1e3;
    Report {
        seconds,
        terminals: options.terminals,
        workers: all.len(),
        packets,
        mpps: packets as f64 / core_seconds / 1e6,
        gbps: bytes as f64 * 8.0 / core_seconds / 1e9,
        moves: fleet.tally.moves,
        followed: 0,
        astray: 0,
        lost_to_moves: fleet.tally.lost_to_moves,
        in_flight: fleet.tally.in_flight,
        lost_otherwise: fleet.outstanding() + fleet.tally.wrong,
        latency_us: LatencyReport {
            p50: micros(0.5),
            p99: micros(0.99),
            p999: micros(0.999),
            max: fleet.latency.max() as f64 / 1e3,
        },
        drops: drops.collect(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<34} {value:>14}");
        row("terminals", self.terminals.to_string())?;
        row("seconds", format!("{:.1}", self.seconds))?;
        row("worker cores", self.workers.to_string())?;
        row("packets opened and sealed", self.packets.to_string())?;
        row("Mpps per core", format!("{:.3}", self.mpps))?;
        row("Gbit/s per core (inner)", format!("{:.3}", self.gbps))?;
        row("moves", self.moves.to_string())?;
        row("moves followed", self.followed.to_string())?;
        row("packets lost to moves", self.lost_to_moves.to_string())?;
        row("packets in flight during a move", self.in_flight.to_string())?;
        row("packets lost otherwise", self.lost_otherwise.to_string())?;
        let l = &self.latency_us;
        row("round trip p50 / p99, µs", format!("{:.0} / {:.0}", l.p50, l.p99))?;
        row("round trip p99.9 / max, µs", format!("{:.0} / {:.0}", l.p999, l.max))?;
        if self.drops.is_empty() {
            row("drops", "none".to_owned())?;
        }
        self.drops.iter().try_for_each(|(name, n)| row(&format!("dropped: {name}"), n.to_string()))?;
        f.write_str(LIMIT)
    }
}

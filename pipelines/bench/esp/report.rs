//! The results of a run, as tables and JSON.

use super::{Direction, Size};
use crate::gateway::profile::Stage;
use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of one combination.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The direction of packets.
    pub direction: Direction,
    /// Bytes of an inner packet.
    pub size: Size,
    /// Number of tunnels, each with an inbound and an outbound SA.
    pub sas: u32,
    /// The tunnels' algorithms.
    pub cipher: String,
    /// Workers that ran at once.
    pub workers: usize,
    /// Packets that the timed part carried.
    pub packets: u64,
    /// Packets that workers have sent since they began, by which to divide what a simulator counts.
    pub sent: u64,
    /// Nanoseconds of a worker's processor time per packet: the median over the slices of the run.
    pub ns_per_packet: f64,
    /// Nanoseconds per packet in the quickest slice.
    pub ns_min: f64,
    /// Nanoseconds per packet in the slowest slice.
    pub ns_max: f64,
    /// Millions of packets per second of all workers together: their number divided by
    /// `ns_per_packet`.
    pub mpps: f64,
    /// Inner bits per second, in units of 10⁹.
    pub gbps: f64,
    /// Packets that went in and did not come out.
    pub lost: u64,
    /// Lost packets that the anti-replay window refused as too old; none are lost otherwise.
    pub replay_drops: u64,
    /// Lost packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Packets that came out and were compared byte for byte with those that went in; ESP was
    /// opened by another implementation.
    pub checked: u64,
    /// Moves of terminals while packets flowed.
    pub moves: u64,
    /// Moves that the gateway followed. It may see two quick moves as one, and it does not follow a
    /// terminal that flaps.
    pub moves_followed: u64,
    /// Terminals whose address differed in the end from the one that the gateway had.
    pub astray: u64,
    /// Tunnels added or removed while packets flowed, beside those that carried them.
    pub churns: u64,
    /// Size of the anti-replay window in packets.
    pub window: u32,
    /// Packets of terminals that came together in two fragments each; 0: packets came whole.
    pub fragments: u32,
    /// Fragments of strangers for every hundred packets of terminals.
    pub flood: u32,
    /// Fragments of strangers that were dropped.
    pub flood_drops: u64,
    /// Nanoseconds per packet by stage, from a separate run with a stopwatch.
    pub stages: BTreeMap<&'static str, f64>,
    /// Instructions per packet, if the machine counts them.
    pub instructions_per_packet: Option<f64>,
    /// Seconds until a gateway with this many tunnels was ready.
    pub setup_seconds: f64,
    /// Bytes of memory by which the process grew for each tunnel.
    pub bytes_per_tunnel: u64,
}

impl Row {
    /// Computes a row from the nanoseconds per packet of each slice; the caller fills in the rest.
    pub(super) fn timed(
        mut slices: Vec<f64>,
        workers: usize,
        mean_size: usize,
        stages: Vec<(Stage, f64)>,
    ) -> Self {
        slices.sort_by(f64::total_cmp);
        let middle = slices.len() / 2;
        let median =
            if slices.len() % 2 == 1 { slices[middle] } else { (slices[middle - 1] + slices[middle]) / 2.0 };
        let mpps = workers as f64 * 1000.0 / median;
        Self {
            direction: Direction::Out,
            size: Size::Imix,
            sas: 0,
            cipher: String::new(),
            workers,
            packets: 0,
            sent: 0,
            ns_per_packet: median,
            ns_min: slices[0],
            ns_max: slices[slices.len() - 1],
            mpps,
            gbps: mpps * mean_size as f64 * 8.0 / 1000.0,
            lost: 0,
            replay_drops: 0,
            drops: BTreeMap::new(),
            checked: 0,
            moves: 0,
            moves_followed: 0,
            astray: 0,
            churns: 0,
            window: 0,
            fragments: 0,
            flood: 0,
            flood_drops: 0,
            stages: stages.into_iter().map(|(stage, ns)| (stage.name(), ns)).collect(),
            instructions_per_packet: None,
            setup_seconds: 0.0,
            bytes_per_tunnel: 0,
        }
    }

    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        let mut line = format!(
            "{:9} {:>5} {:>8} {:18} {:>7} {:>9} {:>8} {:>8} {:>6} {:>6}",
            "DIRECTION", "SIZE", "SAS", "CIPHER", "WORKERS", "NS/PACKET", "MPPS", "GBIT/S", "LOST", "INSTR"
        );
        for stage in Stage::ALL {
            line += &format!(" {:>5.5}", stage.name().to_uppercase());
        }
        line
    }

    /// Returns the row as a line of a table.
    pub fn line(&self) -> String {
        let Self {
            direction,
            size,
            sas,
            cipher,
            workers,
            ns_per_packet,
            mpps,
            gbps,
            lost,
            instructions_per_packet,
            ..
        } = self;
        let instructions = instructions_per_packet.map_or("n/a".to_owned(), |n| format!("{n:.0}"));
        let mut line = format!(
            "{direction:9} {size:>5} {sas:>8} {cipher:18} {workers:>7} {ns_per_packet:>9.1} {mpps:>8.2} \
             {gbps:>8.2} {lost:>6} {instructions:>6}"
        );
        for stage in Stage::ALL {
            line += &format!(" {:>5.1}", self.stages.get(stage.name()).copied().unwrap_or_default());
        }
        line
    }
}

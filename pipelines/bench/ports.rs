//! Measures ports alone: packets that come in by one go out by the next, unread. The rest of a
//! gateway's time per packet is the gateway's own.

use crate::{
    config::model::{Config, Port as PortConfig},
    device_lock::{DeviceLock, primary_name},
    launch::{self, LaunchError, Resources},
};
use serde::Serialize;
use std::{
    fmt, io,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{Port, PortStats},
};

/// Rounds of which the median is taken.
const ROUNDS: u32 = 5;
/// Turns from one reading of the clock to the next.
const TURNS: u32 = 256;

/// The figures of one configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The ports and how they were opened, in order: each sends to the next, the last to the first.
    pub ports: Vec<String>,
    /// Packets that left by the next port, in all rounds.
    pub packets: u64,
    /// Packets that the next port did not take.
    pub refused: u64,
    /// Nanoseconds of processor time for a packet, empty polls included: the median of the rounds.
    pub ns_per_packet: f64,
    /// Nanoseconds for a packet in the quickest round.
    pub ns_min: f64,
    /// Nanoseconds for a packet in the slowest round.
    pub ns_max: f64,
    /// Millions of packets in a second at the median time.
    pub mpps: f64,
}

impl Row {
    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        format!(
            "{:>9} {:>8} {:>8} {:>8} {:>12} {:>10}  PORTS",
            "NS/PACKET", "MIN", "MAX", "MPPS", "PACKETS", "REFUSED"
        )
    }

    /// Returns the row as a line of a table.
    pub fn line(&self) -> String {
        format!(
            "{:9.2} {:8.2} {:8.2} {:8.2} {:12} {:10}  {}",
            self.ns_per_packet,
            self.ns_min,
            self.ns_max,
            self.mpps,
            self.packets,
            self.refused,
            self.ports.join(" > ")
        )
    }
}

/// The reason why there is no figure.
#[derive(Debug)]
pub enum PortsError {
    /// The ports could not be opened.
    Open(LaunchError),
    /// A thread could not be started.
    Thread(io::Error),
    /// No packet passed.
    Nothing,
}

impl fmt::Display for PortsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(why) => why.fmt(f),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Nothing => f.write_str("no figure: no packet came in by any port"),
        }
    }
}

impl std::error::Error for PortsError {}

/// Opens the ports of `config` for one worker, on the first core that it names, and measures for
/// `duration`.
///
/// # Errors
/// See [`PortsError`].
pub fn run(mut config: Config, duration: Duration) -> Result<Row, PortsError> {
    match &mut config.gateway.workers {
        Some(workers) => workers.truncate(1),
        None => config.gateway.workers = super::core_of(0).map(|core| vec![core.id]),
    }
    let is_first =
        |(index, port): &(usize, &PortConfig)| !config.ports[..*index].iter().any(|p| p.shares_device(port));
    let firsts = config.ports.iter().enumerate().filter(is_first);
    let shared = firsts.filter_map(|(_, port)| Some((port, port.kind.shared_device()?)));
    let take = |(port, device): (&PortConfig, &str)| {
        let device = primary_name(device);
        DeviceLock::take(&device)
            .map_err(|why| LaunchError::Port { port: port.name.clone(), why: why.of(&device) })
    };
    let _devices = shared.map(take).collect::<Result<Vec<_>, _>>().map_err(PortsError::Open)?;
    let Resources { cores, mut pools, ports } = launch::prepare(&config).map_err(PortsError::Open)?;
    // No packets are forwarded by the ports that lead to the kernel.
    let ports = ports.into_iter().filter(|port| port.exception.is_none());
    let (names, mut queues): (Vec<_>, Vec<_>) =
        ports.map(|port| (format!("{} ({})", port.name, port.kind), port.queues)).unzip();
    let mut queues: Vec<_> = queues.iter_mut().filter_map(Vec::pop).collect();
    let (core, pool) = (cores.into_iter().flatten().next(), pools.first_mut().ok_or(PortsError::Nothing)?);
    let measure = || {
        queues.iter_mut().for_each(|queue| queue.attach());
        (0..ROUNDS).map(|_| round(&mut queues, pool, duration / ROUNDS)).collect::<Vec<_>>()
    };
    let rounds = super::run_on_core(core, measure).map_err(PortsError::Thread)?;
    let packets = rounds.iter().map(|round| round.sent).sum();
    let refused = rounds.iter().map(|round| round.refused).sum();
    let mut ns: Vec<_> = rounds.iter().filter_map(Round::ns_per_packet).collect();
    ns.sort_by(f64::total_cmp);
    let (Some(&ns_min), Some(&ns_max), Some(&median)) = (ns.first(), ns.last(), ns.get(ns.len() / 2)) else {
        return Err(PortsError::Nothing);
    };
    Ok(Row { ports: names, packets, refused, ns_per_packet: median, ns_min, ns_max, mpps: 1e3 / median })
}

struct Round {
    sent: u64,
    refused: u64,
    time: Duration,
}

impl Round {
    fn ns_per_packet(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.time.as_nanos() as f64 / self.sent as f64)
    }
}

fn round(queues: &mut [Box<dyn Port>], pool: &mut Pool, duration: Duration) -> Round {
    let sent = |queues: &[Box<dyn Port>]| {
        queues.iter().map(|queue| queue.stats()).fold(PortStats::default(), PortStats::plus).tx_packets
    };
    let (before, mut refused) = (sent(queues), 0);
    let (deadline, start) = (Instant::now() + duration, super::processor_time());
    while Instant::now() < deadline {
        for _ in 0..TURNS {
            for from in 0..queues.len() {
                let mut burst = Burst::new();
                queues[from].rx(pool, &mut burst);
                let to = (from + 1) % queues.len();
                queues[to].tx(pool, &mut burst);
                refused += burst.len() as u64;
                pool.give_all(&mut burst);
            }
            queues.iter_mut().for_each(|queue| queue.flush(pool));
        }
    }
    Round { sent: sent(queues) - before, refused, time: super::processor_time().saturating_sub(start) }
}

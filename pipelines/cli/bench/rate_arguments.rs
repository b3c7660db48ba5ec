//! The options of `wayfarer bench rate`.

use clap::{Args, ValueEnum};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};
use wayfarer::{
    bench::rate::{
        Direction, Options, Size, Test,
        report::{Format, UnknownFormat},
    },
    config,
};
use wayfarer_dataplane::{
    port::{Mac, open::Kind},
    table::Prefix,
};

/// Options of `wayfarer bench rate`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct BenchRate {
    /// Device that sends forward frames; with --esp, the one with ESP.
    #[arg(long, value_name = "DEVICE")]
    pub port: String,
    /// Device that receives them [default: the device of --port].
    #[arg(long, value_name = "DEVICE")]
    pub peer_port: Option<String>,
    /// How to open the devices.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kind: PortKind,
    /// Tests: throughput, latency, loss, back-to-back, rate.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "throughput")]
    pub test: Vec<Test>,
    /// Directions of frames: forward, reverse, or both at once.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "forward")]
    pub direction: Vec<Direction>,
    /// Lengths of a frame, in bytes, with its check sequence; or imix: 64, 594 and 1518 as 7 : 4 : 1
    /// [default: those of RFC 2544 section 9.1, of IPv6 those of RFC 5180, as far as they fit].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub size: Option<Vec<Size>>,
    /// Sends IPv6 packets, in place of IPv4.
    #[arg(long, conflicts_with_all = ["src", "dst"])]
    pub ipv6: bool,
    /// Source address of the packets, or a prefix of sources of flows [default: 198.18.0.1 or 2001:2::1].
    #[arg(long, value_name = "PREFIX", value_parser = prefix, requires = "dst")]
    pub src: Option<Prefix>,
    /// Destination address of the packets, or a prefix of destinations of flows [default: 198.19.0.1 or
    /// 2001:2:0:8000::1].
    #[arg(long, value_name = "PREFIX", value_parser = prefix, requires = "src")]
    pub dst: Option<Prefix>,
    /// Number of flows, which differ by addresses as far as there are several, and then by source ports
    /// [default: 1; with --esp, one for each tunnel].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(Options::FLOWS)))]
    pub flows: Option<u32>,
    /// Configuration whose tunnels lead to the device under test.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["src", "dst", "replay"])]
    pub esp: Option<PathBuf>,
    /// Capture (pcap, pcapng) whose IP packets are sent again and again, with new MAC addresses. Without
    /// stamps, frames that come back are only counted.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["src", "dst", "ipv6", "flows", "size"])]
    pub replay: Option<PathBuf>,
    /// Destination MAC address of frames by --port [default: that of the receiving device].
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub dst_mac: Option<Mac>,
    /// Destination MAC address of frames by --peer-port [default: that of --port].
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub peer_dst_mac: Option<Mac>,
    /// Rate of the tests rate and latency, in frames a second [default of latency: the throughput].
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Highest rate, in frames a second [default: as many as can be sent].
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rate: Option<u32>,
    /// Precision of searches, in percent of the result.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub resolution: f64,
    /// Tolerated loss, in percent of the frames.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub loss: f64,
    /// Seconds for which each trial sends, 0.01 to 3600. Each frame of a trial takes a bit of memory.
    #[arg(long, value_name = "S", default_value = "60", value_parser = trial)]
    pub trial: Duration,
    /// Seconds for which the device is left alone between trials, 0 to 60.
    #[arg(long, value_name = "S", default_value = "5", value_parser = settle)]
    pub settle: Duration,
    /// How often latencies and bursts are measured [default: 20 times and 50 times].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub repeat: Option<u32>,
    /// Number of threads that send and receive, each with its own queue of both devices and its own flows:
    /// no more than there are cores.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=Options::THREADS as i64))]
    pub threads: u16,
    /// Cores of the threads, one for each [default: the system chooses].
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "threads")]
    pub cores: Vec<usize>,
    /// Files for a report of the whole run, each in the form that its name ends with: .json, .csv, .html. SIGINT
    /// and SIGTERM end the run, and the report has the rows until then. The second signal ends the program at
    /// once, without a report.
    #[arg(long, value_name = "FILES", value_delimiter = ',', value_parser = report)]
    pub report: Vec<(PathBuf, Format)>,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// The way to open a device.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum PortKind {
    /// AF_XDP, else AF_PACKET.
    Auto,
    /// AF_XDP.
    #[value(name = "af_xdp")]
    AfXdp,
    /// AF_PACKET.
    #[value(name = "af_packet")]
    AfPacket,
}

impl From<PortKind> for Kind {
    fn from(kind: PortKind) -> Self {
        match kind {
            PortKind::Auto => Self::Auto,
            PortKind::AfXdp => Self::AfXdp,
            PortKind::AfPacket => Self::AfPacket,
        }
    }
}

/// Parses a percentage as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent @ 0.0..=100.0) => Ok(percent / 100.0),
        _ => Err("must be from 0 to 100".to_owned()),
    }
}

fn trial(text: &str) -> Result<Duration, String> {
    seconds(text, 0.01..=3600.0)
}

fn settle(text: &str) -> Result<Duration, String> {
    seconds(text, 0.0..=60.0)
}

/// Parses a time in seconds within a range.
fn seconds(text: &str, range: RangeInclusive<f64>) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if range.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be from {} to {}", range.start(), range.end())),
    }
}

/// Parses the address of one station.
fn mac(text: &str) -> Result<Mac, String> {
    config::mac(text).map_err(|_| "must be a MAC address of one station, like 02:00:00:00:00:01".to_owned())
}

fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|_| "must be an address, or a prefix like 198.18.0.0/16".to_owned())
}

fn report(text: &str) -> Result<(PathBuf, Format), UnknownFormat> {
    let path = PathBuf::from(text);
    Format::of(&path).map(|format| (path, format))
}

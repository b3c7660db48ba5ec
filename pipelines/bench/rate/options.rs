//! The options of a run.

use crate::config::model::Tunnel;
use serde::{Serialize, Serializer};
use std::{error, fmt, path::PathBuf, str::FromStr, time::Duration};
use wayfarer_dataplane::{
    port::{Mac, open::Kind},
    table::Prefix,
};

/// The devices and frames to measure with.
#[derive(Debug)]
pub struct Options {
    /// The device that forward frames are sent by.
    pub port: String,
    /// The device that they come back by; `None` for the same.
    pub peer_port: Option<String>,
    /// The way to open the devices.
    pub kind: Kind,
    /// The tests, in their order.
    pub tests: Vec<Test>,
    /// The directions of frames: each has its own rows.
    pub directions: Vec<Direction>,
    /// What the frames carry.
    pub traffic: Traffic,
    /// Sizes of frames, with their check sequence (RFC 2544 §9); `None` for the usual ones. A capture
    /// has its own.
    pub sizes: Option<Vec<Size>>,
    /// The number of threads that send and receive, at most [`Options::THREADS`].
    pub threads: usize,
    /// The cores of the threads, one for each; empty if the system chooses.
    pub cores: Vec<usize>,
    /// How long one trial sends frames.
    pub trial: Duration,
    /// How long the device under test is left alone before each trial.
    pub settle: Duration,
    /// Frames per second of the tests [`Test::Rate`] and [`Test::Latency`]; `None` if the latter is to
    /// use the throughput.
    pub rate: Option<u32>,
    /// The most frames per second; `None` for as many as can be sent.
    pub max_rate: Option<u32>,
    /// The searches' precision, as a fraction of the result.
    pub resolution: f64,
    /// The fraction of the frames that may be lost.
    pub loss: f64,
    /// How often latencies and bursts are measured; `None` for as often as RFC 2544 asks for.
    pub repeat: Option<u32>,
    /// The destination MAC addresses of frames sent by each device; `None` for that of the other
    /// device, as for a cable.
    pub dst_macs: [Option<Mac>; 2],
}

impl Options {
    /// Valid sizes of frames.
    pub const SIZES: std::ops::RangeInclusive<u16> = 64..=9216;
    /// The maximum number of threads.
    pub const THREADS: usize = 64;
    /// The maximum number of flows.
    pub const FLOWS: u32 = 1 << 20;

    /// Returns options for a throughput between two devices, for tests.
    #[cfg(test)]
    pub(super) fn sample() -> Self {
        let [src, dst] = ["198.18.0.1", "198.19.0.1"].map(|text| text.parse().unwrap());
        Self {
            port: "left".to_owned(),
            peer_port: Some("right".to_owned()),
            kind: Kind::Auto,
            tests: vec![Test::Throughput],
            directions: vec![Direction::Forward],
            traffic: Traffic::Clear { src, dst, flows: 1 },
            sizes: None,
            threads: 1,
            cores: vec![],
            trial: Duration::from_millis(100),
            settle: Duration::ZERO,
            rate: None,
            max_rate: None,
            resolution: 0.01,
            loss: 0.0,
            repeat: None,
            dst_macs: [None; 2],
        }
    }
}

/// What frames carry.
#[derive(Debug)]
pub enum Traffic {
    /// Numbered, time-stamped UDP datagrams.
    Clear {
        /// Prefix of the sources of forward packets.
        src: Prefix,
        /// Prefix of their destinations; none of its addresses may be the host's own.
        dst: Prefix,
        /// Number of flows.
        flows: u32,
    },
    /// The same, in ESP on [`Options::port`].
    Esp {
        /// The other ends of the device's tunnels.
        tunnels: Vec<Tunnel>,
        /// `true` for the tunnels' IPv6 selectors, otherwise IPv4.
        ipv6: bool,
        /// Number of flows; `None` for one in each tunnel.
        flows: Option<u32>,
    },
    /// The frames of a capture, again and again.
    Capture(PathBuf),
}

/// A test of RFC 2544 §26.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The highest rate without loss.
    Throughput,
    /// Latencies at that rate.
    Latency,
    /// Loss at ever lower rates.
    Loss,
    /// The longest burst without loss.
    BackToBack,
    /// Loss and latencies at one rate.
    Rate,
}

impl Test {
    /// Every test.
    pub const ALL: [Self; 5] = [Self::Throughput, Self::Latency, Self::Loss, Self::BackToBack, Self::Rate];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Loss => "loss",
            Self::BackToBack => "back-to-back",
            Self::Rate => "rate",
        }
    }
}

/// The direction of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From [`Options::port`] to [`Options::peer_port`].
    Forward,
    /// The other way.
    Reverse,
    /// Half of the frames each way.
    Both,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Reverse, Self::Both];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
            Self::Both => "both",
        }
    }

    /// Returns whether frames go forward, and whether they go back.
    pub(super) fn ways(self) -> [bool; 2] {
        [self != Self::Reverse, self != Self::Forward]
    }
}

/// The length of frames, with their check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The same number of bytes for all.
    Fixed(u16),
    /// 64, 594 and 1518 bytes as 7 : 4 : 1.
    Imix,
    /// The lengths of a capture.
    Capture,
}

/// A text that names no test, direction or size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The valid texts.
    valid: String,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be {}", self.valid)
    }
}

impl error::Error for Unknown {}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => f.pad(&size.to_string()),
            Self::Imix => f.pad("imix"),
            Self::Capture => f.pad("capture"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_u16(*size),
            Self::Imix | Self::Capture => serializer.collect_str(self),
        }
    }
}

impl FromStr for Test {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let valid = || Unknown { valid: Self::ALL.map(Self::name).join(", ") };
        Self::ALL.into_iter().find(|test| test.name() == text).ok_or_else(valid)
    }
}

impl FromStr for Direction {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let valid = || Unknown { valid: Self::ALL.map(Self::name).join(", ") };
        Self::ALL.into_iter().find(|direction| direction.name() == text).ok_or_else(valid)
    }
}

impl FromStr for Size {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let (first, last) = (Options::SIZES.start(), Options::SIZES.end());
        match text.parse() {
            Ok(size) if Options::SIZES.contains(&size) => Ok(Self::Fixed(size)),
            _ if text == "imix" => Ok(Self::Imix),
            _ => Err(Unknown { valid: format!("{first} to {last}, or imix") }),
        }
    }
}

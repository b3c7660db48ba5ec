//! The options of a run.

use serde::{Serialize, Serializer};
use std::{error, fmt, slice, str::FromStr, time::Duration};
use wayfarer_dataplane::{
    crypto::Suite,
    wire::{ip, udp},
};

/// Bytes of an inner packet before its serial number, and behind it.
pub(super) const INNER_HEADERS: usize = ip::V4_HEADER + udp::HEADER;
/// Shortest inner packet: headers and serial number.
pub(super) const SHORTEST: usize = INNER_HEADERS + 8;

/// What to measure: every combination of the lists is a row.
#[derive(Clone, Debug)]
pub struct Options {
    /// Ways of packets.
    pub directions: Vec<Direction>,
    /// Inner packets.
    pub sizes: Vec<Size>,
    /// Numbers of tunnels, each from 1 to [`Options::MOST`].
    pub sas: Vec<u32>,
    /// Algorithms.
    pub ciphers: Vec<Suite>,
    /// Workers that run at once, at least 1.
    pub workers: usize,
    /// Processor time that each worker is measured for, for each row.
    pub duration: Duration,
    /// Numbers in the anti-replay window.
    pub window: u32,
    /// Moves of terminals in a second.
    pub roam: u32,
    /// Tunnels added and removed in a second, beside those that carry packets.
    pub churn: u32,
}

impl Options {
    /// Most tunnels.
    pub const MOST: u32 = crate::sim::addresses::MOST;
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the server to terminals: sealed.
    Out,
    /// From terminals to the server: opened.
    In,
    /// Half of them each way.
    Both,
}

/// How long inner packets are, IP header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of them so many bytes.
    Fixed(u16),
    /// 64, 576 and 1420 bytes, at random as 7 : 4 : 1.
    Imix,
}

impl Size {
    /// Shortest and longest.
    pub const RANGE: std::ops::RangeInclusive<u16> = SHORTEST as u16..=9000;
    const IMIX: [u16; 12] = [64, 64, 64, 64, 64, 64, 64, 576, 576, 576, 576, 1420];

    /// Returns the lengths, each as often as its share is.
    fn lengths(&self) -> &[u16] {
        match self {
            Self::Fixed(size) => slice::from_ref(size),
            Self::Imix => &Self::IMIX,
        }
    }

    /// Returns the length for a random number.
    pub(in crate::bench) fn pick(self, random: u64) -> usize {
        let lengths = self.lengths();
        lengths[random as usize % lengths.len()].into()
    }

    /// Returns whether packets have this length.
    pub(in crate::bench) fn has(self, length: usize) -> bool {
        self.lengths().iter().any(|size| usize::from(*size) == length)
    }

    /// Returns the largest length.
    pub(in crate::bench) fn largest(self) -> usize {
        self.lengths().iter().copied().max().unwrap_or_default().into()
    }

    /// Returns the average of what `of` says of a length.
    pub(in crate::bench) fn mean(self, of: impl Fn(usize) -> usize) -> usize {
        let lengths = self.lengths();
        lengths.iter().map(|size| of(usize::from(*size))).sum::<usize>() / lengths.len()
    }
}

/// A text that names no direction or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No direction.
    Direction,
    /// No size.
    Size,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direction => f.write_str("must be out, in or both"),
            Self::Size => {
                write!(f, "must be {} to {}, or imix", Size::RANGE.start(), Size::RANGE.end())
            }
        }
    }
}

impl error::Error for Unknown {}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Both => "both",
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => f.pad(&size.to_string()),
            Self::Imix => f.pad("imix"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(size) => serializer.serialize_u16(*size),
            Self::Imix => serializer.serialize_str("imix"),
        }
    }
}

impl FromStr for Direction {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "out" => Ok(Self::Out),
            "in" => Ok(Self::In),
            "both" => Ok(Self::Both),
            _ => Err(Unknown::Direction),
        }
    }
}

impl FromStr for Size {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "imix" => Ok(Self::Imix),
            _ => match text.parse() {
                Ok(size) if Self::RANGE.contains(&size) => Ok(Self::Fixed(size)),
                _ => Err(Unknown::Size),
            },
        }
    }
}

//! The options of a run.

use serde::{Serialize, Serializer};
use std::{error, fmt, slice, str::FromStr, time::Duration};
use wayfarer_dataplane::{
    crypto::Suite,
    wire::{ip, udp},
};

/// Bytes of an inner packet before its serial number.
pub(super) const INNER_HEADERS: usize = ip::V4_HEADER + udp::HEADER;
/// Shortest inner packet: headers and serial number.
pub(super) const SHORTEST: usize = INNER_HEADERS + 8;

/// The load to measure: every combination of the lists is a row.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directions of packets.
    pub directions: Vec<Direction>,
    /// Sizes of inner packets.
    pub sizes: Vec<Size>,
    /// Numbers of tunnels, each from 1 to [`Options::MOST`].
    pub sas: Vec<u32>,
    /// Algorithms.
    pub ciphers: Vec<Suite>,
    /// Workers that run at once, at least 1.
    pub workers: usize,
    /// Measured processor time of each worker, for each row.
    pub duration: Duration,
    /// Size of the anti-replay window in packets.
    pub window: u32,
    /// Moves of terminals per second.
    pub roam: u32,
    /// Tunnels added or removed per second, beside those that carry packets.
    pub churn: u32,
    /// Flows that each worker remembers; `None`: as many as by default for this number of tunnels.
    pub flow_cache: Option<u32>,
    /// Fragmentation of what terminals and strangers send.
    pub fragments: Fragments,
}

/// Fragments among the packets to the gateway.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fragments {
    /// The number of packets of terminals that come together in two fragments each: the first ones of all,
    /// then the last ones. 0: packets come whole.
    pub together: u32,
    /// Fragments of strangers, which never get complete, for every hundred packets of terminals.
    pub flood: u32,
}

impl Options {
    /// The maximum number of tunnels.
    pub const MOST: u32 = crate::sim::addresses::MOST;
}

/// The direction of packets.
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

/// The length of inner packets, IP header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// The same number of bytes for all.
    Fixed(u16),
    /// 64, 576 and 1420 bytes, at random as 7 : 4 : 1.
    Imix,
}

impl Size {
    /// The shortest and the longest.
    pub const RANGE: std::ops::RangeInclusive<u16> = SHORTEST as u16..=9000;
    const IMIX: [u16; 12] = [64, 64, 64, 64, 64, 64, 64, 576, 576, 576, 576, 1420];

    /// Returns the lengths, each repeated in proportion to its share.
    fn lengths(&self) -> &[u16] {
        match self {
            Self::Fixed(size) => slice::from_ref(size),
            Self::Imix => &Self::IMIX,
        }
    }

    /// Returns the length that a random number stands for.
    pub(in crate::bench) fn pick(self, random: u64) -> usize {
        let lengths = self.lengths();
        lengths[random as usize % lengths.len()].into()
    }

    /// Returns whether packets of this size may have this length.
    pub(in crate::bench) fn has(self, length: usize) -> bool {
        self.lengths().iter().any(|size| usize::from(*size) == length)
    }

    /// Returns the largest length.
    pub(in crate::bench) fn largest(self) -> usize {
        self.lengths().iter().copied().max().unwrap_or_default().into()
    }

    /// Returns the mean of `f` of the length, over all packets.
    pub(in crate::bench) fn mean(self, f: impl Fn(usize) -> usize) -> usize {
        let lengths = self.lengths();
        lengths.iter().map(|size| f(usize::from(*size))).sum::<usize>() / lengths.len()
    }
}

/// A text that names no direction or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The text is not a direction.
    Direction,
    /// The text is not a size.
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

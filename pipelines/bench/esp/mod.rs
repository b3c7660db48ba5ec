//! Measures a packet's whole way through a real gateway: the workers, tables, slow path and SAs of
//! `wayfarer gateway` on ports of memory.
//!
//! ```text
//! prepare a batch (another core) ─► workers carry it, timed ─► check samples of it ─► repeat
//! ```
//!
//! Packets are prepared as peers would: each with a fresh sequence number and payload, from or to a
//! random terminal. As with a device, another core wrote the frames' memory. Batches are larger
//! than a core's own caches and smaller than the shared one, into which devices write too. In the
//! timed part, each packet is copied whole into a fresh frame of the worker's pool, carried
//! through, counted and freed. The figures are the workers' processor time.

mod disturbance;
mod load;
mod port;
mod report;
mod rig;
mod worker;
mod world;

pub use load::PacketError;
pub use report::Row;

use crate::{launch::StartError, slow_path::tunnels::MoveError};
use load::SHORTEST;
use rig::Rig;
use serde::{Serialize, Serializer};
use std::{error, fmt, io, str::FromStr, time::Duration};
use wayfarer_dataplane::{
    crypto::{KeyError, Suite},
    drop::DropReason,
};

/// Slices of a run, of which the median is taken.
const SLICES: usize = 10;

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
}

impl Options {
    /// The maximum number of tunnels.
    pub const MOST: u32 = world::MOST_TUNNELS;
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
    const IMIX: [(u16, u64); 3] = [(64, 7), (576, 4), (1420, 1)];

    /// Returns the length that a random number stands for.
    pub(super) fn pick(self, random: u64) -> usize {
        let Self::Fixed(size) = self else {
            return match random % 12 {
                0..7 => 64,
                7..11 => 576,
                _ => 1420,
            };
        };
        usize::from(size)
    }

    /// Returns whether packets of this size may have this length.
    pub(super) fn has(self, length: usize) -> bool {
        match self {
            Self::Fixed(size) => usize::from(size) == length,
            Self::Imix => Self::IMIX.iter().any(|(size, _)| usize::from(*size) == length),
        }
    }

    /// Returns the largest length.
    pub(super) fn largest(self) -> usize {
        match self {
            Self::Fixed(size) => usize::from(size),
            Self::Imix => 1420,
        }
    }

    /// Returns the mean of `f` of the length, over all packets.
    pub(super) fn mean(self, f: impl Fn(usize) -> usize) -> usize {
        match self {
            Self::Fixed(size) => f(usize::from(size)),
            Self::Imix => {
                let sum: usize = Self::IMIX.iter().map(|(size, n)| f(usize::from(*size)) * *n as usize).sum();
                sum / 12
            }
        }
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

/// The reason why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// Memory for frames could not be had.
    Memory(io::Error),
    /// A thread could not be started.
    Thread(io::Error),
    /// A key was refused.
    Key(KeyError),
    /// The gateway did not start.
    Start(StartError),
    /// A worker ended before its time.
    Worker,
    /// A terminal was not allowed to move.
    Move(MoveError),
    /// The gateway sent a wrong packet.
    Packet(PacketError),
    /// Delivered and dropped packets do not add up to the offered ones.
    Unaccounted {
        /// Packets that went in.
        offered: u64,
        /// Packets that came out.
        delivered: u64,
        /// Packets counted as dropped, for any reason.
        dropped: u64,
    },
    /// Packets were dropped that should not have been.
    Dropped(DropReason, u64),
    /// No packet was checked.
    Unchecked,
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Key(why) => write!(f, "a key cannot be used: {why}"),
            Self::Start(why) => why.fmt(f),
            Self::Move(why) => write!(f, "a terminal cannot move: {why}"),
            Self::Worker => f.write_str("a worker ended before its time"),
            Self::Packet(error) => write!(f, "no figure: the gateway sent {error}"),
            Self::Unaccounted { offered, delivered, dropped } => {
                write!(f, "no figure: {offered} packets in, {delivered} out, {dropped} dropped")
            }
            Self::Dropped(reason, packets) => {
                write!(f, "no figure: {packets} packets dropped: {}", reason.name())
            }
            Self::Unchecked => f.write_str("no figure: no packet was checked"),
        }
    }
}

impl error::Error for BenchError {}

/// Measures every combination, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core without a worker if there is one, so that preparing does not fill a worker's
    // caches.
    let core = super::core_of(options.workers);
    super::run_on_core(core, || measure(options, &mut each)).map_err(BenchError::Thread)?
}

fn measure(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), BenchError> {
    for &cipher in &options.ciphers {
        for &sas in &options.sas {
            let mut rig = Rig::new(options, cipher, sas)?;
            for &direction in &options.directions {
                for &size in &options.sizes {
                    each(&rig.measure(options, direction, size)?);
                }
            }
        }
    }
    Ok(())
}

/// One gateway under one kind of load, for other harnesses.
pub struct Traffic {
    rig: Rig,
    batches: rig::Batches,
    size: Size,
}

impl Traffic {
    /// Starts a gateway with one worker and `sas` tunnels.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn new(direction: Direction, size: Size, sas: u32, cipher: Suite) -> Result<Self, BenchError> {
        let options = Options {
            directions: vec![direction],
            sizes: vec![size],
            sas: vec![sas],
            ciphers: vec![cipher],
            workers: 1,
            duration: Duration::ZERO,
            window: 1024,
            roam: 0,
            churn: 0,
        };
        let rig = Rig::new(&options, cipher, sas)?;
        Ok(Self { batches: rig.batches(direction, size), rig, size })
    }

    /// Carries `packets` packets, rounded up to whole batches, and checks samples of them; returns
    /// the processor time for `packets`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn carry(&mut self, packets: u64) -> Result<Duration, BenchError> {
        self.rig.carry(packets, &mut self.batches, self.size)
    }
}

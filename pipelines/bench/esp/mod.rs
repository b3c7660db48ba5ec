//! The whole way of a packet through a real gateway: the workers, tables, slow path and SAs of
//! `wayfarer gateway` on ports of memory.
//!
//! ```text
//! prepare a batch (another core) ─► workers carry it, timed ─► check samples of it ─► again
//! ```
//!
//! A packet is prepared like a peer's: fresh sequence number, fresh payload, of a terminal picked
//! at random. Frames lie in memory that another core wrote, as a device would have; batches are
//! larger than a core's own caches and smaller than the shared one, where a device puts packets
//! too. Within the timed part, each is copied whole into a fresh frame of the worker's pool,
//! carried through, counted and freed. What counts is the workers' processor time.

mod hand;
mod load;
mod port;
mod report;
mod rig;
mod unrest;
mod world;

pub use load::Wrong;
pub use report::Row;

use crate::{launch::StartError, slow_path::tunnels::MoveError};
use load::SHORTEST;
use rig::Rig;
use serde::{Serialize, Serializer};
use std::{error, fmt, io, slice, str::FromStr, time::Duration};
use wayfarer_dataplane::{
    crypto::{KeyError, Suite},
    drop::DropReason,
};

/// Slices of a run, of which the median counts.
const SLICES: usize = 10;

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

    /// The length for some random number.
    pub(super) fn pick(self, random: u64) -> usize {
        let lengths = self.lengths();
        lengths[random as usize % lengths.len()].into()
    }

    /// Whether packets have this length.
    pub(super) fn has(self, length: usize) -> bool {
        self.lengths().iter().any(|size| usize::from(*size) == length)
    }

    pub(super) fn largest(self) -> usize {
        self.lengths().iter().copied().max().unwrap_or_default().into()
    }

    /// The average of something that depends on the length.
    pub(super) fn mean(self, of: impl Fn(usize) -> usize) -> usize {
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

/// Why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// No memory for frames.
    Memory(io::Error),
    /// No thread.
    Thread(io::Error),
    /// A key was refused.
    Key(KeyError),
    /// The gateway did not start.
    Start(StartError),
    /// A worker ended before its time.
    Worker,
    /// A terminal was not allowed to move.
    Move(MoveError),
    /// The gateway sent something wrong.
    Wrong(Wrong),
    /// Packets are neither delivered nor counted as dropped, or more came out than went in.
    Unaccounted {
        /// Packets that went in.
        offered: u64,
        /// Packets that came out.
        delivered: u64,
        /// Packets dropped for some reason.
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
            Self::Wrong(what) => write!(f, "no figure, for the gateway sent {what}"),
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

/// Measures every combination, and hands over each row as soon as it is there.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core that no worker has, if there is one: what this leaves in its caches shall not be
    // theirs.
    let core = super::core_of(options.workers);
    super::apart(core, || measure(options, &mut each)).map_err(BenchError::Thread)?
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

/// One gateway under one kind of load, for another harness than this one.
pub struct Traffic {
    rig: Rig,
    batches: rig::Batches,
    size: Size,
}

impl Traffic {
    /// A gateway with one worker and `sas` tunnels.
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

    /// Carries `packets` packets, or some more to fill a batch, and checks samples of them; answers
    /// the processor time for `packets`.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn carry(&mut self, packets: u64) -> Result<Duration, BenchError> {
        self.rig.carry(packets, &mut self.batches, self.size)
    }
}

//! Key exchange and mobility: peers a second on one core, memory of a hundred thousand, and what a
//! worker's traffic notices of either.
//!
//! Peers are simulated in the same process, with the same state machines, and what they cost is not
//! counted: the figures are processor time of the gateway's own calls, and moments of its worker.
//!
//! | mode | gateway |
//! |---|---|
//! | `connect` | its endpoint and tasks, one core for both |
//! | `move` | its endpoint; and worker, slow path and tables, turned by hand |
//! | `idle` | the same two |
//! | `latency`, `rekey`, `flood` | worker and slow path in threads, under full traffic |

mod connect;
mod fleet;
mod gateway;
mod idle;
mod live;
mod moves;
mod report;
mod terminal;
mod world;

pub use report::{Row, Target};

use crate::{credentials::CredentialProblem, launch::StartError};
use serde::Serialize;
use std::{error, fmt, io, str::FromStr, time::Duration};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// In this order.
    pub modes: Vec<Mode>,
    /// Connected peers, 1 to [`Options::MOST`]; modes other than `idle` take [`Options::ACTIVE`] at
    /// most.
    pub peers: u32,
    /// For how long each figure is measured.
    pub duration: Duration,
}

impl Options {
    /// Most peers: as many as there are addresses for them.
    pub const MOST: u32 = crate::sim::addresses::MOST;
    /// Most peers that do something.
    pub const ACTIVE: u32 = 10_000;
}

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Peers that connect in a second.
    Connect,
    /// Peers that move in a second.
    Move,
    /// Memory of peers that only are connected.
    Idle,
    /// How soon packets follow a move.
    Latency,
    /// Packets lost by changes of keys and moves.
    Rekey,
    /// What first messages of strangers cost the rest.
    Flood,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Move, Self::Idle, Self::Latency, Self::Rekey, Self::Flood];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Move => "move",
            Self::Idle => "idle",
            Self::Latency => "latency",
            Self::Rekey => "rekey",
            Self::Flood => "flood",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be one of {}", Mode::ALL.map(Mode::name).join(", "))
    }
}

impl error::Error for UnknownMode {}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or(UnknownMode)
    }
}

/// Why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// No memory for frames.
    Memory(io::Error),
    /// No thread.
    Thread(io::Error),
    /// No certificates could be made.
    Certificates(rcgen::Error),
    /// A certificate or key that was made is not taken.
    Keys(CredentialProblem),
    /// The gateway did not start.
    Start(StartError),
    /// Peers did not come where they should in time.
    Stuck(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Certificates(why) => write!(f, "cannot make certificates: {why}"),
            Self::Keys(why) => write!(f, "what was made as certificate and key {why}"),
            Self::Start(why) => why.fmt(f),
            Self::Stuck(what) => write!(f, "no figure: {what}"),
        }
    }
}

impl error::Error for BenchError {}

impl From<rcgen::Error> for BenchError {
    fn from(why: rcgen::Error) -> Self {
        Self::Certificates(why)
    }
}

impl From<CredentialProblem> for BenchError {
    fn from(why: CredentialProblem) -> Self {
        Self::Keys(why)
    }
}

/// Measures every mode, and hands over each row as soon as it is there.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core that no worker has, if there is one.
    super::apart(super::core_of(1), || {
        options.modes.iter().try_for_each(|mode| match mode {
            Mode::Connect => connect::measure(options, &mut each),
            Mode::Move => moves::measure(options, &mut each),
            Mode::Idle => idle::measure(options, &mut each),
            Mode::Latency | Mode::Rekey | Mode::Flood => live::measure(*mode, options, &mut each),
        })
    })
    .map_err(BenchError::Thread)?
}

//! Measures key exchange and mobility: peers per second on one core, memory of a hundred thousand
//! peers, and the effect of both on a worker's traffic.
//!
//! Peers are simulated in the same process, with the same state machines. Their cost is not
//! counted: the figures are the processor time of the gateway's own calls, and times of events that
//! its worker sees.
//!
//! | mode | gateway |
//! |---|---|
//! | `connect` | endpoint and tasks, one core for both |
//! | `move` | endpoint alone; then worker, slow path and tables, turned by hand |
//! | `idle` | as `move` |
//! | `latency`, `rekey`, `flood` | worker and slow path in threads, under full traffic |

mod cipher;
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

/// The modes to measure, and the load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Modes, in the order of measurement.
    pub modes: Vec<Mode>,
    /// Connected peers, 1 to [`Options::MOST`]; modes other than `idle` use at most
    /// [`Options::ACTIVE`].
    pub peers: u32,
    /// How long each figure is measured.
    pub duration: Duration,
}

impl Options {
    /// The maximum number of peers: as many as there are addresses for them.
    pub const MOST: u32 = 1 << 20;
    /// The maximum number of peers that do something.
    pub const ACTIVE: u32 = 10_000;
}

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Peers that connect per second.
    Connect,
    /// Peers that move per second.
    Move,
    /// Memory of peers that are connected and silent.
    Idle,
    /// Time from a move to the first packet to the new address.
    Latency,
    /// Packets lost during rekeys and moves.
    Rekey,
    /// The effect of a flood of IKE_SA_INIT requests on everything else.
    Flood,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Move, Self::Idle, Self::Latency, Self::Rekey, Self::Flood];

    /// Returns the mode's name.
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

/// The reason why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// Memory for frames could not be had.
    Memory(io::Error),
    /// A thread could not be started.
    Thread(io::Error),
    /// Certificates could not be made.
    Certificates(rcgen::Error),
    /// A certificate or key of our making was refused.
    Keys(CredentialProblem),
    /// The gateway did not start.
    Start(StartError),
    /// Peers did not reach a state in time.
    Stuck(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Certificates(why) => write!(f, "cannot make certificates: {why}"),
            Self::Keys(why) => write!(f, "a certificate or key of our making {why}"),
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

/// Measures every mode, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), BenchError> {
    // On a core without a worker if there is one.
    super::run_on_core(super::core_of(1), || {
        options.modes.iter().try_for_each(|mode| match mode {
            Mode::Connect => connect::measure(options, &mut each),
            Mode::Move => moves::measure(options, &mut each),
            Mode::Idle => idle::measure(options, &mut each),
            Mode::Latency | Mode::Rekey | Mode::Flood => live::measure(*mode, options, &mut each),
        })
    })
    .map_err(BenchError::Thread)?
}

//! The options of a run.

use serde::Serialize;
use std::{error, fmt, str::FromStr, time::Duration};

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
    pub const MOST: u32 = crate::sim::addresses::MOST;
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

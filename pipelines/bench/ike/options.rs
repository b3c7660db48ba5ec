//! The options of a run.

use serde::Serialize;
use std::{error, fmt, str::FromStr, time::Duration};

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

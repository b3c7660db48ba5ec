//! The content of a report.

use super::super::row::Row;
use serde::Serialize;

/// The last sequence numbers of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastNumber {
    /// The tunnel's name.
    pub tunnel: String,
    /// The last one towards the device.
    pub number: u64,
    /// The highest one that came from the device.
    pub received: u64,
}

/// The results of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program and its version.
    pub program: String,
    /// When the run began, in seconds since 1970.
    pub started: u64,
    /// The arguments of the program.
    pub arguments: Vec<String>,
    /// All rows, in the order of measurement.
    pub rows: Vec<Row>,
    /// The last sequence numbers of the tunnels, for the next run with their keys.
    pub numbers: Vec<LastNumber>,
    /// Why there are no more rows, if the run ended early.
    pub error: Option<String>,
    /// `true` if a signal ended the run early.
    pub interrupted: bool,
}

//! The errors of a run.

use super::load::Wrong;
use crate::{launch::StartError, slow_path::tunnels::MoveError};
use std::{error, fmt, io};
use wayfarer_dataplane::{crypto::KeyError, drop::DropReason};

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

//! The errors of a run.

use super::load::PacketError;
use crate::{launch::StartError, slow_path::tunnels::MoveError};
use std::{error, fmt, io};
use wayfarer_dataplane::{crypto::KeyError, drop::DropReason};

/// The reason why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// There are more workers than cores.
    Cores {
        /// Requested workers.
        workers: usize,
        /// Cores that this process may use.
        cores: usize,
    },
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
            Self::Cores { workers, cores } => write!(
                f,
                "no figure: {workers} workers need as many cores, but this process may use {cores} only"
            ),
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

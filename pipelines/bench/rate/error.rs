//! The errors of a run.

use super::{
    interrupt::Signal,
    options::{Direction, Options},
};
use crate::launch::LaunchError;
use std::{fmt, io};
use wayfarer_dataplane::{crypto::KeyError, port::PortError};

/// The reason why there is no figure.
#[derive(Debug)]
pub enum RateError {
    /// There are more threads than cores.
    Cores {
        /// Requested threads.
        threads: usize,
        /// Cores that this process may use.
        cores: usize,
    },
    /// There are more threads than [`Options::THREADS`].
    Threads(usize),
    /// The machine has no such core for this process.
    Core(usize),
    /// Two threads would share this core.
    RepeatedCore(usize),
    /// Trials have more frames than there is memory to know each of them again.
    Marks {
        /// Bytes that they may need.
        needed: u64,
        /// Bytes that the machine can give.
        available: u64,
    },
    /// A device could not be opened.
    Port(String, PortError),
    /// This direction needs a second device, and so does ESP.
    OnePort,
    /// A test needs a rate.
    NoRate,
    /// Frames have no room for their stamp.
    Short {
        /// Requested size.
        size: u16,
        /// The shortest size.
        shortest: u16,
    },
    /// Frames do not fit the devices' MTUs, or their tunnels'.
    Long {
        /// Requested size.
        size: u16,
        /// The longest size.
        longest: u16,
    },
    /// Source and destination are of two families.
    Family,
    /// The prefixes and ports hold fewer flows.
    Flows {
        /// Requested flows.
        flows: u64,
        /// Flows that there are.
        most: u64,
    },
    /// A tunnel cannot be used.
    Tunnel(String, &'static str),
    /// A key of this tunnel was refused.
    Key(String, KeyError),
    /// There are fewer tunnels than threads.
    Tunnels {
        /// Requested threads.
        threads: usize,
        /// Tunnels in the configuration.
        tunnels: usize,
    },
    /// This tunnel has no sequence numbers left.
    Exhausted(String),
    /// A capture could not be read.
    Capture(PortError),
    /// A capture has no IP packet that fits the devices.
    NoFrames(String),
    /// Latencies cannot be measured with the frames of a capture, which have no stamps, and they go
    /// forward only.
    CaptureTest,
    /// Memory for frames could not be had.
    Memory(io::Error),
    /// A thread could not be started.
    Thread(io::Error),
    /// A thread ended before its time.
    Ended,
    /// The host's addresses could not be listed.
    Host(Box<LaunchError>),
    /// No frame of this direction came back.
    Silence(Direction),
    /// A device took no frame of this direction in a whole trial.
    NothingSent(Direction),
    /// This signal came before everything was measured.
    Interrupted(Signal),
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cores { threads, cores } => write!(
                f,
                "no figure: {threads} threads need as many cores, but this process may use {cores} only"
            ),
            Self::Core(core) => write!(f, "--cores: this process may not use core {core}"),
            Self::Threads(threads) => {
                write!(f, "{threads} threads are too many: at most {}", Options::THREADS)
            }
            Self::RepeatedCore(core) => write!(f, "--cores: core {core} is in the list twice"),
            Self::Marks { needed, available } => write!(
                f,
                "to know each frame again, a trial may need {} MiB, which is more than half of the {} MiB that \
                 are available: use a shorter --trial, or a --max-rate or --rate of what the device can do",
                needed >> 20,
                available >> 20
            ),
            Self::Port(port, why) => write!(f, "port {port}: {why}"),
            Self::OnePort => {
                f.write_str("--peer-port is needed for other directions than forward, and for ESP")
            }
            Self::NoRate => f.write_str("--test rate needs --rate"),
            Self::Short { size, shortest } => {
                write!(f, "frames of {size} bytes have no room for their stamp: at least {shortest} bytes")
            }
            Self::Long { size, longest } => {
                write!(f, "frames of {size} bytes do not fit the MTU: at most {longest} bytes")
            }
            Self::Family => f.write_str("--src and --dst are of two address families"),
            Self::Flows { flows, most } => {
                write!(f, "{flows} flows are more than addresses and ports allow: at most {most}")
            }
            Self::Tunnel(name, why) => write!(f, "tunnel {name}: {why}"),
            Self::Key(name, why) => write!(f, "tunnel {name}: {why}"),
            Self::Tunnels { threads, tunnels } => {
                write!(f, "{threads} threads need a tunnel each, but the configuration has {tunnels}")
            }
            Self::Exhausted(name) => write!(
                f,
                "tunnel {name} has used all its sequence numbers: it needs new keys, or esn = true at both \
                 ends"
            ),
            Self::Capture(why) => why.fmt(f),
            Self::NoFrames(file) => write!(f, "{file}: no IP packet in it fits the devices"),
            Self::CaptureTest => f.write_str(
                "--replay: its frames have no stamps, so it goes forward only, and without latencies",
            ),
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Ended => f.write_str("a thread ended before its time"),
            Self::Host(why) => why.fmt(f),
            Self::Silence(direction) => write!(
                f,
                "no frame came back ({direction}): is the device under test up, does it forward the \
                 destination to the other port's MAC address, is the destination none of this host's own \
                 addresses, and do keys, SPIs and sequence numbers fit, if there are any?"
            ),
            Self::NothingSent(direction) => write!(
                f,
                "a device took no frame in a whole trial ({direction}), so there is no figure: is its link up?"
            ),
            Self::Interrupted(signal) => write!(f, "interrupted by {signal} before everything was measured"),
        }
    }
}

impl std::error::Error for RateError {}

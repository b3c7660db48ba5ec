//! Errors of starting and running a gateway.

use crate::control::server::ControlError;
use std::{fmt, io};
use wayfarer_dataplane::{crypto::KeyError, port::PortError};

/// The reason why a gateway did not run.
#[derive(Debug)]
pub enum LaunchError {
    /// A port could not be opened, or its capture could not be read or written to the end.
    Port {
        /// Name of the port.
        port: String,
        /// The reason.
        why: PortError,
    },
    /// DPDK could not start, or has no memory for frames.
    Dpdk(PortError),
    /// The machine has no core of this number.
    Core(usize),
    /// There is no memory for frames.
    Memory(io::Error),
    /// The gateway could not start.
    Start(StartError),
    /// The control socket could not be opened.
    Control(ControlError),
    /// A thread of the gateway failed while it ran.
    Thread,
    /// The system refused an operation: what it was, and the reason.
    System(&'static str, io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, why } => write!(f, "port {port}: {why}"),
            Self::Dpdk(why) => why.fmt(f),
            Self::Core(core) => write!(f, "this machine has no core {core} to run a worker on"),
            Self::Memory(why) => write!(f, "cannot allocate memory for frames: {why}"),
            Self::Start(why) => why.fmt(f),
            Self::Control(why) => why.fmt(f),
            Self::Thread => f.write_str("a thread of the gateway failed; the log says why"),
            Self::System(what, why) => write!(f, "cannot {what}: {why}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// The reason why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A key does not fit its algorithm.
    Key(KeyError),
    /// The kernel's addresses and routes cannot be followed.
    Kernel(io::Error),
    /// IKE could not start: a thread or the folder of the key log failed.
    Ike(io::Error),
    /// The home agent did not start.
    HomeAgent(io::Error),
    /// No thread could be started.
    Thread(io::Error),
    /// There is no memory for a worker.
    Memory(io::Error),
    /// A port does not have a queue for every worker.
    Queues {
        /// Name of the port.
        port: String,
    },
    /// A port cannot be the exception path of the port that it names.
    Exception {
        /// Name of the port.
        port: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(why) => write!(f, "a key cannot be used: {why}"),
            Self::Kernel(why) => write!(f, "cannot follow the kernel's addresses and routes: {why}"),
            Self::Ike(why) => write!(f, "cannot start IKE: {why}"),
            Self::HomeAgent(why) => write!(f, "cannot start the home agent: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Memory(why) => write!(f, "no memory for a worker: {why}"),
            Self::Queues { port } => write!(f, "port {port} does not have a queue for every worker"),
            Self::Exception { port } => write!(f, "port {port} cannot be the exception path of another port"),
        }
    }
}

impl std::error::Error for StartError {}

//! Why a gateway does not run.

use crate::control::server::ControlError;
use std::{fmt, io};
use wayfarer_dataplane::{crypto::KeyError, port::PortError};

/// Why a gateway did not run.
#[derive(Debug)]
pub enum LaunchError {
    /// A port could not be opened.
    Port {
        /// Its name.
        port: String,
        /// Why.
        why: PortError,
    },
    /// DPDK could not be started, or has no memory for frames.
    Dpdk(PortError),
    /// A core was asked for that is not there.
    Core(usize),
    /// No memory for frames.
    Memory(io::Error),
    /// The gateway could not be started.
    Start(StartError),
    /// The control socket could not be opened.
    Control(ControlError),
    /// A thread of the gateway failed while it ran.
    Thread,
    /// Something that the system refused.
    System(&'static str, io::Error),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, why } => write!(f, "port {port}: {why}"),
            Self::Dpdk(why) => why.fmt(f),
            Self::Core(core) => write!(f, "there is no core {core} for a worker"),
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Start(why) => why.fmt(f),
            Self::Control(why) => why.fmt(f),
            Self::Thread => f.write_str("a thread of the gateway failed"),
            Self::System(what, why) => write!(f, "cannot {what}: {why}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// Why a gateway did not start.
#[derive(Debug)]
pub enum StartError {
    /// A key that its algorithm does not take.
    Key(KeyError),
    /// The kernel's addresses and routes cannot be followed.
    Kernel(io::Error),
    /// Key exchange could not be begun: a thread, or the folder of the key log.
    Ike(io::Error),
    /// No thread could be started.
    Thread(io::Error),
    /// A port does not have a queue for every worker.
    Queues {
        /// Name of the port.
        port: String,
    },
    /// A port cannot be the kernel's side of the other one.
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
            Self::Ike(why) => write!(f, "cannot begin key exchange: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Queues { port } => write!(f, "port {port} does not have a queue for every worker"),
            Self::Exception { port } => write!(f, "port {port} cannot be the kernel's side of another port"),
        }
    }
}

impl std::error::Error for StartError {}

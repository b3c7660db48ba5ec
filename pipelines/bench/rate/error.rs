//! The errors of a run.

use crate::launch::LaunchError;
use std::{fmt, io};
use wayfarer_dataplane::port::PortError;

/// The reason why there is no figure.
#[derive(Debug)]
pub enum RateError {
    /// A device could not be opened.
    Port(String, PortError),
    /// A frame does not fit the device.
    Size(u16, String),
    /// Memory for frames could not be had.
    Memory(io::Error),
    /// The host's addresses could not be listed.
    Host(Box<LaunchError>),
    /// No frame came back.
    Silence,
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port, why) => write!(f, "port {port}: {why}"),
            Self::Size(size, port) => write!(f, "port {port}: a frame of {size} bytes does not fit its MTU"),
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Host(why) => why.fmt(f),
            Self::Silence => f.write_str(
                "no frame came back: is the device under test up, does it forward the destination to the peer port's \
                 MAC address, and is the destination none of this host's own addresses?",
            ),
        }
    }
}

impl std::error::Error for RateError {}

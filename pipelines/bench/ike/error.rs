//! The errors of a run.

use crate::{credentials::CredentialProblem, launch::StartError};
use std::{error, fmt, io};

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

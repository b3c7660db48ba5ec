//! The errors of a run.

use crate::{credentials::CredentialProblem, launch::StartError};
use std::{error, fmt, io};

/// Why there is no figure.
#[derive(Debug)]
pub enum BenchError {
    /// No memory for frames.
    Memory(io::Error),
    /// No thread.
    Thread(io::Error),
    /// No certificates could be made.
    Certificates(rcgen::Error),
    /// A certificate or key that was made is not taken.
    Keys(CredentialProblem),
    /// The gateway did not start.
    Start(StartError),
    /// Peers did not come where they should in time.
    Stuck(&'static str),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Thread(why) => write!(f, "cannot start a thread: {why}"),
            Self::Certificates(why) => write!(f, "cannot make certificates: {why}"),
            Self::Keys(why) => write!(f, "what was made as certificate and key {why}"),
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

//! Who has found the MTU of a path.

use std::fmt;

/// Who has found the MTU of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuSource {
    /// A router on the path, which has reported it (RFC 4301 §8.2). Probes may have confirmed it since.
    Router,
    /// Probes of the path (RFC 8899).
    Probe,
}

impl fmt::Display for MtuSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Router => "router",
            Self::Probe => "probe",
        })
    }
}

//! Why a port could not be opened, in one line for a person.

use std::{io, path::PathBuf};

/// What went wrong when a device or file was opened. Running ports count errors instead
/// ([`super::PortStats`]).
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No network device has this name.
    #[error("no device named \"{device}\"")]
    NoDevice {
        /// Name as given.
        device: String,
    },
    /// The process lacks a capability or limit.
    #[error("{device}: no permission to {action}: needs {needed}")]
    Permission {
        /// Name of the device.
        device: String,
        /// What was tried.
        action: &'static str,
        /// Capabilities, limits and files that it needs.
        needed: &'static str,
    },
    /// The device, its driver or the running kernel cannot do what was asked.
    #[error("{device}: {reason}")]
    NotSupported {
        /// Name of the device.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// A system call failed for another reason.
    #[error("{device}: cannot {action}: {source}")]
    System {
        /// Name of the device.
        device: String,
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A file could not be opened, read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// A file holds something else than a port can read.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl PortError {
    /// Sorts a failed system call on a device; `needed` names the capabilities that the call takes.
    pub(crate) fn system(
        device: &str,
        action: &'static str,
        needed: &'static str,
        source: io::Error,
    ) -> Self {
        let device = device.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { device, action, needed },
            Some(libc::ENODEV | libc::ENXIO) => Self::NoDevice { device },
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOPROTOOPT) => {
                Self::NotSupported { device, reason: format!("cannot {action}: {source}") }
            }
            _ => Self::System { device, action, source },
        }
    }
}

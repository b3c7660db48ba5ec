//! The reasons why a port cannot be opened, in one line for a person.

use std::{io, path::PathBuf};

/// An error from opening a device or file. Running ports count errors instead
/// ([`super::PortStats`]).
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No network device has this name.
    #[error("no device named \"{device}\"")]
    NoDevice {
        /// The name as given.
        device: String,
    },
    /// The process lacks a capability or limit.
    #[error("{device}: no permission to {action}: needs {needed}")]
    Permission {
        /// Name of the device.
        device: String,
        /// The action that failed.
        action: &'static str,
        /// Capabilities, limits and files that the action needs.
        needed: &'static str,
    },
    /// The device, its driver or the running kernel does not support the request.
    #[error("{device}: {reason}")]
    NotSupported {
        /// Name of the device.
        device: String,
        /// The reason.
        reason: String,
    },
    /// A system call failed for another reason.
    #[error("{device}: cannot {action}: {source}")]
    System {
        /// Name of the device.
        device: String,
        /// The action that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A file could not be opened, read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The content of a file is not in a format that a port can read.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The error in the file.
        reason: String,
    },
}

impl PortError {
    /// Converts the error of a system call on a device. `needed` names the capabilities that the
    /// call requires.
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

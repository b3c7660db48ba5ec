//! One gateway for each device: a lock on a file for each device and network namespace, in a folder
//! that only the gateway's user may enter. The kernel releases the lock when the process ends,
//! however it ends; the file stays.

use crate::folder::Folder;
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
    process,
};
use wayfarer_dataplane::port::{PortError, device::Device};

const FOLDER: &str = "/run/wayfarer/devices";

/// A device that no other gateway of this network namespace can take while this value exists.
#[derive(Debug)]
pub(crate) struct DeviceLock(#[expect(dead_code, reason = "open is all that it is for")] File);

/// The reason why a device cannot be taken.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds the lock: its process ID in its own PID namespace, if it has written
    /// that yet.
    Taken(Option<u32>),
    /// The system refused an operation on the lock.
    System(io::Error),
}

impl LockError {
    /// Converts the error into a port's error for the device of this name.
    pub(crate) fn of(self, device: &str) -> PortError {
        let device = device.to_owned();
        match self {
            Self::Taken(holder) => {
                let process = holder.map_or(String::new(), |holder| format!(" (process {holder})"));
                PortError::NotSupported {
                    device,
                    reason: format!("another gateway{process} has this device"),
                }
            }
            Self::System(source) => {
                PortError::System { device, action: "lock it against other gateways", source }
            }
        }
    }
}

impl From<io::Error> for LockError {
    fn from(why: io::Error) -> Self {
        Self::System(why)
    }
}

impl DeviceLock {
    /// Takes the device of this primary name in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`LockError`], if another gateway has the device or the system refuses.
    pub(crate) fn take(device: &str) -> Result<Self, LockError> {
        Self::take_in(Path::new(FOLDER), device)
    }

    fn take_in(folder: &Path, device: &str) -> Result<Self, LockError> {
        if device.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device name contains no \"/\"").into());
        }
        if let Some(above) = folder.parent() {
            // The folder holds the control socket too, so the gateway's group may enter it. If
            // creating it fails, `Folder::open` below reports why.
            let _ = DirBuilder::new().mode(0o750).create(above);
        }
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let mut file = Folder::open(folder)?.open_file(&format!("{namespace}-{device}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken(io::read_to_string(&file)?.trim().parse().ok()));
            }
            Err(TryLockError::Error(why)) => return Err(why.into()),
        }
        // For people to read only: the lock works without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", process::id()));
        Ok(Self(file))
    }
}

/// Returns the kernel's primary name of the device with this name or alternative name. If there is
/// no such device yet, returns `device` itself.
pub(crate) fn primary_name(device: &str) -> String {
    Device::find(device).map_or_else(|_| device.to_owned(), |found| found.name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt, symlink},
    };

    fn refused(folder: &Path, device: &str) -> String {
        DeviceLock::take_in(folder, device).unwrap_err().of(device).to_string()
    }

    #[test]
    fn one_process_holds_a_device_until_it_releases_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("wayfarer/devices");
        let held = DeviceLock::take_in(&folder, "eth0").unwrap();
        let _other = DeviceLock::take_in(&folder, "eth1").unwrap();
        let taken = format!("eth0: another gateway (process {}) has this device", process::id());
        assert_eq!(refused(&folder, "eth0"), taken);
        let modes = [&folder, &folder.join(fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path())]
            .map(|path| fs::metadata(path).unwrap().mode() & 0o777);
        assert_eq!(modes, [0o700, 0o600], "others could hold the lock");
        drop(held);
        DeviceLock::take_in(&folder, "eth0").unwrap();
    }

    #[test]
    fn a_folder_or_file_that_others_may_use_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("devices");
        drop(DeviceLock::take_in(&folder, "eth0").unwrap());
        let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&folder, "eth0").contains("must be a regular file of this program's user"));
        fs::rename(&file, home.path().join("elsewhere")).unwrap();
        symlink(home.path().join("elsewhere"), &file).unwrap();
        let message = refused(&folder, "eth0");
        assert!(
            message.starts_with("eth0: cannot lock it against other gateways: ")
                && message.contains("symbolic"),
            "{message}"
        );
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&folder, "eth1").contains("writable"));
        assert!(refused(&folder, "../eth1").ends_with("a device name contains no \"/\""));
    }
}

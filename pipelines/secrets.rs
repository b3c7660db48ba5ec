//! Files that hold secrets. Anybody who can change a folder on a path can make the path mean
//! another file between two look-ups. So checks are made on the opened file.

use crate::folder::is_trusted;
use nix::libc;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};
use tracing::warn;

/// Opens a file with a secret for reading. Warns if its group or everybody may access it, or if its
/// owner is neither this process's user nor root. Returns `None` if it is not a regular file.
///
/// # Errors
/// If the system refuses.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    // Without O_NONBLOCK, opening a pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    check(&file, path)?;
    Ok(Some(file))
}

/// Warns if the group of a file with a secret or everybody may access it, or if its owner is
/// neither this process's user nor root.
///
/// # Errors
/// If the system refuses.
pub(crate) fn check(file: &File, path: &Path) -> io::Result<()> {
    let about = file.metadata()?;
    if about.mode() & 0o077 != 0 {
        warn!(file = %path.display(), "users other than its owner can access this key file; run chmod 600 on it");
    }
    if !is_trusted(about.uid()) {
        warn!(file = %path.display(), "this key file belongs to another user, who can read and change it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::fs;

    #[test]
    fn opens_only_files_and_waits_for_no_pipe() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(open(&path).unwrap().is_none());
        assert!(open(home.path()).unwrap().is_none());
        assert!(open(&home.path().join("missing")).is_err());
        fs::write(home.path().join("key"), "x").unwrap();
        assert!(open(&home.path().join("key")).unwrap().is_some());
    }
}

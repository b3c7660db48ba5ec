//! Files that hold secrets. A name can come to mean another file from one look to the next, wherever somebody else may
//! change a folder on its way: so what is checked is what was opened.

use crate::folder::is_trusted;
use nix::libc;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};
use tracing::warn;

/// Opens a file with a secret to read it, and warns where others than its owner, this process's user or root can use
/// it. `None`: it is a folder or a device.
///
/// # Errors
/// What the system says.
pub(crate) fn open(path: &Path) -> io::Result<Option<File>> {
    // A pipe would keep us waiting for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok(None);
    }
    if about.mode() & 0o077 != 0 {
        warn!(file = %path.display(), "others than its owner may use this key file; try chmod 600");
    }
    if !is_trusted(about.uid()) {
        warn!(file = %path.display(), "another user owns this key file, and may use and change it");
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::fs;

    #[test]
    fn only_files_are_opened_and_no_pipe_is_waited_for() {
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

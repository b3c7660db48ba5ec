//! Files that are written once, for their owner only.

use super::PkiError;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Makes the folder if it is missing.
pub(super) fn folder(path: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PkiError::file(path))
}

/// Writes new files into the folder, either all or none, and returns their paths.
pub(super) fn create(folder: &Path, files: &[(String, &[u8])]) -> Result<Vec<PathBuf>, PkiError> {
    let mut written = vec![];
    for (name, content) in files {
        let path = folder.join(name);
        if let Err(why) = write_new(&path, content) {
            written.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(match why.kind() {
                io::ErrorKind::AlreadyExists => PkiError::Exists(path),
                _ => PkiError::File(path, why),
            });
        }
        written.push(path);
    }
    Ok(written)
}

/// Replaces a file as a whole: whoever opens it sees the old content or the new.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let next = path.with_extension("new");
    // An earlier process may have left it.
    let _ = fs::remove_file(&next);
    let write = || {
        write_new(&next, content)?;
        fs::rename(&next, path)
    };
    write().map_err(PkiError::file(&next))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Reads a file of the authority.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(PkiError::file(path))
}

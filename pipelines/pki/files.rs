//! Files of the authority, for their owner only. New files never take the place of old ones.

use super::PkiError;
use crate::{folder::Folder, secrets};
use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Most bytes of a private key in PEM.
const LONGEST_SECRET: usize = 64 << 10;

/// The folder of an authority's files. No other process changes them while this value exists.
pub(super) struct Files {
    folder: Folder,
    path: PathBuf,
}

impl Files {
    /// Opens the folder, and makes it if it is missing. Waits until no other process has it.
    ///
    /// # Errors
    /// If somebody else can change the folder, or the system refuses.
    pub(super) fn open(path: &Path) -> Result<Self, PkiError> {
        let folder = Folder::open(path).map_err(PkiError::Io)?;
        folder.lock().map_err(PkiError::Io)?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// Returns the path of a file, as the folder's path was given.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes new files, either all or none, and returns their paths.
    ///
    /// # Errors
    /// If one of them exists, or the system refuses.
    pub(super) fn create(&self, files: &[(String, &[u8])]) -> Result<Vec<PathBuf>, PkiError> {
        for (count, (name, content)) in files.iter().enumerate() {
            let written = self.write(name, content).and_then(|new| self.folder.rename_new(&new, name));
            if let Err(why) = written {
                files[..count].iter().for_each(|(name, _)| drop(self.folder.remove(name)));
                return Err(match why.kind() {
                    io::ErrorKind::AlreadyExists => PkiError::Exists(self.path(name)),
                    _ => PkiError::Io(why),
                });
            }
        }
        Ok(files.iter().map(|(name, _)| self.path(name)).collect())
    }

    /// Replaces a file as a whole: whoever opens it sees the old content or the new.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), PkiError> {
        let new = self.write(name, content).map_err(PkiError::Io)?;
        self.folder.replace(&new, name).map_err(PkiError::Io)
    }

    /// Writes the content of file `name` under another name, and returns that.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<String> {
        // An earlier process may have left it. No name that the user chooses begins so.
        let new = format!(".{name}.new");
        let mut file = self.folder.create(&new)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(self.folder.remove(&new)))?;
        Ok(new)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, PkiError> {
        let mut content = vec![];
        let read = self.folder.open_to_read(name).and_then(|mut file| file.read_to_end(&mut content));
        read.map(|_| content).map_err(PkiError::Io)
    }

    /// Reads a file with a secret. Warns if others can access it.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn read_secret(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let read = || {
            let file = self.folder.open_to_read(name)?;
            secrets::check(&file, &self.path(name))?;
            // With this capacity the vector never grows, which would leave a copy of the secret
            // behind.
            let mut content = Zeroizing::new(Vec::with_capacity(LONGEST_SECRET + 1));
            file.take(LONGEST_SECRET as u64 + 1).read_to_end(&mut content)?;
            Ok(content)
        };
        read().map_err(PkiError::Io)
    }
}

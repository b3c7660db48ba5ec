//! Folders that only this process's user can change. Anybody who can change a folder on a path can
//! make the path mean another file between two look-ups. So checks are made on opened folders, and
//! checked folders stay open.

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat},
    libc,
    sys::stat::{Mode, mkdirat},
    unistd::{Uid, UnlinkatFlags, linkat, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

/// A folder that only this process's user can change.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path` and creates missing parts of it. No part may be a symbolic link,
    /// belong to a user other than this process's user and root, or be writable for its group or
    /// everybody; a sticky folder (`chmod +t`) may be, because there users can only change their
    /// own files. The folder itself must belong to this process's user and be writable for nobody
    /// else.
    ///
    /// # Errors
    /// If a part breaks these rules, or the system refuses an operation. The error names the part.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let whole = std::path::absolute(path)?;
        let mut this = Self { folder: directory(AT_FDCWD, OsStr::new("/"))?, path: "/".into() };
        for part in whole.components() {
            match part {
                Component::Normal(name) => this = this.step(name)?,
                Component::ParentDir => this = this.step(OsStr::new(".."))?,
                _ => {}
            }
        }
        let about = this.folder.metadata()?;
        if about.uid() != Uid::effective().as_raw() || about.mode() & 0o022 != 0 {
            return Err(
                this.unsafe_because("must belong to this program's user, and nobody else may write to it")
            );
        }
        Ok(this)
    }

    /// Opens the entry `name` of this folder as the next folder, and creates it if it is missing.
    fn step(self, name: &OsStr) -> io::Result<Self> {
        let path = self.path.join(name);
        let mut opened = directory(&self.folder, name);
        if opened.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound) {
            match mkdirat(&self.folder, name, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => opened = directory(&self.folder, name),
                Err(why) => opened = Err(why.into()),
            }
        }
        let folder = opened.map_err(|why| match why.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                io::Error::other(format!("{}: is not a folder, or is a symbolic link", path.display()))
            }
            _ => io::Error::new(why.kind(), format!("{}: {why}", path.display())),
        })?;
        let this = Self { folder, path };
        let about = this.folder.metadata()?;
        if !is_trusted(about.uid()) {
            return Err(this.unsafe_because("must belong to root or this program's user"));
        }
        if about.mode() & 0o022 != 0 && about.mode() & libc::S_ISVTX == 0 {
            return Err(this.unsafe_because("must not be writable for its group or everybody"));
        }
        Ok(this)
    }

    fn unsafe_because(&self, reason: &str) -> io::Error {
        io::Error::other(format!("{}: {reason}", self.path.display()))
    }

    /// Waits until no other process has the folder locked, and locks it while this value exists.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn lock(&self) -> io::Result<()> {
        self.folder.lock()
    }

    /// Creates a file that nobody else can open, for appending, in place of any file of this name.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        self.remove(name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, name, flags | OFlag::O_NOFOLLOW, Mode::S_IRUSR | Mode::S_IWUSR);
        file.map(File::from).map_err(|why| self.failed(name, why))
    }

    /// Removes the file of this name if there is one.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(why) => Err(self.failed(name, why)),
        }
    }

    /// Opens the file of this name for reading.
    ///
    /// # Errors
    /// If the system refuses, or if it is not a regular file.
    pub(crate) fn open_to_read(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty()).map_err(|why| self.failed(name, why))?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(self.refused(name, "must be a regular file"));
        }
        Ok(file)
    }

    /// Opens the file of this name for reading and writing. A missing file is created so that
    /// nobody else can open it.
    ///
    /// # Errors
    /// If the system refuses, or if others may open the file too.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file: File = openat(&self.folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|why| self.failed(name, why))?
            .into();
        let about = file.metadata()?;
        if !about.is_file() || about.uid() != Uid::effective().as_raw() || about.mode() & 0o077 != 0 {
            return Err(self
                .refused(name, "must be a regular file of this program's user, without access for others"));
        }
        Ok(file)
    }

    /// Gives the file `from` the name `to`, in place of any file of that name. It keeps the name over
    /// a crash of the system.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = renameat(&self.folder, from, &self.folder, to).map_err(io::Error::from);
        renamed.and_then(|()| self.folder.sync_all()).map_err(|why| self.failed(to, why))
    }

    /// Gives the file `from` the name `to`, which no file may have yet; otherwise removes it. It
    /// keeps the name over a crash of the system.
    ///
    /// # Errors
    /// If there is a file `to`, or if the system refuses.
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let linked = linkat(&self.folder, from, &self.folder, to, AtFlags::empty());
        self.remove(from)?;
        linked.map_err(|why| self.failed(to, why))?;
        self.folder.sync_all().map_err(|why| self.failed(to, why))
    }

    fn failed(&self, name: &str, why: impl Into<io::Error>) -> io::Error {
        let why = why.into();
        io::Error::new(why.kind(), format!("{}: {why}", self.path.join(name).display()))
    }

    fn refused(&self, name: &str, reason: &str) -> io::Error {
        io::Error::other(format!("{}: {reason}", self.path.join(name).display()))
    }
}

fn directory(at: impl std::os::fd::AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?.into())
}

/// Returns whether `user` is root or this process's user, who could do the same without this file.
pub(crate) fn is_trusted(user: u32) -> bool {
    user == 0 || user == Uid::effective().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        io::{Read, Write},
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    const NOBODY: u32 = 65534;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn refused(path: &Path) -> String {
        Folder::open(path).unwrap_err().to_string()
    }

    #[test]
    fn missing_folders_are_made_for_the_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        folder.create("keys").unwrap().write_all(b"secret").unwrap();
        for (path, wanted) in
            [(home.path().join("a"), 0o700), (path.clone(), 0o700), (path.join("keys"), 0o600)]
        {
            assert_eq!(mode(&path), wanted, "{}", path.display());
        }
        assert_eq!(fs::read(path.join("keys")).unwrap(), b"secret");
        Folder::open(&home.path().join("a/../a/./b")).unwrap();
    }

    #[test]
    fn files_are_new_and_keep_their_folder() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("log"), home.path().join("other"));
        fs::create_dir(&path).unwrap();
        fs::write(&other, "another file").unwrap();
        symlink(&other, path.join("keys")).unwrap();
        fs::write(path.join("more"), "old").unwrap();
        let mut reader = File::open(path.join("more")).unwrap();
        let folder = Folder::open(&path).unwrap();
        let [mut keys, mut more] = ["keys", "more"].map(|name| folder.create(name).unwrap());
        // Nobody who could make the path mean another folder changes anything.
        fs::rename(&path, home.path().join("moved")).unwrap();
        symlink(home.path(), &path).unwrap();
        keys.write_all(b"one").unwrap();
        more.write_all(b"two").unwrap();
        let read = |name: &str| fs::read_to_string(home.path().join("moved").join(name)).unwrap();
        assert_eq!((&read("keys")[..], &read("more")[..]), ("one", "two"));
        assert_eq!(fs::read_to_string(&other).unwrap(), "another file");
        let mut old = String::new();
        reader.read_to_string(&mut old).unwrap();
        assert_eq!(old, "old", "a reader of the old file must not see the new one");
        assert!(folder.create("keys").is_ok());
        fs::create_dir(home.path().join("moved/folder")).unwrap();
        let why = folder.create("folder").unwrap_err().to_string();
        assert!(why.contains("log/folder: "), "{why}");
    }

    #[test]
    fn refuses_folders_that_others_can_change() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in ["group", "theirs", "open", "sticky", "sticky_group"] {
            fs::create_dir_all(at(name).join("keys")).unwrap();
        }
        fs::create_dir(at("real")).unwrap();
        for (name, mode) in [("group", 0o770), ("open", 0o777), ("sticky", 0o1777), ("sticky_group", 0o1770)]
        {
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(at("file"), "").unwrap();
        symlink(at("real"), at("link")).unwrap();
        chown(at("theirs"), Some(NOBODY), None).unwrap();
        for (name, why) in [
            ("group", "must not be writable for its group or everybody"),
            ("group/keys", "must not be writable for its group or everybody"),
            ("theirs", "must belong to root or this program's user"),
            ("theirs/keys", "must belong to root or this program's user"),
            ("open/keys", "must not be writable for its group or everybody"),
            ("sticky", "must belong to this program's user, and nobody else may write to it"),
            ("sticky_group", "must belong to this program's user, and nobody else may write to it"),
            ("link", "is not a folder, or is a symbolic link"),
            ("link/new", "is not a folder, or is a symbolic link"),
            ("file", "is not a folder, or is a symbolic link"),
            ("file/new", "is not a folder, or is a symbolic link"),
        ] {
            let message = refused(&at(name));
            assert!(message.contains(why), "{name}: {message}");
        }
        assert!(!at("real/new").exists());
        Folder::open(&at("sticky/keys")).unwrap();
        Folder::open(&at("sticky_group/keys")).unwrap();
        // A folder of another user in a place where everybody may create folders is not the
        // gateway's.
        chown(at("sticky/keys"), Some(NOBODY), None).unwrap();
        assert!(refused(&at("sticky/keys")).contains("must belong to root or this program's user"));
    }
}

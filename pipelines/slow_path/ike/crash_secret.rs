//! The secret from which peers' crash tokens derive, in a file that survives a crash (RFC 6290 §5.1).

use crate::folder::Folder;
use std::{
    fs::{File, TryLockError},
    io::{self, Read, Write},
    path::Path,
};
use wayfarer_mobility::{crypto::Random, ike::connection::SharedKey};
use zeroize::Zeroizing;

/// Length in bytes of a secret that we make, which is the least of any.
const LENGTH: usize = 32;
/// Most bytes of a secret.
const LONGEST: usize = 1024;

/// The file with the secret. It stays locked while this value exists: of two gateways with the same
/// secret, each would tell anybody the tokens of the other's peers (RFC 6290 §9.2).
#[derive(Debug)]
pub(super) struct CrashSecret {
    /// The file, and the empty one before it: another gateway may have opened that just before.
    #[expect(dead_code, reason = "open is all that they are for")]
    files: Vec<File>,
}

impl CrashSecret {
    /// Opens the file at `path`, and returns it with the secret. A missing or empty file gets a new
    /// secret.
    ///
    /// # Errors
    /// If others may read or change the file, another gateway has it, it is too short or too long, or
    /// the system refuses.
    pub(super) fn open(path: &Path, random: &dyn Random) -> io::Result<(Self, SharedKey)> {
        let failed = |why: String| io::Error::other(format!("crash_secret_file: {why}"));
        let at = |why: &str| failed(format!("{}: {why}", path.display()));
        let system = |why: io::Error| at(&why.to_string());
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(at("is not a file"));
        };
        let folder = Folder::open(folder).map_err(|why| failed(why.to_string()))?;
        let file = folder.open_file(name).map_err(|why| failed(why.to_string()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(at("another gateway uses it")),
            Err(TryLockError::Error(why)) => return Err(system(why)),
        }
        // With this capacity the vector never grows, which would leave a copy of the secret behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
        (&file).take(LONGEST as u64 + 1).read_to_end(&mut secret).map_err(system)?;
        let mut files = vec![file];
        if secret.is_empty() {
            secret.resize(LENGTH, 0);
            random.fill(&mut secret);
            files.push(write(&folder, name, &secret).map_err(|why| failed(why.to_string()))?);
        }
        match secret.len() {
            LENGTH..=LONGEST => Ok((Self { files }, SharedKey(secret))),
            _ => Err(at(&format!("must be empty or contain {LENGTH} to {LONGEST} bytes"))),
        }
    }
}

/// Puts a locked file with the secret in place of the file `name`, and returns it. After a crash of
/// the system, `name` is either the old file or all of the new one.
fn write(folder: &Folder, name: &str, secret: &[u8]) -> io::Result<File> {
    let new = format!("{name}.new");
    let mut file = folder.create(&new)?;
    file.lock()?;
    file.write_all(secret)?;
    file.sync_all()?;
    folder.replace(&new, name)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::OsRandom;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    #[test]
    fn secret_is_made_once_and_belongs_to_one_gateway_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state/secret");
        let (file, first) = CrashSecret::open(&path, &OsRandom).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let why = CrashSecret::open(&path, &OsRandom).unwrap_err().to_string();
        assert!(why.ends_with("secret: another gateway uses it"), "{why}");
        drop(file);
        let all: Vec<_> = fs::read_dir(home.path().join("state")).unwrap().collect();
        assert_eq!(all.len(), 1, "{all:?}");
        let (_file, second) = CrashSecret::open(&path, &OsRandom).unwrap();
        assert_eq!((first.0.len(), &first.0), (LENGTH, &second.0));
    }

    #[test]
    fn torn_write_of_an_earlier_start_does_not_prevent_the_next() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        let torn = home.path().join("secret.new");
        fs::write(&torn, [1; 7]).unwrap();
        let (_file, secret) = CrashSecret::open(&path, &OsRandom).unwrap();
        assert_eq!(fs::read(&path).unwrap(), *secret.0);
        assert!(!torn.exists());
    }

    #[test]
    fn gateway_that_opened_the_empty_file_does_not_get_another_secret() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        let folder = Folder::open(home.path()).unwrap();
        let early = folder.open_file("secret").unwrap();
        let (_file, _) = CrashSecret::open(&path, &OsRandom).unwrap();
        assert!(matches!(early.try_lock(), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn files_that_are_unsafe_or_no_secret_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        for content in [&[1; LENGTH - 1][..], &[1; LONGEST + 1]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let why = CrashSecret::open(&path, &OsRandom).unwrap_err().to_string();
            assert!(why.contains("must be empty or contain"), "{why}");
        }
        fs::write(&path, [1; LENGTH]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let why = CrashSecret::open(&path, &OsRandom).unwrap_err().to_string();
        assert!(why.contains("without access for others"), "{why}");
    }
}

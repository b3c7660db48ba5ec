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
    #[expect(dead_code, reason = "open is all that it is for")]
    file: File,
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
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(at("is not a file"));
        };
        let folder = Folder::open(folder).map_err(|why| failed(why.to_string()))?;
        let mut file = folder.open_file(name).map_err(|why| failed(why.to_string()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(at("another gateway uses it")),
            Err(TryLockError::Error(why)) => return Err(at(&why.to_string())),
        }
        // With this capacity the vector never grows, which would leave a copy of the secret behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
        let read = (&file).take(LONGEST as u64 + 1).read_to_end(&mut secret);
        read.map_err(|why| at(&why.to_string()))?;
        if secret.is_empty() {
            secret.resize(LENGTH, 0);
            random.fill(&mut secret);
            file.write_all(&secret).and_then(|()| file.sync_all()).map_err(|why| at(&why.to_string()))?;
        }
        match secret.len() {
            LENGTH..=LONGEST => Ok((Self { file }, SharedKey(secret))),
            _ => Err(at(&format!("must be empty or contain {LENGTH} to {LONGEST} bytes"))),
        }
    }
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
        let (_file, second) = CrashSecret::open(&path, &OsRandom).unwrap();
        assert_eq!((first.0.len(), &first.0), (LENGTH, &second.0));
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

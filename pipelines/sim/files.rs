//! Files that are gone as soon as they were read.

use nix::unistd::{mkstemp, write};
use std::{env, fs, path::Path};

/// Hands a file of these bytes to `read`. Only its owner can open it.
///
/// # Panics
/// If there is no folder for temporary files, or no room in it.
pub fn with_file<R>(bytes: &[u8], read: impl FnOnce(&Path) -> R) -> R {
    let (file, path) = mkstemp(&env::temp_dir().join("wayfarer-XXXXXX")).expect("a temporary file");
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[write(&file, rest).expect("room for it")..];
    }
    drop(file);
    let result = read(&path);
    let _ = fs::remove_file(&path);
    result
}

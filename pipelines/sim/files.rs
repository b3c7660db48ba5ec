//! Files that exist only while they are read.

use nix::unistd::{mkstemp, write};
use std::{env, fs, path::Path};

/// Writes a temporary file of these bytes, which only its owner can open, calls `read` with its
/// path and returns the result.
///
/// # Panics
/// If there is no folder for temporary files, or no room in it.
pub fn with_file<R>(bytes: &[u8], read: impl FnOnce(&Path) -> R) -> R {
    let (file, path) =
        mkstemp(&env::temp_dir().join("wayfarer-XXXXXX")).expect("a temporary file can be made");
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[write(&file, rest).expect("the temporary file can be written")..];
    }
    drop(file);
    let result = read(&path);
    let _ = fs::remove_file(&path);
    result
}

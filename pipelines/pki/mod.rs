//! A small authority: certificates of gateways and users that all IKEv2 clients accept.
//!
//! | module | contents |
//! |---|---|
//! | [`Authority`] | makes an authority, and issues certificates |
//! | `revocation` | the authority's revocation list |
//! | `pkcs12` | a user's key and certificates in one file, for phones |
//! | `files` | the authority's folder, one process at a time; new files are never written over old ones |

mod authority;
mod files;
mod pkcs12;
mod revocation;

pub use authority::{Authority, KeyKind, Subject};

use std::{fmt, io, path::PathBuf};

/// Most days that a gateway's certificate is valid: Apple's clients refuse a longer time.
pub const MOST_DAYS: u32 = 825;

/// Returns whether a name can be that of files, before the ending: it leads to no other folder, and
/// no program takes it for an option.
pub(crate) fn is_file_name(name: &str) -> bool {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-+@".contains(&c);
    !name.is_empty() && !name.starts_with(['.', '-']) && name.bytes().all(is_plain)
}

/// Name of the authority's files, before the ending.
const AUTHORITY: &str = "ca";

/// The reason why no certificate was made.
#[derive(Debug)]
pub enum PkiError {
    /// The file exists already.
    Exists(PathBuf),
    /// A file cannot be read or written. The error names it.
    Io(io::Error),
    /// The file is not what the authority needs: it must be this.
    NotPem(PathBuf, &'static str),
    /// The authority's certificate expired, so that nobody would accept what it issues.
    Expired(PathBuf),
    /// The name cannot be certified, for this reason.
    Name(String, &'static str),
    /// A library refused to make the certificate, key or list.
    Library(String),
}

impl PkiError {
    fn library(why: impl fmt::Display) -> Self {
        Self::Library(why.to_string())
    }
}

impl fmt::Display for PkiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(file) => {
                write!(f, "{}: exists already, and is not overwritten; move it away first", file.display())
            }
            Self::Io(why) => why.fmt(f),
            Self::NotPem(file, wanted) => write!(f, "{}: must be {wanted}", file.display()),
            Self::Expired(file) => {
                write!(f, "{}: is no longer valid; make a new authority in another folder", file.display())
            }
            Self::Name(name, why) => write!(f, "{name:?}: {why}"),
            Self::Library(why) => write!(f, "cannot be made: {why}"),
        }
    }
}

impl std::error::Error for PkiError {}

//! Why bytes are not a message of Mobile IP.

use crate::fields::Truncated;
use core::fmt;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message is shorter than its type or its lengths say.
    Truncated,
    /// There are no such messages.
    Kind(u8),
    /// An extension of this type has a length that its content cannot have.
    Length(u8),
    /// An extension of this type is not known, and must not be skipped (RFC 5944 §1.8).
    Unknown(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("message cut short"),
            Self::Kind(kind) => write!(f, "no message is of type {kind}"),
            Self::Length(kind) => write!(f, "impossible length of extension {kind}"),
            Self::Unknown(kind) => write!(f, "unknown extension {kind}, which must not be skipped"),
        }
    }
}

impl core::error::Error for Malformed {}

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

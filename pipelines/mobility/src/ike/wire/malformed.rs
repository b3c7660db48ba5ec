//! Why bytes are not a message.

use crate::fields::Truncated;
use core::fmt;

/// Why bytes are not a message. The peer is told INVALID_SYNTAX, except that
/// [`Critical`](Self::Critical) has a notify of its own (RFC 7296 §2.21, §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The message is shorter than its lengths say.
    Truncated,
    /// A length that is impossible for its content.
    Length,
    /// More elements than we accept.
    TooMany,
    /// A count is wrong, or the marker of the last element in a list.
    Count,
    /// A traffic selector whose end is before its start.
    Range,
    /// An encrypted payload is missing, or one is where none may be.
    Encrypted,
    /// A fragment number that is zero or greater than the total.
    Fragment,
    /// A Delete payload with SPIs for a protocol that has none.
    Protocol(u8),
    /// A reserved type of identity.
    Identity(u8),
    /// A message of this exchange type when it may not come.
    Exchange(u8),
    /// A DNS domain that is no text.
    Domain,
    /// A payload of this type is missing.
    Missing(u8),
    /// An unknown payload that is marked critical.
    Critical(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("message cut short"),
            Self::Length => f.write_str("impossible length"),
            Self::TooMany => f.write_str("too many parts"),
            Self::Count => f.write_str("wrong count of parts"),
            Self::Range => f.write_str("traffic selector that ends before it begins"),
            Self::Encrypted => f.write_str("encrypted payload missing or out of place"),
            Self::Fragment => f.write_str("impossible fragment number"),
            Self::Protocol(protocol) => write!(f, "protocol {protocol} has no SAs to delete"),
            Self::Identity(kind) => write!(f, "no identity is of type {kind}"),
            Self::Exchange(kind) => write!(f, "a message of exchange type {kind} may not come now"),
            Self::Domain => f.write_str("DNS domain that is no text"),
            Self::Missing(kind) => write!(f, "payload {kind} is missing"),
            Self::Critical(kind) => write!(f, "unknown critical payload {kind}"),
        }
    }
}

impl core::error::Error for Malformed {}

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

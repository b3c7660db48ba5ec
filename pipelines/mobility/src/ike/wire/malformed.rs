//! Why bytes are no message.

use core::fmt;

/// Why bytes are no message. INVALID_SYNTAX says so to the peer, but [`Critical`](Self::Critical)
/// has a notify of its own (RFC 7296 §2.21, §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends before what its lengths promise.
    Truncated,
    /// A length that what it measures cannot have.
    Length,
    /// More of a kind than we are willing to read.
    TooMany,
    /// A count, or a mark of the last in a list, that is not true.
    Count,
    /// A traffic selector that ends before it begins.
    Range,
    /// Encrypted payloads are missing where there must be one, or stand where there must be none.
    Encrypted,
    /// A number of a fragment that is zero or more than there are.
    Fragment,
    /// An SPI in a Delete payload of a protocol that has none.
    Protocol(u8),
    /// A type of identity that is nobody's.
    Identity(u8),
    /// An answer of this exchange type to a request of another.
    Exchange(u8),
    /// A DNS domain that is no text.
    Domain,
    /// A payload of this type is missing.
    Missing(u8),
    /// A payload that we do not know, and must.
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
            Self::Exchange(kind) => write!(f, "answer of exchange type {kind} to a request of another"),
            Self::Domain => f.write_str("DNS domain that is no text"),
            Self::Missing(kind) => write!(f, "payload {kind} is missing"),
            Self::Critical(kind) => write!(f, "unknown critical payload {kind}"),
        }
    }
}

impl core::error::Error for Malformed {}

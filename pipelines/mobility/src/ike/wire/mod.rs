//! IKEv2 messages as bytes (RFC 7296 §3): the same types are read and written, so that what was
//! written reads as what it was.
//!
//! | file | what |
//! |---|---|
//! | `header` | the header of a message |
//! | `payload` | payloads and their chains |
//! | `proposal` | SA payloads |
//! | `selector` | traffic selectors |
//! | `notify`, `error_notify` | notifies and their numbers |
//! | `configuration` | configuration payloads (with RFC 8598) |
//! | `protected` | encrypted payloads and their fragments (RFC 7383) |
//!
//! Reserved bits are ignored when read and zero when written. How many things a list may hold is
//! bounded, so that reading takes time and memory in proportion to the message.

mod configuration;
mod error_notify;
mod header;
pub mod notify;
mod payload;
mod proposal;
mod protected;
mod reader;
mod selector;
#[cfg(test)]
mod tests;

pub use configuration::{Attribute, Configuration, attribute};
pub use error_notify::ErrorNotify;
pub use header::{ExchangeType, HEADER, Header, VERSION, flags};
pub use notify::Notify;
pub use payload::{Delete, Payload, emit, emit_message, kind, notified, parse};
pub use proposal::{Proposal, SpiBytes, Transform};
pub use protected::{ProtectedMessage, emit_protected, protected};
pub use selector::TrafficSelector;

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
            Self::Missing(kind) => write!(f, "payload {kind} is missing"),
            Self::Critical(kind) => write!(f, "unknown critical payload {kind}"),
        }
    }
}

impl core::error::Error for Malformed {}

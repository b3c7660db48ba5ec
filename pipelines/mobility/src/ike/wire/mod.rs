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
//! | `malformed` | why bytes are no message |
//! | `protected` | encrypted payloads and their fragments (RFC 7383) |
//!
//! Reserved bits are ignored when read and zero when written. How many things a list may hold is
//! bounded, so that reading takes time and memory in proportion to the message.

mod configuration;
mod error_notify;
mod header;
mod malformed;
pub mod notify;
mod payload;
mod proposal;
mod protected;
mod reader;
mod selector;
#[cfg(test)]
mod tests;

pub use configuration::{Attribute, Configuration, REPLY, REQUEST};
pub use error_notify::ErrorNotify;
pub use header::{ExchangeType, HEADER, Header, VERSION, flags};
pub use malformed::Malformed;
pub use notify::Notify;
pub use payload::{Delete, Payload, emit, emit_message, kind, notified, parse, wanted_kex};
pub use proposal::{Proposal, SpiBytes, Transform};
pub use protected::{ProtectedMessage, emit_protected, protected};
pub use selector::TrafficSelector;

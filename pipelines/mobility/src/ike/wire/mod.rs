//! IKEv2 messages as bytes (RFC 7296 §3). The same types are parsed and encoded, so encoding and
//! parsing a message returns the same value.
//!
//! | file | contents |
//! |---|---|
//! | `header` | the header of a message |
//! | `payload` | payloads and their chains |
//! | `proposal` | SA payloads |
//! | `selector` | traffic selectors |
//! | `notify`, `error_notify` | notifies and their numbers |
//! | `configuration` | configuration payloads (with RFC 8598) |
//! | `malformed` | why bytes are not a message |
//! | `protected` | encrypted payloads and their fragments (RFC 7383) |
//!
//! Reserved bits are ignored when parsed and zero when encoded. The length of every list is
//! bounded, so parsing takes time and memory in proportion to the message.

mod configuration;
mod error_notify;
mod header;
mod malformed;
pub mod notify;
mod part;
mod payload;
mod proposal;
mod protected;
mod selector;
#[cfg(test)]
mod tests;

pub use configuration::{Attribute, Configuration, REPLY, REQUEST};
pub use error_notify::ErrorNotify;
pub use header::{ExchangeType, HEADER, Header, VERSION, flags};
pub use malformed::Malformed;
pub use notify::Notify;
pub use payload::{
    Delete, Payload, certificate, emit, emit_message, kind, notified, parse, wanted_kex, wants_ocsp,
};
pub use proposal::{Proposal, SpiBytes, Transform};
pub use protected::{ProtectedMessage, emit_protected, protected};
pub use selector::TrafficSelector;

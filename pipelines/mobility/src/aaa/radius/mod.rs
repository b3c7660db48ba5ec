//! RADIUS as a carrier of EAP (RFC 2865, RFC 3579).
//!
//! | module | contents |
//! |---|---|
//! | [`packet`] | packets as bytes |
//! | `conversation` | EAP conversations that a RADIUS server conducts |
//! | [`question`] | what a conversation asks a server, and the answer |
//! | [`client`] | requests to servers and their retransmission |

pub mod client;
mod conversation;
pub mod packet;
pub mod question;

pub use conversation::Radius;

//! RADIUS as a carrier of EAP (RFC 2865, RFC 3579).
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | packets as bytes |
//! | `conversation` | EAP conversations that a server holds |
//! | [`question`] | what they want a server to be asked, and its answer |
//! | [`client`] | requests on their way |

pub mod client;
mod conversation;
pub mod packet;
pub mod question;

pub use conversation::Radius;

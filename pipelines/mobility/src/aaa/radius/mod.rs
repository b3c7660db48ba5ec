//! RADIUS as a carrier of EAP (RFC 2865, RFC 3579), of accounts (RFC 2866), and of changes
//! to connected peers (RFC 5176).
//!
//! | module | contents |
//! |---|---|
//! | `attributes` | what all packets have |
//! | `names` | attributes by which servers know us and a peer |
//! | [`account`] | what records say about a peer |
//! | [`packet`] | requests for access and their answers, as bytes |
//! | `conversation` | EAP conversations that a RADIUS server conducts |
//! | [`question`] | what a conversation asks a server, and the answer |
//! | [`client`] | requests to servers and their retransmission |
//! | [`record`] | accounting records as bytes |
//! | [`accounting`] | records on their way to servers |
//! | [`dynamic`] | servers' requests about connected peers |

pub mod account;
pub mod accounting;
mod attributes;
pub mod client;
mod conversation;
pub mod dynamic;
mod names;
pub mod packet;
pub mod question;
pub mod record;

pub use conversation::Radius;

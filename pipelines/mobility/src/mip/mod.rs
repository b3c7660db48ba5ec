//! Registration of Mobile IPv4 (RFC 5944), with NAT traversal (RFC 3519), reverse tunnelling (RFC 3024) and
//! network access identifiers (RFC 2794). Of revocation (RFC 3543) there are the messages.
//!
//! | module | contents |
//! |---|---|
//! | [`wire`] | messages as bytes |
//! | [`association`] | what a node and an agent share, and authenticators made with it |
//! | [`binding`] | where nodes are |
//! | [`agent`] | the home agent |
//! | [`node`] | the mobile node |
//! | [`siu`] | tells a gateway where a node is now |

pub mod agent;
pub mod association;
pub mod binding;
pub mod node;
pub mod siu;
pub mod wire;

//! The type of a message, which is its first byte.

pub(super) const REQUEST: u8 = 1;
pub(super) const REPLY: u8 = 3;
pub(super) const REVOCATION: u8 = 7;
pub(super) const REVOCATION_ACK: u8 = 15;

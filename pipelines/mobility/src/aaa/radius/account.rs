//! Accounts of peers that a server accepted.

use crate::aaa::origin::Origin;
use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

/// What all records about a peer say.
#[derive(Clone, Debug)]
pub struct Account {
    /// A name that no other peer's account has (Acct-Session-Id).
    pub id: String,
    /// The name by which the server knows the peer.
    pub user_name: Vec<u8>,
    /// Where the peer comes from.
    pub origin: Origin,
    /// The inner addresses that we gave it.
    pub inner: Vec<IpAddr>,
    /// What the server wants in all records.
    pub class: Vec<Vec<u8>>,
}

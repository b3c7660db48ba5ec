//! What a server grants to a peer that it accepts.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

/// What a server grants to a peer that it accepts. Everything else is as the connection says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The inner IPv4 address (Framed-IP-Address, RFC 2865 §5.8).
    pub ip4: Option<Ipv4Addr>,
    /// The inner IPv6 address (Framed-IPv6-Address, RFC 6911 §3.1, or Framed-IPv6-Prefix of one
    /// address, RFC 3162 §2.3).
    pub ip6: Option<Ipv6Addr>,
    /// Names of the pools of other inner addresses (Framed-Pool, RFC 2869 §5.18; Framed-IPv6-Pool,
    /// RFC 3162 §2.6).
    pub pools: Vec<Vec<u8>>,
    /// Seconds until the peer is closed (Session-Timeout, RFC 2865 §5.27).
    pub session_timeout: Option<u32>,
}

impl Grant {
    /// Returns true if it has an inner address.
    pub fn has_address(&self) -> bool {
        self.ip4.is_some() || self.ip6.is_some()
    }
}

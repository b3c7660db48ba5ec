//! What a server grants to a peer that it accepts.

use super::origin::Origin;
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
    /// The name by which the server knows the user, for its own records (User-Name, RFC 2865 §5.1).
    /// It may be one that only the peer claimed.
    pub user_name: Vec<u8>,
    /// Values that go into every record about the peer (Class, RFC 2865 §5.25).
    pub class: Vec<Vec<u8>>,
    /// Names of the child SAs that the peer may have (Filter-Id, RFC 2865 §5.11); if empty, all those
    /// of its connection.
    pub filters: Vec<Vec<u8>>,
    /// Where the server was told that the peer comes from, when it was asked.
    pub origin: Option<Origin>,
    /// Seconds from one interim record to the next (Acct-Interim-Interval, RFC 2869 §5.16).
    pub interim_interval: Option<u32>,
}

impl Grant {
    /// Most values of Class that are kept: half a packet.
    pub const CLASSES: usize = 8;

    /// Returns true if it has an inner address.
    pub fn has_address(&self) -> bool {
        self.ip4.is_some() || self.ip6.is_some()
    }
}

//! Where messages come from and go to, and what lies between.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Both ends of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's, as we see it.
    pub remote: SocketAddr,
}

/// Who is behind a NAT (RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// We are.
    pub here: bool,
    /// The peer is.
    pub there: bool,
}

impl Nat {
    /// Whether there is a NAT on the way at all.
    pub fn any(self) -> bool {
        self.here || self.there
    }
}

/// How ESP goes to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// UDP ports, ours and the peer's, where ESP travels in UDP.
    pub udp: Option<(u16, u16)>,
}

impl Path {
    /// How ESP goes where IKE goes by `addresses`, in UDP if `udp`.
    pub fn new(addresses: Addresses, udp: bool) -> Self {
        let Addresses { local, remote } = addresses;
        Self { local: local.ip(), remote: remote.ip(), udp: udp.then_some((local.port(), remote.port())) }
    }
}

/// An address that cannot reach a peer: one is of IPv4, the other of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherFamily;

impl fmt::Display for OtherFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer's address is of the other family: IPv4 and IPv6 cannot be mixed")
    }
}

impl core::error::Error for OtherFamily {}

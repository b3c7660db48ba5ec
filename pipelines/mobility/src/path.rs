//! Addresses of both ends, and NATs between them.

use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// An IPv4 /24 or an IPv6 /48: its family and its leading bits.
pub type Network = (bool, u128);

/// Returns the network of `address`.
pub fn network(address: IpAddr) -> Network {
    match address {
        IpAddr::V4(a) => (true, u128::from(a.to_bits() >> 8)),
        IpAddr::V6(a) => (false, a.to_bits() >> 80),
    }
}

/// The addresses of both ends of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address, as we see it.
    pub remote: SocketAddr,
}

/// The sides that are behind a NAT (RFC 7296 §2.23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// True if we are behind a NAT.
    pub local: bool,
    /// True if the peer is behind a NAT.
    pub remote: bool,
}

impl Nat {
    /// Returns true if there is a NAT at either side.
    pub fn any(self) -> bool {
        self.local || self.remote
    }
}

/// The path that ESP takes to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Our address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// UDP ports, ours and the peer's, if ESP is encapsulated in UDP.
    pub udp: Option<(u16, u16)>,
}

impl Path {
    /// Returns the path for ESP if IKE uses `addresses`; ESP is encapsulated in UDP if `udp`.
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

//! Where messages come from and go to, and what lies between.

use super::crypto::Crypto;
use core::net::{IpAddr, SocketAddr};

/// Port of IKE without NAT (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// Port of IKE and ESP in UDP (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

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

/// The data of a NAT_DETECTION notification: SHA-1 of SPIs, address and port (RFC 7296 §2.23).
pub fn nat_detection(crypto: &dyn Crypto, spi_i: u64, spi_r: u64, address: SocketAddr) -> [u8; 20] {
    let (v4, v6);
    let ip: &[u8] = match address.ip() {
        IpAddr::V4(a) => {
            v4 = a.octets();
            &v4
        }
        IpAddr::V6(a) => {
            v6 = a.octets();
            &v6
        }
    };
    let port = address.port().to_be_bytes();
    crypto.sha1(&[&spi_i.to_be_bytes(), &spi_r.to_be_bytes(), ip, &port])
}

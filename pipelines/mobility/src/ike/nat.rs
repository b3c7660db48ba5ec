//! Ports of IKE, and how each side tells whether a NAT is on the way (RFC 7296 §2.23).

use crate::crypto::Crypto;
use core::net::{IpAddr, SocketAddr};

/// Port of IKE without NAT (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// Port of IKE and ESP in UDP (RFC 3948).
pub const NAT_T_PORT: u16 = 4500;

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

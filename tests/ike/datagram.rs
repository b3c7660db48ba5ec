//! Datagrams of the simulated world, and their content.

use std::net::{IpAddr, SocketAddr};

/// The content of a datagram.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Ike(Vec<u8>),
    Keepalive,
    Esp(Esp),
}

/// A datagram; ESP without UDP has port 0 at both ends.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) content: Content,
}

/// A packet that an SA carries. It has the key in place of encryption.
#[derive(Clone, Debug)]
pub(super) struct Esp {
    pub(super) spi: u32,
    pub(super) key: Vec<u8>,
    pub(super) sequence: u64,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
}

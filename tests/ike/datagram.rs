//! Datagrams of the simulated world, and what they carry.

use std::net::{IpAddr, SocketAddr};

/// What a datagram carries.
#[derive(Clone, Debug)]
pub(super) enum Cargo {
    Ike(Vec<u8>),
    Keepalive,
    Esp(Esp),
}

/// A datagram; ESP without UDP has port 0 at both ends.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) cargo: Cargo,
}

/// A packet as an SA carries it. Who has the key can read it.
#[derive(Clone, Debug)]
pub(super) struct Esp {
    pub(super) spi: u32,
    pub(super) key: Vec<u8>,
    pub(super) sequence: u64,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
}

//! What the configuration says of IKE.

use std::{net::IpAddr, path::PathBuf};
use wayfarer_dataplane::sa::Limits;
use wayfarer_mobility::ike::{connection, settings::Settings};

/// `[ike]`, `[[pool]]` and `[[connection]]`.
#[derive(Debug)]
pub struct Ike {
    /// Who may connect, or is to be connected to.
    pub connections: Vec<Connection>,
    /// Where inner addresses come from; connections name them by index.
    pub pools: Vec<PoolRange>,
    /// The folder that keys are written to; whoever reads them reads all traffic. `None`: nowhere.
    pub key_log: Option<PathBuf>,
    /// Half-open connections from which on a new peer has to return a cookie first (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Half-open connections that there may be.
    pub half_open: usize,
    /// Connected peers that there may be.
    pub peers: usize,
    /// Those of one identity of a connection.
    pub devices: usize,
    /// Child SAs that all of them may have.
    pub children: usize,
}

impl Default for Ike {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            connections: vec![],
            pools: vec![],
            key_log: None,
            cookie_threshold: settings.cookie_threshold,
            half_open: settings.half_open_limit,
            peers: settings.peer_limit,
            devices: settings.device_limit,
            children: settings.child_limit,
        }
    }
}

/// `[[connection]]`
#[derive(Debug)]
pub struct Connection {
    /// What IKE does.
    pub protocol: connection::Connection,
    /// Sequence numbers in the anti-replay windows of its child SAs.
    pub window: u32,
    /// Largest outer packet; `None`: the port's MTU.
    pub mtu: Option<usize>,
    /// Limits of its child SAs, for each direction: a soft one asks for new keys.
    pub limits: Limits,
}

/// `[[pool]]`: inner addresses, ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// Its name.
    pub name: String,
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family.
    pub last: IpAddr,
}

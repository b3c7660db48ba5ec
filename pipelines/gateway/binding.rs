//! Where the terminals of the gateway's home agent are.

use std::net::Ipv4Addr;
use wayfarer_dataplane::{sa::TunnelId, table::Prefix, wire::encapsulation::Encapsulation};

/// The home agent of the gateway.
#[derive(Debug)]
pub struct HomeAgent {
    /// The end of its tunnels, one of the gateway's own addresses.
    pub address: Ipv4Addr,
    /// The network of all home addresses.
    pub network: Prefix,
    /// About so many terminals may be away at a time.
    pub terminals: usize,
    /// `true` if a route leads to the home network, or part of it. Otherwise no terminal is ever at home.
    pub has_home: bool,
}

/// Where the terminal with a home address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CareOf {
    /// The other end of the tunnel.
    pub address: Ipv4Addr,
    /// What packets are put into.
    pub encapsulation: Encapsulation,
    /// `true` if packets from the terminal may come by the tunnel.
    pub reverse: bool,
    /// The terminal's own link, if it has one: the tunnel out of whose SA its packets come.
    pub link: Option<TunnelId>,
}

//! `[home_agent]` as the gateway uses it.

use std::{net::Ipv4Addr, path::PathBuf};
use wayfarer_dataplane::table::Prefix;
use wayfarer_mobility::{
    crypto::Secret,
    mip::{
        agent::{Node, Nodes, ReverseTunnel, Settings},
        association::{Algorithm, Association, Replay},
        wire::Encapsulation,
    },
};

/// The gateway's own home agent.
#[derive(Debug, PartialEq)]
pub struct HomeAgent {
    /// Its address, one of the gateway's.
    pub address: Ipv4Addr,
    /// The network that holds all home addresses.
    pub network: Prefix,
    /// The folder with the bindings; `None` if a restart may forget them.
    pub store: Option<PathBuf>,
    /// The longest lifetime of a binding in seconds; [`u16::MAX`] allows those without an end.
    pub lifetime: u16,
    /// Whether packets from terminals come by their tunnels.
    pub reverse_tunnel: ReverseTunnel,
    /// The encapsulations besides IP in IP, which is always possible.
    pub encapsulations: Vec<Encapsulation>,
    /// The terminals that may register.
    pub terminals: Vec<HomeTerminal>,
}

/// A terminal that may register.
#[derive(PartialEq)]
pub struct HomeTerminal {
    /// Its home address.
    pub home: Ipv4Addr,
    /// Its network access identifier, if it has one (RFC 2794).
    pub nai: Option<String>,
    /// The number of what it shares with the home agent.
    pub spi: u32,
    /// The algorithm of authenticators.
    pub algorithm: Algorithm,
    /// The shared secret.
    pub secret: Secret,
    /// How its old requests are told from new ones.
    pub replay: Replay,
}

impl std::fmt::Debug for HomeTerminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeTerminal")
            .field("home", &self.home)
            .field("spi", &self.spi)
            .finish_non_exhaustive()
    }
}

impl HomeAgent {
    /// Returns the settings of the protocol.
    pub fn settings(&self) -> Settings {
        Settings {
            address: self.address,
            max_lifetime: self.lifetime,
            max_bindings: 1,
            reverse_tunnel: self.reverse_tunnel,
            encapsulations: self.encapsulations.clone(),
            udp_tunnels: None,
            foreign_agents: [].into(),
        }
    }

    /// Returns the terminals as the protocol knows them.
    pub fn nodes(&self) -> Nodes {
        let mut nodes = Nodes::default();
        for HomeTerminal { home, nai, spi, algorithm, secret, replay } in &self.terminals {
            let association = Association { spi: *spi, algorithm: *algorithm, key: secret.clone() };
            let name = nai.as_ref().map(|name| name.clone().into_bytes());
            // The configuration was checked: addresses and names differ.
            nodes.add(Node { home: *home, name, replay: *replay, associations: vec![association] });
        }
        nodes
    }
}

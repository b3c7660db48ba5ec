//! The nodes that may register.

use crate::mip::association::{Association, Replay};
use alloc::{collections::BTreeMap, vec::Vec};
use core::net::Ipv4Addr;

/// A node that may register.
#[derive(Debug)]
pub struct Node {
    /// Its home address.
    pub home: Ipv4Addr,
    /// Its network access identifier, if it has one (RFC 2794).
    pub name: Option<Vec<u8>>,
    /// How its old requests are told from new ones.
    pub replay: Replay,
    /// What it shares with the home agent, by SPI.
    pub associations: Vec<Association>,
}

impl Node {
    /// Returns the association with this SPI.
    pub(super) fn association(&self, spi: u32) -> Option<&Association> {
        self.associations.iter().find(|association| association.spi == spi)
    }
}

/// All nodes that may register.
#[derive(Debug, Default)]
pub struct Nodes {
    all: BTreeMap<Ipv4Addr, Node>,
    names: BTreeMap<Vec<u8>, Ipv4Addr>,
}

impl Nodes {
    /// Adds a node. Returns false, and does nothing, if another one has its address or its name.
    pub fn add(&mut self, node: Node) -> bool {
        let has_name = node.name.as_ref().is_some_and(|name| self.names.contains_key(name));
        if has_name || self.all.contains_key(&node.home) {
            return false;
        }
        if let Some(name) = &node.name {
            self.names.insert(name.clone(), node.home);
        }
        self.all.insert(node.home, node);
        true
    }

    /// Returns the node with this home address.
    pub(super) fn get(&self, home: Ipv4Addr) -> Option<&Node> {
        self.all.get(&home)
    }

    /// Returns the node with this name.
    pub(super) fn named(&self, name: &[u8]) -> Option<&Node> {
        self.names.get(name).and_then(|home| self.all.get(home))
    }
}

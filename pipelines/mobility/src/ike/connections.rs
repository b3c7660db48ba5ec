//! The connections of the configuration, and earlier ones that peers still use.
//!
//! A connection never changes, so that a peer keeps to what it agreed to. A new configuration adds
//! its connections as new ones, with new indices; an earlier one goes with its last peer, and its
//! credentials with it. Connections of the same name share a number, by which a peer's addresses
//! and rates outlive its connection.

use super::connection::Connection;
use crate::path::Addresses;
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::ops::Range;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By index.
    all: BTreeMap<usize, Entry>,
    /// The indices of those in the configuration, in the operator's order.
    current: Range<usize>,
    /// The numbers of names. If several connections of a configuration have the same name, they are
    /// counted.
    names: BTreeMap<(String, usize), usize>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    /// The number of its name.
    number: usize,
    /// Number of peers that use it.
    peers: usize,
}

impl Connections {
    /// Returns the connection with this index.
    pub(super) fn get(&self, index: usize) -> Option<&Connection> {
        self.all.get(&index).map(|entry| &entry.connection)
    }

    /// Returns the number of connections that are not in the configuration.
    pub(super) fn earlier(&self) -> usize {
        self.all.len() - self.current.len()
    }

    /// Returns the connections of the configuration with their indices, in the operator's order.
    pub(super) fn current(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.all.range(self.current.clone()).map(|(index, entry)| (*index, &entry.connection))
    }

    /// Returns those of the configuration that a message between these addresses may belong to.
    pub(super) fn at(
        &self,
        Addresses { local, remote }: Addresses,
    ) -> impl Iterator<Item = (usize, &Connection)> {
        self.current().filter(move |(_, connection)| connection.is_at(local.ip(), remote.ip()))
    }

    /// Returns true if the connection with this index is in the configuration.
    pub(super) fn is_current(&self, index: usize) -> bool {
        self.current.contains(&index)
    }

    /// Returns the number of the name of the connection with this index.
    pub(super) fn number(&self, index: usize) -> Option<usize> {
        self.all.get(&index).map(|entry| entry.number)
    }

    /// Returns the index of the connection in the configuration that has the same name as the one
    /// with this index.
    pub(super) fn successor(&self, index: usize) -> Option<usize> {
        let number = self.number(index)?;
        self.current.clone().find(|current| self.number(*current) == Some(number))
    }

    /// Replaces the configuration. Returns the indices of the `new` connections. Earlier ones stay
    /// until [`Self::remove_unused`].
    pub(super) fn replace(&mut self, new: Vec<Connection>) -> Range<usize> {
        let start = self.current.end;
        self.current = start..start + new.len();
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        for (index, connection) in self.current.clone().zip(new) {
            let count = names.entry(connection.name.clone()).or_default();
            let unused = self.names.len();
            let number = *self.names.entry((connection.name.clone(), *count)).or_insert(unused);
            *count += 1;
            self.all.insert(index, Entry { connection, number, peers: 0 });
        }
        self.current.clone()
    }

    /// Removes the earlier connections that no peer uses.
    pub(super) fn remove_unused(&mut self) {
        self.all.retain(|index, entry| self.current.contains(index) || entry.peers > 0);
    }

    /// Notes that a peer uses the connection `to` instead of `from`. An earlier connection goes
    /// with its last peer.
    pub(super) fn move_peer(&mut self, from: Option<usize>, to: Option<usize>) {
        if from == to {
            return;
        }
        if let Some(entry) = to.and_then(|to| self.all.get_mut(&to)) {
            entry.peers += 1;
        }
        if let Some(from) = from
            && let Some(entry) = self.all.get_mut(&from)
        {
            entry.peers -= 1;
            if entry.peers == 0 && !self.is_current(from) {
                self.all.remove(&from);
            }
        }
    }
}

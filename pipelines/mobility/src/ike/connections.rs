//! The connections of the configuration, and earlier ones that peers still use.
//!
//! A connection never changes, so that a peer keeps to what it agreed to. A new configuration adds
//! its connections as new ones; an earlier one goes once no peer uses it. Connections of the same
//! name share a number, by which a peer's addresses and rates outlive its connection.

use super::connection::Connection;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By index.
    all: Vec<Connection>,
    /// The number of each one's name.
    numbers: Vec<usize>,
    /// The indices of those in the configuration, in the operator's order.
    current: Vec<usize>,
    /// The numbers of names. If several connections of a configuration have the same name, they are
    /// counted.
    names: BTreeMap<(String, usize), usize>,
}

impl Connections {
    /// Returns the connection with this index.
    pub(super) fn get(&self, index: usize) -> Option<&Connection> {
        self.all.get(index)
    }

    /// Returns all connections by index, also those that are only used by peers.
    pub(super) fn all(&self) -> &[Connection] {
        &self.all
    }

    /// Returns the connections of the configuration with their indices, in the operator's order.
    pub(super) fn current(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.current.iter().filter_map(|index| Some((*index, self.all.get(*index)?)))
    }

    /// Returns the number of the name of the connection with this index.
    pub(super) fn number(&self, index: usize) -> Option<usize> {
        self.numbers.get(index).copied()
    }

    /// Changes the pools of all connections to the indices that `renumbered` has for them.
    pub(super) fn renumber_pools(&mut self, renumbered: &[Option<usize>]) {
        for connection in &mut self.all {
            let pools = connection.pools.iter().filter_map(|pool| *renumbered.get(*pool)?);
            connection.pools = pools.collect();
        }
    }

    /// Replaces the configuration, except for connections that are `in_use`. Returns the index of
    /// each of the `new` connections, and for each earlier index that of the new connection of the
    /// same name.
    pub(super) fn replace(
        &mut self,
        new: Vec<Connection>,
        in_use: &BTreeSet<usize>,
    ) -> (Vec<usize>, Vec<Option<usize>>) {
        let earlier = self.numbers.clone();
        let end = in_use.last().map_or(0, |last| last + 1);
        self.all.truncate(end);
        self.numbers.truncate(end);
        let mut free = (0..end).filter(|index| !in_use.contains(index));
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        self.current.clear();
        for connection in new {
            let count = names.entry(connection.name.clone()).or_default();
            let unused = self.names.len();
            let number = *self.names.entry((connection.name.clone(), *count)).or_insert(unused);
            *count += 1;
            match free.next() {
                Some(index) => {
                    self.all[index] = connection;
                    self.numbers[index] = number;
                    self.current.push(index);
                }
                None => {
                    self.current.push(self.all.len());
                    self.all.push(connection);
                    self.numbers.push(number);
                }
            }
        }
        let by_number: BTreeMap<usize, usize> =
            self.current.iter().map(|index| (self.numbers[*index], *index)).collect();
        let renewed = earlier.iter().map(|number| by_number.get(number).copied()).collect();
        (self.current.clone(), renewed)
    }
}

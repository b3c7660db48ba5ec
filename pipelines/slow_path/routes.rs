//! The slow path's routes, and how they are published to workers.
//!
//! A route names a router; the workers' table holds MAC addresses. So a resolved neighbour is
//! published as a route to its own address, and all routes via that neighbour are published again.

use super::{neighbours::Stations, table_writer::TableWriter};
use crate::gateway::tables::Hop;
use std::{collections::BTreeMap, net::IpAddr};
use wayfarer_dataplane::{port::Mac, table::Prefix};

/// The origin of a route; earlier ones take precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// An address of the gateway itself.
    Local,
    /// An address of the host, on the kernel's side of a port.
    Host,
    /// The configuration.
    Config,
    /// The subnet of a port's address.
    Connected,
    /// The kernel's route table.
    Kernel,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    /// The gateway itself.
    Local,
    /// The host's own stack, on the kernel's side of a port.
    Host,
    /// This port, directly or via a router.
    Port {
        /// Index of the port.
        port: u16,
        /// The router, if there is one.
        via: Option<IpAddr>,
    },
}

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: BTreeMap<(Prefix, Origin), NextHop>,
    neighbours: BTreeMap<(u16, IpAddr), Mac>,
    stations: Vec<Stations>,
}

impl Routes {
    /// Creates an empty set of routes for ports with these stations.
    pub(super) fn new(stations: Vec<Stations>) -> Self {
        Self { stations, ..Self::default() }
    }

    /// Adds or replaces a route.
    pub(super) fn insert(&mut self, tables: &mut TableWriter, to: Prefix, origin: Origin, hop: NextHop) {
        self.routes.insert((to, origin), hop);
        self.route_changed(tables, to);
    }

    /// Removes a route.
    pub(super) fn remove(&mut self, tables: &mut TableWriter, to: Prefix, origin: Origin) {
        self.routes.remove(&(to, origin));
        self.route_changed(tables, to);
    }

    /// Publishes `to` and the neighbours within it, whose routes may have changed.
    fn route_changed(&self, tables: &mut TableWriter, to: Prefix) {
        self.publish(tables, to);
        for (_, address) in self.neighbours.keys().filter(|(_, address)| to.contains(*address)) {
            self.publish(tables, Prefix::host(*address));
        }
    }

    /// Records that a neighbour was resolved, or has a new MAC address.
    pub(super) fn resolved(&mut self, tables: &mut TableWriter, port: u16, address: IpAddr, mac: Mac) {
        self.neighbours.insert((port, address), mac);
        self.neighbour_changed(tables, port, address);
    }

    /// Removes a neighbour that is gone.
    pub(super) fn failed(&mut self, tables: &mut TableWriter, port: u16, address: IpAddr) {
        self.neighbours.remove(&(port, address));
        self.neighbour_changed(tables, port, address);
    }

    /// Records that `port` has other stations. Routes by it and to its neighbours are published again.
    pub(super) fn set_stations(&mut self, tables: &mut TableWriter, port: u16, stations: Stations) {
        if let Some(known) = self.stations.get_mut(usize::from(port)) {
            *known = stations;
        }
        let by_port = self
            .routes
            .iter()
            .filter(|(_, hop)| matches!(hop, NextHop::Port { port: by, .. } if *by == port));
        by_port.for_each(|((to, _), _)| self.publish(tables, *to));
        let neighbours = self.neighbours.keys().filter(|(by, _)| *by == port);
        neighbours.for_each(|(_, address)| self.publish(tables, Prefix::host(*address)));
    }

    /// Returns the next hop of the longest route to `address`.
    pub(super) fn find(&self, address: IpAddr) -> Option<NextHop> {
        let routes = self.routes.iter().filter(|((to, _), _)| to.contains(address));
        // Sorted by origin within a prefix, so that the first of equally long ones wins.
        routes.rev().max_by_key(|((to, _), _)| to.length()).map(|(_, hop)| *hop)
    }

    /// Returns true if a route uses the router `address`.
    pub(super) fn is_router(&self, address: IpAddr) -> bool {
        self.routes.values().any(|hop| matches!(hop, NextHop::Port { via: Some(via), .. } if *via == address))
    }

    /// Returns the addresses of the gateway, the host and the routers.
    pub(super) fn taken(&self) -> impl Iterator<Item = IpAddr> {
        self.routes.iter().filter_map(|((to, _), hop)| match hop {
            NextHop::Local | NextHop::Host => Some(to.address()),
            NextHop::Port { via, .. } => *via,
        })
    }

    fn neighbour_changed(&mut self, tables: &mut TableWriter, port: u16, address: IpAddr) {
        let uses_neighbour = |hop: &NextHop| *hop == NextHop::Port { port, via: Some(address) };
        let mut stale: Vec<Prefix> =
            self.routes.iter().filter(|(_, hop)| uses_neighbour(hop)).map(|((to, _), _)| *to).collect();
        stale.push(Prefix::host(address));
        for to in stale {
            self.publish(tables, to);
        }
    }

    /// Updates the workers' route to `to`.
    fn publish(&self, tables: &mut TableWriter, to: Prefix) {
        let TableWriter { tables, writer, .. } = tables;
        match self.hop(to) {
            Some(hop) => tables.routes.insert(writer, to, hop),
            None => {
                tables.routes.remove(writer, to);
            }
        }
    }

    fn hop(&self, to: Prefix) -> Option<Hop> {
        let route = self.routes.range((to, Origin::Local)..=(to, Origin::Kernel)).next().map(|(_, hop)| *hop);
        match route {
            Some(NextHop::Local) => Some(Hop::Local),
            Some(NextHop::Host) => Some(Hop::Host),
            Some(NextHop::Port { port, via }) => Some(self.by_port(port, via, to)),
            None => self.station(to),
        }
    }

    fn by_port(&self, port: u16, via: Option<IpAddr>, to: Prefix) -> Hop {
        if let Some(Stations::Only(mac)) = self.stations.get(usize::from(port)) {
            return Hop::Port { port, mac: *mac };
        }
        let station = via.or_else(|| (to == Prefix::host(to.address())).then(|| to.address()));
        match station.and_then(|station| self.neighbours.get(&(port, station))) {
            Some(&mac) => Hop::Port { port, mac },
            None => Hop::Resolve { port, via },
        }
    }

    /// Returns the route to a neighbour that has no other route to its own address. The neighbour
    /// must be on the port by which the rest of its subnet is reached.
    fn station(&self, to: Prefix) -> Option<Hop> {
        let address = to.address();
        if to != Prefix::host(address) {
            return None;
        }
        let Some(NextHop::Port { port, via: None }) = self.find(address) else { return None };
        self.neighbours.contains_key(&(port, address)).then(|| self.by_port(port, None, to))
    }
}

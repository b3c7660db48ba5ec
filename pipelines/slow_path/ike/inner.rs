//! Inner addresses that gateways assigned to us: on the host's device, and routes to them for the
//! workers.

use super::host::{self, Host, log_failure};
use crate::slow_path::{
    handles::PortHandle,
    network::Network,
    routes::{NextHop, Origin},
    table_writer::TableWriter,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tracing::warn;
use wayfarer_dataplane::{sa::Selector, table::Prefix};
use wayfarer_mobility::ike::event::PeerId;

/// The inner addresses that each peer assigned to us.
#[derive(Debug, Default)]
pub(super) struct InnerAddresses {
    by_peer: BTreeMap<PeerId, Vec<IpAddr>>,
    /// The host's device, if a port leads to the host's stack.
    host: Option<Host>,
}

impl InnerAddresses {
    /// Starts without addresses, for the host behind `port`.
    pub(super) fn new(port: Option<&PortHandle>) -> Self {
        let host = port.and_then(|port| {
            let own = port.segment.addresses.iter().map(|(own, _)| *own).collect();
            Some(Host { device: port.device?, own })
        });
        Self { by_peer: BTreeMap::new(), host }
    }

    /// Puts all addresses on another device of the host, which takes the place of the one before.
    pub(super) fn use_device(&mut self, device: u32) {
        let Some(host) = &mut self.host else { return };
        host.device = device;
        let addresses: BTreeSet<_> = self.by_peer.values().flatten().collect();
        addresses.into_iter().for_each(|address| log_failure(host.add(*address), *address));
    }

    /// Returns the peers that assigned addresses to us.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.by_peer.keys().copied()
    }

    /// Returns true if `address` cannot be our inner address because this host, the gateway or one
    /// of their routers already has it.
    pub(super) fn is_in_use(&self, address: IpAddr, network: &Network) -> bool {
        if network.is_in_use(address) {
            return true;
        }
        // An address that we put on the host ourselves is an inner address already.
        if self.host.is_none() || self.is_assigned(address) {
            return false;
        }
        host::addresses_in_use().map_or_else(
            |why| {
                warn!("cannot ask the kernel for its addresses and routes: {why}");
                true
            },
            |in_use| in_use.contains(&address),
        )
    }

    /// Returns true if a peer assigned this address to us.
    fn is_assigned(&self, address: IpAddr) -> bool {
        self.by_peer.values().flatten().any(|inner| *inner == address)
    }

    /// Adds the addresses that a peer assigned to the host's device, and routes to them. A peer to which
    /// we authenticate again assigns what we have already.
    pub(super) fn insert(
        &mut self,
        peer: PeerId,
        addresses: Vec<IpAddr>,
        network: &mut Network,
        tables: &mut TableWriter,
    ) {
        for address in addresses.iter().filter(|address| !self.is_assigned(**address)) {
            if let Some(host) = &self.host {
                log_failure(host.add(*address), *address);
            }
            if let Some(host) = &tables.tables.settings.host {
                let hop = NextHop::Port { port: host.port, via: None };
                network.routes.insert(tables, Prefix::host(*address), Origin::Config, hop);
            }
        }
        self.by_peer.insert(peer, addresses);
    }

    /// Removes a peer's addresses and their routes, unless another peer assigned the same.
    pub(super) fn remove(&mut self, peer: PeerId, network: &mut Network, tables: &mut TableWriter) {
        let addresses = self.by_peer.remove(&peer).unwrap_or_default();
        for address in addresses.into_iter().filter(|address| !self.is_assigned(*address)) {
            if let Some(host) = &self.host {
                log_failure(host.remove(address), address);
            }
            network.routes.remove(tables, Prefix::host(address), Origin::Config);
        }
    }

    /// Routes what the host sends to a tunnel's `selectors` through us, with the inner addresses
    /// that its peer assigned.
    pub(super) fn route(&self, peer: PeerId, selectors: &[Selector]) {
        let Some(host) = &self.host else { return };
        for address in self.by_peer.get(&peer).into_iter().flatten() {
            for selector in selectors {
                log_failure(host.route(selector.remote, *address), *address);
            }
        }
    }
}

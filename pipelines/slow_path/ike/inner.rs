//! Inner addresses that gateways gave us: on the host's device, and routes to them for the workers.

use super::host::{self, Host, log_refusal};
use crate::slow_path::{
    handles::PortHandle,
    network::Network,
    routes::{NextHop, Origin},
    table_writer::TableWriter,
};
use std::{collections::BTreeMap, net::IpAddr};
use tracing::warn;
use wayfarer_dataplane::{sa::Selector, table::Prefix};
use wayfarer_mobility::ike::event::PeerId;

/// The inner addresses that each peer gave us.
#[derive(Debug, Default)]
pub(super) struct InnerAddresses {
    by_peer: BTreeMap<PeerId, Vec<IpAddr>>,
    /// The host's side of the port that leads to its own stack.
    host: Option<Host>,
}

impl InnerAddresses {
    /// Begins with none, for the host behind `port`.
    pub(super) fn new(port: Option<&PortHandle>) -> Self {
        let host = port.and_then(|port| {
            let own = port.segment.addresses.iter().map(|(own, _)| *own).collect();
            Some(Host { device: port.device?, own })
        });
        Self { by_peer: BTreeMap::new(), host }
    }

    /// Returns whether `address` cannot be an inner address of ours: it is one of this host or of
    /// the gateway, or of a router of theirs.
    pub(super) fn is_taken(&self, address: IpAddr, network: &Network) -> bool {
        if network.is_taken(address) {
            return true;
        }
        // Those that we gave the host ourselves are inner addresses already.
        if self.host.is_none() || self.by_peer.values().flatten().any(|inner| *inner == address) {
            return false;
        }
        host::taken().map_or_else(
            |why| {
                warn!("cannot ask the kernel for its addresses and routes: {why}");
                true
            },
            |taken| taken.contains(&address),
        )
    }

    /// Gives the host the addresses that a peer gave us, and leads to it what comes for them.
    pub(super) fn insert(
        &mut self,
        peer: PeerId,
        addresses: Vec<IpAddr>,
        network: &mut Network,
        tables: &mut TableWriter,
    ) {
        for address in &addresses {
            if let Some(host) = &self.host {
                log_refusal(host.add(*address), *address);
            }
            if let Some((port, _)) = tables.tables.settings.host {
                let hop = NextHop::Port { port, via: None };
                network.routes.insert(tables, Prefix::host(*address), Origin::Config, hop);
            }
        }
        self.by_peer.insert(peer, addresses);
    }

    /// Takes a peer's addresses away again.
    pub(super) fn remove(&mut self, peer: PeerId, network: &mut Network, tables: &mut TableWriter) {
        for address in self.by_peer.remove(&peer).into_iter().flatten() {
            if let Some(host) = &self.host {
                log_refusal(host.remove(address), address);
            }
            network.routes.remove(tables, Prefix::host(address), Origin::Config);
        }
    }

    /// Leads what the host sends to a tunnel's `selectors` through us, from the addresses of its
    /// peer.
    pub(super) fn route(&self, peer: PeerId, selectors: &[Selector]) {
        let Some(host) = &self.host else { return };
        for address in self.by_peer.get(&peer).into_iter().flatten() {
            for selector in selectors {
                log_refusal(host.route(selector.remote, *address), *address);
            }
        }
    }
}

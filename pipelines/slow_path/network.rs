//! The ports and routes of the gateway.

use super::{
    handles::PortHandle,
    routes::{NextHop, Routes},
};
use std::net::IpAddr;

/// MTU in bytes of an unknown path.
const DEFAULT_MTU: usize = 1500;

/// The slow path's view of the networks around the gateway.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) ports: Vec<PortHandle>,
    pub(super) routes: Routes,
}

impl Network {
    /// Returns the port that packets to `address` leave by.
    pub(super) fn port_towards(&self, address: IpAddr) -> Option<&PortHandle> {
        match self.routes.find(address) {
            Some(NextHop::Port { port, .. }) => self.ports.get(usize::from(port)),
            _ => None,
        }
    }

    /// Returns the MTU, in bytes, of the port by which packets from `local` to `remote` leave. If
    /// the remote address is not known, it is most likely behind the port with the address `local`.
    pub(super) fn mtu_towards(&self, local: IpAddr, remote: Option<IpAddr>) -> usize {
        self.mtu_of(self.port_towards(remote.unwrap_or(local)), local)
    }

    /// Returns the MTU of `port` in bytes. If there is none, returns that of the port with the address
    /// `local`.
    pub(super) fn mtu_of(&self, port: Option<&PortHandle>, local: IpAddr) -> usize {
        let own = || self.ports.iter().find(|port| has_address(port, local));
        port.or_else(own).map_or(DEFAULT_MTU, |port| port.mtu)
    }

    /// Returns true if a port has `address`.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.ports.iter().any(|port| has_address(port, address))
    }

    /// Returns true if `address` belongs to the gateway or to a router of its routes.
    pub(super) fn is_in_use(&self, address: IpAddr) -> bool {
        self.is_own(address) || self.routes.is_router(address)
    }
}

/// Returns true if `port` has `address`.
pub(super) fn has_address(port: &PortHandle, address: IpAddr) -> bool {
    port.segment.addresses.iter().any(|(own, _)| *own == address)
}

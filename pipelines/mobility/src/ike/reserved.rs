//! SPIs and addresses that others use.

use super::endpoint::Endpoint;
use alloc::collections::BTreeSet;
use core::net::IpAddr;

impl Endpoint {
    /// Reserves SPIs that others use, so that the endpoint chooses none of them.
    pub fn reserve_child_spis(&mut self, spis: impl IntoIterator<Item = u32>) {
        self.shared.child_spis.extend(spis.into_iter().map(|spi| (spi, false)));
    }

    /// Sets the addresses of the gateway and of routers, which no RADIUS server may give away.
    pub fn reserve_addresses(&mut self, reserved: BTreeSet<IpAddr>) {
        self.shared.leases.reserve(reserved);
    }
}

//! The devices of connected peers. A peer that authenticates again, while its earlier IKE SA is still
//! up, is known by its owner, address and port (RFC 7296 §2.8.3).

use super::{event::PeerId, pool::Owner};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::net::{IpAddr, SocketAddr};

/// Peers that connected to us, by the address that they confirmed.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// The peers of each device: several only while one replaces another.
    peers: BTreeMap<(Owner, SocketAddr), BTreeSet<PeerId>>,
    devices: BTreeMap<PeerId, Device>,
}

/// A peer's device.
#[derive(Debug)]
struct Device {
    owner: Owner,
    remote: SocketAddr,
    /// The inner addresses that it leased.
    inner: Vec<IpAddr>,
}

impl Devices {
    /// Returns the address at which a peer is known.
    pub(super) fn address_of(&self, id: PeerId) -> Option<SocketAddr> {
        self.devices.get(&id).map(|device| device.remote)
    }

    /// Follows a peer, which leased these `inner` addresses, to the address `at`, or forgets it if there
    /// is none.
    pub(super) fn follow(&mut self, id: PeerId, at: Option<(Owner, SocketAddr)>, inner: &[IpAddr]) {
        if let Some(Device { owner, remote, .. }) = self.devices.remove(&id) {
            let before = (owner, remote);
            if let Some(peers) = self.peers.get_mut(&before) {
                peers.remove(&id);
                if peers.is_empty() {
                    self.peers.remove(&before);
                }
            }
        }
        if let Some((owner, remote)) = at {
            self.peers.entry((owner.clone(), remote)).or_default().insert(id);
            self.devices.insert(id, Device { owner, remote, inner: inner.to_vec() });
        }
    }

    /// Returns the newest peer of this owner at this address.
    pub(super) fn find(&self, owner: &Owner, remote: SocketAddr) -> Option<PeerId> {
        self.peers.get(&(owner.clone(), remote))?.last().copied()
    }

    /// Returns true if a peer leased this inner address.
    pub(super) fn has_leased(&self, peer: PeerId, inner: IpAddr) -> bool {
        self.devices.get(&peer).is_some_and(|device| device.inner.contains(&inner))
    }

    /// Returns the number of entries.
    pub(super) fn entries(&self) -> usize {
        self.peers.len() + self.devices.len()
    }
}

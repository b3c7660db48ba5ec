//! Those who began to connect and have not proved who they are. Their number is bounded; when the bound is reached the oldest of
//! the most crowded address in the most crowded network makes room. So a flood from one place crowds out itself, and a
//! carrier's NAT with thousands of terminals needs no limit of its own.

use super::event::PeerId;
use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

/// An IPv4 /24 or an IPv6 /48.
type Network = (bool, u128);

fn network(address: IpAddr) -> Network {
    match address {
        IpAddr::V4(a) => (true, u128::from(a.to_bits() >> 8)),
        IpAddr::V6(a) => (false, a.to_bits() >> 80),
    }
}

/// All half-open peers, by where they are.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    networks: BTreeMap<Network, BTreeMap<IpAddr, BTreeSet<PeerId>>>,
    crowded: BTreeSet<(usize, Network)>,
    places: BTreeMap<PeerId, IpAddr>,
}

impl Crowd {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn size(&self, network: Network) -> usize {
        self.networks.get(&network).map_or(0, |n| n.values().map(BTreeSet::len).sum())
    }

    /// A peer begins. Numbers of peers grow: a lower one is older.
    pub(super) fn insert(&mut self, peer: PeerId, from: IpAddr) {
        let network = network(from);
        self.crowded.remove(&(self.size(network), network));
        self.networks.entry(network).or_default().entry(from).or_default().insert(peer);
        self.places.insert(peer, from);
        self.crowded.insert((self.size(network), network));
    }

    /// A peer is no longer half open.
    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(from) = self.places.remove(&peer) else { return };
        let network = network(from);
        self.crowded.remove(&(self.size(network), network));
        if let Some(addresses) = self.networks.get_mut(&network) {
            if let Some(peers) = addresses.get_mut(&from) {
                peers.remove(&peer);
                if peers.is_empty() {
                    addresses.remove(&from);
                }
            }
            if addresses.is_empty() {
                self.networks.remove(&network);
                return;
            }
        }
        self.crowded.insert((self.size(network), network));
    }

    /// Who is to make room.
    pub(super) fn most_crowded(&self) -> Option<PeerId> {
        let (_, network) = self.crowded.last()?;
        let peers = self.networks.get(network)?.values().max_by_key(|peers| peers.len())?;
        peers.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_one_place_crowds_out_itself() {
        let mut crowd = Crowd::default();
        let flood = |n: u64| IpAddr::from([192, 0, 2, (n % 4) as u8]);
        crowd.insert(PeerId(0), [198, 51, 100, 7].into());
        for n in 1..=100 {
            crowd.insert(PeerId(n), flood(n));
        }
        for n in 1..=90 {
            let evicted = crowd.most_crowded().unwrap();
            assert_ne!(evicted, PeerId(0), "after {n}");
            crowd.remove(evicted);
        }
        assert_eq!(crowd.len(), 11);
    }

    #[test]
    fn the_oldest_of_an_address_goes_first() {
        let mut crowd = Crowd::default();
        for n in [5, 3, 9] {
            crowd.insert(PeerId(n), [192, 0, 2, 1].into());
        }
        assert_eq!(crowd.most_crowded(), Some(PeerId(3)));
        crowd.remove(PeerId(3));
        crowd.remove(PeerId(3));
        assert_eq!(crowd.most_crowded(), Some(PeerId(5)));
        crowd.remove(PeerId(5));
        crowd.remove(PeerId(9));
        assert_eq!((crowd.most_crowded(), crowd.len()), (None, 0));
    }
}

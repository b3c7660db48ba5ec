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

/// The peers of one network.
#[derive(Debug, Default)]
struct Place {
    count: usize,
    addresses: BTreeMap<IpAddr, BTreeSet<PeerId>>,
    /// The addresses by how many peers they have.
    crowded: BTreeSet<(usize, IpAddr)>,
}

/// All half-open peers, by where they are.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    networks: BTreeMap<Network, Place>,
    /// The networks by how many peers they have.
    crowded: BTreeSet<(usize, Network)>,
    places: BTreeMap<PeerId, IpAddr>,
}

impl Crowd {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// A peer begins. Numbers of peers grow: a lower one is older.
    pub(super) fn insert(&mut self, peer: PeerId, from: IpAddr) {
        self.places.insert(peer, from);
        self.change(from, |peers| {
            peers.insert(peer);
        });
    }

    /// A peer is no longer half open.
    pub(super) fn remove(&mut self, peer: PeerId) {
        if let Some(from) = self.places.remove(&peer) {
            self.change(from, |peers| {
                peers.remove(&peer);
            });
        }
    }

    /// Changes the peers of one address, and the order of addresses and networks with them.
    fn change(&mut self, from: IpAddr, change: impl FnOnce(&mut BTreeSet<PeerId>)) {
        let network = network(from);
        let place = self.networks.entry(network).or_default();
        self.crowded.remove(&(place.count, network));
        let peers = place.addresses.entry(from).or_default();
        let before = peers.len();
        change(peers);
        let after = peers.len();
        place.crowded.remove(&(before, from));
        if after == 0 {
            place.addresses.remove(&from);
        } else {
            place.crowded.insert((after, from));
        }
        place.count = place.count + after - before;
        if place.count == 0 {
            self.networks.remove(&network);
        } else {
            self.crowded.insert((place.count, network));
        }
    }

    /// Who is to make room.
    pub(super) fn most_crowded(&self) -> Option<PeerId> {
        let (_, network) = self.crowded.last()?;
        let place = self.networks.get(network)?;
        let (_, address) = place.crowded.last()?;
        place.addresses.get(address)?.first().copied()
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

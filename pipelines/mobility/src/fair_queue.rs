//! Shares a limited resource fairly by network and address. The number of members is bounded by the
//! caller; at the bound, the most crowded address in the most crowded network makes room. So a
//! flood from one source crowds out only itself, and a carrier's NAT with thousands of terminals
//! needs no limit of its own.

use crate::path::{Network, network};
use alloc::collections::{BTreeMap, BTreeSet};
use core::{net::IpAddr, ops::Bound};

/// The members of one network.
#[derive(Debug)]
struct Members<K> {
    count: usize,
    addresses: BTreeMap<IpAddr, BTreeSet<K>>,
    /// The addresses, ordered by their number of members.
    crowded: BTreeSet<(usize, IpAddr)>,
    /// The address that was served last.
    served: Option<IpAddr>,
}

impl<K> Default for Members<K> {
    fn default() -> Self {
        Self { count: 0, addresses: BTreeMap::new(), crowded: BTreeSet::new(), served: None }
    }
}

/// All members by address. Keys are given out in ascending order: a lower key is older.
#[derive(Debug)]
pub struct FairQueue<K> {
    networks: BTreeMap<Network, Members<K>>,
    /// The networks, ordered by their number of members.
    crowded: BTreeSet<(usize, Network)>,
    sources: BTreeMap<K, IpAddr>,
    /// The network that was served last.
    served: Option<Network>,
}

impl<K> Default for FairQueue<K> {
    fn default() -> Self {
        Self { networks: BTreeMap::new(), crowded: BTreeSet::new(), sources: BTreeMap::new(), served: None }
    }
}

impl<K: Copy + Ord> FairQueue<K> {
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Returns true if there are no members.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Adds a member at address `from`.
    pub fn insert(&mut self, one: K, from: IpAddr) {
        self.sources.insert(one, from);
        self.change(from, |all| {
            all.insert(one);
        });
    }

    /// Removes a member and returns its address.
    pub fn remove(&mut self, one: K) -> Option<IpAddr> {
        let from = self.sources.remove(&one)?;
        self.change(from, |all| {
            all.remove(&one);
        });
        Some(from)
    }

    /// Changes the members of one address and updates the order of addresses and networks.
    fn change(&mut self, from: IpAddr, change: impl FnOnce(&mut BTreeSet<K>)) {
        let network = network(from);
        let members = self.networks.entry(network).or_default();
        self.crowded.remove(&(members.count, network));
        let all = members.addresses.entry(from).or_default();
        let before = all.len();
        change(all);
        let after = all.len();
        members.crowded.remove(&(before, from));
        if after == 0 {
            members.addresses.remove(&from);
        } else {
            members.crowded.insert((after, from));
        }
        members.count = members.count + after - before;
        if members.count == 0 {
            self.networks.remove(&network);
        } else {
            self.crowded.insert((members.count, network));
        }
    }

    /// Returns the member that has to make room: the oldest of the most crowded address in the most
    /// crowded network.
    pub(crate) fn most_crowded(&self) -> Option<K> {
        let (_, network) = self.crowded.last()?;
        let members = self.networks.get(network)?;
        let (_, address) = members.crowded.last()?;
        members.addresses.get(address)?.first().copied()
    }

    /// Returns the member that has to make room for a new one at `from`: the youngest of another
    /// network that has more members than `from`'s network would then have, or of a more crowded
    /// address in the same network. Returns `None` if `from` already has its share.
    pub(crate) fn crowded_out_by(&self, from: IpAddr) -> Option<K> {
        let own = self.networks.get(&network(from));
        let (most, crowded) = self.crowded.last()?;
        let members = match own {
            Some(own) if own.count + 1 >= *most => own,
            None if *most <= 1 => return None,
            _ => self.networks.get(crowded)?,
        };
        let (most, address) = members.crowded.last()?;
        if network(*address) == network(from)
            && members.addresses.get(&from).map_or(0, BTreeSet::len) + 1 >= *most
        {
            return None;
        }
        members.addresses.get(address)?.last().copied()
    }

    /// Takes out the next member in turn: networks take turns, then the addresses of each; the
    /// oldest member of an address comes first.
    pub fn take_next(&mut self) -> Option<(K, IpAddr)> {
        let network = following(&self.networks, self.served)?;
        self.served = Some(network);
        let members = self.networks.get_mut(&network)?;
        let address = following(&members.addresses, members.served)?;
        members.served = Some(address);
        let next = members.addresses.get(&address)?.first().copied()?;
        self.remove(next);
        Some((next, address))
    }
}

/// Returns the first key after `last`, starting over at the end.
fn following<K: Copy + Ord, V>(all: &BTreeMap<K, V>, last: Option<K>) -> Option<K> {
    let behind = last.and_then(|last| all.range((Bound::Excluded(last), Bound::Unbounded)).next());
    behind.or_else(|| all.iter().next()).map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_flood_from_one_source_crowds_out_only_itself() {
        let mut queue = FairQueue::default();
        let flood = |n: u64| IpAddr::from([192, 0, 2, (n % 4) as u8]);
        queue.insert(0, [198, 51, 100, 7].into());
        for n in 1..=100 {
            queue.insert(n, flood(n));
        }
        for n in 1..=90 {
            let evicted = queue.most_crowded().unwrap();
            assert_ne!(evicted, 0, "after {n}");
            queue.remove(evicted);
        }
        assert_eq!(queue.len(), 11);
    }

    #[test]
    fn the_oldest_of_an_address_goes_first() {
        let mut queue = FairQueue::default();
        for n in [5, 3, 9] {
            queue.insert(n, [192, 0, 2, 1].into());
        }
        assert_eq!(queue.most_crowded(), Some(3));
        queue.remove(3);
        queue.remove(3);
        assert_eq!(queue.most_crowded(), Some(5));
        queue.remove(5);
        queue.remove(9);
        assert_eq!((queue.most_crowded(), queue.len()), (None, 0));
    }

    fn at(network: u8, host: u8) -> IpAddr {
        [192, 0, network, host].into()
    }

    #[test]
    fn networks_take_turns_and_their_addresses_too() {
        let mut queue = FairQueue::default();
        (0..50).for_each(|n| queue.insert(n, at(1, 1)));
        queue.insert(50, at(1, 2));
        queue.insert(51, at(2, 1));
        let first: Vec<u32> = (0..4).filter_map(|_| queue.take_next()).map(|(n, _)| n).collect();
        assert_eq!(first, [0, 51, 50, 1]);
        assert_eq!((0..100).filter_map(|_| queue.take_next()).count(), 48);
        assert!(queue.is_empty());
    }

    #[test]
    fn only_members_with_more_than_their_share_make_room() {
        let mut queue = FairQueue::default();
        assert_eq!(queue.crowded_out_by(at(1, 1)), None);
        (0..10).for_each(|n| queue.insert(n, at(1, 1)));
        queue.insert(10, at(1, 2));
        assert_eq!(queue.crowded_out_by(at(2, 1)), Some(9), "another network");
        assert_eq!(queue.crowded_out_by(at(1, 2)), Some(9), "another address of the same network");
        assert_eq!(queue.crowded_out_by(at(1, 1)), None, "itself");
        (20..31).for_each(|n| queue.insert(n, at(2, 1)));
        assert_eq!(queue.crowded_out_by(at(1, 3)), Some(9), "networks of the same size");
        assert_eq!(queue.crowded_out_by(at(2, 1)), None);
    }
}

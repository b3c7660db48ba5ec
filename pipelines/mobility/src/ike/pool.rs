//! Pools of inner addresses. A peer that returns gets its previous address, as long as that is
//! free.

use super::bounds;
use crate::identity::Identity;
use alloc::{collections::BTreeMap, string::String};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The owner of an address: the number of a connection's name, and an identity that the connection
/// vouches for.
pub type Owner = (usize, Identity);

/// A range of addresses.
#[derive(Debug)]
pub struct Pool {
    name: String,
    first: u128,
    count: u128,
    is_v4: bool,
    /// The first offset that was never leased, except by request.
    next: u128,
    used: BTreeMap<u128, (Owner, u32)>,
    /// The last address of each owner, and when it was leased, counted in leases.
    had: BTreeMap<Owner, (u128, u64)>,
    /// The owners in `had`; the one whose lease is oldest comes first.
    remembered: BTreeMap<u64, Owner>,
    leases: u64,
    /// Released addresses, the longest free first, and the reverse map.
    free: BTreeMap<u64, u128>,
    freed: BTreeMap<u128, u64>,
}

impl Pool {
    /// Creates a pool of all addresses from `first` to `last`, which are of one family.
    pub fn new(first: IpAddr, last: IpAddr) -> Self {
        let (start, end) = (bits(first), bits(last));
        let count = end.saturating_sub(start).saturating_add(1);
        Self {
            name: String::new(),
            first: start,
            count,
            is_v4: first.is_ipv4(),
            next: 0,
            used: BTreeMap::new(),
            had: BTreeMap::new(),
            remembered: BTreeMap::new(),
            leases: 0,
            free: BTreeMap::new(),
            freed: BTreeMap::new(),
        }
    }

    /// Returns the pool with this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Returns true if this is the pool's name.
    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        self.name.as_bytes() == name
    }

    /// Returns true if both pools have the same name.
    pub(super) fn shares_name(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Returns true if both pools have the same name and addresses.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.shares_name(other)
            && (self.first, self.count, self.is_v4) == (other.first, other.count, other.is_v4)
    }

    /// Returns the addresses in use, with their owners and how many peers of these have them.
    pub(super) fn into_leases(self) -> impl Iterator<Item = (IpAddr, (Owner, u32))> {
        let Self { first, is_v4, used, .. } = self;
        used.into_iter().map(move |(at, lease)| (address(first + at, is_v4), lease))
    }

    /// Takes over an address of this pool that an owner's peers have already.
    pub(super) fn adopt(&mut self, at: IpAddr, (owner, count): (Owner, u32)) {
        let at = bits(at).wrapping_sub(self.first);
        self.take(&owner, at);
        self.used.insert(at, (owner, count));
    }

    /// Returns true if the pool has this address.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_v4 && bits(address).wrapping_sub(self.first) < self.count
    }

    /// Returns true if the addresses are IPv4.
    pub fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// Returns the number of addresses in use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Returns an address for `owner`: its current one if it takes over, else its previous or the
    /// requested one if that is free, else the one that has been free for longest.
    pub fn lease(&mut self, owner: &Owner, requested: Option<IpAddr>, takes_over: bool) -> Option<IpAddr> {
        let had = self.had.get(owner).map(|(at, _)| *at);
        if let Some((_, count)) = had
            .filter(|_| takes_over)
            .and_then(|had| self.used.get_mut(&had))
            .filter(|(other, _)| other == owner)
        {
            *count += 1;
            return had.map(|had| self.address(had));
        }
        let requested = requested
            .filter(|address| address.is_ipv4() == self.is_v4)
            .map(bits)
            .and_then(|bits| bits.checked_sub(self.first));
        let is_new = |at: &u128| *at >= self.next && !self.freed.contains_key(at);
        // A requested address that was leased before is not granted: its previous owner may return.
        let is_free = |at: &u128| *at < self.count && !self.used.contains_key(at);
        let at = had
            .filter(is_free)
            .or_else(|| requested.filter(is_free).filter(is_new))
            .or_else(|| self.take_free())?;
        self.take(owner, at);
        Some(self.address(at))
    }

    /// Leases this address of the pool to one more peer of `owner`; returns false if another owner
    /// has it.
    pub(super) fn lease_fixed(&mut self, owner: &Owner, address: IpAddr) -> bool {
        let at = bits(address).wrapping_sub(self.first);
        match self.used.get_mut(&at) {
            Some((other, count)) if other == owner => *count += 1,
            Some(_) => return false,
            None => self.take(owner, at),
        }
        true
    }

    /// Gives a free address to `owner`.
    fn take(&mut self, owner: &Owner, at: u128) {
        if let Some(since) = self.freed.remove(&at) {
            self.free.remove(&since);
        }
        self.used.insert(at, (owner.clone(), 1));
        self.remember(owner, at);
    }

    /// Returns the next free address: one never leased, else the one that has been free for
    /// longest. The latter comes first once as many are free as are remembered.
    fn take_free(&mut self) -> Option<u128> {
        while self.next < self.count && self.freed.len() < bounds::REMEMBERED {
            let at = self.next;
            self.next += 1;
            if !self.used.contains_key(&at) && !self.freed.contains_key(&at) {
                return Some(at);
            }
        }
        self.free.first_key_value().map(|(_, at)| *at)
    }

    /// Remembers the owner of an address. Beyond the limit, the owner with the oldest lease is
    /// forgotten.
    fn remember(&mut self, owner: &Owner, at: u128) {
        self.leases += 1;
        if let Some((_, before)) = self.had.insert(owner.clone(), (at, self.leases)) {
            self.remembered.remove(&before);
        }
        self.remembered.insert(self.leases, owner.clone());
        if self.had.len() > bounds::REMEMBERED
            && let Some((_, oldest)) = self.remembered.pop_first()
        {
            self.had.remove(&oldest);
        }
    }

    /// Releases an address for one of its users.
    pub fn release(&mut self, address: IpAddr) {
        let at = bits(address).wrapping_sub(self.first);
        if let Some((_, count)) = self.used.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.used.remove(&at);
                self.leases += 1;
                self.free.insert(self.leases, at);
                self.freed.insert(at, self.leases);
            }
        }
    }

    fn address(&self, at: u128) -> IpAddr {
        address(self.first + at, self.is_v4)
    }
}

fn address(bits: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn owner(name: &str) -> Owner {
        (0, Identity::from_text(name).unwrap())
    }

    fn pool() -> Pool {
        Pool::new([10, 0, 0, 1].into(), [10, 0, 0, 3].into())
    }

    #[test]
    fn each_owner_gets_its_own_address_until_none_are_left() {
        let mut pool = pool();
        let all: Vec<_> =
            ["a", "b", "c", "d"].into_iter().map(|name| pool.lease(&owner(name), None, false)).collect();
        let expected = [1, 2, 3].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        assert_eq!(all[..3], expected);
        assert_eq!(all[3], None);
        pool.release([10, 0, 0, 2].into());
        assert_eq!(pool.lease(&owner("d"), None, false), Some([10, 0, 0, 2].into()));
    }

    #[test]
    fn a_returning_owner_gets_its_previous_address() {
        let mut pool = pool();
        let had = pool.lease(&owner("a"), None, false).unwrap();
        pool.release(had);
        assert_ne!(pool.lease(&owner("b"), None, false), Some(had));
        assert_eq!(pool.lease(&owner("a"), None, false), Some(had));
    }

    #[test]
    fn a_peer_that_takes_over_keeps_the_address_until_both_are_gone() {
        let mut pool = pool();
        let had = pool.lease(&owner("a"), None, true).unwrap();
        assert_eq!(pool.lease(&owner("a"), None, true), Some(had));
        assert_ne!(pool.lease(&owner("a"), None, false), Some(had), "another device of the same name");
        pool.release(had);
        assert_eq!(pool.used(), 2);
        pool.release(had);
        assert_eq!(pool.used(), 1);
    }

    #[test]
    fn a_bounded_number_of_previous_owners_is_remembered() {
        let mut pool = Pool::new([10, 0, 0, 0].into(), [10, 255, 255, 255].into());
        let one = |n: u32| (0, Identity { kind: 11, data: n.to_be_bytes().to_vec() });
        let most = bounds::REMEMBERED as u32;
        for n in 0..most + 100 {
            let address = pool.lease(&one(n), None, false).unwrap();
            pool.release(address);
        }
        // As many addresses were given back: the oldest of them go round.
        assert_eq!((pool.freed.len(), pool.free.len()), (bounds::REMEMBERED, bounds::REMEMBERED));
        assert_eq!((pool.had.len(), pool.remembered.len()), (bounds::REMEMBERED, bounds::REMEMBERED));
        assert_eq!(pool.lease(&one(most), None, false), Some([10, 0, 0, 0].into()));
    }

    #[test]
    fn the_longest_free_address_is_leased_first() {
        let mut pool = pool();
        let all: Vec<_> = ["a", "b", "c"].map(|name| pool.lease(&owner(name), None, false).unwrap()).into();
        [1, 0, 2].into_iter().for_each(|n| pool.release(all[n]));
        let again = ["d", "e", "f"].map(|name| pool.lease(&owner(name), None, false).unwrap());
        assert_eq!(again, [all[1], all[0], all[2]]);
        assert_eq!((pool.free.len(), pool.freed.len(), pool.used()), (0, 0, 3));
    }

    #[test]
    fn an_address_granted_on_request_is_kept_for_its_owner() {
        let mut pool = pool();
        let last = IpAddr::from([10, 0, 0, 3]);
        assert_eq!(pool.lease(&owner("a"), Some(last), false), Some(last));
        pool.release(last);
        let others = ["b", "c"].map(|name| pool.lease(&owner(name), Some(last), false));
        assert_eq!(others, [1, 2].map(|n| Some([10, 0, 0, n].into())));
        assert_eq!(pool.lease(&owner("a"), None, false), Some(last));
        pool.release(last);
        assert_eq!(pool.lease(&owner("d"), None, false), Some(last), "there is no other");
    }

    #[test]
    fn a_requested_address_is_granted_if_possible() {
        let mut pool = pool();
        assert_eq!(pool.lease(&owner("a"), Some([10, 0, 0, 3].into()), false), Some([10, 0, 0, 3].into()));
        assert_eq!(pool.lease(&owner("b"), Some([10, 0, 0, 3].into()), false), Some([10, 0, 0, 1].into()));
        assert_eq!(pool.lease(&owner("c"), Some([10, 0, 9, 3].into()), false), Some([10, 0, 0, 2].into()));
    }
}

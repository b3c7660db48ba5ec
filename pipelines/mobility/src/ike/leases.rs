//! The inner addresses that peers have: those of pools, and others that a RADIUS server chose.

use super::pool::{Owner, Pool};
use crate::aaa::grant::Ip6Prefix;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::{fmt, net::IpAddr};

/// Why a peer does not get what a RADIUS server granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// Another owner has the address.
    Taken(IpAddr),
    /// The address cannot be a peer's inner address: it belongs to the gateway, a router, another
    /// peer outside or the outside, or not to a single host.
    Impossible(IpAddr),
    /// The address is in a pool that the connection does not have.
    OtherPool(IpAddr),
    /// No address of the prefix can be had, as far as it is searched.
    NoneFree(Ip6Prefix),
    /// The connection has no pool of this name.
    UnknownPool(String),
    /// The connection has no child SA of this name.
    UnknownFilter(String),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(address) => write!(f, "another peer has {address}"),
            Self::Impossible(address) => write!(f, "{address} cannot be the inner address of a peer"),
            Self::OtherPool(address) => write!(f, "{address} is in a pool that the connection does not have"),
            Self::NoneFree(prefix) => write!(f, "none of the first 256 addresses of {prefix} is free"),
            Self::UnknownFilter(name) => {
                write!(f, "the connection has no child SA {name:?}, which Filter-Id names")
            }
            Self::UnknownPool(name) => write!(f, "the connection has no pool {name:?}"),
        }
    }
}

impl core::error::Error for GrantError {}

/// All inner addresses that peers have.
#[derive(Debug, Default)]
pub(super) struct Leases {
    pools: Vec<Pool>,
    /// Addresses outside of the pools, with their owners and how many peers of these have them.
    outside: BTreeMap<IpAddr, (Owner, u32)>,
    /// Addresses of the gateway and of routers.
    reserved: BTreeSet<IpAddr>,
    /// Outer addresses of peers without an inner one, and how many peers have each.
    outer: BTreeMap<IpAddr, u32>,
}

impl Leases {
    pub(super) fn new(pools: Vec<Pool>) -> Self {
        Self { pools, ..Self::default() }
    }

    /// Replaces the pools. Peers keep their addresses, if necessary as addresses outside of all
    /// pools. Addresses that owners had before are remembered if a pool has them.
    pub(super) fn replace(&mut self, pools: Vec<Pool>) {
        let old = core::mem::replace(&mut self.pools, pools);
        let mut kept: Vec<_> = core::mem::take(&mut self.outside).into_iter().collect();
        let mut remembered = Vec::new();
        for old in old {
            match self.pools.iter_mut().find(|new| new.is_same(&old)) {
                Some(new) => *new = old,
                None => {
                    remembered.extend(old.remembered());
                    kept.extend(old.into_leases());
                }
            }
        }
        for (address, lease) in kept {
            match self.pools.iter_mut().find(|pool| pool.contains(address)) {
                Some(pool) => pool.adopt(address, lease),
                None => _ = self.outside.insert(address, lease),
            }
        }
        for (address, owner) in remembered {
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.contains(address)) {
                pool.adopt_remembered(address, &owner);
            }
        }
    }

    /// Sets the addresses that no RADIUS server may give away.
    pub(super) fn reserve(&mut self, reserved: BTreeSet<IpAddr>) {
        self.reserved = reserved;
    }

    /// Follows the outer address of a peer without an inner one. No RADIUS server may give it away.
    pub(super) fn follow_outer(&mut self, before: Option<IpAddr>, now: Option<IpAddr>) {
        if before == now {
            return;
        }
        if let Some(now) = now {
            *self.outer.entry(now).or_default() += 1;
        }
        if let Some(before) = before
            && let Some(count) = self.outer.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.outer.remove(&before);
            }
        }
    }

    /// Returns the number of addresses that peers have.
    pub(super) fn len(&self) -> usize {
        self.pools.iter().map(Pool::used).sum::<usize>() + self.outside.len()
    }

    /// Returns those of a connection's `pools` from which a peer gets its address of one family:
    /// those named, or all if none of that family is named.
    ///
    /// # Errors
    /// A name that none of the pools has.
    pub(super) fn choose(
        &self,
        pools: &[usize],
        names: &[Vec<u8>],
        is_v4: bool,
    ) -> Result<Vec<usize>, GrantError> {
        let of_family = |index: &usize| self.pools.get(*index).is_some_and(|pool| pool.is_v4() == is_v4);
        let find = |name: &Vec<u8>| {
            let has_name = |index: &&usize| self.pools.get(**index).is_some_and(|pool| pool.is_called(name));
            let unknown = || GrantError::UnknownPool(String::from_utf8_lossy(name).into_owned());
            pools.iter().find(has_name).copied().ok_or_else(unknown)
        };
        let named = names.iter().map(find).collect::<Result<Vec<usize>, _>>()?;
        let [named, all] =
            [&named, pools].map(|some| some.iter().copied().filter(of_family).collect::<Vec<_>>());
        Ok(if named.is_empty() { all } else { named })
    }

    /// Leases an address from the first of these pools that has one.
    pub(super) fn lease(
        &mut self,
        pools: &[usize],
        owner: &Owner,
        wish: Option<IpAddr>,
        takes_over: bool,
    ) -> Option<IpAddr> {
        pools.iter().find_map(|index| self.pools.get_mut(*index)?.lease(owner, wish, takes_over))
    }

    /// Returns true if this address is one of these pools'.
    pub(super) fn is_in(&self, pools: &[usize], address: IpAddr) -> bool {
        pools.iter().filter_map(|pool| self.pools.get(*pool)).any(|pool| pool.contains(address))
    }

    /// Leases this address to a peer of a connection with these `pools`.
    ///
    /// # Errors
    /// Returns why the peer cannot have it.
    pub(super) fn lease_fixed(
        &mut self,
        pools: &[usize],
        owner: &Owner,
        address: IpAddr,
    ) -> Result<(), GrantError> {
        if self.reserved.contains(&address) || self.outer.contains_key(&address) {
            return Err(GrantError::Impossible(address));
        }
        let is_free = match self.pools.iter_mut().enumerate().find(|(_, pool)| pool.contains(address)) {
            Some((index, _)) if !pools.contains(&index) => return Err(GrantError::OtherPool(address)),
            Some((_, pool)) => pool.lease_fixed(owner, address),
            None => {
                let (holder, count) = self.outside.entry(address).or_insert_with(|| (owner.clone(), 0));
                let is_free = holder == owner;
                *count += u32::from(is_free);
                is_free
            }
        };
        if is_free { Ok(()) } else { Err(GrantError::Taken(address)) }
    }

    /// Releases an address for one of the peers that have it.
    pub(super) fn release(&mut self, address: IpAddr) {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.contains(address)) {
            return pool.release(address);
        }
        if let Some((_, count)) = self.outside.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.outside.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use alloc::vec;

    fn owner(name: &str) -> Owner {
        (0, Identity::from_text(name).unwrap())
    }

    fn leases() -> Leases {
        let pool = |name: &str, net| Pool::new([10, 0, net, 1].into(), [10, 0, net, 9].into()).named(name);
        let v6 = Pool::new("2001:db8::1".parse().unwrap(), "2001:db8::9".parse().unwrap()).named("six");
        Leases::new(vec![pool("people", 0), pool("staff", 1), v6])
    }

    #[test]
    fn one_owner_has_a_fixed_address_until_its_last_peer_is_gone() {
        for address in [[10, 0, 0, 7], [10, 9, 9, 9]].map(IpAddr::from) {
            let mut leases = leases();
            assert_eq!([(); 2].map(|()| leases.lease_fixed(&[0], &owner("a"), address)), [Ok(()), Ok(())]);
            for _ in 0..2 {
                let other = leases.lease_fixed(&[0], &owner("b"), address);
                assert_eq!((other, leases.len()), (Err(GrantError::Taken(address)), 1));
                leases.release(address);
            }
            assert_eq!((leases.len(), leases.lease_fixed(&[0], &owner("b"), address)), (0, Ok(())));
        }
    }

    #[test]
    fn a_fixed_address_of_a_pool_is_given_to_nobody_else() {
        let mut leases = leases();
        leases.lease_fixed(&[0], &owner("a"), [10, 0, 0, 2].into()).unwrap();
        let others = ["b", "c"].map(|name| leases.lease(&[0], &owner(name), None, false));
        assert_eq!(others, [[10, 0, 0, 1], [10, 0, 0, 3]].map(|address| Some(address.into())));
        let taken = leases.lease_fixed(&[0], &owner("d"), [10, 0, 0, 3].into());
        assert_eq!(taken, Err(GrantError::Taken([10, 0, 0, 3].into())));
    }

    #[test]
    fn addresses_of_other_pools_and_of_the_gateway_are_not_given_away() {
        let (mut leases, other, own) = (leases(), [10, 0, 1, 2].into(), [10, 9, 9, 9].into());
        assert_eq!(leases.lease_fixed(&[0], &owner("a"), other), Err(GrantError::OtherPool(other)));
        leases.reserve([own].into());
        assert_eq!(leases.lease_fixed(&[0], &owner("a"), own), Err(GrantError::Impossible(own)));
        assert_eq!(leases.len(), 0);
    }

    #[test]
    fn peers_keep_their_addresses_when_pools_change() {
        let mut leases = leases();
        let outside = IpAddr::from([10, 9, 9, 9]);
        let [a, b] = [0, 1].map(|pool| leases.lease(&[pool], &owner("a"), None, false).unwrap());
        leases.lease_fixed(&[0], &owner("c"), outside).unwrap();
        let pool = |name: &str, [first, last]: [[u8; 4]; 2]| Pool::new(first.into(), last.into()).named(name);
        let staff = || pool("staff", [[10, 0, 1, 1], [10, 0, 1, 9]]);
        let people = || pool("people", [[10, 0, 0, 1], [10, 9, 9, 9]]);
        // "staff" stays, "people" shrinks, "six" is gone.
        leases.replace(vec![staff(), pool("people", [[10, 0, 0, 1], [10, 0, 0, 3]])]);
        assert_eq!(leases.len(), 3);
        assert_eq!(leases.lease_fixed(&[1], &owner("d"), a), Err(GrantError::Taken(a)));
        leases.release(b);
        assert_eq!(leases.lease(&[0], &owner("a"), None, false), Some(b), "it is remembered");
        // An address may end up outside of all pools, and inside again.
        for (pools, holder) in [(vec![staff()], None), (vec![people()], Some(0)), (vec![staff()], None)] {
            leases.replace(pools);
            assert_eq!(leases.pools.iter().position(|pool| pool.contains(a)), holder);
            assert_eq!(leases.len(), 3);
            assert_eq!(leases.lease_fixed(&[0], &owner("d"), a), Err(GrantError::Taken(a)));
        }
        [a, b, outside].into_iter().for_each(|address| leases.release(address));
        assert_eq!(leases.len(), 0);
    }

    #[test]
    fn pools_that_change_remember_the_addresses_that_they_still_have() {
        let mut leases = leases();
        let lease = |leases: &mut Leases, name| leases.lease(&[0], &owner(name), None, false).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| lease(&mut leases, name));
        [b, c, a].into_iter().for_each(|address| leases.release(address));
        for last in [20, 2] {
            leases.replace(vec![Pool::new([10, 0, 0, 1].into(), [10, 0, 0, last].into()).named("new")]);
        }
        assert_eq!(leases.len(), 0);
        assert_eq!(["b", "a"].map(|name| lease(&mut leases, name)), [b, a]);
        assert_eq!(leases.lease(&[0], &owner("c"), None, false), None, "the pool has its address no more");
    }

    #[test]
    fn addresses_that_a_changed_pool_remembers_are_given_to_others_last() {
        let mut leases = leases();
        let lease = |leases: &mut Leases, name| leases.lease(&[0], &owner(name), None, false).unwrap();
        let first = lease(&mut leases, "a");
        leases.release(first);
        leases.replace(vec![Pool::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).named("people")]);
        assert_eq!(lease(&mut leases, "b"), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(lease(&mut leases, "c"), first, "there is no other");
    }

    #[test]
    fn named_pools_replace_those_of_their_family() {
        let leases = leases();
        let choose = |names: &[&str], is_v4| {
            let names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            leases.choose(&[0, 1, 2], &names, is_v4)
        };
        assert_eq!((choose(&[], true), choose(&[], false)), (Ok(vec![0, 1]), Ok(vec![2])));
        assert_eq!((choose(&["staff"], true), choose(&["staff"], false)), (Ok(vec![1]), Ok(vec![2])));
        assert_eq!(choose(&["six"], true), Ok(vec![0, 1]));
        assert_eq!(choose(&["guests"], true), Err(GrantError::UnknownPool("guests".into())));
        assert!(leases.choose(&[0], &[b"staff".to_vec()], true).is_err(), "a pool of another connection");
    }
}

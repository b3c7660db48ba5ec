//! Limits the requests for SAs of one principal. Neither reconnecting nor connecting more devices
//! refills a quota.

use super::{
    bounds::{CREATE_BURST, CREATE_REFILL},
    pool::Owner,
};
use crate::rate::Rate;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Most principals whose requests are remembered.
const MAX_REMEMBERED: usize = 4096;

/// The quotas by principal. A principal without an entry has its full quota.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    rates: BTreeMap<Owner, Rate>,
}

impl Quotas {
    /// Takes one request out of the quota of `principal`, which is `shares` times that of one peer.
    /// Returns false if the quota is used up.
    pub(super) fn admits(&mut self, now: Duration, principal: &Owner, shares: u32) -> bool {
        if self.rates.len() >= MAX_REMEMBERED && !self.rates.contains_key(principal) {
            self.make_room(now);
        }
        let shares = shares.max(1);
        let rate = self.rates.entry(principal.clone()).or_default();
        rate.admits(now, CREATE_BURST.saturating_mul(shares), CREATE_REFILL / shares)
    }

    /// Forgets the quotas that are full again, or else the one that will be full first.
    fn make_room(&mut self, now: Duration) {
        self.rates.retain(|_, rate| rate.full_at() > now);
        if self.rates.len() >= MAX_REMEMBERED {
            let first = self.rates.iter().min_by_key(|(_, rate)| rate.full_at());
            first.map(|(principal, _)| principal.clone()).map(|principal| self.rates.remove(&principal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use alloc::format;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(n: usize) -> Owner {
        (0, Identity::from_text(&format!("p{n}.test")).unwrap())
    }

    #[test]
    fn shares_are_for_all_peers_together() {
        let mut quotas = Quotas::default();
        let mut admitted = |now, name: &Owner, shares| {
            (0..10 * CREATE_BURST).filter(|_| quotas.admits(now, name, shares)).count()
        };
        assert_eq!((admitted(SECOND, &name(1), 1), admitted(SECOND, &name(2), 3)), (256, 768));
        assert_eq!((admitted(2 * SECOND, &name(1), 1), admitted(2 * SECOND, &name(2), 3)), (4, 12));
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_principal_is_remembered() {
        let mut quotas = Quotas::default();
        while quotas.admits(SECOND, &name(0), 1) {}
        (1..=2 * MAX_REMEMBERED).for_each(|n| assert!(quotas.admits(SECOND, &name(n), 1)));
        assert_eq!(quotas.rates.len(), MAX_REMEMBERED);
        assert!(!quotas.admits(SECOND, &name(0), 1));
        assert!(quotas.admits(100 * SECOND, &name(2 * MAX_REMEMBERED + 1), 1));
        assert_eq!(quotas.rates.len(), 1, "the others may ask for everything again");
    }
}

//! How many SAs may be asked for in one name. To connect anew, or more often at once, refills
//! nothing.

use super::{
    bounds::{CREATE, CREATES},
    pool::Owner,
};
use crate::rate::Rate;
use alloc::collections::BTreeMap;
use core::time::Duration;

/// Most names whose requests are remembered.
const MOST: usize = 4096;

/// What was asked for, by who answers for it. Who is not in it has asked for nothing lately.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    rates: BTreeMap<Owner, Rate>,
}

impl Quotas {
    /// Takes one request out of what `principal` may ask for, `shares` times what one may; `false`
    /// if none is left.
    pub(super) fn admits(&mut self, now: Duration, principal: &Owner, shares: u32) -> bool {
        if self.rates.len() >= MOST && !self.rates.contains_key(principal) {
            self.make_room(now);
        }
        let shares = shares.max(1);
        let rate = self.rates.entry(principal.clone()).or_default();
        rate.admits(now, CREATES.saturating_mul(shares), CREATE / shares)
    }

    /// Forgets those that may ask for everything again, or who will first.
    fn make_room(&mut self, now: Duration) {
        self.rates.retain(|_, rate| rate.full_at() > now);
        if self.rates.len() >= MOST {
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
    fn shares_are_for_all_together() {
        let mut quotas = Quotas::default();
        let mut admitted = |now, name: &Owner, shares| {
            (0..10 * CREATES).filter(|_| quotas.admits(now, name, shares)).count()
        };
        assert_eq!((admitted(SECOND, &name(1), 1), admitted(SECOND, &name(2), 3)), (256, 768));
        assert_eq!((admitted(2 * SECOND, &name(1), 1), admitted(2 * SECOND, &name(2), 3)), (4, 12));
    }

    #[test]
    fn memory_is_bounded_and_who_asked_most_is_remembered() {
        let mut quotas = Quotas::default();
        while quotas.admits(SECOND, &name(0), 1) {}
        (1..=2 * MOST).for_each(|n| assert!(quotas.admits(SECOND, &name(n), 1)));
        assert_eq!(quotas.rates.len(), MOST);
        assert!(!quotas.admits(SECOND, &name(0), 1));
        assert!(quotas.admits(100 * SECOND, &name(2 * MOST + 1), 1));
        assert_eq!(quotas.rates.len(), 1, "the others may ask for everything again");
    }
}

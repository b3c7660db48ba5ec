//! The free ports of a NAT for one protocol.

use crate::slow_path::parts::HolderName;
use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};
use wayfarer_dataplane::wire::Address;

/// How long a port rests after its mapping has ended, so that packets to the earlier host do not reach
/// the next one (RFC 6888 §3, REQ-8).
pub(super) const REST: Duration = Duration::from_secs(120);

/// Marks a port that is not free.
const TAKEN: u16 = u16::MAX;

/// The ports that one principal may have at an inner address, or without one, hosts in clear.
pub(super) type Share = (Address, Option<HolderName>);

/// Free ports, in lists of even and odd ones.
#[derive(Debug)]
pub(super) struct Ports {
    range: RangeInclusive<u16>,
    free: [Vec<u16>; 2],
    /// For each port of the range its place in its list.
    places: Vec<u16>,
    /// Ports that are free again from a time on, in its order, and the shares that they are of until then.
    resting: VecDeque<(Duration, u16, Option<Share>)>,
}

impl Ports {
    /// Makes a set of these ports, all free.
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        let places = vec![TAKEN; range.len()];
        let mut this =
            Self { range: range.clone(), free: [vec![], vec![]], places, resting: VecDeque::new() };
        range.for_each(|port| this.put(port));
        this
    }

    /// Returns the number of free ports.
    pub(super) fn free(&self) -> usize {
        self.free.iter().map(Vec::len).sum()
    }

    /// Takes `wanted` if it is free. Otherwise takes one that `random` chooses among those of the same
    /// parity, if any is left (RFC 4787 §4.2.2), else among all. Returns `None` if none is free.
    pub(super) fn take(&mut self, wanted: u16, random: u64) -> Option<u16> {
        let parity = usize::from(wanted & 1);
        let port = match self.place(wanted) {
            Some(_) => wanted,
            None => {
                let list = [parity, 1 - parity].map(|list| &self.free[list]);
                let list = list.into_iter().find(|list| !list.is_empty())?;
                list[(random % list.len() as u64) as usize]
            }
        };
        let place = self.place(port)?;
        let list = &mut self.free[usize::from(port & 1)];
        list.swap_remove(place);
        let moved = list.get(place).copied();
        self.set_place(port, TAKEN);
        if let Some(moved) = moved {
            self.set_place(moved, place as u16);
        }
        Some(port)
    }

    /// Gives a port back, which rests first. Until then it is of `share`, if there is one.
    pub(super) fn give(&mut self, now: Duration, port: u16, share: Option<Share>) {
        self.resting.push_back((now + REST, port, share));
    }

    /// Frees the port that has rested longest, if that is long enough. Returns the share that it was of.
    pub(super) fn wake(&mut self, now: Duration) -> Option<Option<Share>> {
        let (_, port, share) = self.resting.pop_front_if(|(until, ..)| *until <= now)?;
        self.put(port);
        Some(share)
    }

    fn put(&mut self, port: u16) {
        let list = &mut self.free[usize::from(port & 1)];
        list.push(port);
        let place = (list.len() - 1) as u16;
        self.set_place(port, place);
    }

    /// Returns the place of a free port in its list.
    fn place(&self, port: u16) -> Option<usize> {
        let index = usize::from(port.checked_sub(*self.range.start())?);
        self.places.get(index).filter(|place| **place != TAKEN).map(|place| usize::from(*place))
    }

    fn set_place(&mut self, port: u16, place: u16) {
        self.places[usize::from(port - self.range.start())] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn keeps_the_port_or_its_parity_while_it_can() {
        let mut ports = Ports::new(1000..=1009);
        assert_eq!((ports.take(1004, 0), ports.free()), (Some(1004), 9));
        for random in 0..4 {
            let port = ports.take(1004, random).unwrap();
            assert!(port.is_multiple_of(2) && port != 1004, "{port}");
        }
        assert!(ports.take(7, 3).is_some_and(|port| port % 2 == 1), "outside of the range");
        let rest: BTreeSet<_> = (0..4).filter_map(|random| ports.take(1004, random)).collect();
        assert_eq!((rest.len(), ports.take(1004, 0)), (4, None), "odd ones, then none");
    }

    #[test]
    fn a_port_rests_before_it_is_given_away_again() {
        let mut ports = Ports::new(1000..=1000);
        assert_eq!(ports.take(1000, 0), Some(1000));
        let share = Some((Address::v4(1), Some(HolderName::Manual("alice".into()))));
        ports.give(Duration::ZERO, 1000, share.clone());
        assert_eq!(ports.wake(REST - Duration::from_secs(1)), None);
        assert_eq!(ports.take(1000, 0), None);
        assert_eq!(ports.wake(REST), Some(share));
        assert_eq!(ports.take(1000, 0), Some(1000));
    }

    proptest! {
        #[test]
        fn no_port_is_given_away_twice(
            first in prop_oneof![Just(1u16), Just(65500)],
            steps in proptest::collection::vec((any::<bool>(), any::<u16>(), any::<u64>()), 1..200),
        ) {
            let range = first..=first.saturating_add(30);
            let mut ports = Ports::new(range.clone());
            let mut taken = BTreeSet::new();
            for (gives, wanted, random) in steps {
                let wanted = if random % 2 == 0 { wanted } else { first + wanted % 31 };
                if gives && taken.remove(&wanted) {
                    ports.give(Duration::ZERO, wanted, None);
                    prop_assert_eq!(ports.wake(REST), Some(None));
                } else if let Some(port) = ports.take(wanted, random) {
                    prop_assert!(range.contains(&port) && taken.insert(port));
                }
                prop_assert_eq!(ports.free() + taken.len(), range.len());
            }
        }
    }
}

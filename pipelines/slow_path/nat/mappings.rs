//! The mappings of an inner address, by age.

use std::collections::{BTreeMap, BTreeSet};

/// Most mappings that are looked at for one that can be spared, so that a new one costs no more, however
/// many there are.
const MAX_LOOKS: usize = 32;

/// Mappings, by protocol and port outside.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    times: BTreeMap<(u8, u16), Times>,
    /// By protocol, when each was made or last found to be needed, and its port.
    by_age: BTreeSet<(u8, u32, u16)>,
    /// Those that tunnels' packets made, by protocol and port outside.
    of_tunnels: BTreeSet<(u8, u16)>,
}

/// Times of a mapping, in seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// When it is looked at next, because it may have been idle for too long.
    due: u32,
    /// When it was made, or last found to be needed.
    needed: u32,
}

impl Mappings {
    /// Returns the number of mappings.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns whether there is no mapping.
    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Returns the protocol and port of a mapping that a tunnel's packet made, and when it is due.
    pub(super) fn first_of_tunnels(&self) -> Option<(u8, u16, u32)> {
        let &(protocol, port) = self.of_tunnels.first()?;
        let times = self.times.get(&(protocol, port))?;
        Some((protocol, port, times.due))
    }

    /// Adds a mapping that was made now.
    pub(super) fn add(&mut self, now: u32, protocol: u8, port: u16, due: u32) {
        self.times.insert((protocol, port), Times { due, needed: now });
        self.by_age.insert((protocol, now, port));
    }

    /// Notes that a tunnel's packet made a mapping.
    pub(super) fn set_of_tunnel(&mut self, protocol: u8, port: u16) {
        self.of_tunnels.insert((protocol, port));
    }

    /// Sets when a mapping is due.
    pub(super) fn set_due(&mut self, protocol: u8, port: u16, due: u32) {
        if let Some(times) = self.times.get_mut(&(protocol, port)) {
            times.due = due;
        }
    }

    /// Removes a mapping.
    pub(super) fn remove(&mut self, protocol: u8, port: u16) {
        if let Some(times) = self.times.remove(&(protocol, port)) {
            self.by_age.remove(&(protocol, times.needed, port));
            self.of_tunnels.remove(&(protocol, port));
        }
    }

    /// Looks at some of the oldest mappings of a protocol, and at none twice in one second. Returns the
    /// port of the first one that `is_spare`, and when it is due. The next call goes on with others.
    pub(super) fn find_spare(
        &mut self,
        now: u32,
        protocol: u8,
        is_spare: impl Fn(u16) -> bool,
    ) -> Option<(u16, u32)> {
        for _ in 0..MAX_LOOKS {
            let &(_, needed, port) = self.by_age.range((protocol, 0, 0)..(protocol, now, 0)).next()?;
            let times = self.times.get_mut(&(protocol, port))?;
            if is_spare(port) {
                return Some((port, times.due));
            }
            times.needed = now;
            self.by_age.remove(&(protocol, needed, port));
            self.by_age.insert((protocol, now, port));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    #[test]
    fn oldest_spare_one_of_the_protocol_is_found() {
        let mut mappings = Mappings::default();
        for (now, protocol, port) in [(1, UDP, 7), (2, TCP, 9), (3, TCP, 8), (4, TCP, 5)] {
            mappings.add(now, protocol, port, 100 + now);
        }
        assert_eq!(mappings.find_spare(10, TCP, |port| port != 9), Some((8, 103)));
        mappings.remove(TCP, 8);
        assert_eq!(mappings.find_spare(11, TCP, |_| true), Some((5, 104)), "9 was needed later");
        mappings.remove(TCP, 5);
        mappings.set_due(TCP, 9, 200);
        assert_eq!(mappings.find_spare(11, TCP, |_| true), Some((9, 200)));
        mappings.remove(TCP, 9);
        assert_eq!((mappings.find_spare(11, TCP, |_| true), mappings.len()), (None, 1));
        assert_eq!(mappings.first_of_tunnels(), None);
        mappings.set_of_tunnel(UDP, 7);
        assert_eq!(mappings.first_of_tunnels(), Some((UDP, 7, 101)));
        mappings.remove(UDP, 7);
        assert!(mappings.is_empty() && mappings.by_age.is_empty() && mappings.of_tunnels.is_empty());
    }

    #[test]
    fn a_search_ends_after_some_looks_and_the_next_one_goes_on() {
        let mut mappings = Mappings::default();
        (0..100).for_each(|port| mappings.add(1, UDP, port, 100));
        let looks = Cell::new(0);
        let search = |mappings: &mut Mappings, now| {
            looks.set(0);
            let is_spare = |port: u16| {
                looks.set(looks.get() + 1);
                port == 99
            };
            (mappings.find_spare(now, UDP, is_spare).is_some(), looks.get())
        };
        assert_eq!(search(&mut mappings, 1), (false, 0), "just made");
        let searches = [2; 4].map(|now| search(&mut mappings, now));
        assert_eq!(searches, [(false, 32), (false, 32), (false, 32), (true, 4)]);
        mappings.remove(UDP, 99);
        assert_eq!(search(&mut mappings, 2), (false, 0), "all were looked at in this second");
        assert_eq!(search(&mut mappings, 3), (false, 32));
    }
}

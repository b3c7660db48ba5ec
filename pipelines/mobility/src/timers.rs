//! Times at which something is due: one for each key.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

/// A time for each key.
#[derive(Debug)]
pub struct Timers<K> {
    times: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Sets the time of a key, in place of an earlier one.
    pub fn set(&mut self, key: K, at: Duration) {
        self.remove(key);
        self.times.insert(key, at);
        self.order.insert((at, key));
    }

    /// Removes the time of a key, if it has one.
    pub fn remove(&mut self, key: K) {
        if let Some(at) = self.times.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    /// Removes and returns the key with the earliest time, if that has come.
    pub fn take_due(&mut self, now: Duration) -> Option<K> {
        let &(_, key) = self.order.first().filter(|(at, _)| *at <= now)?;
        self.remove(key);
        Some(key)
    }

    /// Returns the earliest time.
    pub fn first(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Returns the number of keys with a time.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns true if no key has a time.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_once_at_its_last_time() {
        let at = Duration::from_secs;
        let mut timers = Timers::default();
        for (key, seconds) in [('a', 1), ('b', 2), ('a', 3), ('c', 1)] {
            timers.set(key, at(seconds));
        }
        timers.remove('c');
        assert_eq!((timers.first(), timers.len()), (Some(at(2)), 2));
        assert_eq!(timers.take_due(at(1)), None);
        assert_eq!([(); 3].map(|()| timers.take_due(at(3))), [Some('b'), Some('a'), None]);
        assert!(timers.is_empty() && timers.first().is_none());
    }
}
